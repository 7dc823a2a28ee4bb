"""``finetune score-pairs MODEL --annotations FILE``: which of two points is nearer, as DA-2K asks."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.commands.arguments import add_device_argument, add_model_argument, given_model_options, load_predictor
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command, write_and_say
from finetune.utils.kinds import rises_with_distance
from finetune.utils.paths import expand_path

if TYPE_CHECKING:
    from finetune.evaluation.ordinal_pairs import AnnotatedImage, PairResult
    from finetune.inference.exported import ExportedModel
    from finetune.inference.pair_scores import PredictImage
    from finetune.utils.kinds import Kind

COLUMNS = ("image", "scene", "pair", "near_row", "near_column", "far_row", "far_column")


def make_parser() -> CommandParser:
    """The arguments of ``finetune score-pairs``."""
    parser = CommandParser(
        prog="finetune score-pairs",
        description="Say for annotated pairs of points which one is nearer, by scene and overall: the benchmark DA-2K, "
        "or pairs of your own in its layout. The direction follows from the kind of the model; ties are wrong. MODEL "
        "may also be an .onnx file or a folder of OpenVINO that finetune export wrote.",
        example="finetune score-pairs runs/room_tiny --annotations DA-2K/annotations.json --json pairs.json",
    )
    add_model_argument(parser, optional=True)
    parser.add_argument(
        "--annotations",
        type=expand_path,
        required=True,
        metavar="FILE",
        help='JSON: path of an image -> [{"point1": [row, column], "point2": [row, column], "closer_point": "point1"}]',
    )
    parser.add_argument(
        "--images",
        type=expand_path,
        metavar="DIR",
        help="the folder that the paths of the annotations start from; default: that of the file",
    )
    parser.add_argument(
        "--predictions",
        type=expand_path,
        metavar="DIR",
        help="instead of MODEL, what any system predicted: DIR/<path or stem of the image>.npy, or .png of 16 bits; "
        "--kind says what is in them",
    )
    parser.add_argument("--json", type=expand_path, metavar="FILE", help="also write the counts, by scene and overall")
    parser.add_argument("--csv", type=expand_path, metavar="FILE", help="also write each pair and what was predicted")
    add_device_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and score; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if bool(arguments.predictions) == bool(arguments.model):
        parser.error("name a MODEL, or a folder with --predictions, not both")
    if arguments.predictions and arguments.kind == "auto":
        parser.error("--predictions needs --kind metric for depth, or --kind relative for inverse depth")
    return run_command(lambda: _score(arguments), "Nothing was written; call again.")


def _score(arguments: argparse.Namespace) -> None:
    from finetune.evaluation.ordinal_pairs import (
        explain_counts,
        format_pair_scores,
        read_annotations,
        summarize_pairs,
    )

    images = read_annotations(arguments.annotations)
    configure_threading()
    # Only now the imports that take seconds: wrong annotations have been refused.
    with import_without_gc():
        from finetune.inference.pair_scores import score_annotated_images

    predict, kind, source, size = _load(arguments, images)
    root: Path = arguments.images or arguments.annotations.parent
    results = score_annotated_images(images, root, predict, kind)
    overall, scenes = summarize_pairs(results)
    nearer = "smaller depth" if rises_with_distance(kind) else "larger inverse depth"
    network = f", the network at lower bound {size[0]}x{size[1]}" if size else ""
    print(f"{source}: {explain_counts(images)}; nearer is {nearer}{network}")
    print(format_pair_scores(overall, scenes))
    if arguments.json:
        found = {
            "annotations": str(arguments.annotations),
            "model": source,
            "kind": kind,
            "input_size": size and list(size),
            "overall": overall.to_mapping(),
            "scenes": {name: score.to_mapping() for name, score in scenes.items()},
        }
        write_and_say(arguments.json, json.dumps(found, indent=2) + "\n")
    if arguments.csv:
        write_and_say(arguments.csv, _rows(results))


def _load(
    arguments: argparse.Namespace, images: Sequence[AnnotatedImage]
) -> tuple[PredictImage, Kind, str, tuple[int, int] | None]:
    """What predicts, what it predicts, its name, and the input size of a network."""
    from finetune.inference.pair_scores import PredictionFolder, predict_by_network

    if arguments.predictions:
        stems = tuple(Path(image.name).stem for image in images)
        folder = PredictionFolder(folder=arguments.predictions, kind=arguments.kind, stems=stems)
        return folder, arguments.kind, str(arguments.predictions), None
    from finetune.inference.exported import is_exported

    if is_exported(expand_path(arguments.model)):
        exported = _load_exported(arguments)
        size = exported.input_size or exported.preprocessing.input_size
        return predict_by_network(exported), exported.kind, exported.source, size
    predictor = load_predictor(arguments, arguments.device)
    size = predictor.preprocessing.input_size
    return predict_by_network(predictor), predictor.kind, predictor.source, (size[0], size[1])


def _load_exported(arguments: argparse.Namespace) -> ExportedModel:
    """
    Raises:
        FinetuneError: it cannot be loaded, or an option contradicts what it says of itself.
    """
    from finetune import runtime
    from finetune.utils.errors import CheckpointError

    given = ", ".join(f"--{name.removesuffix('_m').replace('_', '-')}" for name in given_model_options(arguments))
    if given:
        raise CheckpointError(arguments.model, f"says itself what it predicts, and {given} is given", "Leave it out")
    if arguments.device not in ("auto", "cpu"):
        found = f"is an exported file, which runs on the CPU here, and --device is {arguments.device}"
        raise CheckpointError(arguments.model, found, "Leave --device out")
    return runtime.load(expand_path(arguments.model))


def _rows(results: Sequence[PairResult]) -> str:
    """CSV, a line a pair."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, "near_value", "far_value", "right"])
    for result in results:
        pair = result.pair
        points = [f"{number:g}" for number in (*pair.near, *pair.far)]
        values = [f"{value:.9g}" for value in (result.near_value, result.far_value)]
        writer.writerow([result.image, result.scene, pair.place, *points, *values, int(result.is_right)])
    return text.getvalue()

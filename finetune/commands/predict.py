"""``finetune predict MODEL PATH... --output DIR``: images, folders of images and videos, to depth."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.commands.arguments import (
    add_camera_arguments,
    add_device_argument,
    add_input_arguments,
    add_model_argument,
    add_network_arguments,
    assumes_training_camera,
    camera_options,
    configure_network,
    line_printer,
    load_predictor,
    numbers,
    positive_count,
    positive_number,
    require_one_camera,
)
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command
from finetune.utils.errors import FinetuneError, ResultError
from finetune.utils.files import write_fault
from finetune.utils.kinds import IN_WORDS
from finetune.utils.number_arguments import shard
from finetune.utils.paths import make_folder

if TYPE_CHECKING:
    from finetune.inference.batch import PredictOptions
    from finetune.inference.inputs import Input
    from finetune.inference.predictor import Predictor
    from finetune.training.shared_inputs import SharingProcess


_DESCRIPTION = (
    "Images to depth: <name>.npy in meters (float32), <name>.png in millimeters (16 bit) and "
    "<name>_preview.png in color. A relative model knows no meters: it writes <name>_inverse.npy, larger is "
    "nearer, or, where it predicts depth without a unit, <name>_relative.npy, and the preview. Videos to "
    "<name>_preview.mp4, at their frame rate and with one range of colors, at most 640 px wide and high; "
    "videos of phones are turned upright. pip install -e '.[video]' for mirrored videos and exact times in AVI."
)


def make_parser() -> CommandParser:
    """The arguments of ``finetune predict``."""
    parser = CommandParser(
        prog="finetune predict",
        description=_DESCRIPTION,
        example="finetune predict runs/room_tiny data/room/color/0001.jpg --output depth/",
    )
    add_model_argument(parser)
    add_input_arguments(parser)
    add_device_argument(parser)
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        default=(0, 1),
        help="do part I of N, I from 0 to N-1: for arrays of jobs; accelerate launch finetune/predict.py and torchrun "
        "share the inputs by themselves",
    )
    parser.add_argument("--flip", action="store_true", help="average with the prediction for the mirrored image")
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="also write <name>_unsure.png, 16 bits: how much the prediction for the mirrored image disagrees, natural "
        "logarithm times 10,000, so 1000 is 10 %% of depth; next to the preview too; takes about twice the time",
    )
    parser.add_argument("--skip-existing", action="store_true", help="skip inputs that are done already")
    parser.add_argument(
        "--range",
        type=_range,
        metavar="NEAR,FAR",
        help="meters at the ends of the preview's colors; auto: the 2nd and the 98th percentile of each image, or of "
        "the first frame of a video; default: 0 and the model's max depth",
    )
    parser.add_argument(
        "--png-units-per-meter",
        type=positive_number,
        default=1000.0,
        metavar="N",
        help="unit of <name>.png: 1000 for millimeters, up to 65.5 m; 256 as in KITTI, up to 255 m; default: 1000",
    )
    parser.add_argument(
        "--frames",
        action="store_true",
        help="also write the frames of a video, <name>/000000.npy, ..., and the time of each in seconds, "
        "<name>/frames.csv",
    )
    add_network_arguments(parser, batch_size="1 on a CPU, else 8, less where memory runs out", precision="auto")
    add_camera_arguments(parser)
    _add_point_options(parser)
    return parser


def _add_point_options(parser: CommandParser) -> None:
    points = parser.add_argument_group("points", "<name>.ply: binary PLY with color, in meters")
    points.add_argument(
        "--points", action="store_true", help="write it; needs a camera: --intrinsics, --hfov or columns of a list"
    )
    points.add_argument(
        "--edge-filter",
        nargs="?",
        type=positive_number,
        const=0.05,
        metavar="SHARE",
        help="leave out the pixels that would float between surfaces, where depth jumps by more than this share; "
        "without a number 0.05",
    )
    points.add_argument(
        "--max-points", type=positive_count, metavar="N", help="at most this many points of an image, evenly chosen"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and predict; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    require_one_camera(parser, arguments)
    given = [name for name in ("edge_filter", "max_points") if getattr(arguments, name)]
    if given and not arguments.points:
        parser.error(f"--{given[0].replace('_', '-')} is for point clouds: add --points")
    return run_command(
        lambda: _predict(arguments),
        "Images that are done stay; call again for the others.",
        of_memory="Call with --device cpu, or close what else holds memory.",
    )


def _predict(arguments: argparse.Namespace) -> None:
    from finetune.inference.inputs import find_inputs

    inputs = find_inputs(arguments.paths, arguments.output)
    try:
        make_folder(arguments.output)
    except OSError as error:
        raise write_fault(arguments.output, str(error.strerror)) from error
    configure_threading()
    # Only now the imports that take seconds: a wrong call has been refused.
    with import_without_gc():
        from finetune.training.shared_inputs import join_launch

    with join_launch() as process:
        _predict_share(arguments, inputs, process)


def _predict_share(arguments: argparse.Namespace, all_inputs: Sequence[Input], process: SharingProcess) -> None:
    """Predict what this process of a launch has to do; the first one says what became of all."""
    from finetune.inference.batch import compare_precision, predict_inputs

    part, parts = arguments.shard
    of_shard = all_inputs[part::parts]
    inputs = process.share(of_shard)
    is_first = process.rank == 0
    predictor = load_predictor(arguments, process.device(arguments.device))
    _require_use_of_camera(predictor, arguments)
    predictor = configure_network(predictor, arguments)
    say = line_printer(predictor, arguments) if is_first else lambda text: None
    if predictor.kind != "metric":
        say(
            f"{arguments.model} is relative: {IN_WORDS[predictor.kind]} without a unit, no meters and no millimeter PNG"
        )
    options = replace(_predict_options(arguments), all_inputs=all_inputs, cores=process.cores, bar=is_first)
    if is_first and (difference := compare_precision(predictor, inputs, options)):
        say(difference)
    outcomes = process.gather(predict_inputs(predictor, inputs, options))
    if not outcomes:
        return  # the first process says it
    outcome = outcomes[0]
    for other in outcomes[1:]:
        outcome.add(other)
    for note in outcome.notes:
        say(note)
    kept = f", {outcome.skipped} were there already" if outcome.skipped else ""
    what = "inputs" if any(given.is_video for given in of_shard) else "images"
    of = "" if parts == 1 else f" of shard {part}/{parts}"
    say(f"{arguments.output}: {outcome.done} of {len(of_shard)} {what}{of} done{kept}")
    faults = [*outcome.faults, *_beyond_png(predictor, outcome.beyond, f"{len(of_shard)} {what}", arguments)]
    if faults:
        raise ResultError("\n".join(faults))


def _predict_options(arguments: argparse.Namespace) -> PredictOptions:
    from finetune.inference.batch import PointOptions, PredictOptions

    points = PointOptions(edge_ratio=arguments.edge_filter, max_points=arguments.max_points)
    return PredictOptions(
        output=arguments.output,
        range_m=arguments.range,
        units_per_meter=arguments.png_units_per_meter,
        flip=arguments.flip,
        skip_existing=arguments.skip_existing,
        frames=arguments.frames,
        points=points if arguments.points else None,
        cameras=camera_options(arguments),
        assume_training=assumes_training_camera(arguments),
        batch_size=arguments.batch_size,
        confidence=arguments.confidence,
    )


def _require_use_of_camera(predictor: Predictor, arguments: argparse.Namespace) -> None:
    """
    Raises:
        FinetuneError: a camera is given, and neither points nor the model have any use for it.
    """
    given = [name for name in ("intrinsics", "intrinsics_size", "hfov") if getattr(arguments, name)]
    if given and not arguments.points and predictor.network.camera is None:
        raise FinetuneError(f"--{given[0].replace('_', '-')} is for point clouds: add --points.")


def _beyond_png(
    predictor: Predictor, beyond: Sequence[Path], of_all: str, arguments: argparse.Namespace
) -> Iterator[str]:
    """The sentence about images that are deeper than their 16-bit PNG can hold, if there are any."""
    from finetune.inference.outputs import MAX_COUNTS

    if beyond:
        units = arguments.png_units_per_meter
        assert predictor.range_m is not None
        fitting = max(1, math.floor(MAX_COUNTS / predictor.range_m))
        yield (
            f"{len(beyond)} of {of_all}, {beyond[0]} first, reach beyond {MAX_COUNTS / units:g} m, the most that 16 "
            f"bits of 1/{units:g} m hold: they have no .png. Use their .npy, which is in meters, or "
            f"--png-units-per-meter {fitting}."
        )


def _range(text: str) -> tuple[float, ...] | str:
    if text == "auto":
        return text
    expected = "NEAR,FAR in meters, NEAR below FAR, or auto"
    return numbers(2, expected, lambda ends: 0 <= ends[0] < ends[1])(text)

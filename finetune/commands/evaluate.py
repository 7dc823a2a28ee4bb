"""``finetune evaluate MODEL --recipe RECIPE [key=value ...]``: the metric table, next to the baselines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.commands.arguments import (
    add_camera_arguments,
    add_device_argument,
    add_model_argument,
    add_network_arguments,
    add_overrides,
    assumes_training_camera,
    camera_options,
    configure_network,
    given_model_options,
    line_printer,
    load_predictor,
    positive_meters,
    require_one_camera,
)
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command, write_and_say
from finetune.utils.paths import expand_path, is_file, is_folder

if TYPE_CHECKING:
    from finetune.evaluation.results import Evaluation
    from finetune.evaluation.retention import Retention
    from finetune.evaluation.risk_coverage import RiskCoverage
    from finetune.recipe.schema import Recipe
    from finetune.reporting.frames import ShownFrames
    from finetune.reporting.verdicts import Verdict
    from finetune.training.focal_sweep import SweepPoint


def make_parser() -> CommandParser:
    """The arguments of ``finetune evaluate``."""
    parser = CommandParser(
        prog="finetune evaluate",
        description="Score a model on a recipe's data.val by the recipe's protocols, next to baselines that need no "
        "training: the best constants, and the recipe's checkpoint with one scale and shift.",
        example="finetune evaluate runs/room_tiny --recipe recipes/room_tiny.yaml --html evaluation.html",
    )
    add_model_argument(parser, optional=True)
    add_overrides(parser, example="data.val.0.root=/mnt/camera")
    parser.add_argument("--recipe", required=True, metavar="FILE", help="YAML file that names data and protocols")
    parser.add_argument(
        "--protocol",
        action="append",
        metavar="NAME",
        help="one or several instead of the recipe's: plain, nyu_eigen, kitti_eigen_garg, kitti_garg_full, "
        "kitti_eigen, reference_script, or one with keys changed, such as plain+align=median",
    )
    parser.add_argument(
        "--predictions",
        type=expand_path,
        metavar="DIR",
        help="instead of MODEL, what any system predicted: DIR/<path or stem of the image>.npy in meters, or .png",
    )
    parser.add_argument(
        "--meters-per-unit",
        type=positive_meters,
        metavar="U",
        help="what a stored 1 of --predictions means, 0.001 for millimeters; reads .png before .npy",
    )
    parser.add_argument(
        "--json", type=expand_path, metavar="FILE", help="also write the table, like a run's evaluation.json"
    )
    parser.add_argument("--csv", type=expand_path, metavar="FILE", help="also write the scores of each image")
    parser.add_argument("--html", type=expand_path, metavar="FILE", help="also write a page with pictures")
    parser.add_argument(
        "--focal-sweep",
        action="store_true",
        help="also score the same frames cropped and resized to longer and shorter focal lengths: what a lens costs",
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="also measure whether the disagreement with the mirrored image, which predict --confidence writes, tells "
        "where the model is wrong",
    )
    add_camera_arguments(parser)
    add_device_argument(parser)
    # A table says what a run with this recipe ends with: float32, unless another precision is asked for.
    add_network_arguments(parser, batch_size="the recipe's run.batch_size", precision="fp32")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and evaluate; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_intermixed_args(_repeat_protocol(sys.argv[1:] if argv is None else argv))
    if arguments.predictions and arguments.model:
        # Without MODEL, the first key=value is taken for it.
        if "=" not in arguments.model:
            parser.error("give MODEL or --predictions, not both")
        arguments.overrides.insert(0, arguments.model)
    if not arguments.predictions and not arguments.model:
        parser.error("name a MODEL, or a folder with --predictions")
    require_one_camera(parser, arguments)
    if arguments.focal_sweep and arguments.predictions:
        parser.error("--focal-sweep shows a model other images: name a MODEL instead of --predictions")
    if arguments.predictions and (arguments.compile or arguments.precision != "fp32"):
        parser.error("--precision and --compile are of a network: name a MODEL instead of --predictions")
    if arguments.confidence and arguments.predictions:
        parser.error("--confidence shows a model mirrored images: name a MODEL instead of --predictions")
    if arguments.meters_per_unit and not arguments.predictions:
        parser.error("--meters-per-unit needs --predictions; a model predicts meters")
    return run_command(
        lambda: _evaluate(arguments),
        "Nothing was written; call again.",
        of_memory="Call with run.batch_size=1, or close what else holds memory.",
    )


def _repeat_protocol(words: Sequence[str]) -> list[str]:
    """
    The call with ``--protocol`` before each of several names that follow one.

    If argparse read an option of several words, it would take MODEL and key=value for names too.
    """
    if not any(word.startswith("--protocol") for word in words):
        return list(words)
    from finetune.evaluation.protocol_settings import PROTOCOLS

    found: list[str] = []
    for word in words:
        after_a_name = found[-2:-1] == ["--protocol"] or (found and found[-1].startswith("--protocol="))
        if after_a_name and word.partition("+")[0] in PROTOCOLS:
            found.append("--protocol")
        found.append(word)
    return found


def _evaluate(arguments: argparse.Namespace) -> None:
    from finetune.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, _list_overrides(arguments))
    configure_threading()
    # Only now the imports that take seconds: a wrong recipe has been refused.
    with import_without_gc():
        from finetune.inference.frame_cameras import FrameCameras
        from finetune.inference.lens_notes import lens_warnings
        from finetune.recipe.run_dir import RunFolder
        from finetune.reporting.text_table import format_evaluations
        from finetune.reporting.verdicts import find_verdicts
        from finetune.training.evaluate import compare_precision, evaluate_model, evaluate_predictions, image_rows
        from finetune.training.focal_sweep import format_sweep, sweep_focal_lengths
        from finetune.training.measure_confidence import format_confidence, measure_confidence
        from finetune.training.retention import measure_kept_by

    say: Callable[[str], None] = print
    sweep: list[SweepPoint] = []
    difference: str | None = None
    if arguments.predictions:
        evaluations, frames = evaluate_predictions(recipe, arguments.predictions, arguments.meters_per_unit)
    else:
        run = RunFolder(Path(arguments.model)) if is_folder(Path(arguments.model)) else None
        run = run if run and is_file(run.best) else None
        predictor = configure_network(load_predictor(arguments, arguments.device), arguments, tf32=recipe.run.tf32)
        cameras = FrameCameras(options=camera_options(arguments), assume_training=assumes_training_camera(arguments))
        evaluations, frames = evaluate_model(recipe, predictor, run, cameras)
        say = line_printer(predictor, arguments)
        difference = compare_precision(predictor, frames, cameras)
        sweep = sweep_focal_lengths(recipe, predictor, cameras) if arguments.focal_sweep else []
    if os.environ.get("RANK", "0") != "0":
        return  # the tables of the first process cover all of them
    if difference:
        say(difference)
    say(format_evaluations(evaluations))
    if sweep:
        say(f"\n{format_sweep(sweep)}")
    curves = measure_confidence(recipe, predictor, cameras) if arguments.confidence else None
    if curves:
        say(f"\n{format_confidence(curves)}")
    kept = [] if arguments.predictions else measure_kept_by(recipe, predictor, say)
    for line in map(str, kept):
        say(line)
    own = "predictions" if arguments.predictions else "finetuned"
    found = find_verdicts(evaluations[0], own, recipe.evaluation.best)
    for sentence in (*map(str, found), *(retention.warning() for retention in kept)):
        if sentence:
            say(sentence)
    if not arguments.predictions and not cameras.assume_training:
        for sentence in lens_warnings(predictor.network, evaluations[0].images):
            say(sentence)
    if arguments.json:
        write_and_say(arguments.json, _write_tables(evaluations, sweep, curves, kept))
    if arguments.csv:
        write_and_say(
            arguments.csv, image_rows(evaluations, [entry.source for entry in recipe.scored_entries.values()])
        )
    if arguments.html:
        write_and_say(arguments.html, _make_page(arguments, recipe, evaluations, frames, found, sweep, curves, kept))


def _write_tables(
    evaluations: Sequence[Evaluation],
    sweep: Sequence[SweepPoint],
    confidence: RiskCoverage | None,
    kept: Sequence[Retention],
) -> str:
    """JSON, like a run's ``evaluation.json``; what is about no protocol is in the first table."""
    tables = [evaluation.to_mapping() for evaluation in evaluations]
    if sweep:
        tables[0]["focal_sweep"] = [point.to_mapping() for point in sweep]
    if confidence:
        tables[0]["confidence"] = confidence.to_mapping()
    if kept:
        tables[0]["retention"] = [retention.to_mapping() for retention in kept]
    return json.dumps(tables, indent=2) + "\n"


def _make_page(
    arguments: argparse.Namespace,
    recipe: Recipe,
    evaluations: Sequence[Evaluation],
    frames: ShownFrames,
    found: Sequence[Verdict],
    sweep: Sequence[SweepPoint],
    confidence: RiskCoverage | None,
    kept: Sequence[Retention],
) -> str:
    """The page of an evaluation."""
    from finetune.reporting.run_report import collect_page_content, render_report_page

    content = collect_page_content(
        f"Evaluation of {arguments.predictions or arguments.model}",
        None if arguments.predictions else arguments.model,
        recipe,
        arguments.recipe,
        evaluations,
        frames,
        found=found,
        model_options=given_model_options(arguments),
        overrides=_list_overrides(arguments),
        focal_sweep=[(point.focal_px, point.zoom, point.abs_rel) for point in sweep],
        confidence=confidence,
        kept=kept,
    )
    return render_report_page(content)


def _list_overrides(arguments: argparse.Namespace) -> list[str]:
    """``key=value`` words, with the protocols and the batch size as two of them."""
    found = list(arguments.overrides)
    if arguments.protocol:
        found.append(f"evaluation.protocols={json.dumps(arguments.protocol)}")
    if arguments.batch_size:
        found.append(f"run.batch_size={arguments.batch_size}")
    return found

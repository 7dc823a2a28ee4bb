"""``finetune calibrate MODEL --recipe RECIPE --output FILE``: fit one scale to a deployed camera, from a few labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from finetune.commands.arguments import (
    add_camera_arguments,
    add_device_argument,
    add_model_argument,
    add_overrides,
    assumes_training_camera,
    camera_options,
    line_printer,
    load_predictor,
    positive_count,
    require_one_camera,
)
from finetune.commands.runner import CommandParser, import_without_gc, run_command
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import expand_path, path_exists


def make_parser() -> CommandParser:
    """The arguments of ``finetune calibrate``."""
    parser = CommandParser(
        prog="finetune calibrate",
        description="Fit one scale to a few labeled frames of your camera, and multiply the model's max depth by it: "
        "predict, evaluate and every export then apply it. A new weights file is written.",
        example="finetune calibrate runs/room_tiny --recipe recipes/room_tiny.yaml --output calibrated.safetensors",
    )
    add_model_argument(parser)
    add_overrides(parser, example="data.train.0.root=/mnt/camera")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument(
        "--recipe", metavar="FILE", help="take frames from its data.train, and keep data.val for evaluate"
    )
    labels.add_argument(
        "--known-distances",
        type=expand_path,
        metavar="FILE",
        help="a file with a line `image, x, y, meters` for each known point",
    )
    labels.add_argument("--undo", action="store_true", help="write a calibrated model as it was before")
    parser.add_argument(
        "--frames", type=positive_count, default=20, metavar="N", help="this many of data.train; default: 20"
    )
    parser.add_argument(
        "--output", type=expand_path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    add_camera_arguments(parser)
    add_device_argument(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and calibrate; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_intermixed_args(argv)
    require_one_camera(parser, arguments)
    if arguments.overrides and not arguments.recipe:
        parser.error(f"{arguments.overrides[0]} changes a recipe: name one with --recipe")
    return run_command(lambda: _calibrate(arguments), "Nothing was written; call again.")


def _calibrate(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    if output.suffix != ".safetensors":
        raise FinetuneError(f"{output}: a weights file ends in .safetensors. Write --output {output}.safetensors.")
    if path_exists(output) and not arguments.force:
        raise FinetuneError(f"{output}: already there. Name another --output, or replace it with --force.")
    recipe = None
    if arguments.recipe:
        from finetune.recipe.load import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
    # Only now the imports that take seconds: a wrong call has been refused.
    with import_without_gc():
        from finetune.inference.calibration import (
            fit_calibration,
            predict_labeled_frames,
            read_known_distances,
            write_calibrated,
            write_uncalibrated,
        )
        from finetune.inference.frame_cameras import FrameCameras

    predictor = load_predictor(arguments, arguments.device)
    if predictor.kind != "metric":
        raise FinetuneError(f"{predictor.source} is relative: it has no scale to correct. Fine-tune it first.")
    if arguments.undo:
        print(f"{output}: max depth {write_uncalibrated(predictor, output):g} m, as before the calibration")
        return
    cameras = FrameCameras(options=camera_options(arguments), assume_training=assumes_training_camera(arguments))
    if recipe is not None:
        frames = predict_labeled_frames(predictor, recipe, arguments.frames, cameras)
    else:
        frames = read_known_distances(predictor, arguments.known_distances, cameras)
    found = fit_calibration(frames, predictor.network.camera)
    say = line_printer(predictor, arguments)
    say(str(found))
    max_depth_m = write_calibrated(predictor, found, output, str(arguments.recipe or arguments.known_distances))
    say(f"{output}: max depth is now {max_depth_m:g} m instead of {predictor.max_depth_m:g} m; --undo reverts it")

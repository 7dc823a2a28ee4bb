"""``finetune calibrate MODEL --recipe RECIPE --output FILE``: one scale for a deployed camera, from a few labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from finetune.commands.arguments import add_model_argument, load_from
from finetune.commands.runner import CommandParser, import_without_gc, run_command
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import expand_path, path_exists


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, calibrate; the exit status is that of ``runner.run_command``."""
    parser = CommandParser(
        prog="finetune calibrate",
        description="Fit one scale to a few labeled frames of the camera at hand, and fold it into the model's max "
        "depth, so that predict, evaluate and every export carry it. A new weights file is written.",
    )
    add_model_argument(parser)
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="any key of the recipe: data.train.0.root=/x"
    )
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--recipe", metavar="FILE", help="its data.train is of the camera; data.val is for evaluate")
    labels.add_argument(
        "--known-distances",
        type=expand_path,
        metavar="FILE",
        help="or a line `image, x, y, meters` for each known point",
    )
    labels.add_argument("--undo", action="store_true", help="write a calibrated model as it was before")
    parser.add_argument("--frames", type=_count, default=20, metavar="N", help="of data.train; default 20")
    parser.add_argument(
        "--output", type=expand_path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.overrides and not arguments.recipe:
        parser.error(f"{arguments.overrides[0]} changes a recipe: give one by --recipe")
    return run_command(lambda: _calibrate(arguments), "Nothing was written; call again.")


def _calibrate(arguments: argparse.Namespace) -> None:
    output: Path = arguments.output
    if output.suffix != ".safetensors":
        raise FinetuneError(f"{output}: is no name of a weights file. Write --output {output}.safetensors.")
    if path_exists(output) and not arguments.force:
        raise FinetuneError(f"{output}: already there. Name another --output, or replace it with --force.")
    recipe = None
    if arguments.recipe:
        from finetune.recipe.load import load_recipe

        recipe = load_recipe(arguments.recipe, arguments.overrides)
    # Only now what takes seconds to import: a wrong call has been answered.
    with import_without_gc():
        from finetune.inference.calibration import (
            calibration,
            known_distances,
            labeled_frames,
            write_calibrated,
            write_undone,
        )

    predictor = load_from(arguments, arguments.device)
    if predictor.max_depth_m is None:
        raise FinetuneError(f"{predictor.source} is relative: it has no scale to correct. Fine-tune it first.")
    if arguments.undo:
        print(f"{output}: max depth {write_undone(predictor, output):g} m, as before the calibration")
        return
    if recipe is not None:
        frames = labeled_frames(predictor, recipe, arguments.frames)
    else:
        frames = known_distances(predictor, arguments.known_distances)
    found = calibration(frames)
    print(found)
    max_depth_m = write_calibrated(predictor, found, output, str(arguments.recipe or arguments.known_distances))
    print(f"{output}: max depth {predictor.max_depth_m:g} m is now {max_depth_m:g} m; --undo takes it back")


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value

"""``finetune export MODEL --to FORMAT --output PATH``: write the weights in another format and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from finetune.commands.arguments import add_model_argument, load_predictor, positive_number
from finetune.commands.runner import LOGGER, CommandParser, import_without_gc, run_command
from finetune.export.options import ANY_BATCH, DEFAULT_TOLERANCE, MAX_BATCH, PRECISIONS, ExportOptions, InputType
from finetune.utils.errors import FinetuneError
from finetune.utils.number_arguments import number
from finetune.utils.paths import expand_path, is_file, missing
from finetune.utils.registry import EXPORTERS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.export.push import Push
    from finetune.inference.predictor import Predictor


# Formats that describe the computation, and not the weights alone.
_COMPUTED = ("onnx", "openvino")


def make_parser() -> CommandParser:
    """The arguments of ``finetune export``."""
    parser = CommandParser(
        prog="finetune export",
        description="Write the weights in another format. They are loaded again and compared on an image, and kept "
        "only if the predictions agree.",
        example="finetune export runs/room_tiny --to official --output room_tiny.pth",
    )
    add_model_argument(parser)
    parser.add_argument("--to", choices=sorted(EXPORTERS), required=True, help="the format")
    parser.add_argument("--output", type=expand_path, required=True, metavar="PATH", help="the file or folder to write")
    parser.add_argument(
        "--image",
        type=expand_path,
        metavar="FILE",
        help="compare on this image of your camera; huggingface, onnx and openvino are made for its size; default: an "
        "image of data/room, 320x240",
    )
    parser.add_argument(
        "--for-camera",
        type=positive_number,
        metavar="FX",
        help="write a canonical model for one camera: its focal length in pixels of --image",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="of what is stored; default: float32")
    parser.add_argument(
        "--calibration",
        metavar="RECIPE",
        help="for --precision int8: its training images give the ranges, its validation frames what int8 costs",
    )
    parser.add_argument(
        "--tolerance",
        type=number("a number, 0 or more", lambda found: found >= 0),
        metavar="X",
        help=f"for --precision int8: by how much AbsRel may rise; default: {DEFAULT_TOLERANCE:g}",
    )
    parser.add_argument(
        "--float-layers",
        type=lambda text: tuple(text.split(",")),
        metavar="NAME,NAME",
        help="for --precision int8: layers that stay in float32, such as encoder.blocks.3,head",
    )
    parser.add_argument("--half", action="store_true", help="the same as --precision float16")
    _add_graph_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace an existing file or folder")
    _add_push_options(parser)
    return parser


def _add_graph_arguments(parser: CommandParser) -> None:
    """Options of formats that describe the computation."""
    parser.add_argument(
        "--recipe",
        metavar="RECIPE",
        help="onnx, openvino, for float16 and mixed: its validation frames show the range of values and what float16 "
        "costs; default: the recipe of a run folder",
    )
    graphs = ", ".join(_COMPUTED)
    parser.add_argument("--dynamic", action="store_true", help=f"{graphs}: take inputs of any size, multiples of 14")
    parser.add_argument(
        "--batch",
        type=_read_batch,
        default=1,
        metavar="N",
        help=f"{graphs}: take N images at a time, or any; default: 1",
    )
    parser.add_argument(
        "--input",
        choices=get_args(InputType),
        default="float32",
        help=f"{graphs}: uint8: RGB images, normalized inside; images that are resized before are rounded to 8 bits",
    )
    parser.add_argument(
        "--resize",
        action="store_true",
        help=f"{graphs}, with --input uint8: images of the size of --image, resized inside, which rounds nothing",
    )


def _add_push_options(parser: CommandParser) -> None:
    """Options of the format ``huggingface``."""
    parser.add_argument(
        "--push", metavar="USER/NAME", help="huggingface: also put the folder into this repository of the hub, private"
    )
    parser.add_argument("--public", action="store_true", help="with --push: make a new repository public")
    parser.add_argument(
        "--dry-run", action="store_true", help="with --push: export, say what would be sent, and send nothing"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and export; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.for_camera and not arguments.image:
        parser.error("--for-camera is in pixels of one image size: give --image, an image of this camera")
    if arguments.half and arguments.precision not in (None, "float16"):
        parser.error(f"--half is --precision float16, and --precision is {arguments.precision}: give one of them")
    arguments.precision = "float16" if arguments.half else arguments.precision or "float32"
    # First: what another option would need does not matter to a format that takes neither.
    status = run_command(lambda: _require_taken(arguments))
    if status:
        return status
    if arguments.resize and arguments.input != "uint8":
        parser.error("--resize is for images as they are: give --input uint8 as well")
    if arguments.resize and arguments.dynamic:
        parser.error("--resize is for images of one size, that of --image: leave out --dynamic")
    if arguments.recipe and (arguments.to not in _COMPUTED or arguments.precision not in ("float16", "mixed")):
        parser.error(
            "--recipe is for --precision float16 and mixed of onnx and openvino, measured on its validation frames"
        )
    _require_int8_options(parser, arguments)
    _require_push_options(parser, arguments)
    return run_command(lambda: _export(arguments), "Nothing was exported; call again.")


def _read_batch(text: str) -> int | Literal["any"]:
    if text == ANY_BATCH:
        return ANY_BATCH
    if not text.isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 to {MAX_BATCH} nor any")
    return int(text)


def _require_int8_options(parser: CommandParser, arguments: argparse.Namespace) -> None:
    if arguments.precision == "int8":
        if not arguments.calibration:
            parser.error("--precision int8 needs --calibration RECIPE, whose frames show what int8 costs")
        if arguments.batch != 1 or arguments.input != "float32":
            parser.error("--precision int8 is for one normalized image at a time: leave out --batch and --input")
        return
    for option in ("calibration", "tolerance", "float_layers"):
        if getattr(arguments, option) is not None:
            parser.error(f"--{option.replace('_', '-')} is for --precision int8 of {' and '.join(_COMPUTED)}")


def _require_push_options(parser: CommandParser, arguments: argparse.Namespace) -> None:
    if arguments.push and arguments.to != "huggingface":
        parser.error("--push is for --to huggingface; the hub knows no other format")
    for name in ("public", "dry_run"):
        if getattr(arguments, name) and not arguments.push:
            parser.error(f"--{name.replace('_', '-')} is for --push USER/NAME")


def _plan_push(arguments: argparse.Namespace) -> Push | None:
    """
    Raises:
        FinetuneError: no repository can have the name, or nobody is logged in.
    """
    if not arguments.push:
        return None
    from finetune.export.push import Push, require_login

    push = Push(repository=arguments.push, public=arguments.public, dry_run=arguments.dry_run)
    require_login(push)
    return push


def _require_taken(arguments: argparse.Namespace) -> None:
    from finetune.export.export import require_taken

    require_taken(arguments.to, _make_options(arguments))


def _make_options(arguments: argparse.Namespace) -> ExportOptions:
    return ExportOptions(
        precision=arguments.precision,
        dynamic=arguments.dynamic,
        batch=arguments.batch,
        input_type=arguments.input,
        resize=arguments.resize,
    )


def _export(arguments: argparse.Namespace) -> None:
    from finetune.data.readers.files import read_image
    from finetune.export.export import export_model, make_exporter

    options = _make_options(arguments)
    make_exporter(arguments.to, arguments.output, arguments.force, options).require_writable(None)
    push = _plan_push(arguments)
    if arguments.image and not is_file(arguments.image):
        raise FinetuneError(
            f"{arguments.image}: {missing(arguments.image)}. Name an image with --image, or leave it out."
        )
    recipe = None
    if arguments.calibration:
        from finetune.recipe.load import load_recipe

        recipe = load_recipe(arguments.calibration)
    # Only now the imports that take seconds: a wrong call has been refused.
    with import_without_gc():
        from finetune.export.push import push_folder, require_permission
        from finetune.models.checkpoints.load import license_sentence

    predictor = load_predictor(arguments, "cpu")
    levels = predictor.preprocessing.image_levels
    image = read_image(arguments.image, upright=True, levels=levels) if arguments.image else None
    if recipe:
        from finetune.training.int8_data import read_int8_data

        tolerance = DEFAULT_TOLERANCE if arguments.tolerance is None else arguments.tolerance
        layers = arguments.float_layers or ()
        data = read_int8_data(recipe, arguments.calibration, predictor, tolerance, layers)
        options = replace(options, int8=data)
        # A file of one size is made for that of the recipe's frames.
        image = data.val[0].sample.image if image is None else image
    if options.precision in ("float16", "mixed") and arguments.to in _COMPUTED:
        frames = _read_frames(arguments, predictor)
        options = replace(options, frames=frames)
        image = frames[0] if image is None and frames else image
    LOGGER.info("%s: %s", predictor.source, license_sentence(predictor.base.get("license")))
    for sentence in require_permission(push, predictor) if push else ():
        LOGGER.info("%s", sentence)
    print(
        export_model(
            predictor,
            arguments.to,
            arguments.output,
            image,
            arguments.force,
            options,
            for_camera_px=arguments.for_camera,
        )
    )
    if push:
        print("\n".join(push_folder(push, arguments.output, predictor.base.get("license"))))


def _read_frames(arguments: argparse.Namespace, predictor: Predictor) -> list[NDArray[np.uint8]]:
    """The validation frames of the recipe that is named, or of the run; none where a run's data are no longer there."""
    from finetune.export.validation_frames import read_validation_frames
    from finetune.recipe.load import load_recipe
    from finetune.recipe.run_dir import RECIPE_FILE

    path = arguments.recipe or Path(arguments.model) / RECIPE_FILE
    if not arguments.recipe and not is_file(path):
        LOGGER.info(
            "%s: it names no validation frames, so float16 is measured on three images. Give --recipe RECIPE.",
            predictor.source,
        )
        return []
    try:
        return read_validation_frames(load_recipe(str(path)), predictor.preprocessing.image_levels)
    except FinetuneError as error:
        if arguments.recipe:
            raise
        LOGGER.info("%s: its validation frames cannot be read, so float16 is measured on three images: %s", path, error)
        return []

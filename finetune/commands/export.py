"""``finetune export MODEL --to FORMAT --output PATH``: write the weights in another format and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from finetune.commands.arguments import add_model_argument, load_predictor, positive_number
from finetune.commands.runner import LOGGER, CommandParser, import_without_gc, run_command
from finetune.export.options import DEFAULT_TOLERANCE, PRECISIONS, Precision
from finetune.utils.errors import FinetuneError
from finetune.utils.number_arguments import number
from finetune.utils.paths import expand_path, is_file, missing
from finetune.utils.registry import EXPORTERS


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
        help="compare on this image of your camera; huggingface and onnx are made for its size; default: an image of "
        "data/room, 320x240",
    )
    parser.add_argument(
        "--for-camera",
        type=positive_number,
        metavar="FX",
        help="write a canonical model for one camera: its focal length in pixels of --image",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="of what is stored; default: float32"
    )
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
    parser.add_argument("--half", action="store_true", help="store float16, and say how much the predictions change")
    parser.add_argument("--dynamic", action="store_true", help="onnx: take inputs of any size, multiples of 14")
    parser.add_argument("--force", action="store_true", help="replace an existing file or folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and export; for the exit status see ``runner.run_command``."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.for_camera and not arguments.image:
        parser.error("--for-camera is in pixels of one image size: give --image, an image of this camera")
    _require_int8_options(parser, arguments)
    return run_command(lambda: _export(arguments), "Nothing was exported; call again.")


def _require_int8_options(parser: CommandParser, arguments: argparse.Namespace) -> None:
    if arguments.precision == "int8":
        if not arguments.calibration:
            parser.error("--precision int8 needs --calibration RECIPE, whose frames show what int8 costs")
        return
    for option in ("calibration", "tolerance", "float_layers"):
        if getattr(arguments, option) is not None:
            parser.error(f"--{option.replace('_', '-')} is for --precision int8")


def _export(arguments: argparse.Namespace) -> None:
    from finetune.data.readers.files import read_image
    from finetune.export.export import export_model, make_exporter
    from finetune.export.options import ExportOptions

    precision: Precision = "float16" if arguments.half else arguments.precision
    options = ExportOptions(precision=precision, dynamic=arguments.dynamic)
    make_exporter(arguments.to, arguments.output, arguments.force, options).require_writable(None)
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
    LOGGER.info("%s: %s", predictor.source, license_sentence(predictor.base.get("license")))
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

"""``finetune export MODEL --to FORMAT --output PATH``: the weights in another format, compared before it says done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from finetune.commands.arguments import add_model_argument, load_from
from finetune.commands.runner import CommandParser, import_without_gc, run_command
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import expand_path, is_file
from finetune.utils.registry import EXPORTERS


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, export; the exit status is that of ``runner.run_command``."""
    parser = CommandParser(
        prog="finetune export",
        description="The weights in another format: written, reloaded and compared on an image, and only then kept.",
    )
    add_model_argument(parser)
    parser.add_argument("--to", choices=sorted(EXPORTERS), required=True, help="the format")
    parser.add_argument("--output", type=expand_path, required=True, metavar="PATH", help="the file or folder to write")
    parser.add_argument(
        "--image",
        type=expand_path,
        metavar="FILE",
        help="compare on this image of your camera, for whose size huggingface and onnx are made, instead of on one "
        "of data/room, 320x240",
    )
    parser.add_argument("--half", action="store_true", help="store float16; says how far the answers move")
    parser.add_argument("--dynamic", action="store_true", help="of onnx: for inputs of any size, multiples of 14")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    arguments = parser.parse_args(argv)
    return run_command(lambda: _export(arguments), "Nothing was exported; call again.")


def _export(arguments: argparse.Namespace) -> None:
    from finetune.data.readers.files import read_image
    from finetune.export.export import export_model, exporter_for

    wanted = {"half": arguments.half, "dynamic": arguments.dynamic}
    exporter_for(arguments.to, arguments.output, arguments.force, **wanted).require_writable(None)
    if arguments.image and not is_file(arguments.image):
        raise FinetuneError(f"{arguments.image}: no such file. Name an image with --image, or leave it out.")
    # Only now what takes seconds to import: a wrong call has been answered.
    with import_without_gc():
        from finetune.models.checkpoints.load import license_sentence

    predictor = load_from(arguments, "cpu")
    levels = predictor.preprocessing.image_levels
    image = read_image(arguments.image, upright=True, levels=levels) if arguments.image else None
    print(f"{predictor.source}: {license_sentence(predictor.base.get('license'))}", file=sys.stderr)
    print(export_model(predictor, arguments.to, arguments.output, image, arguments.force, **wanted))

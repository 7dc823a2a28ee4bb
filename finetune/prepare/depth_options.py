"""Options that say what the numbers in depth files mean, for the kinds that read depth as files."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, get_args

from finetune.data.readers.bits import Bits
from finetune.data.readers.channels import DepthChannels
from finetune.data.readers.orientation import ExifTurns
from finetune.data.readers.sensors import SENSORS
from finetune.data.readers.z_buffer import ZBufferRange
from finetune.utils.errors import FileFault, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from finetune.data.readers.depth_numbers import DepthNumbers

# Keys of the reader pairs, in its sentences, that are options here.
_KEYS = re.compile(
    r"(?<![\w/.-])(?:(allow_8_bit|depth_channels|depth_key|meters_per_unit)(?![\w/.-])(?:: true\b)?:?|(bits):(?= \w))"
    r"(?: in pairs\b)?"
)
# What else these sentences name that a call has under another name, or not at all.
_PHRASES = {
    "exif_turns: both in pairs": "--exif-turns both",
    "image_dir and depth_dir": "IMAGES and DEPTH",
    "; for other numbers, set data.image_black and data.image_white": "",
    "name the pairs in a list file": "name the pairs in a list, and give it to finetune prepare pairs",
}
_DEPTH_IS = ("z", "range", "disparity", "inverse", "z_buffer")


def name_options(error: FileFault) -> FileFault:
    """The error of a reader in the words of a call: ``--allow-8-bit`` for ``allow_8_bit: true in pairs``."""
    texts = [error.found, error.fix]
    for phrase, words in _PHRASES.items():
        texts = [text.replace(phrase, words) for text in texts]
    found, fix = (_KEYS.sub(lambda key: f"--{(key[1] or key[2]).replace('_', '-')}", text) for text in texts)
    return type(error)(error.source, found, fix, error.code)


def add_depth_arguments(parser: argparse.ArgumentParser, *, of_each_image: bool = True) -> None:
    """
    Add the options of ``pairs`` about the numbers of a depth file, with the same names, and ``--intrinsics``.

    Args:
        parser: of the kind.
        of_each_image: whether ``--intrinsics`` may hold a camera for each image.
    """
    group = parser.add_argument_group("depth files")
    group.add_argument("--meters-per-unit", type=float, metavar="M", help="stored number times this is meters")
    group.add_argument("--sensor", choices=list(SENSORS), help="fills in the unit and the numbers that are no depth")
    group.add_argument(
        "--invalid", type=_numbers, metavar="N,N", help="stored numbers that mean nothing was measured; default: 0"
    )
    group.add_argument(
        "--intrinsics",
        metavar="FILE",
        help=f"JSON or YAML with width, height, fx, fy, cx, cy, pixels{'; or these for each image' * of_each_image}",
    )
    group.add_argument(
        "--depth-is",
        choices=_DEPTH_IS,
        default="z",
        help="z: along the axis (default); range: along the ray; disparity: pixels; inverse: 1 / meters; "
        "z_buffer: a renderer's, linear in 1 / meters",
    )
    group.add_argument("--depth-channels", choices=get_args(DepthChannels), help="which of several channels is depth")
    group.add_argument("--depth-key", metavar="NAME", help="array of .npz and .h5, or channel of .exr, that is depth")
    group.add_argument(
        "--exif-turns",
        choices=get_args(ExifTurns),
        help="what the EXIF tag of an image turns, where sizes do not tell: image and depth, or the image alone",
    )
    group.add_argument("--bits", choices=get_args(Bits), help="how 16 bits hold a number, where not as a whole number")
    group.add_argument("--allow-8-bit", action="store_true", help="also read depth of 256 steps")
    group.add_argument("--px-per-unit", type=float, metavar="PX", help="of disparity: number times this is pixels")
    group.add_argument("--baseline-m", type=float, metavar="M", help="of disparity: meters between the cameras")
    group.add_argument("--focal-px", type=float, metavar="PX", help="of disparity; default: fx of --intrinsics")
    group.add_argument("--disparity-offset-px", type=float, metavar="PX", help="of disparity: Middlebury's doffs")
    group.add_argument("--inverse-per-unit", type=float, metavar="X", help="stored number times this is 1 / meters")
    group.add_argument("--z-near-m", type=float, metavar="M", help="of z_buffer: near plane of the renderer's camera")
    group.add_argument("--z-far-m", type=float, metavar="M", help="of z_buffer: its far plane; inf for none")
    group.add_argument(
        "--z-buffer-range",
        choices=get_args(ZBufferRange),
        help="of z_buffer: its numbers at the near and the far plane; default: zero_to_one",
    )
    group.add_argument("--z-buffer-per-unit", type=float, metavar="X", help="stored number times this is the buffer's")


def make_depth_numbers(arguments: argparse.Namespace, depths: Sequence[Path]) -> DepthNumbers:
    """
    Args:
        arguments: parsed, with those of ``add_depth_arguments``.
        depths: the depth files, for the sentence where the unit is missing.

    Returns:
        What the numbers mean.

    Raises:
        FinetuneError: the unit is missing, and every unit that fits is named; another option is missing, or does not
            go with the others.
        DataError: a file cannot be read.
    """
    from finetune.data.readers.depth_numbers import DepthNumbers, default_invalid
    from finetune.prepare.fitting_units import require_unit

    require_unit(depths, arguments)
    usual = default_invalid(arguments.depth_is, arguments.z_buffer_range)
    unit, invalid, _ = SENSORS[arguments.sensor] if arguments.sensor else (None, usual, "")
    numbers = DepthNumbers(
        depth_is=arguments.depth_is,
        meters_per_unit=arguments.meters_per_unit
        if arguments.meters_per_unit is not None or arguments.depth_is not in ("z", "range")
        else unit,
        px_per_unit=arguments.px_per_unit,
        disparity_offset_px=arguments.disparity_offset_px,
        baseline_m=arguments.baseline_m,
        focal_px=arguments.focal_px,
        inverse_per_unit=arguments.inverse_per_unit,
        z_near_m=arguments.z_near_m,
        z_far_m=arguments.z_far_m,
        z_buffer_range=arguments.z_buffer_range,
        z_buffer_per_unit=arguments.z_buffer_per_unit,
        invalid=arguments.invalid if arguments.invalid is not None else invalid,
        bits=arguments.bits,
        channels=arguments.depth_channels,
        key=arguments.depth_key,
        allow_8_bit=arguments.allow_8_bit,
        min_depth_m=0.0,
        max_depth_m=None,
    )
    try:
        numbers.require_options(has_intrinsics=arguments.intrinsics is not None)
    except RecipeError as error:
        key = f"--{error.key.replace('_', '-')}"
        raise RecipeError(key, error.value, error.expected) from None
    return numbers


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not numbers with commas between them, such as 0,65535") from None

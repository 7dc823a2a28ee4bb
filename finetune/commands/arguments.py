"""MODEL on a command line: the argument, and the options of a file that cannot say what it is."""

from __future__ import annotations

import argparse
import math
import re
import sys
from typing import TYPE_CHECKING, get_args

from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH, VERSIONS
from finetune.utils.kinds import KindOption

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor


def add_model_argument(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Add MODEL, which may be left out where it is ``optional``, ``--kind``, ``--max-depth``, ``--version`` and
    ``--input-size``."""
    parser.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="MODEL",
        help="a run folder (its best/), one of our weights files, an official .pth, a folder that transformers "
        "wrote, or a hub id such as depth-anything/Depth-Anything-V2-Small",
    )
    parser.add_argument(
        "--kind",
        choices=get_args(KindOption),
        default="auto",
        help="of an official .pth without our .json beside it, which cannot say it",
    )
    parser.add_argument(
        "--max-depth",
        type=positive_meters,
        metavar="METERS",
        help="of such a metric .pth: the depth it was trained with",
    )
    parser.add_argument(
        "--version",
        choices=("auto", *VERSIONS),
        default="auto",
        help="of such a .pth: whether it is Depth Anything V1 or V2, whose files look alike; auto is V2",
    )
    parser.add_argument(
        "--input-size",
        type=input_size,
        metavar="HEIGHTxWIDTH",
        help="of such a .pth, or a folder of transformers without its processor: the size it was trained at, such as "
        "252x336; without it 518x518 is assumed",
    )


def load_from(arguments: argparse.Namespace, device: str) -> Predictor:
    """
    Args:
        arguments: parsed, with what ``add_model_argument`` added.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The model, after its notes were printed on standard error.

    Raises:
        FinetuneError: there is no such model or device.
    """
    from finetune.inference.predictor import chosen_device, predictor_of
    from finetune.models.checkpoints.identity import ArgumentNames
    from finetune.models.checkpoints.load import read_checkpoint

    wording = ArgumentNames(
        source="name",
        kind="--kind",
        max_depth_m="--max-depth",
        version="--version",
        no_max_depth="Leave --max-depth out",
        input_size="--input-size",
        no_input_size="Leave --input-size out",
    )
    found = chosen_device(device)
    checkpoint = read_checkpoint(
        arguments.model,
        kind=arguments.kind,
        max_depth_m=arguments.max_depth,
        version=arguments.version,
        input_size=arguments.input_size,
        wording=wording,
    )
    predictor = predictor_of(checkpoint, found, wording)
    for note in predictor.notes:
        print(note, file=sys.stderr)
    return predictor


def claims_of(arguments: argparse.Namespace) -> dict[str, object]:
    """Of what ``add_model_argument`` added, that which was told, as arguments of ``load_model``."""
    told = {
        "kind": arguments.kind,
        "max_depth_m": arguments.max_depth,
        "version": arguments.version,
        "input_size": arguments.input_size,
    }
    return {name: value for name, value in told.items() if value not in (None, "auto")}


def positive_meters(text: str) -> float:
    """What argparse makes of an argument in meters."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of meters")
    return value


def input_size(text: str) -> tuple[int, int]:
    """What argparse makes of a height and a width: ``252x336``."""
    found = re.fullmatch(r"(\d{1,5})[x,](\d{1,5})", text.strip().lower())
    sides = tuple(int(side) for side in found.groups()) if found else ()
    if len(sides) != 2 or not all(0 < side <= MAX_SIDE_PX and side % PATCH == 0 for side in sides):
        raise argparse.ArgumentTypeError(
            f"{text} is not a height and a width such as 252x336, multiples of {PATCH} up to {MAX_SIDE_PX}"
        )
    return sides[0], sides[1]

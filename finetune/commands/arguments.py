"""Arguments that several commands share: MODEL and its options, the recipe, the device, and numbers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from finetune.commands.runner import LOGGER, CommandParser
from finetune.models.encoder_specs import MAX_SIDE_PX, PATCH, VERSIONS
from finetune.utils.kinds import KindOption
from finetune.utils.number_arguments import height_and_width, number, numbers, whole_number
from finetune.utils.paths import expand_path

if TYPE_CHECKING:
    from finetune.data.camera import CameraOptions
    from finetune.inference.predictor import Predictor


def add_model_argument(parser: argparse.ArgumentParser, *, optional: bool = False, metavar: str = "MODEL") -> None:
    """
    Add MODEL, and for files that do not describe themselves ``--kind``, ``--max-depth``, ``--version`` and
    ``--input-size``.

    Args:
        parser: of the command.
        optional: MODEL may be left out.
        metavar: what it is called in the help.
    """
    parser.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar=metavar,
        help="a run folder (its best weights), a .safetensors file of this toolkit, an official .pth, a folder written "
        "by transformers, or a hub id such as depth-anything/Depth-Anything-V2-Small",
    )
    parser.add_argument(
        "--kind",
        choices=get_args(KindOption),
        default="auto",
        help="what an official .pth without a .json next to it predicts: inverse depth or meters",
    )
    parser.add_argument(
        "--max-depth",
        type=positive_meters,
        metavar="METERS",
        help="the max depth such a metric .pth was trained with",
    )
    parser.add_argument(
        "--version",
        choices=("auto", *VERSIONS),
        default="auto",
        help="whether such a .pth is Depth Anything V1 or V2, whose files look alike; auto: V2",
    )
    parser.add_argument(
        "--input-size",
        type=input_size,
        metavar="HEIGHTxWIDTH",
        help="the size that such a .pth, or a transformers folder without its processor, was trained at, such as "
        "252x336; default: 518x518",
    )


def add_recipe_argument(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and ``key=value``."""
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, such as recipes/room_tiny.yaml")
    add_overrides(parser, example="optim.lr=1e-5")


def add_overrides(parser: argparse.ArgumentParser, *, example: str) -> None:
    """Add ``key=value``, any number of them."""
    help_text = f"change any key of the recipe, such as {example}"
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=help_text)


def add_input_arguments(parser: argparse.ArgumentParser) -> None:
    """Add PATHs, the images and videos of a command, and ``--output``."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=expand_path,
        metavar="PATH",
        help="an image or a video, a folder of them, a pattern in quotes, or a .txt or .csv list with an image a line",
    )
    parser.add_argument("--output", type=expand_path, required=True, metavar="DIR", help="the folder to write into")


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="auto (the default): a GPU of CUDA if there is one; mps, the GPU of a Mac, is untried",
    )


def add_network_arguments(parser: argparse.ArgumentParser, *, batch_size: str, precision: str) -> None:
    """
    Add ``--batch-size``, ``--precision`` and ``--compile``.

    Args:
        parser: of the command.
        batch_size: what ``--batch-size auto`` is, in words.
        precision: the default.
    """
    group = parser.add_argument_group("speed", "how the network is calculated")
    group.add_argument(
        "--batch-size",
        type=_auto_or_count,
        metavar="auto|N",
        help=f"images in the network at once; auto, the default: {batch_size}",
    )
    add_precision_argument(
        group, default=precision, more="; if not fp32, the difference in meters on the first image is printed"
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="compile the network first, which takes a minute; needs a C++ compiler; for many images of one size",
    )


def add_precision_argument(parser: argparse._ActionsContainer, *, default: str, more: str = "") -> None:
    """Add ``--precision``; ``more``: what else its help says."""
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default=default,
        help=f"of products and convolutions; auto: bf16 on a GPU that has it, else fp32{more}; default: {default}",
    )


def configure_network(predictor: Predictor, arguments: argparse.Namespace, *, tf32: bool = False) -> Predictor:
    """
    Args:
        tf32: ``run.tf32`` of the recipe that an evaluation follows; predictions never round.

    Returns:
        The predictor with the precision of ``add_network_arguments``, compiled where that is asked for.

    Raises:
        FinetuneError: the device has no such precision, or nothing can be compiled here.
    """
    from dataclasses import replace

    from finetune.models.arithmetic import choose_precision, describe_arithmetic
    from finetune.training.environment import try_compiler

    precision = choose_precision(arguments.precision, predictor.device)
    if arguments.compile:
        try_compiler(predictor.device, "--compile is given", "leave out --compile")
        predictor.network.compile()
    if predictor.device.type != "cpu":
        LOGGER.info("%s, %s", precision, describe_arithmetic(predictor.device, tf32=tf32))
    return replace(predictor, precision=precision)


def _auto_or_count(text: str) -> int | None:
    return None if text == "auto" else positive_count(text)


def add_camera_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--intrinsics``, ``--intrinsics-size``, ``--hfov`` and ``--camera``."""
    camera = parser.add_argument_group(
        "camera", "of the images, where neither their data nor a list gives it; for points, and for canonical models"
    )
    camera.add_argument(
        "--intrinsics",
        type=numbers(4, "fx,fy,cx,cy in pixels", lambda found: min(found[:2]) > 0),
        metavar="FX,FY,CX,CY",
        help="pixels; a list file may give them for each image in four columns",
    )
    camera.add_argument(
        "--intrinsics-size",
        type=numbers(2, "W,H in pixels", lambda found: min(found) >= 1),
        metavar="W,H",
        help="image size that the intrinsics are for; default: the size of the images",
    )
    camera.add_argument(
        "--hfov",
        type=numbers(1, "degrees above 0 and below 180", lambda found: 0 < found[0] < 180),
        metavar="DEGREES",
        help="horizontal field of view, instead of intrinsics",
    )
    camera.add_argument(
        "--camera",
        choices=("training",),
        help="take every image for one of the camera of the training; for another lens every depth is off by the ratio",
    )


def require_one_camera(parser: CommandParser, arguments: argparse.Namespace) -> None:
    """End with a usage error where the options of ``add_camera_arguments`` contradict each other."""
    if arguments.intrinsics and arguments.hfov:
        parser.error("--intrinsics and --hfov say the same thing: give one of them")
    if arguments.intrinsics_size and arguments.hfov:
        parser.error("--hfov needs no --intrinsics-size: leave out one of them")
    if arguments.camera and not getattr(arguments, "points", False):
        given = [name for name in ("intrinsics", "hfov") if getattr(arguments, name)]
        if given:
            parser.error(f"--camera {arguments.camera} leaves no use for --{given[0]}: give one of them")


def camera_options(arguments: argparse.Namespace) -> CameraOptions:
    """What the options of ``add_camera_arguments`` say about the camera."""
    from finetune.data.camera import CameraOptions

    return CameraOptions(
        intrinsics=arguments.intrinsics,
        size=arguments.intrinsics_size and tuple(map(int, arguments.intrinsics_size)),
        hfov_deg=arguments.hfov and arguments.hfov[0],
    )


def assumes_training_camera(arguments: argparse.Namespace) -> bool:
    """Whether every image is taken for one of the camera of the training."""
    return arguments.camera == "training"


def line_printer(predictor: Predictor, arguments: argparse.Namespace) -> Callable[[str], None]:
    """Prints; where the camera of the training is assumed, every line begins with that."""
    canonical = predictor.canonical
    if canonical is None or not assumes_training_camera(arguments):
        return print
    mark = f"[training camera assumed, {canonical.focal_px:.0f} px at the network's size] "

    def say(text: str) -> None:
        print("\n".join(f"{mark}{line}" if line else line for line in text.splitlines()))

    return say


def load_predictor(arguments: argparse.Namespace, device: str) -> Predictor:
    """
    Args:
        arguments: parsed, with those of ``add_model_argument``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The model. Its notes are logged.

    Raises:
        FinetuneError: there is no such model or device.
    """
    return load_named_predictor(arguments, device)[0]


def load_named_predictor(arguments: argparse.Namespace, device: str) -> tuple[Predictor, str]:
    """``load_predictor``, with the SHA-256 of the weights file."""
    from finetune.inference.predictor import build_predictor, select_device
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
    found = select_device(device)
    checkpoint = read_checkpoint(
        arguments.model,
        kind=arguments.kind,
        max_depth_m=arguments.max_depth,
        version=arguments.version,
        input_size=arguments.input_size,
        wording=wording,
    )
    predictor = build_predictor(checkpoint, found, wording)
    if os.environ.get("RANK", "0") == "0":  # the others have the same notes
        for note in predictor.notes:
            LOGGER.info("%s", note)
    return predictor, checkpoint.sha256


def given_model_options(arguments: argparse.Namespace) -> dict[str, object]:
    """The options of ``add_model_argument`` that the user gave, as arguments of ``load_model``."""
    options = {
        "kind": arguments.kind,
        "max_depth_m": arguments.max_depth,
        "version": arguments.version,
        "input_size": arguments.input_size,
    }
    return {name: value for name, value in options.items() if value not in (None, "auto")}


positive_number = number("a number above 0")
positive_meters = number("a positive number of meters")
positive_count = whole_number("a whole number above 0")
input_size = height_and_width(PATCH, MAX_SIDE_PX)

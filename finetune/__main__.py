"""``finetune NAME ...``: the commands, each a module with ``main(argv)``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import finetune
from finetune.utils.text import did_you_mean, nearest

COMMANDS = {
    "prepare": "turn a recording into a folder of frames that trains",
    "pack": "write the frames of a recipe into a few large files, for slow disks and object stores",
    "train": "fine-tune from a recipe",
    "check": "find what is wrong with a recipe, its data or its checkpoint, before training",
    "compare": "put runs next to each other on one page",
    "evaluate": "score a model on a recipe's data, next to the baselines",
    "score-pairs": "score which of two points is nearer, as DA-2K asks",
    "predict": "turn images and videos into depth in meters",
    "label": "let a teacher label images, with a confidence, to train a student on",
    "calibrate": "fit one scale to a deployed camera, from a few labeled frames",
    "export": "write the weights in another format, and compare them in meters",
}
FIRST_RUN = ("finetune check recipes/room_tiny.yaml", "finetune train recipes/room_tiny.yaml")


def usage() -> str:
    """What ``finetune`` alone prints."""
    lines = [
        "usage: finetune COMMAND ...",
        "",
        *(f"  {name:13}{purpose}" for name, purpose in COMMANDS.items()),
        "",
        "A first run, in a clone of the repository; it takes two minutes without a GPU:",
        *(f"  {line}" for line in FIRST_RUN),
        "",
        "finetune COMMAND --help shows the options and an example; finetune --version.",
    ]
    return "\n".join(lines)


def import_command(name: str) -> ModuleType:
    """The module of a command, which has ``main`` and ``make_parser``."""
    return import_module(f"finetune.commands.{name.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; exit status 2 if there is no such command."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments == ["--version"]:
        print(f"finetune {finetune.__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        perhaps = did_you_mean(nearest(name, [*COMMANDS, "--version", "--help"]))
        expected = f"expected one of {', '.join(COMMANDS)}"
        print(f"finetune stopped: {name!r} is not a command; {expected}.{perhaps}", file=sys.stderr)
        return 2
    status: int = import_command(name).main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())

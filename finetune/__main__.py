"""``finetune NAME ...``: the commands, each a module with ``main(argv)``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import finetune
from finetune.utils.text import did_you_mean, nearest

COMMANDS = {
    "train": "fine-tune from a recipe",
    "check": "what is wrong with recipe, data or checkpoint, before anything is trained",
    "compare": "runs beside each other, on one page",
    "evaluate": "score a model on a recipe's data, beside the baselines",
    "predict": "images to depth in meters",
    "calibrate": "one scale for a deployed camera, from a few labeled frames",
    "export": "write the weights in another format, compared in meters",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; exit status 2 when there is no such one."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    lines = ["usage: finetune COMMAND ...", "", *(f"  {name:10}{does}" for name, does in COMMANDS.items())]
    usage = "\n".join([*lines, "", "finetune COMMAND --help says more of each; finetune --version."])
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
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
    return import_module(f"finetune.commands.{name}").main(rest)


if __name__ == "__main__":
    sys.exit(main())

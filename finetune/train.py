"""``accelerate launch finetune/train.py RECIPE [key=value ...]``: fine-tune from a recipe."""

from __future__ import annotations

import sys
from pathlib import Path

if not __package__:
    # Run as a file, Python puts this folder first, where evaluate.py would hide a library of that name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence

from finetune.console import CommandParser, ended, long_imports, settle_threads


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, read the recipe, train; the exit status is that of ``console.ended``."""
    parser = CommandParser(prog="finetune train", description=__doc__)
    parser.add_argument("recipe", help="YAML file, such as recipes/room_tiny.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="any key of the recipe: optim.lr=1e-5"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    arguments = parser.parse_intermixed_args(argv)
    return ended(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> None:
    from finetune.recipe import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    settle_threads()
    # Only now what takes seconds to import: a wrong recipe has been answered.
    with long_imports():
        from finetune.training import run_training

    run_training(recipe, resume=arguments.resume, overwrite=arguments.overwrite)


if __name__ == "__main__":
    sys.exit(main())

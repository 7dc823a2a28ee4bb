"""``accelerate launch finetune/train.py RECIPE [key=value ...]``: fine-tune from a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, read the recipe, train; the exit status is that of ``runner.run_command``."""
    parser = CommandParser(prog="finetune train", description=__doc__)
    parser.add_argument("recipe", help="YAML file, such as recipes/room_tiny.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="any key of the recipe: optim.lr=1e-5"
    )
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    arguments = parser.parse_intermixed_args(argv)
    return run_command(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> None:
    from finetune.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    configure_threading()
    # Only now what takes seconds to import: a wrong recipe has been answered.
    with import_without_gc():
        from finetune.training.run import run_training

    run_training(recipe, resume=arguments.resume, overwrite=arguments.overwrite)

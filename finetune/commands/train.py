"""``accelerate launch finetune/train.py RECIPE [key=value ...]``: fine-tune from a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from finetune.commands.arguments import add_recipe_argument
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command


def make_parser() -> CommandParser:
    """The arguments of ``finetune train``."""
    parser = CommandParser(
        prog="finetune train",
        description="Fine-tune from a recipe, in one process. In as many as accelerate is configured for: accelerate "
        "launch finetune/train.py, with the same arguments.",
        example="finetune train recipes/room_tiny.yaml optim.lr=2e-4",
    )
    add_recipe_argument(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="also print versions, digests and counts")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with the run in the run folder")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in the run folder")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call, read the recipe and train; for the exit status see ``runner.run_command``."""
    arguments = make_parser().parse_intermixed_args(argv)
    return run_command(lambda: _train(arguments))


def _train(arguments: argparse.Namespace) -> None:
    from finetune.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    configure_threading()
    # Only now the imports that take seconds: a wrong recipe has been refused.
    with import_without_gc():
        from finetune.training.run_training import run_training

    run_training(recipe, resume=arguments.resume, overwrite=arguments.overwrite, verbose=arguments.verbose)

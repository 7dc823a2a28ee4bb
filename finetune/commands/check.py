"""``finetune check RECIPE [key=value ...]``: what is wrong with recipe, data and checkpoint, and what to write."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from finetune.commands.arguments import add_recipe_argument, positive_count
from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command, write_and_say
from finetune.utils.paths import expand_path


def make_parser() -> CommandParser:
    """The arguments of ``finetune check``."""
    parser = CommandParser(
        prog="finetune check",
        description="Look at recipe, data and checkpoint before anything is trained: what is wrong, the evidence, "
        "and the line to write. It writes only the files that --json and --html name.",
        example="finetune check recipes/room_tiny.yaml --html check.html",
    )
    add_recipe_argument(parser)
    parser.add_argument(
        "--samples",
        type=positive_count,
        default=200,
        metavar="N",
        help="look at this many samples of each entry at most; default: 200",
    )
    parser.add_argument("--no-step", action="store_true", help="do not take real steps to see what one costs")
    parser.add_argument("--json", type=expand_path, metavar="FILE", help="also write the findings as JSON")
    parser.add_argument("--html", type=expand_path, metavar="FILE", help="also write them as a page with pictures")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and check; exit status 1 if a run would be wasted, else see ``runner.run_command``."""
    arguments = make_parser().parse_intermixed_args(argv)
    return run_command(
        lambda: _check(arguments),
        "Nothing was written; call again.",
        of_memory="Call with run.batch_size=1, or close what else holds memory.",
    )


def _check(arguments: argparse.Namespace) -> int:
    from finetune.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    configure_threading()
    # Only now the imports that take seconds: a wrong recipe has been refused.
    with import_without_gc():
        from finetune.reporting.check_report import format_check, format_check_json, render_check_page
        from finetune.training.recipe_check import check_recipe

    checked = check_recipe(recipe, arguments.recipe, samples=arguments.samples, step=not arguments.no_step)
    print(format_check(checked))
    for path, content in ((arguments.json, format_check_json), (arguments.html, render_check_page)):
        if path:
            write_and_say(path, content(checked))
    return 1 if checked.stops else 0

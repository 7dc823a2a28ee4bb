"""``finetune check RECIPE [key=value ...]``: what is wrong with recipe, data and checkpoint, and what to write."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from finetune.commands.runner import CommandParser, configure_threading, import_without_gc, run_command, write_and_say
from finetune.utils.paths import expand_path


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, look; exit status 1 where a run would be wasted, else that of ``runner.run_command``."""
    parser = CommandParser(
        prog="finetune check",
        description="Look at recipe, data and checkpoint before anything is trained: what is wrong, how one can tell, "
        "and the line to write. Nothing is written but the files asked for.",
    )
    parser.add_argument("recipe", help="YAML file, such as recipes/room_tiny.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="any key of the recipe: data.train.0.root=/mnt"
    )
    parser.add_argument(
        "--samples", type=_count, default=200, metavar="N", help="of each entry, at most; 200 unless told"
    )
    parser.add_argument("--no-step", action="store_true", help="do not take real steps to see what one costs")
    parser.add_argument("--json", type=expand_path, metavar="FILE", help="also write the findings as JSON")
    parser.add_argument(
        "--html", type=expand_path, metavar="FILE", help="also write one page to look at, with pictures"
    )
    arguments = parser.parse_intermixed_args(argv)
    return run_command(
        lambda: _check(arguments),
        "Nothing was written; call again.",
        of_memory="Call with run.batch_size=1, or close what else holds memory.",
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("a whole number, 1 or more")
    return count


def _check(arguments: argparse.Namespace) -> int:
    from finetune.recipe.load import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides)
    configure_threading()
    # Only now what takes seconds to import: a wrong recipe has been answered.
    with import_without_gc():
        from finetune.reporting.check_report import as_json, as_page, as_text
        from finetune.training.recipe_check import check_recipe

    checked = check_recipe(recipe, arguments.recipe, samples=arguments.samples, step=not arguments.no_step)
    print(as_text(checked))
    for path, content in ((arguments.json, as_json), (arguments.html, as_page)):
        if path:
            write_and_say(path, content(checked))
    return 1 if checked.stops else 0

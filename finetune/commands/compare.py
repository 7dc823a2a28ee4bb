"""``finetune compare RUN RUN...``: put runs next to each other, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from finetune.commands.runner import CommandParser, run_command, write_and_say
from finetune.utils.paths import expand_path


def make_parser() -> CommandParser:
    """The arguments of ``finetune compare``."""
    parser = CommandParser(
        prog="finetune compare",
        description="Put finished runs on one page: their tables and protocols, their curves in one chart, and what "
        "differs in their recipes.",
        example="finetune compare runs/room_tiny runs/room_tiny_lora --html compare.html",
    )
    parser.add_argument("first", type=expand_path, metavar="RUN", help="a run folder")
    parser.add_argument("others", type=expand_path, nargs="+", metavar="RUN", help="another run folder")
    parser.add_argument(
        "--html",
        type=expand_path,
        metavar="FILE",
        default=Path("compare.html"),
        help="the page; default: compare.html",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the call and compare; for the exit status see ``runner.run_command``."""
    arguments = make_parser().parse_args(argv)
    return run_command(lambda: _compare(arguments), "Nothing was written; call again.")


def _compare(arguments: argparse.Namespace) -> None:
    from finetune.reporting.compare_report import format_comparison, read_runs, render_comparison

    runs = read_runs([arguments.first, *arguments.others])
    print(format_comparison(runs))
    write_and_say(arguments.html, render_comparison(runs))

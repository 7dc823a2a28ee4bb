"""``finetune compare RUN RUN...``: runs beside each other, on one page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from finetune.commands.runner import CommandParser, run_command, write_and_say
from finetune.utils.paths import expand_path


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the call, compare; the exit status is that of ``runner.run_command``."""
    parser = CommandParser(
        prog="finetune compare",
        description="Put runs that have ended on one page: tables with their protocols, curves over each other, and "
        "what differs in their recipes.",
    )
    parser.add_argument("first", type=expand_path, metavar="RUN", help="a run folder")
    parser.add_argument("others", type=expand_path, nargs="+", metavar="RUN", help="another one")
    parser.add_argument(
        "--html",
        type=expand_path,
        metavar="FILE",
        default=Path("compare.html"),
        help="the page; compare.html unless told",
    )
    arguments = parser.parse_args(argv)
    return run_command(lambda: _compare(arguments), "Nothing was written; call again.")


def _compare(arguments: argparse.Namespace) -> None:
    from finetune.reporting.compare_report import as_text, compare_page, read_runs

    runs = read_runs([arguments.first, *arguments.others])
    print(as_text(runs))
    write_and_say(arguments.html, compare_page(runs))

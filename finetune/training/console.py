"""Console output of a run: plain lines of the logger ``finetune``, above the bar if there is one.

Results, such as the table, are printed and no part of the log.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

LOGGER = logging.getLogger("finetune")


class _LinesAboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Standard output as it is now: a command may have put another stream there since the handler was made.
        tqdm.write(self.format(record), file=sys.stdout)


@contextmanager
def console_log(*, verbose: bool = False) -> Iterator[None]:
    """
    Show the log on standard output while a run lasts.

    A program that has given the logger ``finetune`` a handler or a level of its own keeps both.

    Args:
        verbose: also the details, which are logged at level DEBUG.
    """
    handler = _LinesAboveTheBar()
    rank = int(os.environ.get("RANK") or 0)
    handler.setFormatter(logging.Formatter(f"[process {rank}] %(message)s" if rank > 0 else "%(message)s"))
    handlers = [] if LOGGER.handlers else [handler]
    before = LOGGER.level
    for added in handlers:
        LOGGER.addHandler(added)
    if before == logging.NOTSET:
        LOGGER.setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        LOGGER.setLevel(before)
        for added in handlers:
            LOGGER.removeHandler(added)


def say(sentence: str) -> None:
    """Log a line that every run shows."""
    LOGGER.info("%s", sentence)


def warn(sentence: str) -> None:
    """Log a line about what may be wrong."""
    LOGGER.warning("%s", sentence)


def detail(sentence: str) -> None:
    """Log a line that only a run with ``--verbose`` shows."""
    LOGGER.debug("%s", sentence)

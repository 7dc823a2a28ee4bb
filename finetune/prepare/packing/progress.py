"""How far the packing is, and how long it will take."""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

LOGGER = logging.getLogger("finetune.commands")
_SECONDS_BETWEEN_LINES = 60.0


class PackProgress:
    """A bar with the time that is left; where standard error is no terminal, as in a job's log, a line a minute."""

    def __init__(self, total: int) -> None:
        """``total``: frames of all entries."""
        self._bar = tqdm(total=total, unit="frame", dynamic_ncols=True, disable=None)
        self._total = total
        self._done = self._packed = 0
        self._begun = self._said = time.monotonic()

    def skip(self, count: int) -> None:
        """Count frames that an earlier call packed; they say nothing about the speed of this one."""
        self._done += count
        if not self._bar.disable:
            self._bar.initial += count
            self._bar.update(count)

    def advance(self) -> None:
        """Count a frame that was packed."""
        self._done += 1
        self._packed += 1
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            left_s = (self._total - self._done) * (now - self._begun) / self._packed
            LOGGER.info("%d of %d frames, %s left", self._done, self._total, describe_seconds(left_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def describe_seconds(seconds: float) -> str:
    """A time in words: ``3 min``, ``2 h 5 min``."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

"""SIGINT and SIGTERM: the first one ends a run as soon as its resume point is saved, a later one at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A scheduler tells the launcher and the process, and the launcher tells the process again: one wish, told twice.
SAME_WISH_SECONDS = 5.0


class StopAsked(Exception):
    """All processes have seen a signal, and what they were doing is left undone: nothing of it is kept."""


class Interrupts:
    """While it is entered, signals are noted instead of ending the process, once ``patient`` is set.

    Before that, and in a thread that may not handle signals, they end it as everywhere: there is nothing to save yet.

    Attributes:
        patient: somebody looks at ``number`` between micro-batches and between the images of an evaluation.
        number: of the first signal since then; 0 before.
    """

    def __init__(self) -> None:
        self.patient = False
        self.number = 0
        self._since = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # A process that was started to ignore Ctrl-C, as by nohup, goes on doing so.
            wanted = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
            self._before = {one: signal.signal(one, self._handle) for one in wanted}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def obey(self) -> None:
        """
        From here on nobody looks any more.

        Raises:
            Interrupted: a signal came that nobody has looked at.
        """
        self.patient = False
        if self.number:
            raise Interrupted(self.number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self.patient:
            raise Interrupted(number)
        now = time.monotonic()
        if self.number and now - self._since < SAME_WISH_SECONDS:
            return
        if self.number:
            # At once: not even what stands in buffers is waited for. The resume points on disk are whole at any moment.
            os._exit(128 + number)
        self.number, self._since = number, now
        told = f"\nsaving a resume point and ending; a signal after {SAME_WISH_SECONDS:g} s from now stops at once\n"
        # Written past Python's buffers, which the interrupted code may be in the middle of filling.
        with suppress(OSError):
            os.write(2, told.encode())


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; ``saved`` is what the run can go on from, as a sentence."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.saved = saved

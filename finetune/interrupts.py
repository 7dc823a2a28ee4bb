"""SIGINT and SIGTERM: the first one ends a run after its step and its resume point, a second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from finetune.console import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While it is entered, signals are noted instead of ending the process, once ``patient`` is set.

    Before that, and in a thread that may not handle signals, they end it as everywhere: there is nothing to save yet.

    Attributes:
        patient: somebody looks at ``number`` after each step.
        number: of the first signal since then; 0 before.
    """

    def __init__(self) -> None:
        self.patient = False
        self.number = 0
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
        if self.number:
            # At once: not even what stands in buffers is waited for. The resume points on disk are whole at any moment.
            os._exit(128 + number)
        self.number = number
        # Written past Python's buffers, which the interrupted code may be in the middle of filling.
        os.write(2, b"\nfinishing the step and saving; a second signal stops at once\n")

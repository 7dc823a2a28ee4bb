"""SIGINT and SIGTERM: the first ends a run as soon as its resume point is saved, a later one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# A scheduler sends a signal to the launcher and to the process, and the launcher sends it to the process again: two
# signals, one request.
SAME_WISH_SECONDS = 5.0

_Handler = Callable[[int, FrameType | None], object] | int | None


class StopAsked(Exception):
    """All processes have seen a signal: they drop what they were doing, and keep nothing of it."""


class Interrupts:
    """A context in which signals are noted instead of ending the process, once ``patient`` is set.

    Before that, when there is nothing to save, and in a thread that may not handle signals, they end it as usual.

    Attributes:
        patient: the caller looks at ``number`` between micro-batches and between the images of an evaluation.
        number: the first signal since ``patient`` was set; 0 if none came.
    """

    def __init__(self) -> None:
        self.patient = False
        self.number = 0
        self._since = 0.0
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            # A process that was started to ignore Ctrl-C, for example by nohup, still ignores it.
            handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self) -> None:
        """
        End the process on signals again, as nobody looks at ``number`` from here on.

        Raises:
            Interrupted: a signal came that the caller has not looked at.
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
            # End at once, without writing what is in buffers. The resume points on disk are complete at any moment.
            os._exit(128 + number)
        self.number, self._since = number, now
        message = f"\nsaving a resume point and ending; a signal after {SAME_WISH_SECONDS:g} s from now stops at once\n"
        # Written without Python's buffers, which the interrupted code may be filling at this moment.
        with suppress(OSError):
            os.write(2, message.encode())


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end; ``saved`` is a sentence about what the run can go on from."""

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.saved = saved


def ignore_dead_workers() -> None:
    """Stop listening for the deaths of workers: PyTorch raises for each, wherever the main thread is, also at exit."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def end_workers() -> None:
    """End the processes that read or write data for this one, so that none of them writes after its last sentence."""
    import multiprocessing

    children = multiprocessing.active_children()
    for child in children:
        child.kill()
    for child in children:
        child.join(1.0)

"""Signals that ended the run in any process of a launch: how every process learns of them."""

from __future__ import annotations

import signal

import torch
from accelerate import Accelerator
from torch.distributed import ProcessGroup

from finetune.utils.signals import Interrupts, StopAsked


class StopSignals:
    """
    Attributes:
        interrupts: the signals that came in this process.
        number: of the signal that ends the run, whichever process it came in; 0: none.
    """

    def __init__(self, accelerator: Accelerator, interrupts: Interrupts, *, accumulate: int) -> None:
        """
        Args:
            accelerator: all its processes must make one of these.
            interrupts: entered by the caller.
            accumulate: micro-batches of a step. With one, other processes' signals are checked at the end of the step.
        """
        self.interrupts = interrupts
        self.number = 0
        self._several = accelerator.num_processes > 1
        self._talks = self._several and accumulate > 1
        self._group: ProcessGroup | None = None
        if self._talks:
            # On the host, so that nothing waits for a device.
            group = torch.distributed.new_group(backend="gloo")
            assert not isinstance(group, int), "every process is a member"
            self._group = group

    def require_none(self) -> None:
        """
        Between two micro-batches.

        Raises:
            StopAsked: a signal came, in any process; raised in all of them.
        """
        number = self.interrupts.number
        if self._several:
            if not self._talks:
                return
            largest = torch.tensor(number)
            torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=self._group)
            number = int(largest)
        if number:
            self.number = number
            raise StopAsked

    def note_share(self, interrupted_share: float) -> None:
        """Take note, after a step, of the share of the processes that a signal came in."""
        if interrupted_share > 0:
            self.number = self.interrupts.number or signal.SIGTERM

"""Training samples that cannot be read, where ``data.on_bad_sample`` is ``skip``: counted, named, and limited."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from finetune.data.reader import FEW_BAD_PERCENT, FEW_BAD_SAMPLES, BadSamples, too_many_bad
from finetune.training.console import warn
from finetune.utils.errors import ResultError


class BadSampleWatch:
    """
    Attributes:
        seen: those of all steps and processes, the same in each process; part of every resume point.
        samples_of_a_step: of all processes.
    """

    def __init__(self, accelerator: Accelerator, *, skips: bool, samples_of_a_step: int) -> None:
        self.seen = BadSamples()
        self.samples_of_a_step = samples_of_a_step
        self._accelerator = accelerator
        self._skips = skips

    def require_few(self, step: int, skipped: Sequence[tuple[int, str]]) -> None:
        """Count and name the samples of a step that could not be read; every process must call.

        Args:
            step: steps taken before this one.
            skipped: those of this process, as in ``Batch``.

        Raises:
            ResultError: they have become too many; the weights are as before the step.
        """
        if not self._skips:
            return
        if self._accelerator.num_processes > 1:
            count = torch.tensor(len(skipped), device=self._accelerator.device)
            # Gathering objects takes several collectives, and hardly any step has one to gather.
            skipped = gather_object(list(skipped)) if self._accelerator.reduce(count, "sum").item() else []
        new = self.seen.add(skipped)
        if self._accelerator.is_main_process:
            for cause in new:
                warn(f"step {step}: skipped a sample that cannot be read: {cause}")
        asked = (step + 1) * self.samples_of_a_step
        if skipped and too_many_bad(self.seen.count, asked):
            raise ResultError(
                f"step {step}: {self.seen.summary(asked)}. That is more than {FEW_BAD_SAMPLES}, and more than "
                f"{FEW_BAD_PERCENT} %, which data.on_bad_sample: skip passes over. Repair them, or take them out of "
                "data.train."
            )

"""What the steps of a run cost, measured before the first: forward and backward on its batches, without an update."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import NamedTuple

import torch
from accelerate.utils import gather_object

from finetune.data.dataloader import Batch
from finetune.training.step_cost import peak_memory_bytes
from finetune.training.trainer import Trainer
from finetune.utils.errors import FinetuneError

# A rehearsal takes at most one step for so many of the run; a run of fewer than two times as many has none.
STEPS_FOR_ONE = 20
_ENOUGH_SECONDS = 3.0  # of timed steps


class Cost(NamedTuple):
    """What the steps of a run take.

    Attributes:
        seconds_a_step: the mean.
        peak_bytes: the most memory that this process needs for a step.
    """

    seconds_a_step: float
    peak_bytes: int


def rehearse(trainer: Trainer, batches: Generator[Batch, None, None]) -> Cost | None:
    """
    Time steps that change nothing: the weights and the random state stay, and the gradients are dropped.

    No copy of the network is made, so that the rehearsal needs no memory that the run does not need too.

    Args:
        trainer: as it starts; every process must call.
        batches: those of the run, from a loader that nobody else reads; it is closed.

    Returns:
        None for a run of few steps. Also where a sample cannot be read: the run comes to it at its own step.
    """
    steps = (trainer.total_steps - trainer.step) // STEPS_FOR_ONE
    device = trainer.accelerator.device
    of_run = trainer.batches
    seconds: list[float] = []
    try:
        with closing(batches), torch.random.fork_rng([device] if device.type == "cuda" else []):
            while len(seconds) < steps and _goes_on(sum(seconds[1:]) < _ENOUGH_SECONDS):
                began = time.perf_counter()
                of_step = _take_batches(batches, trainer.recipe.run.accumulate)
                if not _goes_on(bool(of_step)):
                    return None
                trainer.batches = iter(of_step)
                trainer.accumulate_gradients()
                trainer.drop_unfinished_step()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds.append(time.perf_counter() - began)
    finally:
        trainer.batches = of_run
    # The first step starts the workers and chooses kernels.
    timed = seconds[1:]
    if not timed:
        return None
    return Cost(sum(timed) / len(timed), peak_memory_bytes(device) + _bytes_of_missing_state(trainer))


def _take_batches(batches: Iterator[Batch], count: int) -> list[Batch]:
    """The micro-batches of a step; none where one cannot be read."""
    try:
        return [next(batches) for _ in range(count)]
    except FinetuneError:
        return []


def _goes_on(here: bool) -> bool:
    """Whether all processes go on: in backward each waits for the others."""
    return all(gather_object([here]))


def _bytes_of_missing_state(trainer: Trainer) -> int:
    """What the optimizer adds at its first step: AdamW keeps two means of each trained value."""
    if trainer.optimizer.state:
        return 0
    trained = (parameter for group in trainer.optimizer.param_groups for parameter in group["params"])
    return sum(2 * parameter.numel() * parameter.element_size() for parameter in trained)

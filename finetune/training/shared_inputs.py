"""Processes of one launch that share the inputs of a command, and tell each other only what became of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from finetune.training.launchers import processes_asked_for, usable_cores
from finetune.utils.errors import ProcessError

# One process may have much more to do than another, and all wait for the last.
_PATIENCE = timedelta(days=30)
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class SharingProcess:
    """This process among those of the launch.

    Attributes:
        rank, count: which it is of how many, on all machines.
        local_rank, local_count: on this machine.
        again: what to do if another process ended early; ends a sentence.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    again: str = "call again with --skip-existing"

    @property
    def cores(self) -> int:
        """How many cores it may keep busy."""
        if self.count > 1:
            # The launcher sets OMP_NUM_THREADS=1, which would leave all cores but one idle.
            return max(1, usable_cores() // self.local_count)
        return max(1, min(usable_cores(), torch.get_num_threads()))

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """The part of this process: every ``count``-th, so that all get as many, and early and late ones."""
        return items[self.rank :: self.count]

    def device(self, name: str) -> str:
        """The GPU of this process where there is one for each; else the device of that name."""
        if self.local_count > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local_rank}"
        return name

    def gather(self, value: _T) -> list[_T]:
        """
        Wait for the other processes.

        Returns:
            The values of all, by rank, in the first process; nothing in the others.

        Raises:
            ProcessError: another process ended before.
        """
        if self.count == 1:
            return [value]
        found: list[_T | None] | None = [None] * self.count if self.rank == 0 else None
        try:
            distributed.gather_object(value, found)
            distributed.barrier()
        except RuntimeError as error:
            raise ProcessError(
                "Another process of this launch ended early. What is done stays; look for its sentence above, and "
                f"{self.again}."
            ) from error
        return [one for one in found or [] if one is not None]


@contextmanager
def join_launch(again: str = SharingProcess.again) -> Iterator[SharingProcess]:
    """
    Find the other processes of this launch, if there are any.

    Args:
        again: as for ``SharingProcess``.

    Raises:
        FinetuneError: what the launcher says makes no sense.
    """
    count = processes_asked_for()
    if count == 1:
        yield SharingProcess(again=again)
        return
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    own = SharingProcess(
        rank=int(os.environ["RANK"]),
        count=count,
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_count=local_count,
        again=again,
    )
    # Over the network of the machines, not over GPUs: what is exchanged is a few sentences.
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield own
    finally:
        distributed.destroy_process_group()

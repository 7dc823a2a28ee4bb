"""How many processes read ahead, how far, into what memory, and whether steps wait for them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import torch

from finetune.recipe.schema import DataOptions
from finetune.training.launchers import usable_cores
from finetune.utils.text import count_noun, percent

# A step that waits less than this share of its time is not limited by its data.
_MIN_WAIT = 0.15
# A GPU needs many; on a CPU the network needs the cores itself.
_MAX_WORKERS = {"cpu": 2, "gpu": 16}
# How many batches a worker reads ahead: on a GPU steps are short, and one slow file must not stop it.
_PREFETCH = {"cpu": 2, "gpu": 4}


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How one process of a run gets its samples.

    Attributes:
        workers: processes that read ahead; 0: it reads by itself, between steps.
        prefetch: batches that each of them reads ahead.
        pin_memory: whether batches are put where a GPU copies from while the process goes on.
        cores: of this machine, that this process may use for itself and its workers.
        device: that trains.
    """

    workers: int
    prefetch: int
    pin_memory: bool
    cores: int
    device: torch.device

    def describe(self) -> str:
        """A sentence to print, without a full stop."""
        own = "the network" if self.device.type == "cpu" else f"the {_name(self.device)}"
        cores = count_noun(self.cores, "core")
        if not self.workers:
            return f"read between the steps (data.workers 0; {cores} for it and {own})"
        pinned = ", pinned memory" if self.pin_memory else ""
        ahead = "1 batch" if self.prefetch == 1 else f"{self.prefetch} batches"
        turns = ", so they take turns" if self.workers > self.cores else ""
        workers = count_noun(self.workers, "worker")
        return f"read by {workers}, {ahead} ahead each{pinned} ({cores} for them and {own}{turns})"

    def describe_wait(self, waited_s: float, step_s: float) -> str | None:
        """
        Args:
            waited_s: of a step, until its batches were there; a mean over steps after the first ones.
            step_s: of a whole step.

        Returns:
            What waits how long, and what to change, without a full stop; None where a step waits for something else.
        """
        if not waited_s >= _MIN_WAIT * step_s:
            return None
        waits = f"the {_name(self.device)} waits {percent(waited_s / step_s)} of a step for data"
        # So many workers deliver as fast as the rest of a step takes.
        needed = math.ceil(max(1, self.workers) * step_s / max(step_s - waited_s, 1e-3 * step_s))
        within = min(needed, max(1, self.cores - (self.device.type != "cpu")))
        if within > self.workers:
            enough = "" if within == needed else f"; {needed} would be enough, so finetune pack may help too"
            return f"{waits}: data.workers {self.workers} to {within}{enough}"
        return f"{waits}, and its {count_noun(self.cores, 'core')} are busy: finetune pack, or smaller image files"


def choose_loading(data: DataOptions, device: torch.device) -> Loading:
    """How a process whose network is on ``device`` gets its samples: as the recipe says, or by cores and device."""
    kind = "cpu" if device.type == "cpu" else "gpu"
    cores = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or "1"))
    most = max(1, min(_MAX_WORKERS[kind], cores - (kind == "gpu")))
    return Loading(
        workers=most if data.workers == "auto" else data.workers,
        prefetch=_PREFETCH[kind] if data.prefetch == "auto" else data.prefetch,
        pin_memory=device.type == "cuda" if data.pin_memory == "auto" else data.pin_memory,
        cores=cores,
        device=device,
    )


def _name(device: torch.device) -> str:
    return "CPU" if device.type == "cpu" else "GPU"


class WaitWatch:
    """Says once in a run that its steps wait for data, from times that were measured."""

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self._waited_s = self._steps_s = 0.0
        self._logged = 0
        self._said = False

    def add_step(self, waited_s: float, step_s: float) -> None:
        """Count a step: how long it waited for its batches, and how long it took."""
        self._waited_s += waited_s
        self._steps_s += step_s

    def note_logged_step(self) -> str | None:
        """A sentence about the steps since the last logged one, if it is the first of its kind."""
        waited_s, steps_s = self._waited_s, self._steps_s
        self._waited_s = self._steps_s = 0.0
        self._logged += 1
        # The first steps wait for the workers to start.
        if self._said or self._logged == 1:
            return None
        sentence = self.loading.describe_wait(waited_s, steps_s)
        self._said = sentence is not None
        return sentence

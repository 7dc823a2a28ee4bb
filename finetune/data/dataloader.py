"""Loaders: batches of samples, errors of workers raised where they are waited for."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import TrainingItem, TrainingSamples
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.resource_errors import worker_died


class Batch(NamedTuple):
    """What one process trains on in one micro-batch.

    Attributes:
        image: (B, 3, H, W) uint8, channels last in memory; normalized on the device.
        depth_m: (B, 1, H, W) float32, meters; infinity is farther than any measurement.
        valid: (B, 1, H, W) bool.
        usable_images: how many of the images have a valid pixel.
        usable_pixels: how many of the pixels are valid.
        sources: (B) names of the samples, for errors.
        skipped: the number k of a sample and what was wrong with it, for each frame that could not be read and for
            which another stands in.
    """

    image: Tensor
    depth_m: Tensor
    valid: Tensor
    usable_images: int
    usable_pixels: int
    sources: list[str]
    skipped: Sequence[tuple[int, str]] = ()

    @property
    def usable(self) -> dict[str, int]:
        """The counts, by what a loss can be a mean over."""
        return {"image": self.usable_images, "pixel": self.usable_pixels}

    @property
    def asked(self) -> dict[str, int]:
        """The same counts, if everything had been measured."""
        return {"image": len(self.sources), "pixel": self.valid.numel()}


class ErrorCapturingDataset(Dataset[Any]):
    """A data set whose faults are handed over as values: raised in a worker they would come out as its traceback."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __getitem__(self, key: int) -> Any:
        try:
            return self._samples[key]
        except FinetuneError as fault:
            return fault

    def __getitems__(self, keys: Sequence[int]) -> list[Any]:
        try:
            return self._samples.__getitems__(keys)
        except FinetuneError as fault:
            return [fault]


def raise_worker_errors(loader: DataLoader[Any]) -> Iterator[Any]:
    """
    What a loader of ``ErrorCapturingDataset`` samples gives; the first fault among it is raised here.

    Raises:
        ProcessError: a worker died while it handed something over.
    """
    items = iter(loader)
    while True:
        try:
            item = next(items, None)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            # PyTorch asks whether its workers live when their pipe breaks, but one that was killed can be on its way
            # out and still count as alive. What a reader raised comes with the worker's name, or where there is none.
            if not loader.num_workers or "in DataLoader worker process" in str(error):
                raise
            raise worker_died(str(error) or type(error).__name__) from error
        if item is None:
            return
        if isinstance(item, FinetuneError):
            raise item
        yield item


def collate(drawn: Sequence[TrainingItem]) -> Batch:
    """Samples of one size to a batch."""
    samples = [one.sample for one in drawn]
    valid = torch.from_numpy(np.stack([sample.valid for sample in samples])).unsqueeze(1)
    return Batch(
        # Stacked as (B, H, W, 3) and only seen as (B, 3, H, W): that is channels last, for which convolutions are fast.
        image=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
        depth_m=torch.from_numpy(np.stack([sample.depth_m for sample in samples])).unsqueeze(1),
        valid=valid,
        usable_images=int(valid.flatten(1).any(1).sum()),
        usable_pixels=int(valid.sum()),
        sources=[sample.source for sample in samples],
        skipped=[one for of_sample in drawn for one in of_sample.skipped],
    )


def training_batches(
    samples: TrainingSamples, batches: DistributedBatchSampler, *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """
    The endless batches of one process. Their loader has a generator of its own, or a resume would shift the global one.

    Raises:
        FinetuneError: a sample cannot be read; when its batch is asked for.
    """
    loader = DataLoader(
        ErrorCapturingDataset(samples),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate_or_fault,
        pin_memory=pin_memory,
        worker_init_fn=init_worker,
        generator=torch.Generator(),
    )
    return raise_worker_errors(loader)


def _collate_or_fault(samples: Sequence[Any]) -> Batch | FinetuneError:
    fault = next((sample for sample in samples if isinstance(sample, FinetuneError)), None)
    return collate(samples) if fault is None else fault


def init_worker(_: int) -> None:
    """What a loader worker does first."""
    import cv2

    if hasattr(os, "setpgid"):
        # Out of the process group: Ctrl-C and a signal to the group are for the process that decides what to do.
        os.setpgid(0, 0)
    _obey_only_parent_sigterm()
    # Workers are the parallelism; threads inside each only fight over the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Python prints why something could not be handed over, drops it and goes on: it would be waited for without end.
    Queue._on_queue_feeder_error = staticmethod(_exit_worker)  # type: ignore[attr-defined]


def _obey_only_parent_sigterm() -> None:
    """Heed a SIGTERM of the process that started this one, and no other: a scheduler sends one to every process."""
    if not hasattr(signal, "sigwaitinfo"):  # only Linux says who sent it
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _exit_worker(error: BaseException, _: object) -> None:
    print(f"A process that reads data could not hand it over: {first_line(error)}", file=sys.stderr, flush=True)
    os._exit(1)

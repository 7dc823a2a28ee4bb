"""Loaders: batches of samples, and errors of workers raised where the batch is asked for."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.queues import Queue
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import TrainingItem, TrainingSamples
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.memory import keep_freed_memory
from finetune.utils.resource_errors import worker_died

_BYTES_OF_PIXEL = 8  # float32 depth, bool, three of color
_BYTES_OF_WEIGHT = 4  # float32
PARENT_LOOK_S = 5.0  # how often a worker looks whether its parent is there; PyTorch's own watch does it as often


class Batch(NamedTuple):
    """What one process trains on in one micro-batch.

    Attributes:
        image: (B, 3, H, W) uint8, channels last in memory; normalized on the device.
        depth_m: (B, 1, H, W) float32, meters; infinity is farther than any measurement.
        valid: (B, 1, H, W) bool.
        usable_images: how many of the images have a valid pixel.
        usable_pixels: how many of the pixels are valid.
        sources: (B) names of the samples, for errors.
        skipped: (k, cause) for each frame of sample k that could not be read and was replaced by another.
        weight: (B, 1, H, W) float32, how much a valid pixel counts in a loss, 1 in samples without weights; None where
            no sample has any.
        entries: (B) the number in ``data.train`` of the entry that each sample is from.
        valid_pixels: (B) how many pixels of each sample are valid.
        pasted: (B) top, left, height and width of the box that shows a part of another frame, or None.
    """

    image: Tensor
    depth_m: Tensor
    valid: Tensor
    usable_images: int
    usable_pixels: int
    sources: list[str]
    skipped: Sequence[tuple[int, str]] = ()
    weight: Tensor | None = None
    entries: Sequence[int] = ()
    valid_pixels: Sequence[int] = ()
    pasted: Sequence[tuple[int, int, int, int] | None] = ()

    def usable_of(self, entries: frozenset[int]) -> dict[str, int]:
        """As ``usable``, but of the samples that are from these entries."""
        pairs = zip(self.entries, self.valid_pixels, strict=True)
        counts = [count for entry, count in pairs if entry in entries]
        return {"image": sum(map(bool, counts)), "pixel": sum(counts)}

    @property
    def usable(self) -> dict[str, int]:
        """The counts by what a loss can be a mean over."""
        return {"image": self.usable_images, "pixel": self.usable_pixels}

    @property
    def asked(self) -> dict[str, int]:
        """The same counts, if everything had been measured."""
        return {"image": len(self.sources), "pixel": self.valid.numel()}


class ErrorCapturingDataset(Dataset[Any]):
    """A data set that returns faults as values: raised in a worker, they would end in its traceback."""

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


def raise_worker_errors(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    """
    The items of a loader of an ``ErrorCapturingDataset``; the first fault among them is raised here.

    Raises:
        ProcessError: a worker died while it passed something on.
    """
    items = iter(loader)
    while True:
        try:
            item = next(items, None)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            # When a pipe breaks, PyTorch asks whether its workers are alive, but a killed one may still count as alive
            # for a moment. An error that a reader raised names the worker, or there are no workers.
            if not loader.num_workers or "in DataLoader worker process" in str(error):
                raise
            raise worker_died(str(error) or type(error).__name__) from error
        if item is None:
            return
        if isinstance(item, FinetuneError):
            raise item
        yield item


def collate(items: Sequence[TrainingItem]) -> Batch:
    """A batch of samples of one size."""
    return BatchBlock.of_items(items).unpack()


@dataclass(frozen=True, kw_only=True)
class BatchBlock:
    """A batch in one block of memory, as a worker hands it over: three tensors would be three files to map.

    Attributes:
        block: uint8; depth, then weights where there are any, then ``valid``, then images.
        shape: (B, H, W).
        weighted: whether it holds weights.
        usable_images, usable_pixels, sources, skipped, entries, valid_pixels, pasted: as in ``Batch``.
    """

    block: Tensor
    shape: tuple[int, int, int]
    usable_images: int
    usable_pixels: int
    sources: list[str]
    skipped: Sequence[tuple[int, str]]
    weighted: bool = False
    entries: Sequence[int] = ()
    valid_pixels: Sequence[int] = ()
    pasted: Sequence[tuple[int, int, int, int] | None] = ()

    @classmethod
    def of_items(cls, items: Sequence[TrainingItem], *, shared: bool = False) -> BatchBlock:
        """
        Args:
            items: of one size.
            shared: put the block where another process can map it, so that it is written once and not copied there.
        """
        samples = [item.sample for item in items]
        shape = (len(samples), *samples[0].valid.shape)
        weighted = any(sample.weight is not None for sample in samples)
        of_pixel = _BYTES_OF_PIXEL + (_BYTES_OF_WEIGHT if weighted else 0)
        block = _new_block(of_pixel * math.prod(shape), shared=shared)
        depth_m, weight, valid, image = _parts(block, shape, weighted=weighted)
        for i, sample in enumerate(samples):
            depth_m[i], valid[i], image[i] = (
                torch.from_numpy(np.ascontiguousarray(values))
                for values in (sample.depth_m, sample.valid, sample.image)
            )
            if weight is not None:
                weight[i] = 1.0 if sample.weight is None else torch.from_numpy(np.ascontiguousarray(sample.weight))
        usable = [int(np.count_nonzero(sample.valid)) for sample in samples]
        return cls(
            block=block,
            shape=shape,
            usable_images=sum(map(bool, usable)),
            usable_pixels=sum(usable),
            sources=[sample.source for sample in samples],
            skipped=[fault for item in items for fault in item.skipped],
            weighted=weighted,
            entries=[item.entry for item in items],
            valid_pixels=usable,
            pasted=[item.pasted for item in items],
        )

    def pin_memory(self) -> BatchBlock:
        """The batch in memory from which a GPU copies while the process goes on; PyTorch's loader calls this."""
        return replace(self, block=self.block.pin_memory())

    def unpack(self) -> Batch:
        """The batch; its tensors are views of the block."""
        depth_m, weight, valid, image = _parts(self.block, self.shape, weighted=self.weighted)
        return Batch(
            # Stored as (B, H, W, 3) and viewed as (B, 3, H, W): this is channels last, where convolutions are fast.
            image=image.permute(0, 3, 1, 2),
            depth_m=depth_m.unsqueeze(1),
            valid=valid.unsqueeze(1),
            usable_images=self.usable_images,
            usable_pixels=self.usable_pixels,
            sources=self.sources,
            skipped=self.skipped,
            weight=None if weight is None else weight.unsqueeze(1),
            entries=self.entries,
            valid_pixels=self.valid_pixels,
            pasted=self.pasted,
        )


def _new_block(size: int, *, shared: bool) -> Tensor:
    if not shared:
        return torch.empty(size, dtype=torch.uint8)
    # As PyTorch's own collation in a worker; `share_memory_` would copy.
    try:
        storage = torch.UntypedStorage._new_shared(size)
    except RuntimeError as error:  # there is no room, which is no fault of the sample
        _exit_worker(error, None)
    return torch.empty(0, dtype=torch.uint8).set_(storage)


def _parts(
    block: Tensor, shape: tuple[int, int, int], *, weighted: bool
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Depth (B, H, W), weight (B, H, W) or None, valid (B, H, W) and image (B, H, W, 3) in the block of a batch; what
    is in whole words comes first."""
    pixels = math.prod(shape)
    depth, weight, valid, image = block.split([4 * pixels, 4 * pixels if weighted else 0, pixels, 3 * pixels])
    return (
        depth.view(torch.float32).view(shape),
        weight.view(torch.float32).view(shape) if weighted else None,
        valid.view(torch.bool).view(shape),
        image.view(*shape, 3),
    )


class _Loader(DataLoader[Any]):
    """PyTorch's loader, without its warning of more workers than cores: a run says that itself, once."""

    def check_worker_number_rationality(self) -> None:
        """Accept the number that the recipe gives."""


def make_loader(samples: Dataset[Any], **options: Any) -> DataLoader[Any]:
    """PyTorch's loader of these samples, whose workers begin with ``init_worker``."""
    return _Loader(samples, worker_init_fn=init_worker, **options)


def training_batches(
    samples: TrainingSamples, batches: DistributedBatchSampler, *, workers: int, pin_memory: bool, prefetch: int = 2
) -> Generator[Batch, None, None]:
    """
    The endless batches of one process. Their loader has its own generator, or a resume would shift the global one.

    Args:
        samples, batches: what they are made of.
        workers: processes that make them; 0: this one does, when it is asked for one.
        pin_memory: put them where a GPU copies from while this process goes on.
        prefetch: batches that each worker makes ahead.

    Raises:
        FinetuneError: a sample cannot be read; when its batch is asked for.
    """
    loader = make_loader(
        ErrorCapturingDataset(samples),
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_collate_or_fault,
        pin_memory=pin_memory,
        generator=torch.Generator(),
    )
    for block in raise_worker_errors(loader):
        yield block.unpack()


def _collate_or_fault(samples: Sequence[Any]) -> BatchBlock | FinetuneError:
    fault = next((sample for sample in samples if isinstance(sample, FinetuneError)), None)
    return BatchBlock.of_items(samples, shared=get_worker_info() is not None) if fault is None else fault


def init_worker(_: int) -> None:
    """Prepare a loader worker; it runs in the worker before anything else."""
    import cv2

    if hasattr(os, "setpgid"):
        # Leave the process group: Ctrl-C and signals to the group are for the process that decides what to do.
        os.setpgid(0, 0)
    _obey_only_parent_sigterm()
    # The workers are the parallelism; threads in each would only compete for the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    # Where an item cannot be passed on, Python prints why, drops it and goes on: the loader would wait for it forever.
    Queue._on_queue_feeder_error = staticmethod(_exit_worker)  # type: ignore[attr-defined]
    # The thread that hands over files prints a traceback by this, and goes on without an end.
    sys.excepthook = lambda _, error, __: _exit_worker(error, None)
    # From here on PyTorch watches whether the parent is there. One that was killed while this process began is gone by
    # now, and its successor would be watched for ever.
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)


def _obey_only_parent_sigterm() -> None:
    """
    Obey SIGTERM from the process that started this one, and no other: a scheduler sends one to each process.

    End also when that process is gone. PyTorch's own watch leaves the loop then, but waits for what is still to be
    handed over: forever, if it is more than a pipe holds, since nobody reads it any more.
    """
    if not hasattr(signal, "sigtimedwait"):  # only Linux says who sent it
        return
    parent = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while os.getppid() == parent:
            told = signal.sigtimedwait({signal.SIGTERM}, PARENT_LOOK_S)
            if told is not None and told.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


def _exit_worker(error: BaseException, _: object) -> NoReturn:
    rank = int(os.environ.get("RANK") or 0)  # as the console's log has it: the main process is not named
    process = f"[process {rank}] " if rank > 0 else ""
    message = f"{process}A process that reads data could not hand it over: {first_line(error)}"
    # In one piece: where two threads fail at once, the end of one would cut the other's line, and what the main process
    # prints next would stand behind it.
    print(f"{message}\n", end="", file=sys.stderr, flush=True)
    os._exit(1)

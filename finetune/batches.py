"""Samples to batches. Sample k of a run, and every draw made for it, is a pure function of (seed, k)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.augment import Augmentation
from finetune.errors import FinetuneError
from finetune.preprocessing import Preprocessing
from finetune.sample import DepthSample

# What a random draw is for; part of its seed, so that no two purposes share their numbers.
_ORDER, _MIX, _WINDOW, _AUGMENT = range(4)
_MIX_BLOCK = 1000


class Reader(Protocol):
    """What every reader can do; see ``finetune/readers``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> DepthSample: ...


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Which frame of which reader sample k is: readers in proportion to their weights, each in shuffled epochs.

    Attributes:
        sizes: number of frames of each reader.
        weights: share of the samples of each reader, > 0, in any unit; kept to a thousandth.
        seed: of the run.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def __call__(self, k: int) -> tuple[int, int]:
        """(reader, frame) of sample ``k``."""
        reader, turn = self._reader(k)
        epoch, position = divmod(turn, self.sizes[reader])
        return reader, int(_order(self.seed, reader, epoch, self.sizes[reader])[position])

    def _reader(self, k: int) -> tuple[int, int]:
        """Reader of sample ``k``, and how many samples of that reader came before it."""
        if len(self.sizes) == 1:
            return 0, k
        block, position = divmod(k, _MIX_BLOCK)
        shares = self._shares()
        slots = np.random.default_rng((self.seed, _MIX, block)).permutation(np.repeat(np.arange(len(shares)), shares))
        reader = int(slots[position])
        return reader, int(block * shares[reader] + np.count_nonzero(slots[:position] == reader))

    def _shares(self) -> NDArray[np.intp]:
        """Samples of each reader in a block: proportional, at least one, remainders to the largest fractions."""
        exact = np.array(self.weights) / sum(self.weights) * _MIX_BLOCK
        shares = np.maximum(1, np.floor(exact).astype(np.intp))
        for reader in np.argsort(shares - exact, kind="stable")[: max(0, _MIX_BLOCK - int(shares.sum()))]:
            shares[reader] += 1
        shares[np.argmax(shares)] += _MIX_BLOCK - int(shares.sum())
        return shares


@lru_cache(maxsize=16)  # an epoch of a million frames takes 10 ms to shuffle; it is asked for once a sample
def _order(seed: int, reader: int, epoch: int, size: int) -> NDArray[np.intp]:
    return np.random.default_rng((seed, _ORDER, reader, epoch)).permutation(size)


class Batch(NamedTuple):
    """What one process trains on in one micro-batch.

    Attributes:
        image: (B, 3, H, W) uint8, channels last in memory; normalized on the device.
        depth_m: (B, 1, H, W) float32, meters; infinity is farther than any measurement.
        valid: (B, 1, H, W) bool.
        usable_images: how many of the images have a valid pixel.
        sources: (B) names of the samples, for errors.
    """

    image: Tensor
    depth_m: Tensor
    valid: Tensor
    usable_images: int
    sources: list[str]


@dataclass(frozen=True, kw_only=True)
class Range:
    """What becomes of depth that a head cannot answer. Infinity is beyond every range.

    Attributes:
        max_depth_m: end of the range, meters; None: the largest number there is.
        ceiling_m: what farther depth becomes, meters or infinity; None: not measured.
    """

    max_depth_m: float | None
    ceiling_m: float | None = None

    def __call__(self, sample: DepthSample) -> DepthSample:
        """The sample with depth in the range, and at the ceiling where there is one."""
        within = sample.depth_m <= (np.finfo(np.float32).max if self.max_depth_m is None else self.max_depth_m)
        if self.ceiling_m is None:
            return replace(sample, valid=sample.valid & within)
        return replace(sample, depth_m=np.where(sample.valid & ~within, np.float32(self.ceiling_m), sample.depth_m))


class TrainingSamples(Dataset[DepthSample]):
    """Sample k of a run, cut, resized and augmented."""

    def __init__(
        self,
        readers: Sequence[Reader],
        weights: Sequence[float],
        *,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        ranges: Sequence[Range],
        seed: int,
    ) -> None:
        """
        Args:
            readers, weights: entries of ``data.train`` and their shares.
            ranges: of each entry, what its measured depth beyond the range of the head becomes.
        """
        self.readers = readers
        self.mix = Mix(sizes=tuple(len(reader) for reader in readers), weights=tuple(weights), seed=seed)
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._ranges = ranges
        self._seed = seed

    def __getitem__(self, k: int) -> DepthSample:
        return self.__getitems__([k])[0]

    def __getitems__(self, ks: Sequence[int]) -> list[DepthSample]:
        """The samples ``ks``, equal to one by one; a loader asks for a batch so, which some readers give sooner."""
        places = [self.mix(k) for k in ks]
        found: dict[int, DepthSample] = {}
        for number, reader in enumerate(self.readers):
            turns = [turn for turn, (of, _) in enumerate(places) if of == number]
            found.update(zip(turns, read(reader, [places[turn][1] for turn in turns]), strict=True))
        return [self._cut(k, self._ranges[places[turn][0]](found[turn])) for turn, k in enumerate(ks)]

    def _cut(self, k: int, sample: DepthSample) -> DepthSample:
        height, width = sample.depth_m.shape
        across, down = np.random.default_rng((self._seed, _WINDOW, k)).random(2)
        window = self._preprocessing.window(height, width, across, down)
        return self._augmentation(window(sample), (self._seed, _AUGMENT, k))


def read(reader: Reader, frames: Sequence[int]) -> list[DepthSample]:
    """The frames of a reader, at once where it has a way to do so, as one that draws them has."""
    together = getattr(reader, "batch", None)
    return together(frames) if together and frames else [reader[frame] for frame in frames]


class Caught(Dataset[Any]):
    """A data set whose faults are handed over as values: raised in a worker they would come out as its traceback."""

    def __init__(self, samples: Any) -> None:
        self._samples = samples

    def __getitem__(self, key: int) -> Any:
        try:
            return self._samples[key]
        except FinetuneError as fault:
            return fault

    def __getitems__(self, keys: Sequence[int]) -> list[Any]:
        if not hasattr(self._samples, "__getitems__"):
            return [self[key] for key in keys]
        try:
            return self._samples.__getitems__(keys)
        except FinetuneError as fault:
            return [fault]


def sound(loader: Iterable[Any]) -> Iterator[Any]:
    """What a loader of ``Caught`` samples gives; the first fault among it is raised here."""
    for item in loader:
        if isinstance(item, FinetuneError):
            raise item
        yield item


class StepBatches(Sampler[list[int]]):
    """The samples of every micro-batch of one process, without end.

    Step s trains on samples s * total to (s + 1) * total - 1, whatever total is made of: batch size, micro-batches,
    processes. So the same total batch means the same samples on any number of processes.
    """

    def __init__(self, *, first_step: int, batch_size: int, accumulate: int, rank: int, world_size: int) -> None:
        self._first_step = first_step
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._rank = rank
        self._world_size = world_size

    def __iter__(self) -> Iterator[list[int]]:
        for micro_batch in count(self._first_step * self._accumulate):
            first = (micro_batch * self._world_size + self._rank) * self._batch_size
            yield list(range(first, first + self._batch_size))


def evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, at equal distances, first and last included."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})


def collate(samples: Sequence[DepthSample]) -> Batch:
    """Samples of one size to a batch."""
    valid = torch.from_numpy(np.stack([sample.valid for sample in samples])).unsqueeze(1)
    return Batch(
        # Stacked as (B, H, W, 3) and only seen as (B, 3, H, W): that is channels last, for which convolutions are fast.
        image=torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2),
        depth_m=torch.from_numpy(np.stack([sample.depth_m for sample in samples])).unsqueeze(1),
        valid=valid,
        usable_images=int(valid.flatten(1).any(1).sum()),
        sources=[sample.source for sample in samples],
    )


def training_batches(
    samples: TrainingSamples, batches: StepBatches, *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """
    The endless batches of one process. Their loader has a generator of its own, or a resume would shift the global one.

    Raises:
        FinetuneError: a sample cannot be read; when its batch is asked for.
    """
    loader = DataLoader(
        Caught(samples),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate_caught,
        pin_memory=pin_memory,
        worker_init_fn=calm_worker,
        generator=torch.Generator(),
    )
    return sound(loader)


def _collate_caught(samples: Sequence[Any]) -> Batch | FinetuneError:
    fault = next((sample for sample in samples if isinstance(sample, FinetuneError)), None)
    return collate(samples) if fault is None else fault


def calm_worker(_: int) -> None:
    """What a loader worker does first."""
    import cv2

    if hasattr(os, "setpgid"):
        # Out of the process group: Ctrl-C and a signal to the group are for the process that decides what to do.
        os.setpgid(0, 0)
    # Workers are the parallelism; threads inside each only fight over the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)

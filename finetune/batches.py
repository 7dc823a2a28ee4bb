"""Samples to batches. Sample k of a run, and every draw made for it, is a pure function of (seed, k)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count
from multiprocessing.queues import Queue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.errors import DataError, FileFault, FinetuneError, first_line
from finetune.preprocessing import Preprocessing
from finetune.sample import DepthSample
from finetune.shortages import worker_died

if TYPE_CHECKING:
    from finetune.augment import Augmentation

# What a random draw is for; part of its seed, so that no two purposes share their numbers.
_ORDER, _MIX, _WINDOW, _AUGMENT, _STAND_IN = range(5)
_MIX_BLOCK = 1000
# Where bad samples are skipped, a run ends once they are more than so many, and more than so much of those asked for.
FEW_BAD_SAMPLES, FEW_BAD_PERCENT = 10, 1
NAMED_BAD_SAMPLES = 10
# Windows that are drawn before one is laid around a label.
_WINDOW_DRAWS = 4
# Frames that are tried in place of one that cannot be read: with one bad frame in ten all of them fail once in 1e10.
_MOST_STAND_INS = 10


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


class Drawn(NamedTuple):
    """Sample k of a run, and what was wrong with each frame that it stands in for."""

    sample: DepthSample
    skipped: tuple[tuple[int, str], ...] = ()


def too_many_bad(bad: int, asked: int) -> bool:
    """Whether so many unreadable samples are more than an accident, among all that were asked for."""
    return bad > FEW_BAD_SAMPLES and 100 * bad > FEW_BAD_PERCENT * asked


@dataclass(kw_only=True)
class BadSamples:
    """Training samples of a run that could not be read, from all processes: a function of the steps taken.

    Attributes:
        count: every time that one was asked for; what was to stand in for it does not count again.
        named: what was wrong with the first ten different ones, in the order of the samples.
    """

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, skipped: Sequence[tuple[int, str]]) -> list[str]:
        """
        Args:
            skipped: of the batches of one step, in any order.

        Returns:
            Those that are to be named now.
        """
        causes = dict.fromkeys(cause for _, cause in sorted(skipped, key=lambda one: one[0]))
        new = [cause for cause in causes if cause not in self.named][: NAMED_BAD_SAMPLES - len(self.named)]
        self.count += len({k for k, _ in skipped})
        self.named += new
        return new

    def summary(self, asked: int) -> str:
        """One sentence, without a full stop; ``asked`` is how many samples were asked for so far."""
        return (
            f"{self.count} of the {asked} training samples asked for could not be read; "
            f"the first: {'; '.join(self.named)}"
        )


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


class TrainingSamples(Dataset[Drawn]):
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
        skip_bad: bool = False,
    ) -> None:
        """
        Args:
            readers, weights: entries of ``data.train`` and their shares.
            ranges: of each entry, what its measured depth beyond the range of the head becomes.
            skip_bad: another frame of the same entry stands in for one that cannot be read.
        """
        self.readers = readers
        self.mix = Mix(sizes=tuple(len(reader) for reader in readers), weights=tuple(weights), seed=seed)
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._ranges = ranges
        self._seed = seed
        self._skip_bad = skip_bad

    def __getitem__(self, k: int) -> Drawn:
        return self.__getitems__([k])[0]

    def __getitems__(self, ks: Sequence[int]) -> list[Drawn]:
        """
        The samples ``ks``, equal to one by one; a loader asks for a batch so, which some readers give sooner.

        Raises:
            FileFault: a frame cannot be read, nor, where bad ones are skipped, any that was to stand in for it.
        """
        places = [self.mix(k) for k in ks]
        found: dict[int, Drawn] = {}
        for number, reader in enumerate(self.readers):
            turns = [turn for turn, (of, _) in enumerate(places) if of == number]
            frames = [places[turn][1] for turn in turns]
            found.update(zip(turns, self._drawn(reader, [ks[turn] for turn in turns], frames), strict=True))
        return [
            found[turn]._replace(sample=self._cut(k, self._ranges[places[turn][0]](found[turn].sample)))
            for turn, k in enumerate(ks)
        ]

    def _drawn(self, reader: Reader, ks: Sequence[int], frames: Sequence[int]) -> list[Drawn]:
        """The frames of one reader, as they are on disk."""
        try:
            return [Drawn(sample) for sample in read(reader, frames)]
        except FileFault:
            if not self._skip_bad:
                raise
        return [self._readable(reader, k, frame) for k, frame in zip(ks, frames, strict=True)]

    def _readable(self, reader: Reader, k: int, frame: int) -> Drawn:
        """The frame, or the first that can be read of those that ``k`` draws to stand in for it."""
        stand_ins = np.random.default_rng((self._seed, _STAND_IN, k)).integers(len(reader), size=_MOST_STAND_INS)
        faults: list[FileFault] = []
        for tried in (frame, *stand_ins.tolist()):
            found = attempt(reader, tried)
            if isinstance(found, DepthSample):
                return Drawn(found, tuple((k, fault.cause) for fault in faults))
            faults.append(found)
        first = faults[0]
        raise DataError(
            first.source,
            f"{first.found}; nor could any of {_MOST_STAND_INS} frames be read that were drawn in its place, "
            f"such as {faults[-1].source}",
            first.fix,
        )

    def _cut(self, k: int, sample: DepthSample) -> DepthSample:
        draw = np.random.default_rng((self._seed, _WINDOW, k))
        return self._augmentation(labeled_window(self._preprocessing, sample, draw), (self._seed, _AUGMENT, k))


def read(reader: Reader, frames: Sequence[int]) -> list[DepthSample]:
    """The frames of a reader, at once where it has a way to do so, as one that draws them has."""
    together = getattr(reader, "batch", None)
    return together(frames) if together and frames else [reader[frame] for frame in frames]


def attempt(reader: Reader, frame: int) -> DepthSample | FileFault:
    """A frame of a reader, or why it cannot be read."""
    try:
        return reader[frame]
    except FileFault as fault:
        return fault


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
        try:
            return self._samples.__getitems__(keys)
        except FinetuneError as fault:
            return [fault]


def sound(loader: DataLoader[Any]) -> Iterator[Any]:
    """
    What a loader of ``Caught`` samples gives; the first fault among it is raised here.

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


def labeled_window(preprocessing: Preprocessing, sample: DepthSample, draw: np.random.Generator) -> DepthSample:
    """
    A training window of a sample; where the frame has a measured pixel, so has the window.

    Args:
        preprocessing: says how large it is.
        sample: a whole frame.
        draw: where the window lies; the same generator gives the same window.
    """
    height, width = sample.depth_m.shape
    for _ in range(_WINDOW_DRAWS):
        across, down = draw.random(2)
        found = preprocessing.window(height, width, across, down)(sample)
        if found.valid.any() or not sample.valid.any():
            return found
    # Few labels in a corner: around one of them, drawn.
    rows, columns = np.nonzero(sample.valid)
    chosen = draw.integers(len(rows))
    window = preprocessing.window(height, width, 0.0, 0.0)
    whole_height, whole_width = round(height / window.pixels_down), round(width / window.pixels_across)
    top = _around(rows[chosen] / window.pixels_down, window.height, whole_height, draw)
    left = _around(columns[chosen] / window.pixels_across, window.width, whole_width, draw)
    return replace(window, top=top, left=left)(sample)


def _around(place: float, size: int, whole: int, draw: np.random.Generator) -> int:
    """Start of a window of ``size`` in ``whole`` that holds a place, two pixels from its rim where there is room."""
    first, last = sorted((0, whole - size))  # an image that is smaller lies somewhere in the window
    least, most = (min(max(start, first), last) for start in (int(place) + 3 - size, int(place) - 2))
    return int(draw.integers(min(least, most), max(least, most) + 1))


class StepBatches(Sampler[list[int]]):
    """The samples of every micro-batch of one process, without end.

    Step s trains on samples s * total to (s + 1) * total - 1, whatever total is made of: batch size, micro-batches,
    processes. So the same total batch means the same samples on any number of processes.
    """

    def __init__(
        self,
        *,
        first_step: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
        repeated_steps: int | None = None,
    ) -> None:
        """``repeated_steps``: the samples of so many steps come again and again; None: of all of them, once."""
        self._first_step = first_step
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._rank = rank
        self._world_size = world_size
        self._repeated = repeated_steps * accumulate if repeated_steps else None

    def __iter__(self) -> Iterator[list[int]]:
        for number in count(self._first_step * self._accumulate):
            micro_batch = number % self._repeated if self._repeated else number
            first = (micro_batch * self._world_size + self._rank) * self._batch_size
            yield list(range(first, first + self._batch_size))


def evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, at equal distances, first and last included."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})


def collate(drawn: Sequence[Drawn]) -> Batch:
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
    _end_for_the_parent_alone()
    # Workers are the parallelism; threads inside each only fight over the same cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Python prints why something could not be handed over, drops it and goes on: it would be waited for without end.
    Queue._on_queue_feeder_error = staticmethod(_end_of_worker)  # type: ignore[attr-defined]


def _end_for_the_parent_alone() -> None:
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


def _end_of_worker(error: BaseException, _: object) -> None:
    print(f"A process that reads data could not hand it over: {first_line(error)}", file=sys.stderr, flush=True)
    os._exit(1)

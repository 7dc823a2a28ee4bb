"""Training data: sample k of a run, cut, resized and augmented."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from finetune.data.coded_depth import DepthTable
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, read_frames, try_read
from finetune.data.sample import CodedSample, DepthSample
from finetune.data.samplers import AUGMENT, STAND_IN, STRONG, WINDOW, ZOOM, WeightedMixSampler
from finetune.utils.errors import DataError, FileFault

if TYPE_CHECKING:
    from finetune.data.augmentation import Augmentation
    from finetune.data.strong_augmentation import Box, StrongAugmentation

# Random windows to try before placing one around a measured pixel.
_WINDOW_DRAWS = 4
# Frames that are tried in place of an unreadable one: with one bad frame in ten, all of them fail once in 1e10.
_MAX_STAND_INS = 10
# What the draws for a frame that is pasted into sample k have in their seeds besides k.
OTHER = (1,)


class TrainingItem(NamedTuple):
    """Sample k of a run.

    Attributes:
        sample: as the network sees it.
        skipped: (k, cause): what was wrong with each frame that it replaces.
        entry: number of its entry in ``data.train``.
        pasted: the box that shows a part of another frame; None where none does.
    """

    sample: DepthSample
    skipped: tuple[tuple[int, str], ...] = ()
    entry: int = 0
    pasted: Box | None = None


@dataclass(frozen=True, kw_only=True)
class DepthRangePolicy:
    """What becomes of depth that a head cannot predict. Infinity is beyond every range.

    Attributes:
        max_depth_m: end of the range, meters; None: the largest float32.
        ceiling_m: what farther depth becomes, meters or infinity; None: it is not valid.
    """

    max_depth_m: float | None
    ceiling_m: float | None = None

    def __call__(self, sample: DepthSample) -> DepthSample:
        """The sample with valid depth within the range, or at the ceiling where there is one."""
        if isinstance(sample, CodedSample) and sample.coded is not None:
            return sample.recoded(replace(sample.coded, table=_limit_table(sample.coded.table, self)))
        depth_m, valid = self.limit(sample.depth_m, sample.valid)
        return sample.changed(depth_m=depth_m, valid=valid)

    def limit(
        self, depth_m: NDArray[np.float32], valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Meters, and where they are valid, of any shape."""
        within = depth_m <= (np.finfo(np.float32).max if self.max_depth_m is None else self.max_depth_m)
        if self.ceiling_m is None:
            return depth_m, valid & within
        return np.where(valid & ~within, np.float32(self.ceiling_m), depth_m), valid


@lru_cache(maxsize=16)
def _limit_table(table: DepthTable, limits: DepthRangePolicy) -> DepthTable:
    return table.changed(limits.limit)


@dataclass(frozen=True, kw_only=True)
class CanonicalLabels:
    """Labels of one canonical camera: the depth at which it would see what a camera of f sees at ``depth_m``.

    Attributes:
        focal_px: of the canonical camera, at the network's size, pixels.
        max_depth_m: the largest canonical depth that the head can predict, meters.
    """

    focal_px: float
    max_depth_m: float

    def __call__(self, sample: DepthSample) -> DepthSample:
        """
        The sample at the network's size with depth times ``focal_px`` / f; beyond the head it is not valid.

        Raises:
            DataError: the sample has no camera.
        """
        if sample.camera is None:
            raise DataError(
                sample.source,
                "has no intrinsics, and data.camera.mode is canonical",
                "Give them in its entry, or leave the frame out",
            )
        depth_m = sample.depth_m * np.float32(self.focal_px / sample.camera.focal_px)
        return sample.changed(depth_m=depth_m, valid=sample.valid & (depth_m <= np.float32(self.max_depth_m)))


@dataclass(frozen=True, kw_only=True)
class Zoom:
    """How much training frames are enlarged, and what becomes of their labels.

    Attributes:
        least, most: of the factor, which is drawn evenly in its logarithm.
        divides_depth: a zoomed frame counts as the same view of a nearer scene. False where the label follows the focal
            length.
    """

    least: float
    most: float
    divides_depth: bool

    def draw(self, preprocessing: Preprocessing, sample: DepthSample, draw: np.random.Generator) -> float:
        """The factor for a sample; below 1 only as far as the frame fills the window."""
        factor = math.exp(draw.uniform(math.log(self.least), math.log(self.most)))
        return max(factor, preprocessing.least_zoom(*sample.valid.shape))


@dataclass(frozen=True, kw_only=True)
class StrongChanges:
    """What becomes of samples that a teacher labeled, after all else.

    Attributes:
        change: of the image alone.
        cutmix: probability of pasting a box of another frame of the same entry.
        entries: numbers of the entries that a teacher labeled.
    """

    change: StrongAugmentation
    cutmix: float
    entries: frozenset[int]


class TrainingSamples(Dataset[TrainingItem]):
    """Sample k of a run, cut, resized and augmented."""

    def __init__(
        self,
        readers: Sequence[Reader],
        weights: Sequence[float],
        *,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        ranges: Sequence[DepthRangePolicy],
        seed: int,
        skip_bad: bool = False,
        zoom: Zoom | None = None,
        labels: CanonicalLabels | None = None,
        strong: StrongChanges | None = None,
    ) -> None:
        """
        Args:
            readers, weights: entries of ``data.train`` and their shares.
            ranges: one an entry: what measured depth beyond the range of the head becomes.
            skip_bad: another frame of the same entry replaces one that cannot be read.
            zoom: None: frames are as large as in evaluation.
            labels: None: labels are the meters that were measured.
            strong: None: labels of a teacher are trained on as measured depth is.
        """
        self.readers = [reader.decoded_for(preprocessing) for reader in readers]
        self.mix = WeightedMixSampler(sizes=tuple(len(reader) for reader in readers), weights=tuple(weights), seed=seed)
        self._preprocessing = preprocessing
        self._augmentation = augmentation
        self._ranges = ranges
        self._seed = seed
        self._skip_bad = skip_bad
        self._zoom = zoom
        self._labels = labels
        self._strong = strong

    def __getitem__(self, k: int) -> TrainingItem:
        return self.__getitems__([k])[0]

    def __getitems__(self, ks: Sequence[int]) -> list[TrainingItem]:
        """
        The samples ``ks``, equal to one by one. A loader asks for a whole batch, which some readers give sooner.

        Raises:
            FileFault: a frame cannot be read; where bad ones are skipped, neither can any frame drawn to replace it.
        """
        drawn = [self.mix(k) for k in ks]
        found: dict[int, TrainingItem] = {}
        for number, reader in enumerate(self.readers):
            turns = [turn for turn, (of, _) in enumerate(drawn) if of == number]
            frames = [drawn[turn][1] for turn in turns]
            found.update(zip(turns, self._read_frames(reader, [ks[turn] for turn in turns], frames), strict=True))
        items = []
        for turn, k in enumerate(ks):
            entry, item = drawn[turn][0], found[turn]
            sample = self._crop_and_augment(k, self._ranges[entry], item.sample)
            item = item._replace(sample=sample, entry=entry)
            items.append(item if self._strong is None else self._change_strongly(k, item, self._strong))
        return items

    def _change_strongly(self, k: int, item: TrainingItem, strong: StrongChanges) -> TrainingItem:
        """An item whose entry a teacher labeled, as its student sees it."""
        if item.entry not in strong.entries:
            return item
        from finetune.data.strong_augmentation import draw_box, paste_box

        draw = np.random.default_rng((self._seed, STRONG, k))
        sample = strong.change(item.sample, (self._seed, STRONG, k, 0))
        if draw.random() >= strong.cutmix:
            return item._replace(sample=sample)
        reader = self.readers[item.entry]
        (found,) = self._read_frames(reader, [k], [int(draw.integers(len(reader)))])
        other = self._crop_and_augment(k, self._ranges[item.entry], found.sample, OTHER)
        other = strong.change(other, (self._seed, STRONG, k, 1))
        height, width = sample.valid.shape
        box = draw_box(height, width, draw)
        skipped = (*item.skipped, *found.skipped)
        return item._replace(sample=paste_box(sample, other, box), skipped=skipped, pasted=box)

    def _read_frames(self, reader: Reader, ks: Sequence[int], frames: Sequence[int]) -> list[TrainingItem]:
        """The frames of one reader, as they are on disk."""
        try:
            return [TrainingItem(sample) for sample in read_frames(reader, frames)]
        except FileFault:
            if not self._skip_bad:
                raise
        return [self._read_or_replace(reader, k, frame) for k, frame in zip(ks, frames, strict=True)]

    def _read_or_replace(self, reader: Reader, k: int, frame: int) -> TrainingItem:
        """The frame, or the first readable one of those that ``k`` draws to replace it."""
        stand_ins = np.random.default_rng((self._seed, STAND_IN, k)).integers(len(reader), size=_MAX_STAND_INS)
        faults: list[FileFault] = []
        for tried in (frame, *stand_ins.tolist()):
            found = try_read(reader, tried)
            if isinstance(found, DepthSample):
                return TrainingItem(found, tuple((k, fault.cause) for fault in faults))
            faults.append(found)
        first = faults[0]
        raise DataError(
            first.source,
            f"{first.found}; the {_MAX_STAND_INS} frames tried in its place could not be read either, "
            f"such as {faults[-1].source}",
            first.fix,
        )

    def _crop_and_augment(
        self, k: int, in_range: DepthRangePolicy, sample: DepthSample, turn: tuple[int, ...] = ()
    ) -> DepthSample:
        """``turn`` is part of every seed; () for the frame of sample k itself."""
        zoom = 1.0
        if self._zoom is not None:
            zoom = self._zoom.draw(self._preprocessing, sample, np.random.default_rng((self._seed, ZOOM, k, *turn)))
            if self._zoom.divides_depth:
                sample = sample.changed(depth_m=sample.depth_m / np.float32(zoom))
        draw = np.random.default_rng((self._seed, WINDOW, k, *turn))
        window = crop_with_valid_depth(self._preprocessing, in_range(sample), draw, zoom)
        augmented = self._augmentation(window, (self._seed, AUGMENT, k, *turn))
        return augmented if self._labels is None else self._labels(augmented)


def crop_with_valid_depth(
    preprocessing: Preprocessing, sample: DepthSample, draw: np.random.Generator, zoom: float = 1.0
) -> DepthSample:
    """
    A training window of a sample. It has a measured pixel where the frame has one.

    Args:
        preprocessing: has the size of the window.
        sample: a whole frame.
        draw: chooses where the window is; the same generator gives the same window.
        zoom: multiplies the focal length at the network's size.
    """
    height, width = sample.valid.shape
    for _ in range(_WINDOW_DRAWS):
        across, down = draw.random(2)
        found = preprocessing.window(height, width, across, down, zoom)(sample)
        if found.valid.any() or not sample.valid.any():
            return found
    # There are few labels: take a window around one of them, drawn at random.
    rows, columns = np.nonzero(sample.valid)
    chosen = draw.integers(len(rows))
    window = preprocessing.window(height, width, 0.0, 0.0, zoom)
    whole_height, whole_width = (
        math.floor(side / pixels + 1e-6)
        for side, pixels in ((height, window.pixels_down), (width, window.pixels_across))
    )
    top = _draw_start_around(rows[chosen] / window.pixels_down, window.height, whole_height, draw)
    left = _draw_start_around(columns[chosen] / window.pixels_across, window.width, whole_width, draw)
    return replace(window, top=top, left=left)(sample)


def _draw_start_around(label: float, size: int, whole: int, draw: np.random.Generator) -> int:
    """Start of a window of ``size`` in ``whole`` that holds a label, two pixels from its rim where there is room."""
    first, last = sorted((0, whole - size))  # a smaller image is somewhere in the window
    least, most = (min(max(start, first), last) for start in (int(label) + 3 - size, int(label) - 2))
    return int(draw.integers(min(least, most), max(least, most) + 1))

"""What is in a prepared folder: its frames, their range, their unit, their split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.depth_unit import join_ranges
from finetune.prepare.frame_record import BIN_EDGES_M, FrameRecord
from finetune.prepare.recording import FrameKey
from finetune.prepare.split import Split
from finetune.utils.text import count_noun, meters, percent

# No camera sees half of a dense map beyond the one, or within the other; centimeters taken for meters, and meters taken
# for millimeters, do.
_FAR_MEDIAN_M, _NEAR_MEDIAN_M = 100.0, 0.02


@dataclass(frozen=True, kw_only=True)
class PreparedFrames:
    """
    Attributes:
        output: the folder.
        request: what the user asked for.
        records, keys: of the frames in the folder, in the order of the source; ``split`` counts in them.
        split: which frames train and which validate.
        left_out: why frames were left out -> where to find them.
        notes: sentences of the kind.
        notes_at_end: those among them that were known only after the last frame.
        recipe_options: further keys of the reader ``pairs``.
        poses: name of each recording whose camera was tracked -> its poses, as text in TUM's format.
        checkpoint: for the recipe; None: the embedded one.
    """

    output: Path
    request: Mapping[str, object]
    records: Sequence[FrameRecord]
    keys: Sequence[FrameKey]
    split: Split
    left_out: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    notes_at_end: Sequence[str]
    recipe_options: Mapping[str, object]
    poses: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None

    @cached_property
    def unit(self) -> float:
        """Meters per unit of the depth files."""
        return join_ranges(record.range for record in self.records).unit

    @property
    def is_exact(self) -> bool:
        """Whether the unit holds every depth without rounding it."""
        return self.unit in join_ranges(record.range for record in self.records).exact_units

    @cached_property
    def counts(self) -> Sequence[int]:
        """Number of measured pixels of all frames in each bin of ``BIN_EDGES_M``."""
        total: NDArray[np.int64] = np.sum([record.counts for record in self.records], axis=0, dtype=np.int64)
        return [int(count) for count in total]

    def percentile_m(self, share: float) -> float:
        """The upper end of the bin below which at least ``share`` of the measured depths are, meters."""
        cumulated = np.cumsum(self.counts)
        bin_ = int(np.searchsorted(cumulated, share * cumulated[-1]))
        return min(float(BIN_EDGES_M[bin_ + 1]), self.far_m)

    @property
    def near_m(self) -> float:
        """The nearest depth, meters."""
        return min(record.near_m for record in self.records)

    @property
    def far_m(self) -> float:
        """The farthest depth, meters."""
        return max(record.far_m for record in self.records)

    @property
    def labeled_share(self) -> float:
        """Mean over the frames of the share of pixels that have a depth."""
        return float(np.mean([record.labeled_share for record in self.records]))

    @property
    def is_reduced(self) -> bool:
        """Whether depth is smaller than its image somewhere."""
        return any(record.size != record.depth_size for record in self.records)

    @property
    def is_sparse(self) -> bool:
        """Whether most frames are scattered points, such as LiDAR's."""
        return 2 * sum(record.sparse for record in self.records) > len(self.records)

    @property
    def has_confidence(self) -> bool:
        """Whether depth was filled in, and each frame has a map of confidence."""
        return all(record.confidence for record in self.records)

    @property
    def has_cameras(self) -> bool:
        """Whether the camera of every image is known."""
        return all(record.camera is not None for record in self.records)

    def sentences(self) -> list[str]:
        """What to say when all is done."""
        split = self.split
        rounded = "" if self.is_exact else f", rounded by at most {self.unit / 2:.2g} m"
        lines = [
            f"{self.output}: {count_noun(len(self.records), 'frame')}, {len(split.train)} train, {len(split.val)} val: "
            f"{split.rule}",
            f"depth from {meters(self.near_m)} to {meters(self.far_m)}, measured at {percent(self.labeled_share)} of "
            f"the pixels; stored as 16-bit PNG, value x {self.unit:.6g} = meters{rounded}",
        ]
        if split.is_shared:
            lines.append(
                "the scores of such a run say nothing about other frames, which recipe.yaml accepts by "
                "data.val_may_repeat_train; take three frames or more, or name several recordings"
            )
        return [*lines, *self._doubt_unit(), *self.describe_left_out(), *self.notes_at_end]

    def _doubt_unit(self) -> list[str]:
        """A sentence where half of the depth is beyond what cameras measure, and the call says the unit."""
        given = self.request.get("meters_per_unit")
        median_m = self.percentile_m(0.5)
        if self.is_sparse or not isinstance(given, float) or _NEAR_MEDIAN_M <= median_m <= _FAR_MEDIAN_M:
            return []
        where = f"half of the depth is within {meters(median_m)}"
        if median_m > _FAR_MEDIAN_M:
            return [
                f"{where} and half beyond, as numbers of a smaller unit have: for centimeters --meters-per-unit is "
                f"0.01, for millimeters 0.001; it was {given:g}"
            ]
        return [f"{where}, as numbers of a larger unit have: for meters --meters-per-unit is 1; it was {given:g}"]

    def describe_left_out(self) -> list[str]:
        """A sentence for each reason for which frames were left out."""
        total = len(self.records) + sum(map(len, self.left_out.values()))
        return [
            f"{len(frames)} of {total} frames are left out, {reason}: {frames[0]}{', ...' * (len(frames) > 1)}"
            for reason, frames in self.left_out.items()
        ]

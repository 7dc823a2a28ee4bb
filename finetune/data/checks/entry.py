"""One data entry and the facts of its samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.frame_stats import Facts
from finetune.data.reader import Reader

# Where this share of the maps, and at least so many, end at one value with this share of their pixels, the sensor or
# the file ends there.
_SHARE_OF_MAPS, _MIN_MAPS, _SHARE_AT_END = 0.6, 4, 0.002


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data entry and the facts of its samples.

    Attributes:
        key: dotted, ``data.train.0``.
        where: file and line of the recipe, for a fix.
        reader: of the entry, with its options.
        facts: of the samples that could be read.
        ceiling: depth beyond the range is trained as the end of the range.
        limit: the key that ends the range, and its meters.
    """

    key: str
    where: str
    reader: Reader
    facts: Sequence[Facts]
    ceiling: bool
    limit: tuple[str, float]


def find_sensor_ends(facts: Collection[Facts]) -> set[float]:
    """Depths, meters, that are codes or the end of the sensor. They are no distances, so no range has to reach them."""
    ends = [frame.most_m for frame in facts if frame.most_share >= _SHARE_AT_END and not frame.constant]
    saturated = {end for end in ends if len(facts) >= _MIN_MAPS and ends.count(end) >= _SHARE_OF_MAPS * len(facts)}
    return saturated | {frame.most_m for frame in facts if frame.has_code}


def drop_sensor_ends(depth_m: NDArray[np.float32], facts: Collection[Facts]) -> NDArray[np.float32]:
    """The depths without those of ``find_sensor_ends``; all of them where nothing else would be left."""
    ends = find_sensor_ends(facts)
    left = depth_m[~np.isin(depth_m, np.array(sorted(ends), np.float32))] if ends else depth_m
    return left if left.size else depth_m

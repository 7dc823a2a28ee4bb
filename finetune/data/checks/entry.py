"""One data entry and what was found in its samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.frame_stats import Facts
from finetune.data.reader import Reader

# A value that so many of the maps end at, with so many of their pixels, is where the sensor or the file ends.
_SHARE_OF_MAPS, _MIN_MAPS, _SHARE_AT_END = 0.6, 4, 0.002


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data entry and what was found in its samples.

    Attributes:
        key: dotted, ``data.train.0``.
        where: its place in the recipe, for a fix.
        reader: with its options.
        facts: of the samples that could be read.
        ceiling: depth beyond the range is taught as the end of it.
        limit: key and meters of the range.
    """

    key: str
    where: str
    reader: Reader
    facts: Sequence[Facts]
    ceiling: bool
    limit: tuple[str, float]


def find_sensor_ends(facts: Collection[Facts]) -> set[float]:
    """Depths, meters, that are codes or where the sensor saturates: no distance, and so no reason for a range."""
    ends = [one.most_m for one in facts if one.most_share >= _SHARE_AT_END and not one.constant]
    saturated = {end for end in ends if len(facts) >= _MIN_MAPS and ends.count(end) >= _SHARE_OF_MAPS * len(facts)}
    return saturated | {one.most_m for one in facts if one.has_code}


def drop_sensor_ends(depth_m: NDArray[np.float32], facts: Collection[Facts]) -> NDArray[np.float32]:
    """The depths that are none of ``ends_of_sensor``; all of them where nothing else is left."""
    ends = find_sensor_ends(facts)
    left = depth_m[~np.isin(depth_m, np.array(sorted(ends), np.float32))] if ends else depth_m
    return left if left.size else depth_m

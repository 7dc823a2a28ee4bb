"""Depth maps as whole numbers of 16 bits where these give the same meters to the last bit, else as floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from finetune.data.coded_depth import CodedDepth, DepthTable

# Units that depth files usually have, meters.
_USUAL_UNITS = (0.001, 1 / 256, 0.0001, 0.0002, 0.00025, 0.01)
_MOST = 65535
_FEW = 997  # pixels that show in no time that a unit is wrong


@dataclass(frozen=True, kw_only=True)
class DepthBlock:
    """The numbers of a depth map, and what they mean.

    Attributes:
        numbers: (H, W) uint16, or float32 meters.
        meters_per_unit: a whole number times this is meters; None for floats.
        has_infinity: the largest whole number stands for what is infinitely far.
    """

    numbers: NDArray[np.generic]
    meters_per_unit: float | None
    has_infinity: bool = False

    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) meters."""
        coded = self.coded()
        return np.array(self.numbers, dtype=np.float32) if coded is None else coded.depth_m()

    def coded(self) -> CodedDepth | None:
        """The whole numbers as they are, valid where depth is above 0; None for floats."""
        if self.meters_per_unit is None:
            return None
        numbers = self.numbers.astype(np.uint16, copy=False)
        return CodedDepth(numbers=numbers, table=_table(self.meters_per_unit, self.has_infinity))


def make_depth_block(depth_m: NDArray[np.float32], units: Sequence[float | None]) -> DepthBlock:
    """
    Args:
        depth_m: (H, W) float32, any bits.
        units: meters per unit to try before the usual ones.

    Returns:
        A block whose ``depth_m`` has the same bits.
    """
    for unit in dict.fromkeys((*filter(None, units), *_USUAL_UNITS)):
        block = _as_whole_numbers(depth_m, unit)
        if block is not None:
            return block
    return DepthBlock(numbers=depth_m, meters_per_unit=None)


def _as_whole_numbers(depth_m: NDArray[np.float32], unit: float) -> DepthBlock | None:
    """The block in a unit; None if a pixel would change."""
    some = depth_m.reshape(-1)[:: max(1, depth_m.size // _FEW)]
    if some.size < depth_m.size and _as_whole_numbers(some.reshape(1, -1), unit) is None:
        return None
    infinite = np.isposinf(depth_m)
    counts = np.rint(np.where(infinite, 0.0, depth_m.astype(np.float64)) / unit)
    if not (counts.min() >= 0 and counts.max() <= _MOST):  # also where one is NaN
        return None
    has_infinity = bool(infinite.any())
    numbers = counts.astype(np.uint16)
    if has_infinity:
        numbers[infinite] = _MOST
    block = DepthBlock(numbers=numbers, meters_per_unit=unit, has_infinity=has_infinity)
    same = np.array_equal(block.depth_m().view(np.uint32), np.ascontiguousarray(depth_m).view(np.uint32))
    return block if same else None


@lru_cache(maxsize=8)
def _table(unit: float, has_infinity: bool) -> DepthTable:
    """What each whole number means, rounded once, as ``DepthCoding.to_meters`` does."""
    table = np.multiply(np.arange(_MOST + 1), unit, dtype=np.float64).astype(np.float32)
    if has_infinity:
        table[_MOST] = np.inf
    return DepthTable(meters=table, measured=table > 0)

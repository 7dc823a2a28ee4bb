"""The unit of 16-bit depth: which units hold given depths exactly, and the one that fits all frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_COUNT = 65534  # 65535 is left free, because many readers take it for "nothing measured"
# Meters for one stored unit. Depth that is a whole number of one of these keeps every bit: millimeters, the 1/5000 m of
# TUM, the 1/4000 m of an L515, KITTI's 1/256 m, centimeters.
_EXACT_UNITS = (0.001, 1 / 5000, 1 / 4000, 1 / 256, 0.01)
# For other depth, the finest of these that reaches the farthest depth.
_ROUND_UNITS = (0.0001, 0.001, 1 / 256, 0.01, 0.1)
MAX_DEPTH_M = MAX_COUNT * _ROUND_UNITS[-1]
_TRIED_FIRST = 1000  # pixels; nearly every unit that does not fit is ruled out by these


@dataclass(frozen=True, kw_only=True)
class DepthRange:
    """How far some frames reach, and which units hold their depths exactly.

    Attributes:
        far_m: the farthest depth, meters.
        exact_units: meters per unit, of which every depth is a whole number.
    """

    far_m: float = 0.0
    exact_units: tuple[float, ...] = _EXACT_UNITS

    def joined(self, other: DepthRange) -> DepthRange:
        """The range of the frames of both."""
        exact = tuple(unit for unit in self.exact_units if unit in other.exact_units)
        return DepthRange(far_m=max(self.far_m, other.far_m), exact_units=exact)

    @property
    def unit(self) -> float:
        """
        Meters per unit for 16 bits: the first that holds every depth exactly, else the finest that reaches ``far_m``.

        ``far_m`` is at most ``MAX_DEPTH_M``.
        """
        return next(unit for unit in (*self.exact_units, *_ROUND_UNITS) if self.far_m <= MAX_COUNT * unit)


def join_ranges(ranges: Iterable[DepthRange]) -> DepthRange:
    """The range of all frames."""
    joined = DepthRange()
    for found in ranges:
        joined = joined.joined(found)
    return joined


def find_range(depths_m: NDArray[np.float32]) -> DepthRange:
    """The range of (N,) measured depths, meters, all above 0."""
    if not depths_m.size:
        return DepthRange()
    far_m = float(depths_m.max())
    exact: list[float] = []
    for unit in sorted(_EXACT_UNITS, reverse=True):
        # Whole numbers of millimeters are whole numbers of 1/5000 m too.
        if any((coarser / unit).is_integer() for coarser in exact) or _is_whole(depths_m, unit):
            exact.append(unit)
    return DepthRange(far_m=far_m, exact_units=tuple(unit for unit in _EXACT_UNITS if unit in exact))


def _is_whole(depths_m: NDArray[np.float32], unit: float) -> bool:
    """Whether each depth is a whole number of units, as far as float32 can say."""
    step = max(1, depths_m.size // _TRIED_FIRST)
    for tried in (depths_m[::step], depths_m):
        counts = np.divide(tried, unit, dtype=np.float64)
        # float32 rounds a depth by up to 2 ** -24 of it.
        if (np.abs(counts - np.round(counts)) > counts * 2.0**-23).any():
            return False
    return True


def encode_depth(depth_m: NDArray[np.float32], unit: float) -> NDArray[np.uint16]:
    """(H, W) meters, 0 where nothing was measured -> (H, W) whole numbers of ``unit``, rounded to the nearest."""
    return np.round(np.divide(depth_m, unit, dtype=np.float64)).astype(np.uint16)

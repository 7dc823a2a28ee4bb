"""Units that depth maps are stored in, and which of them bring given numbers into a range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from finetune.data.sample import MAX_DEPTH_M


class Unit(NamedTuple):
    """A unit that would fit.

    Attributes:
        meters: for one raw unit.
        name: what it is called and who writes it.
        median_m: median of the numbers in this unit, meters.
    """

    meters: float
    name: str
    median_m: float


# Meters for one raw unit -> what it is called, most frequent first.
UNITS = {
    0.001: "millimeters",
    1 / 256: "KITTI's 1/256 m",
    0.01: "centimeters",
    1 / 5000: "TUM's 1/5000 m",
    1 / 4000: "the 1/4000 m of an L515 and Matterport3D",
    1 / 8000: "1/8000 m",
    1 / 10000: "tenths of a millimeter",
    1.0: "meters",
}
# Share of the range where the median of a sensible recipe is, and how far beyond its end the farthest depth may be.
_MEDIAN_OF_RANGE = (0.03, 0.95)
_MAX_BEYOND_RANGE = 1.2


def find_fitting_units(median: float, end: float, max_depth_m: float, current: float) -> list[Unit]:
    """
    Args:
        median, end: of the raw numbers, and where nearly all of them end.
        max_depth_m: the end of the range.
        current: the unit that they are read in now, meters.

    Returns:
        The other units that bring them into the range, most frequent first.
    """
    low, high = _MEDIAN_OF_RANGE
    return [
        Unit(unit, name, median * unit)
        for unit, name in UNITS.items()
        if not math.isclose(unit, current, rel_tol=1e-6)
        and low <= median * unit / max_depth_m <= high
        and end * unit <= _MAX_BEYOND_RANGE * max_depth_m
    ]


def unit_name(meters: float) -> str:
    """What a unit is called, such as ``millimeters``; its number where it has no name."""
    return next((name for unit, name in UNITS.items() if math.isclose(unit, meters, rel_tol=1e-6)), f"{meters:.10g} m")


def join_with_or(texts: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *others, last = texts or [""]
    return f"{', '.join(others)} or {last}" if others else last


def suggest_max_depth_m(end_m: float) -> float | None:
    """
    Args:
        end_m: the 99.5th percentile of depth.

    Returns:
        The end rounded up: to two digits below 10 m, to whole meters or fives above; None where no recipe takes it.
    """
    if not 0 < end_m <= MAX_DEPTH_M:
        return None
    if end_m < 10:
        return math.ceil(end_m * 10) / 10 if end_m < 2 else math.ceil(end_m * 2) / 2
    return float(math.ceil(end_m)) if end_m < 30 else math.ceil(end_m / 5) * 5.0


def describe_range(key: str, end_m: float) -> str:
    """``model.max_depth_m: 22``, or what to compare it with where no recipe takes such an end."""
    suggested_m = suggest_max_depth_m(end_m)
    return f"{key} to what your camera sees" if suggested_m is None else f"{key}: {suggested_m:g}"

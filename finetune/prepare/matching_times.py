"""Pair what two sensors recorded by its times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import ListError
from finetune.utils.text import count_noun

Times = Sequence[float] | NDArray[np.floating]  # seconds
# Ratios of two clocks of which one counts in other units than seconds.
_UNITS = {1e9: "nanoseconds", 1e6: "microseconds", 1e3: "milliseconds"}


def match_times(
    times_s: Times,
    other_times_s: Times,
    tolerance_s: float | None = None,
) -> list[tuple[int, int]]:
    """
    Pair each time with the nearest of the other clock, if none of its own is nearer to that one.

    Args:
        times_s, other_times_s: seconds, in any order.
        tolerance_s: how far apart a pair may be; None for half the frame interval of the faster of the two.

    Returns:
        (index, other index) of each pair, in order of time; no index is in two pairs.
    """
    times, others = np.asarray(times_s, dtype=np.float64), np.asarray(other_times_s, dtype=np.float64)
    if not len(times) or not len(others):
        return []
    tolerance = default_tolerance_s(times, others) if tolerance_s is None else tolerance_s
    to_other, to_own = _nearest(times, others), _nearest(others, times)
    own = np.arange(len(times))
    # Times of epochs have a resolution of 0.2 microseconds in float64.
    kept = (to_own[to_other] == own) & (np.abs(others[to_other] - times) <= tolerance + 1e-6)
    pairs = own[kept][np.argsort(times[kept], kind="stable")]
    return [(int(i), int(to_other[i])) for i in pairs]


def default_tolerance_s(times_s: Times, other_times_s: Times) -> float:
    """Half the median frame interval of the faster of the two, seconds; infinity where neither has two times."""
    intervals = [_median_interval(np.asarray(times, dtype=np.float64)) for times in (times_s, other_times_s)]
    above = [interval for interval in intervals if interval > 0]
    return min(above) / 2 if above else float("inf")


def describe_matches(
    times_s: Times,
    other_times_s: Times,
    pairs: Sequence[tuple[int, int]],
    names: tuple[str, str],
) -> str:
    """
    Args:
        times_s, other_times_s: as for ``match_times``.
        pairs: what it gave.
        names: of the two in the plural, such as ``images`` and ``sweeps``.

    Returns:
        A sentence: how many pairs, how far apart, what is left over, and how much one clock gains on the other.
    """
    times, others = np.asarray(times_s, dtype=np.float64), np.asarray(other_times_s, dtype=np.float64)
    left = (len(times) - len(pairs), len(others) - len(pairs))
    rest = f"{_count(left[0], names[0])} and {_count(left[1], names[1])} are left over"
    if not pairs:
        return f"no {names[0]} and {names[1]} are matched by time; {rest}"
    own, other = np.array(pairs).T
    apart = others[other] - times[own]
    matched = f"{_count(1, names[0])} and {_count(1, names[1])}"
    if len(pairs) > 1:
        matched = f"{len(pairs)} {names[0]} and {names[1]}"
    text = (
        f"{matched} are matched by time, {np.median(np.abs(apart)) * 1000:.1f} ms apart "
        f"in the median, {np.abs(apart).max() * 1000:.1f} ms at most; {rest}"
    )
    gained_s = clock_drift(times, others, pairs) * float(np.ptp(times[own]))
    if abs(gained_s) >= 1e-3:
        verb = "gains" if gained_s > 0 else "loses"
        text += f"; the clock of the {names[1]} {verb} {abs(gained_s) * 1000:.1f} ms in {np.ptp(times[own]):.1f} s"
    return text


def _count(count: int, plural: str) -> str:
    return count_noun(count, plural.removesuffix("s"))


def clock_drift(
    times_s: Times,
    other_times_s: Times,
    pairs: Sequence[tuple[int, int]],
) -> float:
    """Seconds that the other clock gains in each second: the slope of a line through the pairs by least squares."""
    if len(pairs) < 3:
        return 0.0
    own, other = np.array(pairs).T
    times = np.asarray(times_s, dtype=np.float64)[own]
    apart = np.asarray(other_times_s, dtype=np.float64)[other] - times
    centered = times - times.mean()
    squares = float(centered @ centered)
    return float(centered @ (apart - apart.mean())) / squares if squares > 0 else 0.0


def require_one_clock(
    times_s: Times,
    other_times_s: Times,
    names: tuple[str, str],
    source: object,
) -> None:
    """
    Args:
        times_s, other_times_s: seconds, at least one each.
        names: of the two in the plural.
        source: where the times are from; the error names it.

    Raises:
        ListError: the two stretches of time do not meet, so the times are of other clocks or in other units.
    """
    times, others = np.asarray(times_s, dtype=np.float64), np.asarray(other_times_s, dtype=np.float64)
    slack = default_tolerance_s(times, others)
    if times.min() <= others.max() + slack and others.min() <= times.max() + slack:
        return
    found = (
        f"times of {names[0]} run from {times.min():.3f} to {times.max():.3f} s, those of {names[1]} from "
        f"{others.min():.3f} to {others.max():.3f} s, so they are of other clocks"
    )
    fix = "Write both on one clock, in seconds"
    # By the intervals, since a clock may begin anywhere: those of two sensors differ less than units do.
    intervals = [_median_interval(times), _median_interval(others)]
    for factor, unit in _UNITS.items():
        if min(intervals) > 0 and 0.1 < max(intervals) / min(intervals) / factor < 10:
            name = names[0] if intervals[0] > intervals[1] else names[1]
            fix = f"Write both in seconds: those of {name} seem to be {unit}"
    raise ListError(source, found, fix)


def _median_interval(times_s: NDArray[np.float64]) -> float:
    """0 where there are less than two."""
    return float(np.median(np.diff(np.sort(times_s)))) if len(times_s) > 1 else 0.0


def _nearest(times: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each time the index of the nearest of the others."""
    order = np.argsort(others, kind="stable")
    ordered = others[order]
    after = np.clip(np.searchsorted(ordered, times), 0, len(ordered) - 1)
    before = np.maximum(after - 1, 0)
    nearer_before = np.abs(times - ordered[before]) <= np.abs(ordered[after] - times)
    return order[np.where(nearer_before, before, after)]

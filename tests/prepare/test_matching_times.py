"""Pairs by time: the nearest of each other, once each."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.prepare.matching_times import (
    clock_drift,
    default_tolerance_s,
    describe_matches,
    match_times,
    require_one_clock,
)
from finetune.utils.errors import ListError


def test_pairs_by_hand() -> None:
    # 0.14 is nearer to 0.1 than 0.18 is; 0.18 then has none, for 0.31 is nearer to 0.3.
    assert match_times([0.0, 0.1, 0.2, 0.3], [0.02, 0.14, 0.31], 0.05) == [(0, 0), (1, 1), (3, 2)]
    # 0.113 is nearest to 0.12, which is nearer to 0.125; 0.1 is farther from 0.113 than 0.12 is.
    assert match_times([0.1, 0.12], [0.113, 0.125], 0.1) == [(1, 1)]
    assert match_times([0.0, 1.0], [0.06, 1.05], 0.05) == [(1, 1)]
    assert match_times([], [1.0]) == [] and match_times([1.0], []) == []


def test_order_of_the_input_does_not_matter() -> None:
    assert match_times([0.3, 0.1, 0.2], [0.21, 0.31, 0.11], 0.02) == [(1, 2), (2, 0), (0, 1)]


def test_the_default_is_half_an_interval_of_the_faster_one() -> None:
    color, sweeps = np.arange(90) / 30 + 1.7e9, np.arange(30) / 10 + 1.7e9 + 0.015
    assert default_tolerance_s(color, sweeps) == pytest.approx(1 / 60, rel=1e-4)
    pairs = match_times(color, sweeps)
    assert pairs == [(3 * i, i) for i in range(30)]
    # A sweep that is lost leaves its images without one: the next sweep is a whole interval away.
    assert match_times(color, np.delete(sweeps, 5)) == [(3 * i, i - (i > 5)) for i in range(30) if i != 5]
    assert match_times([1.0], [5.0]) == [(0, 0)], "no interval is known"


def test_drift_and_what_is_left_over() -> None:
    times = np.arange(101) * 0.1
    others = times * (1 + 2e-3)  # gains 2 ms each second, 20 ms in 10 s
    pairs = match_times(times, others[:-1])
    assert len(pairs) == 100
    assert clock_drift(times, others, pairs) == pytest.approx(2e-3)
    text = describe_matches(times, others[:-1], pairs, ("images", "sweeps"))
    assert "100 images and sweeps are matched by time, 9.9 ms apart in the median, 19.8 ms at most" in text
    assert "1 image and 0 sweeps are left over" in text and "the clock of the sweeps gains 19.8 ms in 9.9 s" in text
    assert clock_drift([0.0, 1.0], [0.0, 1.0], [(0, 0), (1, 1)]) == 0.0
    assert describe_matches([0.0], [9.0], [], ("images", "sweeps")).startswith("no images and sweeps are matched")


def test_one_pair_is_said_in_the_singular() -> None:
    text = describe_matches([0.0], [0.0], [(0, 0)], ("images", "sweeps"))
    assert text.startswith("1 image and 1 sweep are matched by time, ")


def test_other_clocks_and_other_units_are_named() -> None:
    times = np.arange(10) * 0.1 + 1.7e9
    require_one_clock(times, times + 0.7, ("images", "sweeps"), "times.txt")
    with pytest.raises(ListError, match=r"times\.txt: times of images run from 1700000000\.000 .* of other clocks\."):
        require_one_clock(times, times + 3600, ("images", "sweeps"), "times.txt")
    with pytest.raises(ListError, match=r"of other clocks\. Write both on one clock, in seconds\."):
        require_one_clock(times, times - 1.7e9, ("images", "sweeps"), "times.txt")
    with pytest.raises(ListError, match="in seconds: those of sweeps seem to be nanoseconds"):
        require_one_clock(times, times * 1e9, ("images", "sweeps"), "times.txt")
    with pytest.raises(ListError, match="in seconds: those of images seem to be milliseconds"):
        require_one_clock(times * 1e3, times, ("images", "sweeps"), "times.txt")

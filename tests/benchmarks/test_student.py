"""The bounds of the benchmark of students, on results that are made up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from tests.benchmarks.student import ROWS, choose_measured, find_misses

# Means 0.100 and 0.080: a gap of 0.020, of which 0.008 is 40 %.
KEPT = {"measured_10": 0.100, "pseudo": 0.102, "anchored": 0.091, "sparse": 0.091, "measured_41": 0.080}
LABELS = {"pseudo": 0.20, "anchored": 0.169}


def results_of(rows: Mapping[str, float] = KEPT, labels: Mapping[str, float] = LABELS) -> list[dict[str, Any]]:
    """Two seeds, 0.001 on either side of the means."""
    return [
        {"row": row, "seed": seed, "abs_rel": rows[row] + change}
        | ({"labels_abs_rel": labels[row]} if row in labels else {})
        for seed, change in enumerate((-0.001, 0.001))
        for row in ROWS
        if row in rows
    ]


def test_kept_bounds_are_no_misses() -> None:
    assert list(find_misses(results_of())) == []


@pytest.mark.parametrize(
    ("rows", "labels", "found"),
    [
        ({"anchored": 0.0930, "sparse": 0.094}, {}, "anchored closes 35 % of the gap of 0.0200"),
        ({"measured_41": 0.101}, {}, "anchored closes"),
        ({"sparse": 0.0909}, {}, "worse than sparse"),
        ({"pseudo": 0.1021}, {}, "pseudo 0.1021 is above 1.02"),
        ({}, {"anchored": 0.171}, "anchored labels 0.1710 are above 0.85"),
        ({"pseudo": math.nan}, {}, "pseudo nan is above"),
    ],
)
def test_each_bound_is_missed_alone(rows: dict[str, float], labels: dict[str, float], found: str) -> None:
    (miss,) = find_misses(results_of(KEPT | rows, LABELS | labels))
    assert found in miss


def test_nothing_measured_misses_every_bound() -> None:
    assert len(list(find_misses([]))) == 4


def test_two_frames_of_each_place_are_measured() -> None:
    measured, others = choose_measured([str(i) for i in range(41)])
    assert measured == ["1", "6", "9", "14", "17", "22", "25", "30", "33", "38"]
    assert len(others) == 31 and not set(measured) & set(others)

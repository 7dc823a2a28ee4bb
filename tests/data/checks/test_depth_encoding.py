"""What several maps say of bits, of numbers from 0 to 1, and of two entries in different units."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from finetune.data.checks.depth_encoding import find_differing_units
from finetune.data.checks.entry import Entry
from finetune.data.checks.findings import Finding
from finetune.data.checks.frame_stats import Facts, collect_facts
from finetune.data.checks.rules import find_problems
from finetune.data.checks.stored_numbers import Numbers
from tests.synthetic import reader_with, tilted_plane


def facts(**changes: Any) -> Facts:
    return dataclasses.replace(collect_facts(tilted_plane()), **{"edges": None, "plane": None, **changes})


def entry(found: list[Facts], key: str = "data.train.0", limit_m: float = 10.0, **options: Any) -> Entry:
    reader = reader_with(**options)
    limit = ("model.max_depth_m", limit_m)
    return Entry(key=key, where="x.yaml:3", reader=reader, facts=found, ceiling=False, limit=limit)


def named(found: Entry, *names: str) -> list[Finding]:
    return [one for one in find_problems(found) if one.name in names]


def test_bits_that_most_maps_have_are_named_with_the_two_keys() -> None:
    turned, plain = facts(numbers=Numbers(bits="rotated", matters=False)), facts()
    (found,) = named(entry([turned, turned, plain], meters_per_unit=0.0002, bits=None), "bits")
    assert found.severity == "stop"
    assert "2 of 3 depth maps look like millimeters rotated by three bits, as SUN RGB-D" in found.evidence
    assert found.fix.startswith("Set data.train.0.bits: rotated and data.train.0.meters_per_unit: 0.001 (x.yaml:3)")
    assert not named(entry([turned, plain], meters_per_unit=0.001), "bits")
    # As 1/8000 m they are read rightly until something wraps around.
    assert not named(entry([turned], meters_per_unit=0.000125), "bits")
    wrapped = facts(numbers=Numbers(bits="rotated", matters=True))
    (found,) = named(entry([turned, wrapped], meters_per_unit=0.000125), "bits")
    assert found.fix.startswith("Read the data of data.train.0 by the reader pairs, with bits: rotated")


@pytest.mark.parametrize(
    ("scale", "most_m", "unit", "limit_m", "said"),
    [
        ("normalized", 1.0, 1.0, 2.0, "from 0 to 1, and 4 of 4 depth maps end at exactly 1"),
        ("z_buffer", 0.98, 1.0, 2.0, "0 of 4 depth maps end at exactly 1; most of them are near 1, as in a renderer's"),
        ("z_buffer", 65.535, 0.001, 10.0, "from 0 to 65535, and 4 of 4 depth maps end at exactly 65535"),
        ("normalized", 0.8, 1.0, 10.0, "from 0 to 1, and 0 of 4 depth maps end at exactly 1"),
        ("normalized", 0.8, 1.0, 2.0, None),  # meters of what is near
    ],
)
def test_numbers_from_0_to_1_may_be_three_things(
    scale: Any, most_m: float, unit: float, limit_m: float, said: str | None
) -> None:
    frame = facts(
        numbers=Numbers(scale=scale), most_m=most_m, depth_m=np.linspace(0.4, 1, 50, dtype=np.float32) * most_m
    )
    frame = dataclasses.replace(frame, most_share=0.1)  # the sky, at the end of the range
    found = named(entry([frame] * 4, limit_m=limit_m, meters_per_unit=unit), "unit", "max_depth", "sentinel")
    if said is None:
        assert not [one for one in found if one.name == "unit"]
        return
    (unit_finding,) = [one for one in found if one.name == "unit"]
    assert said in unit_finding.evidence
    assert (
        "A depth buffer: read the data by the reader pairs, and set data.train.0.depth_is: z_buffer, with z_near_m"
        in (unit_finding.fix)
    )
    assert not any(one.fix.startswith("Set model.max_depth_m") or one.name == "sentinel" for one in found)


def depths(median_m: float) -> Facts:
    return facts(depth_m=np.array([0.5, 1, 1, 1.5], np.float32) * np.float32(median_m), most_share=0.0, most_m=99.0)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        ((0.0002, 0.155), (0.001, 1.17), "0.155 m and that of data.val.0 1.17 m, 7.55 times apart"),
        ((0.001, 2.0), (0.001, 0.4), "5 times apart"),
        ((0.001, 2.0), (0.001, 2000.0), "1000 times apart"),
        ((0.001, 2.0), (0.00390625, 8.0), "4 times apart"),
        ((0.001, 2.0), (0.001, 7.0), None),
        ((0.001, 2.0), (0.001, 20.0), None),
        ((0.001, 2.0), (0.0002, 1.8), None),  # as they should be: the raw numbers differ by the units
        ((0.00390625, 20.0), (0.001, 2.0), None),  # a road and a room
        ((None, 2.0), (0.001, 0.4), "5 times apart"),
    ],
)
def test_entries_whose_medians_differ_as_units_do(
    train: tuple[float, float], val: tuple[float, float], said: str | None
) -> None:
    entries = [
        entry([depths(median_m)], key, **({"meters_per_unit": unit} if unit else {}))
        for key, (unit, median_m) in (("data.train.0", train), ("data.val.0", val))
    ]
    found = list(find_differing_units(entries))
    if said is None:
        assert not found
    else:
        assert said in found[0].evidence and found[0].severity == "warn"
        assert "Check meters_per_unit of both (x.yaml:3; x.yaml:3)" in found[0].fix

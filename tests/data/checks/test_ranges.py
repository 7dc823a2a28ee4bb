"""What is to raise a suggested range and what is not: noise beyond a sensor's reach, codes, saturation."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import Finding
from finetune.data.checks.frame_stats import Facts, collect_facts
from finetune.data.checks.ranges import find_lost_depth, find_sentinel
from finetune.data.checks.units import describe_range, find_fitting_units, join_with_or, suggest_max_depth_m
from tests.synthetic import reader_with, tilted_plane


def facts(depth_m: Any, **changes: Any) -> Facts:
    plain = dataclasses.replace(collect_facts(tilted_plane()), edges=None, plane=None, most_share=0.0)
    return dataclasses.replace(plain, depth_m=np.asarray(depth_m, np.float32), **changes)


def entry(found: list[Facts], limit_m: float, **options: Any) -> Entry:
    reader = reader_with(**options)
    limit = ("model.max_depth_m", limit_m)
    return Entry(key="data.train.0", where="x.yaml:3", reader=reader, facts=found, ceiling=False, limit=limit)


def only(found: Any) -> Finding:
    (one,) = found
    assert isinstance(one, Finding)
    return one


def test_noise_beyond_the_range_raises_no_range() -> None:
    # 97 % of a camera at a desk, 3 % of noise up to 60 m.
    noisy = facts([*np.linspace(0.5, 4, 970), *np.linspace(10.5, 60, 30)], most_m=60.0, next_m=59.0)
    found = only(find_lost_depth(entry([noisy], 10.0, max_depth_m=None)))
    assert found.evidence.startswith("3% of the measured depth is beyond model.max_depth_m 10")
    assert found.fix.startswith("Set data.train.0.max_depth_m: 10 if the sensor measures no farther")
    # 10 % are more than noise.
    far = facts([*np.linspace(0.5, 4, 900), *np.linspace(10.5, 60, 100)], most_m=60.0, next_m=59.0)
    found = only(find_lost_depth(entry([far], 10.0, max_depth_m=None)))
    assert found.fix.startswith("Set model.max_depth_m: 60, or more")
    # A reader without such a key cannot be advised to use it.
    found = only(find_lost_depth(entry([noisy], 10.0)))
    assert found.fix.startswith("Set model.max_depth_m: ")


def test_a_drawn_sky_raises_no_range() -> None:
    # TartanAir draws its sky at 10 to 16 km.
    drawn = facts([*np.linspace(2, 60, 750), *np.linspace(10_000, 16_000, 250)], most_m=16_000.0, next_m=15_999.0)
    found = only(find_lost_depth(entry([drawn], 80.0, max_depth_m=None)))
    assert found.fix.startswith("No camera sees 158")
    assert found.fix.endswith(
        "set data.train.0.out_of_range: ceiling to teach it as far away, or data.train.0.max_depth_m: 80 to leave it "
        "out"
    )
    scored = dataclasses.replace(entry([drawn], 80.0, max_depth_m=None), key="data.val.0")
    assert only(find_lost_depth(scored)).fix.endswith("a code: set data.val.0.max_depth_m: 80 to leave it out")


def test_disparity_without_its_offset_is_thought_of_where_depth_ends_too_far() -> None:
    far = facts([*np.linspace(2, 9, 80), *np.linspace(11, 20, 20)], most_m=20.0, next_m=19.0)
    options: dict[str, Any] = {"depth_is": "disparity", "max_depth_m": None}
    found = only(find_lost_depth(entry([far], 10.0, disparity_offset_px=None, **options)))
    assert found.fix.startswith("If the calibration names an offset (doffs), set data.train.0.disparity_offset_px")
    found = only(find_lost_depth(entry([far], 10.0, disparity_offset_px=31.2, **options)))
    assert found.fix.startswith("Set model.max_depth_m: 20")


def test_less_than_one_percent_beyond_is_a_note_that_raises_nothing() -> None:
    noisy = facts([*np.linspace(0.5, 4, 992), *np.linspace(20, 60, 8)], most_m=60.0, next_m=59.0)
    found = only(find_lost_depth(entry([noisy], 10.0, max_depth_m=None)))
    assert (found.severity, found.fix) == ("note", "")
    assert found.evidence == "0.8% of the measured depth is beyond model.max_depth_m 10 and lost"


def test_a_value_at_which_most_maps_end_is_no_distance() -> None:
    # A tenth of the pixels at 20 m, the end of the sensor, with noise up to it.
    depth_m = [*np.linspace(0.5, 4, 890), *np.linspace(4, 19, 10), *[20.0] * 100]
    saturated = facts(depth_m, most_m=20.0, most_share=0.1, next_m=19.0)
    whole = entry([saturated] * 4, 10.0, meters_per_unit=0.001, invalid=(0.0,), max_depth_m=None)
    found = only(find_sentinel(whole))
    assert "4 of 4 depth maps have 10% of their pixels at exactly 20000 (20 m) and nothing beyond it" in found.evidence
    assert found.fix.startswith("Set data.train.0.invalid: [0, 20000]")
    assert only(find_lost_depth(whole)).severity == "note"  # 0.7 % of what is left is beyond 10 m
    assert drop_sensor_ends(saturated.depth_m, [saturated] * 4).max() == 19.0
    # Three maps are too few, and so is a value of single pixels.
    assert not list(find_sentinel(entry([saturated] * 3, 10.0)))
    assert not list(find_sentinel(entry([dataclasses.replace(saturated, most_share=0.001)] * 4, 10.0)))
    # Where there is nothing else, it stays.
    assert drop_sensor_ends(np.full(3, 20, np.float32), [saturated] * 4).tolist() == [20.0] * 3


@pytest.mark.parametrize(
    ("end_m", "said"),
    [
        (21.6, "model.max_depth_m: 22"),
        (1397.0, "model.max_depth_m: 1400"),
        (11_458.0, "model.max_depth_m: 11460"),
        (250_000.0, "model.max_depth_m to what your camera sees"),
    ],
)
def test_no_range_is_suggested_that_a_recipe_refuses(end_m: float, said: str) -> None:
    assert describe_range("model.max_depth_m", end_m) == said


def test_what_no_recipe_takes_has_no_suggestion() -> None:
    assert suggest_max_depth_m(0.0) is None
    assert suggest_max_depth_m(100_000.0) == 100_000.0


def test_every_unit_that_fits_is_named_but_the_present_one() -> None:
    # Raw numbers of Matterport3D, and a range of 6 m: 1/1000 would be 6.7 m in the median.
    found = find_fitting_units(6684.0, 21_600.0, 6.0, current=0.001)
    assert [unit.meters for unit in found] == [1 / 5000, 1 / 4000, 1 / 8000, 1 / 10000]
    assert found[1].median_m == pytest.approx(1.671)
    assert [unit.meters for unit in find_fitting_units(2000.0, 9000.0, 10.0, current=1.0)] == [
        0.001,
        1 / 5000,
        1 / 4000,
    ]
    assert not find_fitting_units(1e9, 2e9, 10.0, current=1.0)
    assert (join_with_or(["a"]), join_with_or(["a", "b", "c"])) == ("a", "a, b or c")

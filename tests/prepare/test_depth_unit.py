"""The unit of stored depth: exact where the numbers are whole, and always wide enough."""

import numpy as np
import pytest

from finetune.prepare.depth_unit import DepthRange, encode_depth, find_range, join_ranges


def depths(unit: float, most: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (np.append(rng.integers(1, most, 5000), most) * unit).astype(np.float32)


@pytest.mark.parametrize(
    ("unit", "most", "chosen"),
    [
        (0.001, 9_000, 0.001),  # millimeters
        (0.001, 65_534, 0.001),  # 65.534 m, the farthest in millimeters
        (1 / 5000, 40_000, 1 / 5000),  # TUM
        (1 / 4000, 30_000, 1 / 4000),  # L515
        (1 / 256, 20_000, 1 / 256),  # KITTI: 78 m
        (0.01, 30_000, 0.01),  # centimeters: 300 m
        (0.01, 500, 0.001),  # centimeters that fit millimeters are whole millimeters too
    ],
)
def test_whole_numbers_keep_their_unit_and_every_bit(unit: float, most: int, chosen: float) -> None:
    found = depths(unit, most)
    assert find_range(found).unit == chosen
    counts = encode_depth(found[None], chosen)
    np.testing.assert_array_equal((counts * chosen).astype(np.float32)[0], found)


@pytest.mark.parametrize(
    ("far_m", "unit"), [(6.5, 0.0001), (6.6, 0.001), (65.5, 0.001), (66.0, 1 / 256), (255.9, 1 / 256), (300.0, 0.01)]
)
def test_other_numbers_take_the_finest_unit_that_reaches_them(far_m: float, unit: float) -> None:
    found = np.linspace(0.3, far_m, 7001, dtype=np.float32)
    assert find_range(found).unit == unit
    counts = encode_depth(found[None], unit)
    assert counts.max() < 65535
    assert np.abs(counts * unit - found).max() <= unit / 2 + 1e-5


def test_a_unit_fits_all_frames() -> None:
    near, far = find_range(depths(0.001, 3000)), find_range(np.array([3.14159, 70.0], np.float32))
    assert near.unit == 0.001
    assert join_ranges([near, far]).unit == 1 / 256
    assert join_ranges([far, near]) == join_ranges([near, far])
    assert join_ranges([near]) == near
    assert DepthRange().joined(near) == near


def test_nothing_measured_says_nothing() -> None:
    assert find_range(np.zeros(0, np.float32)) == DepthRange()

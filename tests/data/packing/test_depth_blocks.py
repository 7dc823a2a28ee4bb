"""Depth as whole numbers where no bit changes, else as floats."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.data.packing.depth_blocks import make_depth_block
from finetune.data.readers.files import DepthCoding


@pytest.mark.parametrize("unit", [0.001, 1 / 256, 0.00037, 1 / 5000])
def test_every_whole_number_of_a_unit_comes_back(unit: float) -> None:
    raw = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    depth_m, _ = DepthCoding(meters_per_unit=unit).to_meters(raw)
    block = make_depth_block(depth_m, [unit])
    assert block.meters_per_unit == unit
    np.testing.assert_array_equal(block.numbers, raw)
    np.testing.assert_array_equal(block.depth_m(), depth_m)


def test_a_usual_unit_is_found_without_being_told() -> None:
    depth_m = (np.array([[1, 513, 40_000]]) / 256).astype(np.float32)
    block = make_depth_block(depth_m, [None])
    assert block.meters_per_unit == 1 / 256
    assert block.numbers.tolist() == [[1, 513, 40_000]]


@pytest.mark.parametrize(
    ("changed", "is_whole_numbers"),
    [
        (np.float32(2.001), True),
        (np.nextafter(np.float32(2.001), np.float32(3)), False),
        (np.float32(-0.0), False),  # whose bits are not those of 0
        (np.float32(-1.0), False),
        (np.float32(np.nan), False),
        (np.float32(65.536), False),  # one too many
        (np.float32(np.inf), True),
        (np.float32(-np.inf), False),
    ],
)
def test_a_single_other_pixel_decides(changed: np.float32, is_whole_numbers: bool) -> None:
    depth_m = np.full((80, 90), 1.5, np.float32)
    depth_m[41, 17] = changed
    block = make_depth_block(depth_m, [0.001])
    assert (block.meters_per_unit is not None) is is_whole_numbers
    np.testing.assert_array_equal(block.depth_m().view(np.uint32), depth_m.view(np.uint32))


def test_the_number_of_the_sky_may_not_be_taken() -> None:
    depth_m = np.array([[65.535, np.inf, 1.0]], np.float32)
    assert make_depth_block(depth_m, [0.001]).meters_per_unit is None
    depth_m[0, 0] = 65.534
    block = make_depth_block(depth_m, [0.001])
    assert (block.has_infinity, block.numbers.tolist()) == (True, [[65534, 65535, 1000]])

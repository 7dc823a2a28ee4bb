"""Depth that is still as its file stores it becomes the meters that it would have become at once."""

from typing import Any

import numpy as np
import pytest

from finetune.data.coded_depth import NUMBERS, CodedDepth, DepthTable, look_up
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import DepthCoding
from finetune.data.sample import CodedSample, DepthSample
from finetune.data.training_dataset import DepthRangePolicy

MILLIMETERS = DepthCoding(meters_per_unit=0.001, invalid=(0.0, 65535.0), max_depth_m=9.0)


def coded(raw: np.ndarray, coding: DepthCoding = MILLIMETERS) -> CodedDepth:
    found = coding.coded(raw)
    assert found is not None
    return found


def test_numbers_become_meters_by_their_table() -> None:
    depth = coded(np.array([[0, 1500, 9000], [9001, 65535, 1]], np.uint16))
    assert depth.valid().tolist() == [[False, True, True], [False, False, True]]
    assert depth.depth_m().dtype == np.float32
    assert np.array_equal(depth.depth_m()[depth.valid()], np.array([1.5, 9.0, 0.001], np.float32))
    inner = depth.window(slice(0, 2), slice(1, 3))
    assert inner.valid().tolist() == [[True, True], [False, True]]


def test_what_was_measured_is_the_same_by_its_ends_and_by_a_table() -> None:
    raw = np.array([[0, 1, 9000, 9001, 65535]], np.uint16)
    assert coded(raw[:, :3]).valid().tolist() == [[False, True, True]]  # all up to the last measurement
    assert coded(raw).valid().tolist() == [[False, True, True, False, False]]
    gap = DepthCoding(meters_per_unit=0.001, invalid=(0.0, 9000.0))
    assert coded(raw, gap).valid().tolist() == [[False, True, False, True, True]]
    assert coded(raw, gap).table.stretch is None and coded(raw).table.stretch == (1, 9000)


def test_only_16_bits_without_a_unit_of_their_own_are_kept_as_stored() -> None:
    assert MILLIMETERS.coded(np.ones((2, 2), np.float32)) is None
    assert DepthCoding(meters_per_unit=1.0, affine_inverse=True).coded(np.ones((2, 2), np.uint16)) is None


def test_ranks_are_numbers_in_the_order_of_their_depths() -> None:
    ranks = coded(np.zeros((1, 1), np.uint16)).table.ranks
    assert ranks is not None
    assert look_up(np.array([[0, 7, 9000, 9001, 65535]], np.uint16), ranks).tolist() == [[65535, 7, 9000, 65535, 65535]]


def test_there_are_no_ranks_where_a_larger_number_may_be_nearer_or_the_largest_was_measured() -> None:
    falling = DepthTable(meters=np.linspace(2, 1, NUMBERS, dtype=np.float32), measured=np.arange(NUMBERS) < 9)
    assert falling.ranks is None
    assert coded(np.zeros((1, 1), np.uint16), DepthCoding(meters_per_unit=0.001)).table.ranks is None


@pytest.mark.parametrize("filled", [0.1, 0.6, 0.97])
@pytest.mark.parametrize("input_size", [(28, 42), (70, 98), (126, 126)])
@pytest.mark.parametrize("zoom", [1.0, 1.5])
@pytest.mark.parametrize("ceiling_m", [None, 8.95, np.inf])
def test_a_window_has_the_same_bits_as_one_of_a_map_in_meters(
    filled: float, input_size: tuple[int, int], zoom: float, ceiling_m: float | None
) -> None:
    draw = np.random.default_rng(0)
    raw = draw.integers(1, 9500, (75, 101)).astype(np.uint16)
    raw[draw.random(raw.shape) > filled] = 0
    fields: dict[str, Any] = {"image": draw.integers(0, 256, (75, 101, 3)).astype(np.uint8), "source": "drawn"}
    depth_m, valid = MILLIMETERS.to_meters(raw)
    limits = DepthRangePolicy(max_depth_m=8.9, ceiling_m=ceiling_m)
    window = Preprocessing(input_size=input_size).window(75, 101, 0.3, 0.8, zoom)
    stored = limits(CodedSample.of_valid(**fields, coded=coded(raw)))
    found = window(stored)
    expected = window(limits(DepthSample(**fields, depth_m=depth_m, valid=valid)))
    assert stored.coded is not None and found.coded is None
    if filled > 0.9:  # a dense map becomes meters in the window alone
        assert "depth_m" not in vars(stored)
    for name in ("depth_m", "valid", "image"):
        values, wanted = getattr(found, name), getattr(expected, name)
        assert values.dtype == wanted.dtype and np.array_equal(values, wanted), name
    assert found.valid.any()

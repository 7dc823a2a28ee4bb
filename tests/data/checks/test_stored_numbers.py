"""Drawn depth stored in ways of which some are no plain number, and sound depth that must not be taken for one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.checks.stored_numbers import Numbers, recognize_numbers
from tests.conftest import ROOT

SAMPLES = os.environ.get("DEPTH_SAMPLES")
Store = Callable[[NDArray[np.float64], np.random.Generator], NDArray[Any]]


def turned(millimeters: NDArray[np.float64]) -> NDArray[np.uint16]:
    whole = np.rint(millimeters).astype(np.uint32)
    return ((whole << 3) & 0xFFFF | whole >> 13).astype(np.uint16)


def with_confidence(depth_m: NDArray[np.float64], confidence: NDArray[np.int64]) -> NDArray[np.uint16]:
    millimeters = np.minimum(np.rint(1000 * depth_m), 8191).astype(np.int64)
    return np.where(millimeters > 0, millimeters | confidence << 13, 0).astype(np.uint16)


def depth_buffer(depth_m: NDArray[np.float64], near_m: float = 0.1, far_m: float = 100.0) -> NDArray[np.float64]:
    measured = depth_m > 0
    shares = far_m / (far_m - near_m) * (1 - near_m / np.where(measured, depth_m, 1.0))
    return np.where(measured, shares, 0.0)


STORED: dict[str, tuple[Store, float, Numbers]] = {
    "rotated": (lambda depth_m, _: turned(1000 * depth_m), 0.001, Numbers(bits="rotated", matters=False)),
    "rotated, beyond 8.19 m": (
        lambda depth_m, _: turned(np.minimum(5000 * depth_m, 16_000)),
        0.000125,
        Numbers(bits="rotated", matters=True),
    ),
    "half floats": (
        lambda depth_m, _: depth_m.astype(np.float16).view(np.uint16),
        0.001,
        Numbers(bits="float16", matters=True),
    ),
    "half floats with a sky of 40 m": (
        lambda depth_m, _: np.where(depth_m > 0, 6 * depth_m, 40.0).astype(np.float16).view(np.uint16),
        0.001,
        Numbers(bits="float16", matters=True),
    ),
    "confidence of each pixel": (
        lambda depth_m, generator: with_confidence(depth_m, generator.integers(0, 8, depth_m.shape)),
        0.001,
        Numbers(bits="android_confidence", matters=True),
    ),
    "one confidence": (
        lambda depth_m, _: with_confidence(depth_m, np.full(depth_m.shape, 7)),
        0.001,
        Numbers(bits="android_confidence", matters=True),
    ),
    "low byte first": (
        lambda depth_m, _: np.rint(1000 * depth_m).astype(np.uint16).byteswap(),
        0.001,
        Numbers(bits="swapped", matters=True),
    ),
    "depth buffer": (lambda depth_m, _: depth_buffer(depth_m).astype(np.float32), 1.0, Numbers(scale="z_buffer")),
    "depth buffer of 16 bits": (
        lambda depth_m, _: np.rint(65535 * depth_buffer(depth_m)).astype(np.uint16),
        0.001,
        Numbers(scale="z_buffer"),
    ),
    "shares of the farthest": (
        lambda depth_m, _: (depth_m / depth_m.max()).astype(np.float32),
        1.0,
        Numbers(scale="normalized"),
    ),
    "millimeters": (lambda depth_m, _: np.rint(1000 * depth_m).astype(np.uint16), 0.001, Numbers()),
    "1/256 m": (lambda depth_m, _: np.rint(256 * depth_m).astype(np.uint16), 1 / 256, Numbers()),
    "1/8000 m": (
        lambda depth_m, generator: (
            np.rint(8000 * depth_m + generator.normal(0, 4, depth_m.shape) * (depth_m > 0))
            .clip(0, 65535)
            .astype(np.uint16)
        ),
        1 / 8000,
        Numbers(),
    ),
    "multiples of 16": (lambda depth_m, _: np.rint(500 * depth_m).astype(np.uint16) * 16, 0.001, Numbers()),
    "meters": (lambda depth_m, _: depth_m.astype(np.float32), 1.0, Numbers()),
}


@pytest.mark.parametrize("name", STORED)
def test_stored_numbers_are_told(name: str) -> None:
    store, unit, expected = STORED[name]
    generator = np.random.default_rng(0)
    recognized = []
    for path in sorted((ROOT / "data" / "room" / "depth").glob("*.png"))[:6]:
        raw: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        stored = store(raw / 1000, generator)
        depth_m = (stored.astype(np.float64) * unit).astype(np.float32)
        recognized.append(recognize_numbers(depth_m, stored > 0, unit))
    # Single frames may be recognized wrongly; what is said of an entry takes most of them.
    if expected == Numbers():
        assert recognized == [expected] * 6
    else:
        assert recognized.count(expected) >= 4


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_the_half_floats_give_no_warning() -> None:
    raw: Any = cv2.imread(str(next((ROOT / "data" / "room" / "depth").glob("*.png"))), cv2.IMREAD_UNCHANGED)
    stored = np.where(raw > 0, np.clip(raw, 1000, 2900) * 10.5, 0).astype(np.uint16)
    stored[0, :100] = 32_000  # NaN as half floats
    depth_m = (stored * 1e-4).astype(np.float32)
    assert recognize_numbers(depth_m, stored > 0, 1e-4) == Numbers()


@pytest.mark.parametrize("unit", [None, 0.001])
def test_nothing_is_told_of_few_numbers_or_of_what_a_reader_changed(unit: float | None) -> None:
    turned_mm = turned(np.full((40, 40), 1000.0) + np.arange(1600).reshape(40, 40))
    depth_m = (turned_mm * 0.001).astype(np.float32)
    valid = np.ones((40, 40), np.bool_)
    assert recognize_numbers(depth_m, valid, 0.001).bits == "rotated"
    if unit is None:
        assert recognize_numbers(depth_m, valid, None) == Numbers()
    valid[12:] = False
    assert recognize_numbers(depth_m, valid, unit) == Numbers()


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_real_depth_is_plain() -> None:
    """Depth of cameras, as they store it; SUN RGB-D alone turns its bits."""
    assert SAMPLES
    samples = Path(SAMPLES)
    found: dict[str, list[str | None]] = {}
    for path in sorted(samples.rglob("*.png")):
        name = path.relative_to(samples).parts[0]
        if len(found.setdefault(name, [])) == 2:
            continue
        raw: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if raw.dtype == np.uint16 and raw.ndim == 2:
            depth_m = (raw * 0.001).astype(np.float32)
            found[name].append(recognize_numbers(depth_m, (raw > 0) & (raw < 65535), 0.001).bits)
    assert len([bits for bits in found.values() if bits]) >= 10
    assert {name for name, bits in found.items() if any(bits)} == {"sun_rgbd"}

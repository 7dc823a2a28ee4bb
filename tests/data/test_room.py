"""The frames in data/room are what data/room/make.py draws, and fit for training."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.readers.pairs import Pairs

ROOM = Path(__file__).resolve().parents[2] / "data" / "room"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("room_make", ROOM / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed(name: str) -> list[list[str]]:
    return [line.split() for line in (ROOM / name).read_text(encoding="utf-8").splitlines()]


def depth_m(name: str) -> NDArray[np.float64]:
    """The measured depths of a frame."""
    counts = cv2.imread(str(ROOM / name), cv2.IMREAD_UNCHANGED)
    assert counts is not None and counts.shape == (240, 320) and counts.dtype == np.uint16
    return counts[counts > 0] * 0.001


@pytest.mark.parametrize("number", [12, 58])
def test_a_frame_is_drawn_again(make: ModuleType, number: int, tmp_path: Path) -> None:
    room, view = [*make.list_views(make.TRAIN), *make.list_views(make.VAL)][number]
    image, counts = make.draw_frame(room, view)
    for folder in ("color", "depth"):
        (tmp_path / folder).mkdir()
    color, depth = make.write_frame(tmp_path, number, image, counts).split()
    # Drawing uses correctly rounded operations alone, so not one count may differ, on any processor.
    np.testing.assert_array_equal(counts, cv2.imread(str(ROOM / depth), cv2.IMREAD_UNCHANGED))
    # Another build of the JPEG library may round differently.
    committed, again = cv2.imread(str(ROOM / color)), cv2.imread(str(tmp_path / color))
    assert committed is not None and again is not None
    assert np.abs(committed.astype(int) - again).max() <= 2
    np.testing.assert_array_equal(counts, cv2.imread(str(tmp_path / depth), cv2.IMREAD_UNCHANGED))


def test_lists_hold_50_and_10_frames_and_every_file_is_in_one() -> None:
    train, val = listed("train.txt"), listed("val.txt")
    assert (len(train), len(val)) == (50, 10)
    files = [name for pair in train + val for name in pair]
    assert len(set(files)) == 120
    assert sorted(files) == sorted(path.relative_to(ROOM).as_posix() for path in ROOM.glob("*/*.*g"))
    assert sum(path.stat().st_size for path in ROOM.rglob("*")) < 5e6


def test_no_view_is_in_both_lists_and_half_of_val_is_a_room_never_trained_on(make: ModuleType) -> None:
    train, val = make.list_views(make.TRAIN), make.list_views(make.VAL)
    assert not set(train) & set(val)
    rooms = {room for room, _ in train}
    assert len(rooms) == 5 and len({room for room, _ in val}) == 6
    assert sum(room not in rooms for room, _ in val) == 5


def test_a_recipe_reads_it(make: ModuleType) -> None:
    reader = Pairs(root=str(ROOM), list="val.txt", meters_per_unit=0.001, intrinsics="intrinsics.json")
    sample = reader[0]
    assert sample.camera is not None and sample.camera.fx_px == 288.0
    assert json.loads((ROOM / "intrinsics.json").read_text(encoding="utf-8")) == make.INTRINSICS


def test_depths_are_those_of_a_room_camera_and_a_constant_is_a_bad_answer() -> None:
    train, val = [[depth_m(depth) for _, depth in listed(name)] for name in ("train.txt", "val.txt")]
    shares = np.array([depths.size / (240 * 320) for depths in train + val])
    assert shares.min() > 0.7 and shares.max() < 0.99 and 0.85 < shares.mean() < 0.92
    low, middle, high = np.percentile(np.concatenate(train), [1, 50, 99])
    assert 0.55 < low < 0.7 and 1.55 < middle < 1.8 and 4.5 < high < 5.3
    constant = np.mean([np.mean(np.abs(middle - depths) / depths) for depths in val])
    assert 0.34 < constant < 0.42


def test_every_view_has_room_before_the_camera_and_something_far() -> None:
    for name in ("train.txt", "val.txt"):
        for _, depth in listed(name):
            assert depth_m(depth).min() >= 0.4 and depth_m(depth).max() > 2.5

"""The reader of drawn rooms: which frame is which, and what it promises about them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finetune.errors import RecipeError
from finetune.readers.scenes import Scenes
from finetune.sample import DepthSample

SMALL = (56, 70)


def assert_equal(one: DepthSample, other: DepthSample) -> None:
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.depth_m, other.depth_m)
    assert (one.source, one.camera) == (other.source, other.camera)


def test_a_frame_has_the_same_bits_alone_and_in_any_batch() -> None:
    reader = Scenes(seed=3, count=20, size=SMALL)
    together = reader.batch([0, 17, 4, 9, 5])
    assert_equal(reader[4], together[2])
    assert_equal(reader[5], reader.batch([5, 4])[0])
    assert_equal(Scenes(seed=3, count=5, size=SMALL)[4], together[2])


def test_a_frame_has_the_same_bits_with_any_number_of_threads() -> None:
    # Large enough that torch shares the work among its threads.
    reader = Scenes(seed=3, size=(168, 224))
    before = torch.get_num_threads()
    try:
        frames = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            frames.append(reader[4])
    finally:
        torch.set_num_threads(before)
    assert_equal(*frames)


def test_frames_and_seeds_differ() -> None:
    reader, other = Scenes(seed=0, size=SMALL), Scenes(seed=1, size=SMALL)
    for one, two in ((reader[0], reader[1]), (reader[0], other[0]), (reader[1], other[0])):
        assert np.median(np.abs(one.depth_m - two.depth_m)) > 0.05


def test_frames_are_named_by_seed_and_number() -> None:
    reader = Scenes(seed=7, count=3, size=SMALL)
    assert reader.source(2) == reader[2].source == "scenes:seed=7#2"
    assert len(reader) == 3
    for outside in (3, -1):
        with pytest.raises(IndexError):
            reader[outside]


def test_images_are_well_exposed_and_depth_is_that_of_a_room() -> None:
    frames = Scenes(seed=5, size=SMALL).batch(list(range(24)))
    medians = np.array([np.median(frame.depth_m) for frame in frames])
    for frame in frames:
        assert frame.image.shape == (*SMALL, 3) and frame.image.dtype == np.uint8
        assert 80 < frame.image.mean() < 190 and frame.image.std() > 8
        assert frame.valid.all() and frame.depth_m.min() > 0.05 and frame.depth_m.max() < 10.0
    assert medians.min() < 1.8 and medians.max() > 3.5


def test_the_camera_has_a_field_of_view_from_the_range() -> None:
    frames = Scenes(seed=2, size=SMALL, hfov_deg=(60.0, 62.0)).batch([0, 1, 2, 3])
    widths = set()
    for frame in frames:
        assert frame.camera is not None
        hfov_deg = 2 * math.degrees(math.atan(35 / frame.camera.fx_px))
        assert 60.0 <= hfov_deg <= 62.0
        assert (frame.camera.cx_px, frame.camera.cy_px) == (34.5, 27.5)
        assert frame.camera.fy_px == frame.camera.fx_px
        widths.add(frame.camera.fx_px)
    assert len(widths) == 4


def test_beyond_max_depth_is_not_valid() -> None:
    near, far = Scenes(seed=5, size=SMALL, max_depth_m=2.0)[0], Scenes(seed=5, size=SMALL)[0]
    np.testing.assert_array_equal(near.valid, far.depth_m <= 2.0)
    assert 0 < near.valid.mean() < 1


def test_a_room_may_be_empty() -> None:
    # About half of them are; the camera then looks at the middle.
    for frame in Scenes(seed=5, size=SMALL, objects=(0, 1)).batch(list(range(8))):
        assert frame.valid.all() and frame.depth_m.max() > 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("count", 0),
        ("size", (0, 320)),
        ("hfov_deg", (80.0, 50.0)),
        ("hfov_deg", (50.0, 170.0)),
        ("max_depth_m", 0.0),
        ("max_depth_m", math.nan),
        ("objects", (5, 4)),
        ("objects", (0, 0)),
        ("objects", (0, 31)),
    ],
)
def test_options_out_of_range_are_named(key: str, value: object) -> None:
    options: dict[str, object] = {"count": 3, key: value}
    with pytest.raises(RecipeError) as caught:
        Scenes(**options)  # type: ignore[arg-type]
    assert caught.value.key == key

"""Focal lengths by hand, and intrinsics that put pixels back onto the surfaces they show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.data.sample import DepthSample
from finetune.data.synthetic.drawing import draw_frames
from tests.small_worlds import drawn_worlds

# The plane x / 5 - y / 3 + z = 4 m.
NORMAL, OFFSET_M = np.array([0.2, -1 / 3, 1.0]), 4.0


def plane_seen_by(camera: Camera, height: int, width: int) -> DepthSample:
    """The plane above: its depth along each ray is a formula."""
    depth_m = (OFFSET_M / (camera.rays(height, width) @ NORMAL)).astype(np.float32)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return DepthSample(
        image=noise, depth_m=depth_m, valid=np.ones(depth_m.shape, np.bool_), source="plane", camera=camera
    )


def distance_m(sample: DepthSample) -> float:
    """The largest distance of a measured point from the plane, meters."""
    assert sample.camera is not None
    points = sample.camera.back_project(sample.depth_m)[sample.valid]
    return float(np.abs(points @ NORMAL - OFFSET_M).max() / np.linalg.norm(NORMAL))


CAMERA = Camera(fx_px=300.0, fy_px=320.0, cx_px=150.3, cy_px=122.9)


def test_the_focal_length_is_the_mean_of_both() -> None:
    assert CAMERA.focal_px == 310.0


def test_the_focal_length_at_the_network_by_hand() -> None:
    # 240x320 becomes 126x168: 0.525 times in both directions. A crop and a mirror change nothing.
    preprocessing = Preprocessing(input_size=(126, 168))
    assert preprocessing.focal_px(CAMERA, 240, 320) == pytest.approx(0.525 * 310.0)
    # 240x300 becomes 140x168: 7/12 downwards and 0.56 across.
    assert preprocessing.focal_px(CAMERA, 240, 300) == pytest.approx((0.56 * 300.0 + 7 / 12 * 320.0) / 2)


@pytest.mark.parametrize("size", [(240, 320), (240, 300), (480, 640), (100, 400)])
@pytest.mark.parametrize("zoom", [1.0, 1.37])
def test_training_and_use_give_one_focal_length(size: tuple[int, int], zoom: float) -> None:
    preprocessing = Preprocessing(input_size=(126, 168))
    in_use_px = preprocessing.focal_px(CAMERA, *size)
    window = preprocessing.window(*size, 0.4, 0.6, zoom)
    trained = Augmentation(flip=1.0, color=0.0)(window(plane_seen_by(CAMERA, *size)), (0,))
    assert trained.camera is not None
    assert trained.camera.focal_px == pytest.approx(zoom * in_use_px, rel=1e-12)


def test_a_crop_a_flip_and_a_whole_resize_keep_every_pixel_on_its_plane() -> None:
    seen = plane_seen_by(CAMERA, 240, 320)
    assert distance_m(seen) < 1e-5
    assert distance_m(seen.window(17, 33, 100, 120)) < 1e-5
    mirrored = Augmentation(flip=1.0, color=0.0)(seen, (0,))
    assert mirrored.camera is not None
    assert mirrored.camera.cx_px == pytest.approx(319 - 150.3)
    points = mirrored.camera.back_project(mirrored.depth_m) * [-1.0, 1.0, 1.0]
    assert np.abs(points @ NORMAL - OFFSET_M).max() < 1e-4
    # A third of each side: the center of each output pixel is the center of a source pixel, so depth is exact.
    shrunk = Preprocessing(input_size=(84, 112)).whole(252, 336)(plane_seen_by(CAMERA, 252, 336))
    assert distance_m(shrunk) < 1e-4


def test_a_zoom_keeps_every_pixel_on_its_plane() -> None:
    # Zoomed three times, the center of each output pixel 3 k + 1 is the center of a source pixel.
    window = replace(Preprocessing(input_size=(84, 112)).window(84, 112, 0.5, 0.5, 3.0), top=42, left=60)
    zoomed = window(plane_seen_by(CAMERA, 84, 112))
    assert zoomed.camera is not None
    assert zoomed.camera.focal_px == pytest.approx(3 * CAMERA.focal_px)
    centers = np.zeros(zoomed.valid.shape, np.bool_)
    centers[1::3, 1::3] = True
    assert zoomed.valid.all()
    assert distance_m(replace(zoomed, valid=centers)) < 1e-4


@pytest.mark.parametrize("zoom", [1.0, 1.1, 1.6])
def test_intrinsics_after_any_window_hit_the_plane_within_the_pixel_that_was_picked(zoom: float) -> None:
    # Depth is picked and never interpolated. So the camera is asked at the center of the picked pixel.
    seen, window = (
        plane_seen_by(CAMERA, 240, 320),
        Preprocessing(input_size=(126, 168)).window(240, 320, 0.3, 0.8, zoom),
    )
    camera = window.camera(CAMERA)
    rows, columns = np.mgrid[5:100:7, 5:150:9]
    x_px = (window.left + columns + 0.5) * window.pixels_across - 0.5
    y_px = (window.top + rows + 0.5) * window.pixels_down - 0.5
    rays = np.stack([(columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px], axis=-1)
    of_source = np.stack([(x_px - CAMERA.cx_px) / CAMERA.fx_px, (y_px - CAMERA.cy_px) / CAMERA.fy_px], axis=-1)
    assert np.abs(rays - of_source).max() < 1e-12
    # The image moves along: it is that of the plane within what bicubic weights of noise give at the same place.
    assert window(seen).image.shape == (126, 168, 3)


def test_a_drawn_world_has_canonical_labels_that_follow_the_lens() -> None:
    """A ray through pixel (5 i, 5 j) of a lens of f is the ray through (7 i, 7 j) of one of 1.4 f."""
    worlds, cameras = drawn_worlds(3, 2, 71, 99, outdoors=0.0)
    short_px = 60.0

    def draw(focal_px: float, height: int, width: int) -> np.ndarray:
        lens = replace(
            cameras,
            focal_px=cameras.focal_px * 0 + focal_px,
            center_px=cameras.center_px * 0 + cameras.center_px.new_tensor([(width - 1) / 2, (height - 1) / 2]),
        )
        return draw_frames(worlds, lens, height, width).depth_m.numpy()

    canonical_px = 77.0
    first = draw(short_px, 51, 71)[:, ::5, ::5] * canonical_px / short_px
    second = draw(1.4 * short_px, 71, 99)[:, ::7, ::7] * canonical_px / (1.4 * short_px)
    assert first.shape == second.shape == (2, 11, 15)
    np.testing.assert_allclose(second, first / 1.4, rtol=1e-5)


def test_a_zoomed_sparse_map_keeps_single_pixels() -> None:
    depth_m, valid = np.zeros((84, 112), np.float32), np.zeros((84, 112), np.bool_)
    depth_m[10:70:6, 10:100:9] = 2.0
    valid[10:70:6, 10:100:9] = True
    plain = Preprocessing(input_size=(84, 112)).window(84, 112, 0.5, 0.5, 1.6)
    found_m, kept = plain.depth(depth_m, valid)
    rows, columns = np.nonzero(kept)
    assert len(rows) > 20
    # Neighbors are six rows and nine columns apart in the frame, 9.6 and 14.4 in the zoomed one.
    assert np.diff(np.unique(rows)).min() >= 9
    assert np.diff(np.unique(columns)).min() >= 14
    assert (found_m[kept] == 2.0).all()
    # Each is where the center of its pixel falls.
    expected = np.floor((np.arange(10, 70, 6) + 0.5) * 1.6) - plain.top
    assert set(rows) == {int(row) for row in expected if 0 <= row < 84}


def test_a_zoom_below_one_stays_where_the_frame_fills_the_window() -> None:
    preprocessing = Preprocessing(input_size=(84, 112))
    assert preprocessing.least_zoom(240, 320) == 1.0
    assert preprocessing.least_zoom(240, 640) == 1.0  # the height is that of the window already

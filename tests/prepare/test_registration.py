"""Depth of one camera in the view of another: by hand, on drawn rooms, on real frames."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.checks import registration as checks
from finetune.data.readers.files import read_depth, read_image
from finetune.prepare.calibration import CalibratedCamera, Rig, read_rig
from finetune.prepare.registration import Registration
from tests.benchmarks.register_samples import (
    LEAST_AFTER,
    MOST_BEFORE,
    SAMPLES,
    Sample,
    register,
    score_views,
    write_calibration,
)
from tests.prepare.two_cameras import TwoViews, make_rig

Depth = NDArray[np.float32]
# Color finer than depth, as of most depth cameras; color as fine; and color coarser.
RIGS = {
    "finer": make_rig(),
    "alike": make_rig(color=(128, 160, 120.0), depth=(120, 160, 110.0)),
    "coarser": make_rig(color=(96, 128, 100.0), depth=(192, 256, 190.0)),
}


def pinhole_rig(shift_m: tuple[float, float, float] = (0.0, 0.0, 0.0), *, finer: int = 1) -> Rig:
    """Two cameras of 32x40 pixels and 40 px focal length that look the same way; the color camera may be finer."""
    camera = Camera(fx_px=40.0, fy_px=40.0, cx_px=19.5, cy_px=15.5)
    color = CalibratedCamera(camera=camera.resized(finer, finer), height=32 * finer, width=40 * finer)
    matrix = np.eye(4)
    matrix[:3, 3] = shift_m
    return Rig(color=color, depth=CalibratedCamera(camera=camera, height=32, width=40), color_from_sensor=matrix)


def test_one_view_stays_as_it_is() -> None:
    depth_m = np.random.default_rng(0).uniform(1, 5, (32, 40)).astype(np.float32)
    depth_m[4:9, 10:20] = 0
    np.testing.assert_allclose(Registration(pinhole_rig()).depth_in_color(depth_m), depth_m, rtol=1e-6)


def test_a_camera_to_the_side_sees_near_things_elsewhere() -> None:
    # The color camera is 0.1 m to the left of the depth camera, so all is farther right there: a wall at 4 m by
    # 40 * 0.1 / 4 = 1 px, a box at 1 m before it by 4 px.
    depth_m = np.full((32, 40), 4.0, np.float32)
    depth_m[10:20, 12:18] = 1.0
    expected = np.full((32, 40), 4.0, np.float32)
    expected[:, 0] = 0.0  # beyond the view of the depth camera
    expected[10:20, 13:16] = 0.0  # the wall that the box hid from it: columns 12 to 17, of which 16 and 17 are hidden
    expected[10:20, 16:22] = 1.0
    np.testing.assert_allclose(Registration(pinhole_rig((0.1, 0, 0))).depth_in_color(depth_m), expected, rtol=1e-6)


def test_a_camera_behind_sees_all_farther() -> None:
    # 0.5 m behind: depth 2 becomes 2.5, and the image of a wall shrinks to 0.8 of its size.
    found = Registration(pinhole_rig((0, 0, 0.5))).depth_in_color(np.full((32, 40), 2.0, np.float32))
    assert set(np.unique(found)) == {0.0, 2.5}
    rows, columns = np.nonzero(found)
    # 32 and 40 pixels become 25.6 and 32.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 28, 4, 35)


@pytest.mark.parametrize("finer", [1, 2, 3])
def test_a_slanted_wall_is_exact_without_cracks_whatever_the_size_of_color(finer: int) -> None:
    # 1 / depth of the plane x = (z - 2) / 0.5 is linear in the column: z = 2 / (1 - 0.5 * ray).
    registration = Registration(pinhole_rig((0.05, 0.02, 0.01), finer=finer))
    columns = (np.arange(40) - 19.5) / 40
    depth_m = np.broadcast_to(2 / (1 - 0.5 * columns), (32, 40)).astype(np.float32)
    found = registration.depth_in_color(np.ascontiguousarray(depth_m))
    assert (registration.camera.height, registration.camera.width) == (32, 40)
    assert (found[2:-2, 3:-2] > 0).all()
    # In the color camera, x' = x + 0.05 and z' = z + 0.01: z' = (2.01 - 0.5 * 0.05) / (1 - 0.5 * ray').
    expected = np.broadcast_to((2.01 - 0.025) / (1 - 0.5 * columns), (32, 40))
    np.testing.assert_allclose(found[2:-2, 3:-2], expected[2:-2, 3:-2], rtol=1e-5)


def test_nothing_measured_gives_nothing() -> None:
    registration = Registration(pinhole_rig((0.05, 0, 0)))
    nothing = np.zeros((32, 40), np.float32)
    assert not registration.depth_in_color(nothing).any()
    image, kept = registration.color_in_depth(np.full((32, 40, 3), 9, np.uint8), nothing)
    assert not image.any()
    assert not kept.any()


def test_color_moves_by_the_parallax_and_hidden_depth_is_dropped() -> None:
    depth_m = np.full((32, 40), 4.0, np.float32)
    depth_m[10:20, 12:18] = 1.0
    # Column c of color is the gray 5 * c.
    image = np.repeat((5 * np.arange(40, dtype=np.uint8))[None, :, None].repeat(32, axis=0), 3, axis=2)
    seen, kept = Registration(pinhole_rig((0.1, 0, 0))).color_in_depth(image, depth_m)
    np.testing.assert_array_equal(seen[0, :39, 0], 5 * np.arange(1, 40))  # the wall, by 1 px
    assert (seen[0, 39] == 0).all()
    np.testing.assert_array_equal(seen[15, 12:18, 0], 5 * np.arange(16, 22))  # the box, by 4 px
    expected = depth_m.copy()
    expected[:, 39] = 0  # beyond the view of color
    # Color sees the box at columns 16 to 21, so it does not see the wall at 15 to 20 of depth. The box itself is at 12
    # to 17; what is left are 18 to 20, and of these the one next to the edge of the box, which may be half hidden.
    assert (kept[11:19, 18:20] == 0).all()
    kept[10:20, 18:21] = expected[10:20, 18:21] = 0
    np.testing.assert_array_equal(kept, expected)


def test_it_is_pickled_as_its_rig() -> None:
    registration = Registration(make_rig())
    depth_m = TwoViews(3, registration.rig).depth_m
    first = registration.depth_in_color(depth_m)
    size = len(pickle.dumps(registration))
    assert size < 5_000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(registration)).depth_in_color(depth_m), first)


def check_room(seed: int, rig: Rig) -> None:
    """The acceptance of both directions in one room."""
    views, registration = TwoViews(seed, rig), Registration(rig)
    found = registration.depth_in_color(views.depth_m)
    written, both = found > 0, views.seen_by_both(registration.camera, color=True)
    assert both.mean() > 0.5
    right = views.is_drawn_within_a_pixel(found, registration.camera)[written].mean()
    print(f"room {seed}: {written[both].mean():.2%} of what both see is written, {right:.2%} of it within 2 mm")
    assert written[both].mean() >= 0.97
    assert right >= 0.995

    image = np.zeros((rig.color.height, rig.color.width, 3), np.uint8)
    _, kept = registration.color_in_depth(image, views.depth_m)
    both = views.seen_by_both(views.depth_camera, color=False)
    assert (kept > 0)[both].mean() >= 0.97
    # Depth is as it was measured, and hardly any is left that the color camera does not see.
    np.testing.assert_array_equal(kept[kept > 0], views.depth_m[kept > 0])
    assert both[kept > 0].mean() >= 0.98


def test_a_drawn_room_in_both_directions() -> None:
    check_room(1, RIGS["finer"])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RIGS))
def test_a_drawn_room_with_color_of_other_sizes(name: str) -> None:
    check_room(1, RIGS[name])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_more_rooms_in_both_directions(seed: int) -> None:
    check_room(seed, make_rig(color=(480, 640, 520.0), depth=(240, 320, 210.0)))


def test_noise_makes_no_cracks() -> None:
    rig = RIGS["finer"]
    views, registration = TwoViews(2, rig), Registration(rig)
    rng = np.random.default_rng(0)
    # As of a depth camera with a baseline of 5 cm: the deviation is 2 mm at 1 m and 32 mm at 4 m.
    noisy = (views.depth_m + 0.002 * views.depth_m**2 * rng.standard_normal(views.depth_m.shape)).astype(np.float32)
    both = views.seen_by_both(registration.camera, color=True)
    assert (registration.depth_in_color(noisy) > 0)[both].mean() >= 0.97


def read_block(name: str, folder: Path) -> Rig:
    """The calibration that was estimated for a sample."""
    write_calibration(Path(os.environ["DEPTH_SAMPLES"]) / name, folder / "rig.json")
    return read_rig(folder / "rig.json")


def score_in_place(image: NDArray[np.uint8], depth_m: Depth) -> float:
    """How much more color changes at the edges of depth than at these edges moved anywhere: shares of its ranks."""
    image = cv2.resize(image, depth_m.shape[::-1], interpolation=cv2.INTER_AREA)
    edges = checks.find_edges(image, depth_m, depth_m > 0)
    assert edges is not None
    down, across = checks._max_shift(edges.color.shape)
    scores = checks._score_shifts(edges, down, across, mirrored=False)
    return float(scores[down, across] - scores.mean())


@pytest.mark.skipif("DEPTH_SAMPLES" not in os.environ, reason="set DEPTH_SAMPLES to the folder of the samples")
@pytest.mark.parametrize(
    ("calibration", "image", "depth"),
    [
        (
            "realsense_lab_seq",
            "realsense_lab_native_unregistered/rgb/145.jpg",
            "realsense_lab_native_unregistered/depth/145.png",
        ),
        (
            "sevenscenes_seq",
            "sevenscenes_native/seq-01/frame-000000.color.jpg",
            "sevenscenes_native/seq-01/frame-000000.depth.png",
        ),
        (
            "sevenscenes_seq",
            "sevenscenes_native/seq-01/frame-000350.color.jpg",
            "sevenscenes_native/seq-01/frame-000350.depth.png",
        ),
    ],
    ids=["realsense", "kitchen_0", "kitchen_350"],
)
def test_edges_of_real_depth_meet_those_of_color(calibration: str, image: str, depth: str, tmp_path: Path) -> None:
    samples = Path(os.environ["DEPTH_SAMPLES"])
    rig = read_block(calibration, tmp_path)
    counts = read_depth(samples / depth)
    depth_m = (np.where(counts < 60_000, counts, 0) / 1000).astype(np.float32)
    color = read_image(samples / image)
    assert score_in_place(color, depth_m) < 0.08
    assert score_in_place(color, Registration(rig).depth_in_color(depth_m)) > 0.2
    assert score_in_place(*Registration(rig).color_in_depth(color, depth_m)) > 0.2
    inverse = replace(rig, color_from_sensor=np.linalg.inv(rig.color_from_sensor).astype(np.float64))
    assert score_in_place(color, Registration(inverse).depth_in_color(depth_m)) < 0.2


@pytest.mark.slow
@pytest.mark.skipif("DEPTH_SAMPLES" not in os.environ, reason="set DEPTH_SAMPLES to the folder of the samples")
@pytest.mark.parametrize("sample", SAMPLES, ids=[sample.folder for sample in SAMPLES])
def test_what_the_command_registers_scores_above_a_fifth(sample: Sample, tmp_path: Path) -> None:
    # By the rank of color gradients at depth edges above that at edges moved by 10 to 20 px: see register_samples.
    (before, _), (after, _) = (
        score_views(views) for views in register(sample, Path(os.environ["DEPTH_SAMPLES"]), tmp_path)
    )
    assert before < MOST_BEFORE and after > LEAST_AFTER

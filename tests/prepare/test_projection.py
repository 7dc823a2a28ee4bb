"""Points through a lens into an image and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.projection import back_project_pixels, project_points, render_depth, transform_points

CAMERA = Camera(fx_px=80.0, fy_px=80.0, cx_px=79.5, cy_px=59.5)
POLYNOMIAL = Lens(fisheye=False, coefficients=(-0.1, 0.01, 0.001, -0.002, 0.001))
RATIONAL = Lens(fisheye=False, coefficients=(0.4, 0.2, 0.001, -0.001, 0.01, 0.5, 0.1, 0.02))
FISHEYE = Lens(fisheye=True, coefficients=(0.05, -0.01, 0.004, -0.001))
LENSES = [None, POLYNOMIAL, RATIONAL, FISHEYE]


def camera_with(lens: Lens | None) -> CalibratedCamera:
    return CalibratedCamera(camera=CAMERA, height=120, width=160, lens=lens)


def test_a_point_by_hand() -> None:
    # u = 80 * 1 / 4 + 79.5 = 99.5, v = 80 * -0.5 / 4 + 59.5 = 49.5
    points = np.array([[1.0, -0.5, 4.0], [1.0, -0.5, -4.0], [0.0, 0.0, 0.0], [np.nan, 0.0, 1.0]])
    pixels = project_points(points, camera_with(None))
    np.testing.assert_allclose(pixels[0], (99.5, 49.5))
    assert np.isnan(pixels[1:]).all()
    # k1 = 0.1 at r^2 = 0.0625 + 0.015625 = 0.078125 scales both tangents by 1.0078125.
    bent = project_points(points[:1], camera_with(Lens(fisheye=False, coefficients=(0.1, 0, 0, 0))))
    np.testing.assert_allclose(bent[0], (79.5 + 20 * 1.0078125, 59.5 - 10 * 1.0078125))
    # An equidistant fisheye: atan(r) / r of the tangents.
    r = np.sqrt(0.078125)
    fish = project_points(points[:1], camera_with(Lens(fisheye=True, coefficients=())))
    np.testing.assert_allclose(fish[0], (79.5 + 20 * np.arctan(r) / r, 59.5 - 10 * np.arctan(r) / r))


def test_the_nearest_point_of_a_pixel_wins_and_halves_round_up() -> None:
    # At 1 m a tangent of 1/160 is half a pixel: 79.5 + 0.5 = 80, 59.5 + 0.5 = 60.
    points = np.array([[3.0 / 160, 3.0 / 160, 3.0], [1.0 / 160, 1.0 / 160, 1.0], [2.0 / 160, 2.0 / 160, 2.0]])
    depth_m = render_depth(points, camera_with(None))
    assert depth_m.dtype == np.float32 and depth_m.shape == (120, 160)
    assert depth_m[60, 80] == 1.0 and np.count_nonzero(depth_m) == 1
    # u = 0.49999 - 1 is pixel -1 and outside; -0.5 is the edge of pixel 0.
    edge = np.array([[(-0.5 - 79.5) / 80, 0.0, 1.0], [(-0.501 - 79.5) / 80, 0.01, 1.0]])
    assert np.count_nonzero(render_depth(edge, camera_with(None))) == 1
    assert not render_depth(np.zeros((0, 3)), camera_with(None)).any()


@pytest.mark.parametrize("lens", LENSES, ids=["pinhole", "polynomial", "rational", "fisheye"])
def test_back_projection_returns_to_the_pixel_and_the_depth(lens: Lens | None) -> None:
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.5, 9.0, (120, 160)).astype(np.float32)
    depth_m[rng.random((120, 160)) < 0.3] = 0.0
    points = back_project_pixels(depth_m, camera_with(lens))
    assert points.shape == (np.count_nonzero(depth_m), 3)
    met = np.isfinite(points).all(axis=1)
    assert met.mean() > 0.97
    pixels = project_points(points[met], camera_with(lens))
    rows, columns = (places[met] for places in np.nonzero(depth_m))
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=1), atol=2e-2)
    again = render_depth(points, camera_with(lens))
    np.testing.assert_array_equal(again[rows, columns], depth_m[rows, columns])
    assert np.count_nonzero(again) == met.sum()


def test_points_beyond_the_turn_of_the_polynomial_are_not_drawn_inside() -> None:
    # r (1 - 0.3 r^2) grows up to r = 1 / sqrt(0.9) = 1.054; at r = 1.7 it is back at 0.226, well inside the image.
    lens = Lens(fisheye=False, coefficients=(-0.3, 0, 0, 0))
    points = np.array([[1.05, 0.0, 1.0], [1.06, 0.0, 1.0], [1.7, 0.0, 1.0]])
    folded, _ = cv2.projectPoints(points[2:], np.zeros(3), np.zeros(3), np.eye(3), np.array(lens.coefficients))
    assert folded[0, 0, 0] == pytest.approx(0.2261)
    pixels = project_points(points, camera_with(lens))
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1:]).all()
    # 1 + 3 k1 a^2 is 0 at a = 1 / sqrt(1.5) = 0.816 rad for a fisheye with k1 = -0.5.
    fish = camera_with(Lens(fisheye=True, coefficients=(-0.5, 0, 0, 0)))
    angles = np.array([0.81, 0.82])
    pixels = project_points(np.stack([np.tan(angles), 0 * angles, 1 + 0 * angles], axis=1), fish)
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1]).all()


def test_a_transform_turns_and_then_moves() -> None:
    matrix = np.array([[0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]], dtype=float)
    np.testing.assert_array_equal(transform_points(np.array([[1.0, 2.0, 3.0]]), matrix), [[8.0, 21.0, 33.0]])

"""A drawn scene seen through a lens, undistorted: depth and image against what a pinhole camera sees."""

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.projection import camera_rays, project_points
from finetune.prepare.undistortion import choose_pinhole, undistort_depth, undistort_image
from finetune.utils.errors import ListError

HEIGHT, WIDTH = 120, 160
CAMERA = Camera(fx_px=100.0, fy_px=102.0, cx_px=78.3, cy_px=61.2)
POLYNOMIAL = Lens(fisheye=False, coefficients=(-0.25, 0.06, 0.001, -0.002, 0.0))
FISHEYE = Lens(fisheye=True, coefficients=(-0.03, 0.004, 0.0, 0.0))
LENSES = pytest.mark.parametrize("lens", [POLYNOMIAL, FISHEYE], ids=["polynomial", "fisheye"])


def calibrated(lens: Lens) -> CalibratedCamera:
    return CalibratedCamera(camera=CAMERA, height=HEIGHT, width=WIDTH, lens=lens)


def plane_depth(rays: np.ndarray) -> np.ndarray:
    """Depth of the plane 0.3 X - 0.2 Y + Z = 2 m along rays (..., 2) x, y at depth 1: 2 / (0.3 x - 0.2 y + 1)."""
    return 2.0 / (0.3 * rays[..., 0] - 0.2 * rays[..., 1] + 1.0)


def shade(rays: np.ndarray) -> np.ndarray:
    """A smooth pattern on the plane, (..., 3) uint8."""
    depth_m = plane_depth(rays)
    x, y = rays[..., 0] * depth_m, rays[..., 1] * depth_m
    waves = [np.sin(3 * x + phase) * np.cos(2 * y - phase) for phase in (0.0, 1.0, 2.0)]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def pinhole_rays(camera: Camera) -> np.ndarray:
    return camera.rays(HEIGHT, WIDTH)[..., :2]


@LENSES
def test_depth_is_that_of_the_pinhole(lens: Lens) -> None:
    camera = calibrated(lens)
    seen = plane_depth(camera_rays(camera)).astype(np.float32)
    pinhole = choose_pinhole(camera, keep_all=False, source="camera.json")
    found = undistort_depth(seen, camera, pinhole)
    # By the projection that other kinds use, each pixel shows the depth of the nearest one. Ties are left out.
    points = np.concatenate([pinhole_rays(pinhole), np.ones((HEIGHT, WIDTH, 1))], axis=-1).reshape(-1, 3)
    places = project_points(points, camera)
    clear = (np.abs(places - np.floor(places) - 0.5) > 1e-3).all(axis=1)
    columns, rows = np.rint(places).astype(int).T
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found.ravel()[clear], seen[rows[clear], columns[clear]])
    # The nearest pixel is at most half a pixel away in each direction.
    down, across = (np.abs(np.diff(seen, axis=axis)).max() for axis in (0, 1))
    assert np.abs(found - plane_depth(pinhole_rays(pinhole))).max() <= 0.5 * (down + across)


@LENSES
def test_image_is_that_of_the_pinhole(lens: Lens) -> None:
    camera = calibrated(lens)
    pinhole = choose_pinhole(camera, keep_all=False, source="camera.json")
    found = undistort_image(shade(camera_rays(camera)), camera, pinhole)
    error = np.abs(found.astype(int) - shade(pinhole_rays(pinhole)))
    assert error.max() <= 3 and error.mean() < 0.6


@LENSES
def test_two_surfaces_stay_two(lens: Lens) -> None:
    camera = calibrated(lens)
    rays = camera_rays(camera)
    seen = np.where(rays[..., 0] > 0.1, np.float32(1.0), np.float32(3.0))
    found = undistort_depth(seen, camera, choose_pinhole(camera, keep_all=False, source="camera.json"))
    assert np.unique(found).tolist() == [1.0, 3.0]


@LENSES
def test_keep_all_shows_every_pixel_and_is_empty_outside(lens: Lens) -> None:
    camera = calibrated(lens)
    pinhole = choose_pinhole(camera, keep_all=True, source="camera.json")
    filled = choose_pinhole(camera, keep_all=False, source="camera.json")
    assert pinhole.fx_px < filled.fx_px
    assert pinhole.fx_px / pinhole.fy_px == pytest.approx(CAMERA.fx_px / CAMERA.fy_px)
    found = undistort_depth(np.ones((HEIGHT, WIDTH), np.float32), camera, pinhole)
    # The ray of every border pixel is inside the result.
    border = np.concatenate([camera_rays(camera)[0], camera_rays(camera)[-1]])
    columns = border[:, 0] * pinhole.fx_px + pinhole.cx_px
    rows = border[:, 1] * pinhole.fy_px + pinhole.cy_px
    assert columns.min() > -1 and columns.max() < WIDTH and rows.min() > -1 and rows.max() < HEIGHT
    assert 0.0 < (found == 0).mean() < 0.4


def test_depth_smaller_than_its_image_keeps_its_size() -> None:
    camera = calibrated(POLYNOMIAL)
    small = CalibratedCamera(camera=CAMERA.resized(0.5, 0.5), height=HEIGHT // 2, width=WIDTH // 2, lens=POLYNOMIAL)
    pinhole = choose_pinhole(camera, keep_all=False, source="camera.json")
    found = undistort_depth(plane_depth(camera_rays(small)).astype(np.float32), camera, pinhole)
    expected = plane_depth(pinhole.resized(0.5, 0.5).rays(HEIGHT // 2, WIDTH // 2)[..., :2])
    assert found.shape == (HEIGHT // 2, WIDTH // 2)
    assert (np.abs(found - expected) < 0.71 * 0.006 * expected**2 + 1e-4).all()


def test_a_fisheye_wider_than_a_pinhole_is_cut_at_60_degrees() -> None:
    # Equidistant, 160 px for 2.6 rad: rays of the left border are 75 degrees from the axis.
    wide = CalibratedCamera(
        camera=Camera(fx_px=61.0, fy_px=61.0, cx_px=79.5, cy_px=59.5),
        height=HEIGHT,
        width=WIDTH,
        lens=Lens(fisheye=True, coefficients=(0.0, 0.0, 0.0, 0.0)),
    )
    pinhole = choose_pinhole(wide, keep_all=False, source="camera.json")
    assert 79.5 / pinhole.fx_px == pytest.approx(np.tan(np.radians(60.0)))
    # Where the borders show nothing, nothing says how wide the view should be.
    circle = CalibratedCamera(
        camera=Camera(fx_px=30.0, fy_px=30.0, cx_px=79.5, cy_px=59.5), height=HEIGHT, width=WIDTH, lens=wide.lens
    )
    with pytest.raises(ListError, match=r"does not reach the borders of the image\. Give --new-focal-px"):
        choose_pinhole(circle, keep_all=False, source="camera.json")

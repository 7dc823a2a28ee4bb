"""Points into an image and depth maps into points, through the lens of the camera, by OpenCV."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.calibration import CalibratedCamera

# Angles to the axis up to here are looked at; the tangent at a right angle is infinite.
_MAX_ANGLE = math.radians(89.9)


def transform_points(points_m: NDArray[np.floating], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) points into the frame that the (4, 4) ``matrix`` leads to, meters."""
    return points_m.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def project_points(points_m: NDArray[np.floating], camera: CalibratedCamera) -> NDArray[np.float64]:
    """
    Args:
        points_m: (N, 3) in the frame of the camera, meters; x right, y down, z along the optical axis.
        camera: its model of the lens is OpenCV's.

    Returns:
        (N, 2) u, v in pixels, also outside the image; pixel (0, 0) is the center of the top left one. NaN for points
        behind the camera and for those at an angle that its lens does not reach.
    """
    points = np.asarray(points_m, dtype=np.float64)
    pixels = np.full((len(points), 2), np.nan)
    ahead = np.isfinite(points).all(axis=1) & (points[:, 2] > 0)
    tangent = _max_tangent(camera.lens)
    if math.isfinite(tangent):
        ahead &= np.hypot(points[:, 0], points[:, 1]) < tangent * points[:, 2]
    if not ahead.any():
        return pixels
    seen, matrix, zero = points[ahead, None], _matrix(camera.camera), np.zeros(3)
    if camera.lens is not None and camera.lens.fisheye:
        coefficients = _fisheye_coefficients(camera.lens)
        found, _ = cv2.fisheye.projectPoints(seen, zero, zero, matrix, coefficients)
    else:
        coefficients = np.array(camera.lens.coefficients if camera.lens is not None else (0.0,) * 4)
        found, _ = cv2.projectPoints(seen, zero, zero, matrix, coefficients)
    pixels[ahead] = found[:, 0]
    return pixels


def nearest_pixels(pixels: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """
    Args:
        pixels: (N, 2) u, v; NaN for none.

    Returns:
        (N,) row * width + column of the pixel whose center is nearest; -1 outside the image.
    """
    # Compare before the conversion: an integer holds neither NaN nor infinity.
    rounded = np.floor(pixels + 0.5)
    with np.errstate(invalid="ignore"):
        inside = ((rounded >= 0) & (rounded < (width, height))).all(axis=1)
    flat = np.full(len(pixels), -1, dtype=np.int64)
    columns, rows = rounded[inside].T.astype(np.int64)
    flat[inside] = rows * width + columns
    return flat


def draw_nearest(
    flat: NDArray[np.int64], depth_m: NDArray[np.floating], height: int, width: int
) -> NDArray[np.float32]:
    """
    The z-buffer: the nearest depth of each pixel.

    Args:
        flat: (N,) pixels as ``nearest_pixels`` gives them; those of -1 are left out.
        depth_m: (N,) meters.

    Returns:
        (H, W) float32 meters, 0 where there is no point.
    """
    buffer = np.full(height * width, np.inf, dtype=np.float32)
    inside = flat >= 0
    np.minimum.at(buffer, flat[inside], depth_m[inside].astype(np.float32))
    buffer[np.isinf(buffer)] = 0.0
    return buffer.reshape(height, width)


def render_depth(points_m: NDArray[np.floating], camera: CalibratedCamera) -> NDArray[np.float32]:
    """
    Args:
        points_m: (N, 3) in the frame of the camera, meters.

    Returns:
        (H, W) float32, meters along the optical axis of the nearest point of each pixel; 0 where there is no point.
    """
    flat = nearest_pixels(project_points(points_m, camera), camera.height, camera.width)
    return draw_nearest(flat, np.asarray(points_m)[:, 2], camera.height, camera.width)


def back_project_pixels(depth_m: NDArray[np.floating], camera: CalibratedCamera) -> NDArray[np.float64]:
    """
    Args:
        depth_m: (H, W) meters along the optical axis; 0 where nothing was measured. Its size is that of the camera.

    Returns:
        (N, 3) points of the measured pixels, row after row, meters; NaN where no ray of the lens meets the pixel.
    """
    assert depth_m.shape == (camera.height, camera.width)
    measured = depth_m > 0
    rays, depths = camera_rays(camera)[measured], depth_m[measured].astype(np.float64)
    return np.concatenate([rays * depths[:, None], depths[:, None]], axis=1)


@lru_cache(maxsize=4)  # all frames of a camera have the same rays
def camera_rays(camera: CalibratedCamera) -> NDArray[np.float64]:
    """(H, W, 2) x and y at depth 1 of the ray of each pixel; NaN where the lens has no ray."""
    columns, rows = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    matrix = _matrix(camera.camera)
    # OpenCV's default steps leave an error of a percent at the rim of wide lenses.
    steps = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
    if camera.lens is None:
        found = (pixels - matrix[:2, 2]) / (matrix[0, 0], matrix[1, 1])
    elif camera.lens.fisheye:
        coefficients = _fisheye_coefficients(camera.lens)
        found = cv2.fisheye.undistortPoints(pixels, matrix, coefficients, None, None, None, steps)
    else:
        coefficients = np.array(camera.lens.coefficients)
        found = cv2.undistortPoints(pixels, matrix, coefficients, None, None, None, steps)
    rays = found[:, 0]
    if camera.lens is not None:
        # Where the steps do not converge, or end on the far side of the turn, the pixel has no ray.
        again = project_points(np.concatenate([rays, np.ones((len(rays), 1))], axis=1), camera)
        with np.errstate(invalid="ignore"):
            rays = np.where((np.abs(again - pixels[:, 0]).max(axis=1) < 1e-2)[:, None], rays, np.nan)
    rays = rays.reshape(camera.height, camera.width, 2)
    rays.setflags(write=False)
    return rays


@lru_cache(maxsize=16)
def _max_tangent(lens: Lens | None) -> float:
    """
    The tangent of the angle to the axis where the lens' polynomial stops growing, infinity if it does not.

    Beyond it a point far outside the view would be drawn inside the image.
    """
    if lens is None:
        return math.inf
    angles = np.linspace(0.0, _MAX_ANGLE, 20_001)
    if lens.fisheye:
        bent = angles + sum(k * angles ** (3 + 2 * i) for i, k in enumerate(lens.coefficients))
    else:
        k1, k2, _, _, k3, k4, k5, k6 = (*lens.coefficients, *(0.0,) * 8)[:8]
        tangents = np.tan(angles)
        squares = tangents**2
        below = 1 + squares * (k4 + squares * (k5 + squares * k6))
        bent = tangents * (1 + squares * (k1 + squares * (k2 + squares * k3))) / np.where(below > 0, below, np.nan)
    turns = ~(np.diff(bent) > 0)
    return float(np.tan(angles[np.argmax(turns)])) if turns.any() else math.inf


def _matrix(camera: Camera) -> NDArray[np.float64]:
    return np.array([[camera.fx_px, 0, camera.cx_px], [0, camera.fy_px, camera.cy_px], [0, 0, 1.0]])


def _fisheye_coefficients(lens: Lens) -> NDArray[np.float64]:
    return np.array((*lens.coefficients, 0.0, 0.0, 0.0, 0.0)[:4])

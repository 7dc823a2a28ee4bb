"""Leave out points that the LiDAR sees past something that hides them from the camera."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.projection import draw_nearest, nearest_pixels, project_points

# The rule's sizes are in spacings of the scan, so that one set fits scanners of 16 and of 128 lines. They were chosen
# on drawn rooms of seed 2000; tests/prepare/test_occlusion.py measures them on others.
_NEARER = 1.03  # how much nearer a point must be to hide another one
_ACROSS, _ALONG = 1.2, 2.5  # how far to each side, and ahead, points are looked for
_CLOSE = 0.7  # a point so close to the side hides alone; farther ones must be on both sides
_NEARER_AT_END = 1.1  # the same where it ends before it: table tops seen at a small angle have steps of 1.05
_BEYOND = 0.6  # how far beyond its last point a surface is taken to go on: it ends before the next line
_LEAST_SHIFT = 0.05  # shifts that differ by less hide nothing, as where the sensor is next to the camera
# How many neighbors are looked at to find the spacing: lines of a 16-line scanner are ten columns apart.
_NEIGHBORS, _SAMPLES = 64, 2000
_MAX_WINDOW_PX = 64


class _Spacing(NamedTuple):
    """Distance to the next point of the scan, as the sensor sees it: pixels across and down."""

    x_px: float
    y_px: float


def find_hidden(
    points_m: NDArray[np.float64],
    origins_m: NDArray[np.float64],
    pixels: NDArray[np.float64],
    camera: CalibratedCamera,
) -> NDArray[np.bool_]:
    """
    The points that shine through: something that the LiDAR looks past is between them and the camera.

    From the place of the sensor to that of the camera, each point shifts in the image, near ones more than far ones.
    Where nothing hides anything, neighbors keep their order along that shift, the ordering constraint of stereo. A
    point is hidden if it has passed a nearer one: the sensor sees it ahead, the camera behind. As a surface ends
    somewhere between its last point and the next line of the scan, a point that has not quite passed is hidden too, if
    the shifts differ by much more than the pixels. Points to one side count only from nearby, those to both sides from
    farther, as a surface is between them.

    Source: Zhao et al. 2021, "A surface geometry model for LiDAR depth completion", IEEE Robotics and Automation
    Letters 6(3), whose outlier removal compares the order of neighbors in both views; the limit on how steep a shift
    may be on one surface is that of Burt and Julesz 1980, "A disparity gradient limit for binocular fusion", Science
    208. Sizes relative to the spacing, and the two sides, are ours.

    Args:
        points_m: (N, 3) in the frame of the camera, meters.
        origins_m: (N, 3) in the same frame: where the sensor was.
        pixels: (N, 2) of the points, as ``project_points`` gives them.
        camera: of the image.

    Returns:
        (N,) bool; False outside the image.
    """
    hidden = np.zeros(len(points_m), dtype=bool)
    flat = nearest_pixels(pixels, camera.height, camera.width)
    # The same lens at the place of the sensor, turned like the camera.
    from_sensor = project_points(points_m - origins_m, camera)
    shift = pixels - from_sensor
    inside = np.flatnonzero((flat >= 0) & np.isfinite(shift).all(axis=1))
    spacing = _measure_spacing(from_sensor[inside])
    if spacing is None:
        return hidden
    depth_m = points_m[inside, 2]
    hidden[inside] = _find_passed(pixels[inside], shift[inside], depth_m, flat[inside], camera, spacing)
    return hidden


def _measure_spacing(pixels: NDArray[np.float64]) -> _Spacing | None:
    """The median over points of the distance to the nearest other one, of those across and of those above and below."""
    from scipy.spatial import cKDTree

    if len(pixels) < _NEIGHBORS:
        return None
    sampled = pixels[:: max(1, len(pixels) // _SAMPLES)]
    distances, places = cKDTree(pixels).query(sampled, k=_NEIGHBORS)
    away = np.abs(pixels[places[:, 1:]] - sampled[:, None])
    across = away[..., 0] >= away[..., 1]
    # Points of two sweeps, or of two returns, may be at one place.
    distances = np.where(distances[:, 1:] < 0.3, np.inf, distances[:, 1:])
    nearest = [np.where(side, distances, np.inf).min(axis=1) for side in (across, ~across)]
    found = [float(np.median(part[np.isfinite(part)])) if np.isfinite(part).any() else 1.0 for part in nearest]
    return _Spacing(x_px=max(1.0, found[0]), y_px=max(1.0, found[1]))


def _find_passed(
    pixels: NDArray[np.float64],
    shift: NDArray[np.float64],
    depth_m: NDArray[np.float64],
    flat: NDArray[np.int64],
    camera: CalibratedCamera,
    spacing: _Spacing,
) -> NDArray[np.bool_]:
    """(N,) bool: the rule, for N points in the image."""
    reach = max(_ACROSS, _ALONG)
    reach_x = min(_MAX_WINDOW_PX, math.ceil(reach * spacing.x_px))
    reach_y = min(_MAX_WINDOW_PX, math.ceil(reach * spacing.y_px))
    # The nearest point of each pixel, with a rim of none.
    nearest = np.full(camera.height * camera.width, -1, dtype=np.int64)
    order = np.argsort(-depth_m, kind="stable")
    nearest[flat[order]] = order
    rim = ((reach_y, reach_y), (reach_x, reach_x))
    padded = np.pad(nearest.reshape(camera.height, camera.width), rim, constant_values=-1)
    limit = depth_m / _NEARER
    left = np.flatnonzero(_nearest_around(flat, depth_m, reach_x, reach_y, camera) < limit)
    rows, columns = flat[left] // camera.width + reach_y, flat[left] % camera.width + reach_x
    # In spacings, a scan is as dense along as across.
    scale = np.array(spacing)
    places, shifts = pixels / scale, shift / scale
    hidden = np.zeros(len(pixels), dtype=bool)
    sides = np.zeros((2, len(pixels)), dtype=bool)
    for down in range(-reach_y, reach_y + 1):
        for right in range(-reach_x, reach_x + 1):
            near = padded[rows + down, columns + right]
            nearer = np.flatnonzero((near >= 0) & (depth_m[near] < limit[left]))
            if not len(nearer):
                continue
            far, near = left[nearer], near[nearer]
            apart, passed = places[far] - places[near], shifts[near] - shifts[far]
            length = np.maximum(np.hypot(passed[:, 0], passed[:, 1]), 1e-9)
            along = (apart * passed).sum(axis=1) / length
            across = (apart[:, 0] * passed[:, 1] - apart[:, 1] * passed[:, 0]) / length
            behind = (along <= 0) & (along >= -_ALONG) & (along > -length) & (np.abs(across) <= _ACROSS)
            behind &= length >= _LEAST_SHIFT
            sides[0, far[behind & (across <= 0)]] = True
            sides[1, far[behind & (across >= 0)]] = True
            at_end = (
                (depth_m[near] * _NEARER_AT_END < depth_m[far])
                & (along > 0)
                & (along <= _BEYOND)
                & (length >= np.maximum(along, _LEAST_SHIFT))
                & (np.abs(across) <= _BEYOND)
            )
            hidden[far[(behind & (np.abs(across) <= _CLOSE)) | at_end]] = True
    return hidden | sides.all(axis=0)


def _nearest_around(
    flat: NDArray[np.int64], depth_m: NDArray[np.float64], reach_x: int, reach_y: int, camera: CalibratedCamera
) -> NDArray[np.float32]:
    """(N,) the least depth in the window around each point, meters: most points have nothing nearer around them."""
    drawn_m = draw_nearest(flat, depth_m, camera.height, camera.width)
    drawn_m[drawn_m == 0] = np.inf
    window = np.ones((2 * reach_y + 1, 2 * reach_x + 1), dtype=np.uint8)
    return np.asarray(cv2.erode(drawn_m, window)).ravel()[flat]

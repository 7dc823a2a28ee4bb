"""From a camera whose lens bends rays to a pinhole camera: images by interpolation, depth by picking."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.projection import camera_rays
from finetune.utils.errors import ListError

# A pinhole image of a wider lens is mostly rim: 120 degrees are a tangent of 1.7 to each side.
_MAX_TANGENT = math.tan(math.radians(60.0))


def choose_pinhole(camera: CalibratedCamera, *, keep_all: bool, source: str) -> Camera:
    """
    Args:
        camera: with its lens.
        keep_all: show all that the lens sees, with black where it sees nothing; else only what fills the image.
        source: the file of the calibration, named in the error.

    Returns:
        The camera of the undistorted images, of the same size, with the same ratio of the two focal lengths. It reaches
        at most 60 degrees to each side.

    Raises:
        ListError: no ray of the lens ends at a border of the image, so nothing says how wide the view should be.
    """
    rays = camera_rays(camera)
    left, right = (np.clip(rays[:, column, 0], -_MAX_TANGENT, _MAX_TANGENT) for column in (0, -1))
    top, bottom = (np.clip(rays[row, :, 1], -_MAX_TANGENT, _MAX_TANGENT) for row in (0, -1))
    if any(np.isnan(border).all() for border in (left, right, top, bottom)):
        raise ListError(
            source, "describes a lens that does not reach the borders of the image", "Give --new-focal-px PIXELS"
        )
    near, far = (np.nanmin, np.nanmax) if keep_all else (np.nanmax, np.nanmin)
    x = float(near(left)), float(far(right))
    y = float(near(top)), float(far(bottom))
    zooms = (
        (camera.width - 1) / (x[1] - x[0]) / camera.camera.fx_px,
        (camera.height - 1) / (y[1] - y[0]) / camera.camera.fy_px,
    )
    zoom = min(zooms) if keep_all else max(zooms)
    fx, fy = camera.camera.fx_px * zoom, camera.camera.fy_px * zoom
    center = (camera.width - 1) / 2, (camera.height - 1) / 2
    return Camera(fx_px=fx, fy_px=fy, cx_px=center[0] - fx * sum(x) / 2, cy_px=center[1] - fy * sum(y) / 2)


def undistort_image(image: NDArray[np.uint8], camera: CalibratedCamera, pinhole: Camera) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 as the lens shows it -> as the pinhole camera would, by bilinear interpolation; black outside."""
    columns, rows = _source_pixels(camera, pinhole)
    return np.asarray(cv2.remap(image, columns, rows, cv2.INTER_LINEAR), dtype=np.uint8)


def undistort_depth(depth_m: NDArray[np.float32], camera: CalibratedCamera, pinhole: Camera) -> NDArray[np.float32]:
    """
    Args:
        depth_m: (h, w) meters along the optical axis, which undistortion does not change; 0 where nothing was measured.
            It shows the view of ``camera``, in its size or a smaller one.
        camera, pinhole: as for ``undistort_image``.

    Returns:
        (h, w) meters: at each pixel the depth of the nearest one, as a mean would lie between two surfaces.
    """
    height, width = depth_m.shape
    down, across = height / camera.height, width / camera.width
    small = CalibratedCamera(camera=camera.camera.resized(down, across), height=height, width=width, lens=camera.lens)
    columns, rows = (np.rint(places) for places in _source_pixels(small, pinhole.resized(down, across)))
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    picked = np.zeros_like(depth_m)
    picked[inside] = depth_m[rows[inside].astype(np.intp), columns[inside].astype(np.intp)]
    return picked


@lru_cache(maxsize=4)  # all frames of a camera have the same
def _source_pixels(camera: CalibratedCamera, pinhole: Camera) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(H, W) column and row of the distorted image that each pixel of the pinhole's shows; -1 where there is none."""
    lens = camera.lens or Lens(fisheye=False, coefficients=(0.0,) * 4)
    size, before, after = (camera.width, camera.height), _matrix(camera.camera), _matrix(pinhole)
    make_maps = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
    coefficients = np.array((*lens.coefficients, 0.0, 0.0, 0.0, 0.0)[:4] if lens.fisheye else lens.coefficients)
    columns, rows = make_maps(before, coefficients, np.eye(3), after, size, cv2.CV_32FC1)
    # The polynomial of a lens turns back far outside its view, and would show the same place twice.
    rays = camera_rays(camera)
    widest = float(np.nanmax(np.hypot(rays[..., 0], rays[..., 1])))
    asked = pinhole.rays(camera.height, camera.width)
    seen = np.hypot(asked[..., 0], asked[..., 1]) <= widest
    return np.where(seen, columns, np.float32(-1)), np.where(seen, rows, np.float32(-1))


def _matrix(camera: Camera) -> NDArray[np.float64]:
    return np.array([[camera.fx_px, 0.0, camera.cx_px], [0.0, camera.fy_px, camera.cy_px], [0.0, 0.0, 1.0]])

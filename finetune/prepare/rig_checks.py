"""Whether a calibration brings depth to its place, tried on a few frames before any is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.registration import Edges, Fit, find_edges, fit_edges
from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.projection import camera_rays
from finetune.prepare.registration import Registration
from finetune.utils.errors import DataError, ListError
from finetune.utils.text import meters, percent

Views = tuple[NDArray[np.uint8], NDArray[np.float32]]

# Two cameras that are farther apart do not see one scene from one device; millimeters give such numbers.
_MAX_APART_M = 1.0
# No depth camera measures so far; millimeters taken for meters give such numbers.
MAX_MEDIAN_M = 200.0
# A pixel at the rim sees about as far from the center as without the lens, or farther by a wide one. Coefficients of
# another model or order give half of it, or pixels that see nothing.
_MIN_RATIO, _MIN_RAYS = 0.7, 0.5
# Less of the measured depth than this in the view of color: the two look elsewhere.
_MIN_SEEN = 0.05
# Depth fits where its edges rise by this much, and the other way only if they rise by less than this share of it.
_FITS, _LESS = 0.085, 0.75


def require_sound_camera(camera: CalibratedCamera, source: str) -> None:
    """
    Args:
        source: the file and the key of the camera, named in the error.

    Raises:
        ListError: the center is outside the middle third of the image, or the lens bends rays as none does.
    """
    height, width, pinhole = camera.height, camera.width, camera.camera
    if not (width <= 3 * pinhole.cx_px <= 2 * width and height <= 3 * pinhole.cy_px <= 2 * height):
        raise ListError(
            source,
            f"has its center at ({pinhole.cx_px:g}, {pinhole.cy_px:g}), not in the middle third of images of "
            f"{width}x{height}, so fx, fy, cx, cy are for images of another size, or cx and cy are exchanged",
            "Write width and height of the images that fx, fy, cx, cy are for, or fx, fy, cx, cy of these",
        )
    if camera.lens is None:
        return
    away = np.linalg.norm(camera_rays(camera), axis=-1)
    without_lens = np.linalg.norm(pinhole.rays(height, width)[..., :2], axis=-1)
    seen = np.isfinite(away)
    fix = "Write the coefficients in OpenCV's order, k1, k2, p1, p2, k3, or none if the images are undistorted"
    if seen.mean() < _MIN_RAYS:
        found = f"has a distortion by which only {percent(float(seen.mean()))} of the pixels see anything"
        raise ListError(source, found, fix)
    outer = seen & (without_lens > 0.5 * without_lens.max())
    least = float((away[outer] / without_lens[outer]).min(initial=1.0))
    if least < _MIN_RATIO:
        found = f"has a distortion by which a pixel sees {percent(least)} as far from the center as without it"
        raise ListError(source, found, fix)


def require_meters(depths_m: NDArray[np.floating]) -> None:
    """
    Args:
        depths_m: (N,) what was measured in a few frames; N > 0.

    Raises:
        DataError: the numbers are no meters.
    """
    median_m = float(np.median(depths_m))
    if median_m > MAX_MEDIAN_M:
        raise DataError(
            "--meters-per-unit",
            f"makes half of the depth farther than {meters(median_m)}, as millimeters taken for meters are",
            "For millimeters give --meters-per-unit 0.001",
        )


def require_working_rig(
    registration: Registration,
    views: Sequence[Views],
    transform: str = "color_from_depth",
    fix: str | None = None,
) -> None:
    """
    Args:
        registration: of the two cameras.
        views: color and depth, meters, of a few frames, each in its own view.
        transform: what the source of the rig calls it.
        fix: of a wrong transform; None where the user wrote it into a file.

    Raises:
        ListError: the cameras are too far apart, depth is not in the view of color, or the transform is the inverse.
        DataError: the numbers of depth are no meters.
    """
    rig = registration.rig
    apart_m = float(np.linalg.norm(rig.color_from_sensor[:3, 3]))
    if apart_m > _MAX_APART_M:
        raise ListError(
            rig.source,
            f"{transform} puts the two cameras {apart_m:.4g} m apart, as a translation in millimeters does",
            fix or "Write its last column in meters",
        )
    depths_m = np.concatenate([depth_m[depth_m > 0] for _, depth_m in views]) if views else np.empty(0)
    if not depths_m.size:
        return
    require_meters(depths_m)
    found = [registration.depth_in_color(depth_m) for _, depth_m in views]
    seen = sum(float((depth_m > 0).mean()) for depth_m in found) / len(found)
    if seen < _MIN_SEEN:
        raise ListError(
            rig.source,
            f"{transform} brings depth to {percent(seen)} of the pixels of the images",
            fix
            or "Write the transform that takes points of the depth camera (x right, y down, z forward) into the color "
            "camera, and check both intrinsics",
        )
    _require_not_inverse(registration, views, found, transform, fix)


def _require_not_inverse(
    registration: Registration,
    views: Sequence[Views],
    found: Sequence[NDArray[np.float32]],
    transform: str,
    fix: str | None,
) -> None:
    """
    Raises:
        ListError: edges of depth meet those of color by the inverse transform, and not by the one that was given.
    """
    rig = registration.rig
    inverse = Registration(replace(rig, color_from_sensor=np.linalg.inv(rig.color_from_sensor).astype(np.float64)))
    given = _fit([image for image, _ in views], found)
    other = _fit([image for image, _ in views], [inverse.depth_in_color(depth_m) for _, depth_m in views])
    if given is None or other is None:
        return
    if other.rise.in_place >= _FITS and given.rise.in_place < _LESS * other.rise.in_place:
        raise ListError(
            rig.source,
            f"{transform} looks like its inverse: edges of depth meet those of color by "
            f"{percent(other.rise.in_place)} with the inverse, by {percent(given.rise.in_place)} as written",
            fix
            or "Write the transform that takes points of the depth camera into the color camera, or name it "
            "depth_from_color",
        )


def _fit(images: Sequence[NDArray[np.uint8]], depths_m: Sequence[NDArray[np.float32]]) -> Fit | None:
    edges = [_edges(image, depth_m) for image, depth_m in zip(images, depths_m, strict=True)]
    present = [found for found in edges if found is not None]
    return fit_edges(present) if present else None


def _edges(image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> Edges | None:
    import cv2

    smaller = cv2.resize(image, depth_m.shape[::-1], interpolation=cv2.INTER_AREA)
    return find_edges(np.asarray(smaller, dtype=np.uint8), depth_m, depth_m > 0)

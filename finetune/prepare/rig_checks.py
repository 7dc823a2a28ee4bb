"""Whether a calibration brings depth to its place, tried on a few frames before any is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.registration import Edges, Fit, find_edges, fit_edges
from finetune.prepare.calibration import CalibratedCamera, Rig
from finetune.prepare.projection import camera_rays
from finetune.prepare.registration import Registration
from finetune.utils.errors import DataError, ListError
from finetune.utils.text import meters, percent

Views = tuple[NDArray[np.uint8], NDArray[np.float32]]

# Two cameras that are farther apart do not see one scene from one device; millimeters give such numbers.
_MAX_APART_M = 1.0
# A lens is wider; meters divided by a thousand once too often give such numbers, and an estimate of zero smaller ones.
_MIN_APART_M, _ZERO_M = 0.001, 1e-6
# No depth camera measures so far; millimeters taken for meters give such numbers.
MAX_MEDIAN_M = 200.0
# A pixel at the rim sees about as far from the center as without the lens, or farther by a wide one. Coefficients of
# another model or order give half of it, or pixels that see nothing.
_MIN_RATIO, _MIN_RAYS = 0.7, 0.5
# Focal lengths over the longer side: an image of 160 degrees has 0.09, one of 2 degrees 28. Pixels are squares, or
# twice as wide as high where a format has half of the lines.
_MIN_FOCAL, _MAX_FOCAL, _MAX_ASPECT = 0.08, 30.0, 2.5
# Less of the measured depth than this in the view of color: the two look elsewhere.
_MIN_SEEN = 0.05
# Depth fits where its edges rise by this much, and the other way only if they rise by less than this share of it.
_FITS, _LESS, _FAR_LESS = 0.085, 0.75, 0.4
_HALF_TURNS = {"x": (1.0, -1.0, -1.0), "y": (-1.0, 1.0, -1.0), "z": (-1.0, -1.0, 1.0)}
# Baselines that are written in centimeters or millimeters, or with a digit too many or too few.
_LENGTHS = (0.001, 0.01, 0.1, 10.0, 100.0, 1000.0)


def require_sound_rig(rig: Rig) -> None:
    """
    Raises:
        ListError: one of its cameras is not sound.
    """
    require_sound_camera(rig.color, f"{rig.source}: color")
    if rig.depth is not None:
        require_sound_camera(rig.depth, f"{rig.source}: depth")


def require_sound_camera(camera: CalibratedCamera, source: str) -> None:
    """
    Args:
        source: the file and the key of the camera, named in the error.

    Raises:
        ListError: the focal length is none in pixels, the center is outside the middle third of the image, or the lens
            bends rays as none does.
    """
    height, width, pinhole = camera.height, camera.width, camera.camera
    shortest, longest = sorted((pinhole.fx_px, pinhole.fy_px))
    if not (_MIN_FOCAL * max(height, width) <= shortest and longest <= _MAX_FOCAL * max(height, width)):
        raise ListError(
            source,
            f"has focal lengths of {pinhole.fx_px:g} and {pinhole.fy_px:g} px for images of {width}x{height}, as "
            "millimeters or images of another size give",
            "Write fx and fy in pixels: millimeters times the width in pixels over that of the sensor in millimeters",
        )
    if longest > _MAX_ASPECT * shortest:
        raise ListError(
            source,
            f"has focal lengths of {pinhole.fx_px:g} and {pinhole.fy_px:g} px, which no pixels of one camera have",
            "Write fx and fy of one camera, in pixels",
        )
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
    if _ZERO_M < apart_m < _MIN_APART_M:
        raise ListError(
            rig.source,
            f"{transform} puts the two cameras {1000 * apart_m:.2g} mm apart, nearer than two cameras can be",
            fix or "Write its last column in meters, or zeros if the two are one camera",
        )
    depths_m = np.concatenate([depth_m[depth_m > 0] for _, depth_m in views]) if views else np.empty(0)
    if not depths_m.size:
        return
    require_meters(depths_m)
    found = [registration.depth_in_color(depth_m) for _, depth_m in views]
    seen = sum(float((depth_m > 0).mean()) for depth_m in found) / len(found)
    if seen < _MIN_SEEN:
        _require_no_better_variant(rig, views, found, transform, fix)
        raise ListError(
            rig.source,
            f"{transform} brings depth to {percent(seen)} of the pixels of the images",
            fix
            or "Write the transform that takes points of the depth camera (x right, y down, z forward) into the color "
            "camera, and check both intrinsics",
        )
    _require_no_better_variant(rig, views, found, transform, fix)


class _Variant(NamedTuple):
    """A way in which a rig is often written wrong.

    Attributes:
        rig: as it should be, if it is.
        looks: what the sentence says of the rig as written.
        then: the change that helps, in words that follow "with".
        fix: what to write.
    """

    rig: Rig
    looks: str
    then: str
    fix: str


def _list_variants(rig: Rig, transform: str) -> Iterator[_Variant]:
    """All but the inverse."""
    assert rig.depth is not None
    matrix = rig.color_from_sensor
    if _size(rig.color) == _size(rig.depth) and rig.color.camera != rig.depth.camera:
        looks, then, fix = "color and depth look exchanged", "the two cameras exchanged", "Exchange the two in the file"
        swapped = replace(rig, color=rig.depth, depth=rig.color)
        yield _Variant(swapped, looks, then, fix)
        inverse = np.linalg.inv(matrix).astype(np.float64)
        yield _Variant(replace(swapped, color_from_sensor=inverse), looks, then, f"{fix}, and name it depth_from_color")
    for axis, signs in _HALF_TURNS.items():
        turned = matrix @ np.diag((*signs, 1.0))
        yield _Variant(
            replace(rig, color_from_sensor=turned),
            f"{transform} looks turned by 180 degrees about {axis}",
            "half a turn more",
            "Write it between cameras with x right, y down, z forward in their images as they are stored; y up and z "
            "backward are OpenGL's axes",
        )
    for factor in _LENGTHS:
        moved = matrix.copy()
        moved[:3, 3] *= factor
        apart_m, other_m = (float(np.linalg.norm(each[:3, 3])) for each in (matrix, moved))
        if _MIN_APART_M <= other_m <= _MAX_APART_M:
            far = "near" if factor > 1 else "far"
            yield _Variant(
                replace(rig, color_from_sensor=moved),
                f"{transform} puts the two cameras {meters(apart_m)} apart, which looks too {far}",
                meters(other_m),
                "Write its last column in meters",
            )


def _require_no_better_variant(
    rig: Rig,
    views: Sequence[Views],
    found: Sequence[NDArray[np.float32]],
    transform: str,
    fix: str | None,
) -> None:
    """
    Raises:
        ListError: edges of depth meet those of color by a rig that is often written so, and not by the one given.
    """
    fit = _fit([image for image, _ in views], found)
    if fit is None and any(depth_m.any() for depth_m in found):
        return  # it has no edges to go by
    given = 0.0 if fit is None else fit.rise.in_place
    inverse = replace(rig, color_from_sensor=np.linalg.inv(rig.color_from_sensor).astype(np.float64))
    other = _fit_variant(inverse, views)
    if other is not None and other.rise.in_place >= _FITS and given < _LESS * other.rise.in_place:
        raise ListError(
            rig.source,
            f"{transform} looks like its inverse: {_compare(given, other, 'the inverse')}",
            fix
            or "Write the transform that takes points of the depth camera into the color camera, or name it "
            "depth_from_color",
        )
    if fit is not None and fit.fits:
        return
    fits = [(variant, _fit_variant(variant.rig, views)) for variant in _list_variants(rig, transform)]
    better = [(one, variant) for variant, one in fits if one is not None and _is_far_better(one, given)]
    if better:
        best, variant = max(better, key=lambda pair: pair[0].rise.in_place)
        raise ListError(rig.source, f"{variant.looks}: {_compare(given, best, variant.then)}", fix or variant.fix)


def _is_far_better(other: Fit, given: float) -> bool:
    """Of several variants one fits better by chance, so that it takes more than for the inverse alone."""
    return other.fits and given < _FAR_LESS * other.rise.in_place


def _compare(given: float, other: Fit, then: str) -> str:
    shares = percent(max(0.0, other.rise.in_place)), percent(max(0.0, given))
    return f"edges of depth meet those of color by {shares[0]} with {then}, by {shares[1]} as written"


def _fit_variant(rig: Rig, views: Sequence[Views]) -> Fit | None:
    registration = Registration(rig)
    return _fit([image for image, _ in views], [registration.depth_in_color(depth_m) for _, depth_m in views])


def _size(camera: CalibratedCamera) -> tuple[int, int]:
    return camera.height, camera.width


def _fit(images: Sequence[NDArray[np.uint8]], depths_m: Sequence[NDArray[np.float32]]) -> Fit | None:
    edges = [_edges(image, depth_m) for image, depth_m in zip(images, depths_m, strict=True)]
    present = [found for found in edges if found is not None]
    return fit_edges(present) if present else None


def _edges(image: NDArray[np.uint8], depth_m: NDArray[np.float32]) -> Edges | None:
    import cv2

    smaller = cv2.resize(image, depth_m.shape[::-1], interpolation=cv2.INTER_AREA)
    return find_edges(np.asarray(smaller, dtype=np.uint8), depth_m, depth_m > 0)

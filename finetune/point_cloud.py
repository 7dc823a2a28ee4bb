"""Depth in meters to colored points, and to a PLY file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.camera import Camera
from finetune.errors import FinetuneError
from finetune.written_files import write_file

_VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """
    Attributes:
        xyz_m: (N, 3) float32, meters; x right, y down, z along the optical axis.
        color: (N, 3) uint8, RGB.
    """

    xyz_m: NDArray[np.float32]
    color: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.xyz_m)

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write a binary PLY, in meters, with a color for each point; whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        vertices = np.empty(len(self), _VERTEX)
        for column, name in enumerate(("x", "y", "z")):
            vertices[name] = self.xyz_m[:, column]
        for column, name in enumerate(("red", "green", "blue")):
            vertices[name] = self.color[:, column]
        kinds = {"<f4": "float", "|u1": "uchar"}
        properties = [f"property {kinds[kind.str]} {name}" for name, (kind, *_) in (_VERTEX.fields or {}).items()]
        head = [
            "ply",
            "format binary_little_endian 1.0",
            "comment meters; x right, y down, z along the optical axis",
            f"element vertex {len(self)}",
            *properties,
            "end_header",
        ]
        write_file(Path(path), "\n".join(head).encode() + b"\n" + vertices.tobytes())


def point_cloud(
    depth_m: NDArray[np.float32],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    edge_ratio: float | None = None,
    max_points: int | None = None,
) -> PointCloud:
    """
    Args:
        depth_m: (H, W), meters along the optical axis.
        image: (H, W, 3) uint8, RGB.
        camera: of the image.
        edge_ratio: leave out pixels whose depth differs from that of one of the four beside it by more than this share
            of the smaller; None: keep them. Between a near and a far surface a network answers with depths that lie on
            neither, which fly in the air.
        max_points: so many at most, evenly drawn, the same each time; None: all.
    """
    kept = np.isfinite(depth_m) & (depth_m > 0)
    if edge_ratio is not None:
        kept &= ~depth_edges(depth_m, edge_ratio)
    places = np.flatnonzero(kept)
    if max_points is not None and len(places) > max_points:
        places = np.sort(np.random.default_rng(0).choice(places, max_points, replace=False))
    points = camera.back_project(depth_m).reshape(-1, 3)[places]
    return PointCloud(xyz_m=points.astype(np.float32), color=image.reshape(-1, 3)[places])


def depth_edges(depth_m: NDArray[np.float32], ratio: float) -> NDArray[np.bool_]:
    """(H, W): pixels whose depth differs from one beside, above or below by more than a share of the smaller."""
    found = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        first, second = np.moveaxis(depth_m, axis, 0)[:-1], np.moveaxis(depth_m, axis, 0)[1:]
        steps = np.abs(second - first) > ratio * np.minimum(first, second)
        view = np.moveaxis(found, axis, 0)
        view[:-1] |= steps
        view[1:] |= steps
    return found


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What is known of the camera of images.

    Attributes:
        intrinsics: fx, fy, cx, cy, pixels.
        size: (width, height) of the images that these are for, pixels; None: of the images at hand.
        hfov_deg: horizontal field of view, degrees, of square pixels around the middle of the image.
    """

    intrinsics: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    hfov_deg: float | None = None

    def camera(self, height: int, width: int) -> Camera | None:
        """
        The camera of an image of this size; None where nothing is known.

        Raises:
            FinetuneError: it cannot be that of such an image.
        """
        if self.intrinsics is not None:
            return camera_of(self.intrinsics, height, width, self.size)
        if self.hfov_deg is None:
            return None
        focal_px = width / 2 / math.tan(math.radians(self.hfov_deg) / 2)
        return Camera(fx_px=focal_px, fy_px=focal_px, cx_px=(width - 1) / 2, cy_px=(height - 1) / 2)


def camera_of(
    intrinsics: tuple[float, float, float, float] | Camera, height: int, width: int, size: tuple[int, int] | None = None
) -> Camera:
    """
    Args:
        intrinsics: fx, fy, cx, cy in pixels, or a camera.
        height, width: of the image, pixels.
        size: (width, height) of the images that the intrinsics are for; None: of this size.

    Returns:
        The camera of the image.

    Raises:
        FinetuneError: it is of another shape, its center lies outside of the middle third, or its focal length is no
            number of pixels. Where ``size`` says that the intrinsics are of this very image, its center may lie
            anywhere in it.
    """
    if not isinstance(intrinsics, Camera):
        fx, fy, cx, cy = intrinsics
        intrinsics = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    if size is not None:
        if abs(size[0] / size[1] / (width / height) - 1) > 0.01:
            raise FinetuneError(
                f"--intrinsics-size {size[0]},{size[1]} has another shape than an image of {width}x{height}, so part "
                "of it was cut off. Give the intrinsics of the images as they are."
            )
        intrinsics = intrinsics.resized(height / size[1], width / size[0])
    least_px = 0.1 * width
    if not (intrinsics.fx_px >= least_px and intrinsics.fy_px >= least_px):
        raise FinetuneError(
            f"a focal length of {min(intrinsics.fx_px, intrinsics.fy_px):g} px is under a tenth of the width, {width}: "
            "millimeters? In pixels it is millimeters times image width over sensor width; or give --hfov degrees."
        )
    if size != (width, height):
        _require_center(intrinsics, height, width)
    elif not (0 <= intrinsics.cx_px <= width and 0 <= intrinsics.cy_px <= height):
        raise FinetuneError(
            f"the center ({intrinsics.cx_px:g}, {intrinsics.cy_px:g}) lies outside of an image of {width}x{height}. "
            "Give the size that the intrinsics are for: --intrinsics-size W,H."
        )
    return intrinsics


def _require_center(camera: Camera, height: int, width: int) -> None:
    """
    Raises:
        FinetuneError: the center lies outside of the middle third of the image, as no camera's does: the intrinsics are
            for images of another size.
    """
    if width <= 3 * camera.cx_px <= 2 * width and height <= 3 * camera.cy_px <= 2 * height:
        return
    # Of images of another size the center is near the middle, too.
    whole_width, whole_height = round(2 * camera.cx_px), round(2 * camera.cy_px)
    fix = f"Give the size that they are for, --intrinsics-size W,H; {width},{height} if they are for these images"
    if min(whole_width, whole_height) >= 1 and abs(whole_width / whole_height / (width / height) - 1) < 0.1:
        scaled = camera.resized(height / whole_height, width / whole_width)
        values = (scaled.fx_px, scaled.fy_px, scaled.cx_px, scaled.cy_px)
        fix = (
            f"If they are for {whole_width}x{whole_height}, give --intrinsics-size {whole_width},{whole_height}, which "
            f"makes them {','.join(f'{value:.5g}' for value in values)}; if for {width}x{height}, --intrinsics-size "
            f"{width},{height}"
        )
    raise FinetuneError(
        f"the center ({camera.cx_px:g}, {camera.cy_px:g}) of the intrinsics is not in the middle third of an image of "
        f"{width}x{height}, so they are for images of another size. {fix}."
    )

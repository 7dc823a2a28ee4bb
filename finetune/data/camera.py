"""Intrinsics through crop, resize and flip; back-projection; distance along the ray to depth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import FinetuneError


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera. Pixel (0, 0) is the center of the top left pixel, as in OpenCV.

    Attributes:
        fx_px, fy_px: focal lengths, pixels.
        cx_px, cy_px: principal point, pixels.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float

    @property
    def focal_px(self) -> float:
        """The one focal length that training and use scale depth by, pixels: (fx + fy) / 2."""
        return (self.fx_px + self.fy_px) / 2

    def cropped(self, top: float, left: float) -> Camera:
        """The camera of the window whose top left pixel is (``top``, ``left``), which may be fractional."""
        return replace(self, cx_px=self.cx_px - left, cy_px=self.cy_px - top)

    def resized(self, scale_y: float, scale_x: float) -> Camera:
        """The camera after a resize; a scale is new size / old size. Pixel edges, not centers, stay in place."""
        return Camera(
            fx_px=self.fx_px * scale_x,
            fy_px=self.fy_px * scale_y,
            cx_px=(self.cx_px + 0.5) * scale_x - 0.5,
            cy_px=(self.cy_px + 0.5) * scale_y - 0.5,
        )

    def flipped(self, width: int) -> Camera:
        """The camera of the image mirrored left to right, ``width`` pixels wide."""
        return replace(self, cx_px=width - 1 - self.cx_px)

    def rays(self, height: int, width: int) -> NDArray[np.float64]:
        """(H, W, 3): for each pixel the point at depth 1 m; x right, y down, z along the optical axis."""
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        return np.stack([(x - self.cx_px) / self.fx_px, (y - self.cy_px) / self.fy_px, np.ones_like(x)], axis=-1)

    def back_project(self, depth_m: NDArray[np.float32]) -> NDArray[np.float64]:
        """
        Args:
            depth_m: (H, W), meters along the optical axis.

        Returns:
            (H, W, 3) points in meters; x right, y down, z forward.
        """
        height, width = depth_m.shape
        return self.rays(height, width) * depth_m[..., None].astype(np.float64)

    def depth_from_ray(self, ray_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """
        Args:
            ray_m: (H, W), meters from the camera center to the surface.

        Returns:
            (H, W) meters along the optical axis: ray / sqrt(1 + x^2 + y^2) with x, y of the ray at depth 1.
        """
        height, width = ray_m.shape
        return (ray_m / np.linalg.norm(self.rays(height, width), axis=-1)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class CameraOptions:
    """What is known about the camera of some images.

    Attributes:
        intrinsics: fx, fy, cx, cy, pixels.
        size: (width, height) of the images that the intrinsics are for, pixels; None: the images have that size.
        hfov_deg: horizontal field of view, degrees, for square pixels and a center in the middle of the image.
    """

    intrinsics: tuple[float, float, float, float] | None = None
    size: tuple[int, int] | None = None
    hfov_deg: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything is known."""
        return self.intrinsics is not None or self.hfov_deg is not None

    def camera(self, height: int, width: int) -> Camera | None:
        """
        The camera of an image of this size; None where nothing is known.

        Raises:
            FinetuneError: no such image can have this camera.
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
        size: (width, height) of the images that the intrinsics are for; None: the same size.

    Returns:
        The camera of the image.

    Raises:
        FinetuneError: the intrinsics are for another shape, their center is outside the middle third of the image, or
            the focal length is not in pixels. Where ``size`` is that of this image, the center may be anywhere in it.
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
            f"the center ({intrinsics.cx_px:g}, {intrinsics.cy_px:g}) is outside an image of {width}x{height}. "
            "Give the size that the intrinsics are for: --intrinsics-size W,H."
        )
    return intrinsics


def is_near_middle(camera: Camera, height: int, width: int) -> bool:
    """Whether the principal point is in the middle third of an image of this size, pixels, as that of a camera is."""
    return width <= 3 * camera.cx_px <= 2 * width and height <= 3 * camera.cy_px <= 2 * height


def _require_center(camera: Camera, height: int, width: int) -> None:
    """
    Raises:
        FinetuneError: the center is outside the middle third of the image. No camera's is, so the intrinsics are for
            images of another size.
    """
    if is_near_middle(camera, height, width):
        return
    # The center is near the middle of the images that they are for, which gives their size.
    whole_width, whole_height = round(2 * camera.cx_px), round(2 * camera.cy_px)
    fix = f"Give the size that they are for as --intrinsics-size W,H; {width},{height} if they are for these images"
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

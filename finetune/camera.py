"""Intrinsics through crop, resize and flip; back-projection; distance along the ray to depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


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

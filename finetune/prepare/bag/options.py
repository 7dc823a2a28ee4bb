"""What a user says about bags."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BagOptions:
    """
    Attributes:
        color, depth: topics; None to list them.
        color_info, depth_info: topics of camera_info; None for the ones next to the images.
        clock: ``header`` for the times of the images, ``log`` for those at which they were recorded.
        tolerance_s: how far apart a pair may be; None for half a frame interval.
        meters_per_unit: of depth; None for what the bag or ROS says.
        encoding: of color, instead of what its messages say.
        aligned: depth is in the view of color, whatever the frames say.
        calibration: a file of both cameras, instead of camera_info and transforms.
        undistort: make the frames those of a pinhole camera, where the lens of color bends rays.
    """

    color: str | None = None
    depth: str | None = None
    color_info: str | None = None
    depth_info: str | None = None
    clock: str = "header"
    tolerance_s: float | None = None
    meters_per_unit: float | None = None
    encoding: str | None = None
    aligned: bool = False
    calibration: str | os.PathLike[str] | None = None
    undistort: bool = False

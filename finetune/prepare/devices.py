"""What is known of depth cameras without a calibration of the one that recorded, each with its source.

The factory calibrates every RealSense, Kinect v2 and Azure Kinect for itself and stores the result in it, so that no
number here could stand for it; only what it must be exported by is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.data.camera import Camera
from finetune.prepare.calibration import CalibratedCamera


@dataclass(frozen=True, kw_only=True)
class Device:
    """
    Attributes:
        meters_per_unit, invalid: of its depth files, and the numbers that mean nothing was measured.
        depth: its depth camera; None where that differs from device to device.
        export: how to get the rest, a sentence without a full stop.
        source: of these facts.
    """

    meters_per_unit: float
    invalid: tuple[float, ...]
    depth: CalibratedCamera | None
    export: str
    source: str


DEVICES = {
    "realsense": Device(
        meters_per_unit=0.001,
        invalid=(0.0,),
        depth=None,
        export="Run `rs-enumerate-devices -c` with this camera: copy the intrinsics of Depth and Color for the sizes "
        "that were recorded, and the extrinsics from Depth to Color, whose translation is in meters",
        source="librealsense, tools/enumerate-devices; rs2_extrinsics",
    ),
    "kinect_v2": Device(
        meters_per_unit=0.001,
        invalid=(0.0,),
        depth=None,
        export="Copy fx, fy, cx, cy and k1, k2, k3 of the depth camera from libfreenect2's getIrCameraParams. The "
        "device maps depth to color by a polynomial instead of a transform, so calibrate color and color_from_depth by "
        "a checkerboard, as kinect2_calibration does, or record the registered images of libfreenect2",
        source="libfreenect2, IrCameraParams and ColorCameraParams, issues 41 and 346",
    ),
    "azure": Device(
        meters_per_unit=0.001,
        invalid=(0.0,),
        depth=None,
        export="Call k4a_device_get_calibration, or k4a_playback_get_calibration on a recording, with the modes that "
        "were recorded: copy both intrinsics, and the extrinsics from depth to color, whose translation is in "
        "millimeters",
        source="Azure Kinect Sensor SDK, k4a_calibration_t, k4a_calibration_extrinsics_t",
    ),
    "7scenes": Device(
        meters_per_unit=0.001,
        invalid=(0.0, 65535.0),
        depth=CalibratedCamera(
            camera=Camera(fx_px=585.0, fy_px=585.0, cx_px=320.0, cy_px=240.0), height=480, width=640
        ),
        export="Its authors did not calibrate the color camera, so estimate color and color_from_depth, or take depth "
        "that others rendered for its images",
        source="microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes, default intrinsics of the depth camera",
    ),
}

"""What the name of a depth sensor stands for: its unit, and the raw values that mean "nothing measured"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Sensor = Literal["realsense", "kinect_v2", "azure_kinect", "zed", "arkit", "lidar_png"]
# Meters per raw unit of a 16-bit PNG, raw values that mean "nothing measured", and what else to know.
SENSORS: dict[str, tuple[float, tuple[float, ...], str]] = {
    "realsense": (0.001, (0.0,), "; a RealSense's unit is configurable: read depth_units from the device"),
    "kinect_v2": (0.001, (0.0,), ""),
    "azure_kinect": (0.001, (0.0,), ""),
    "zed": (0.001, (0.0,), " for 16-bit PNG; for float files, whose NaN and infinity are not valid, the unit is 1.0"),
    "arkit": (0.001, (0.0,), ""),
    "lidar_png": (1 / 256, (0.0,), ", as KITTI writes projected scans"),
}


def sensor_note(root: str, sensor: Sensor, meters_per_unit: float | None, invalid: Sequence[float]) -> str:
    """
    What a sensor's name stands for, in a sentence to be printed.

    Args:
        root: of the entry, which names it.
        sensor: the name.
        meters_per_unit, invalid: what the entry is read with; no unit if its numbers are not meters.
    """
    _, _, caveat = SENSORS[sensor]
    unit = "" if meters_per_unit is None else f"meters_per_unit {meters_per_unit:g}, "
    return f"{root}: sensor {sensor} means {unit}invalid [{', '.join(f'{value:g}' for value in invalid)}]{caveat}"

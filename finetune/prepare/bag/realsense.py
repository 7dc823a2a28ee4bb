"""Bags that the RealSense SDK records: bags of ROS 1 with topics of its own.

Topics are /device_0/sensor_1/Color_0/image/data with .../info/camera_info and .../tf/0 next to it, and options of a
sensor as /device_0/sensor_0/option/Depth_Units/value. Source: ``ros_topic`` in librealsense's
src/media/ros/ros_file_format.h, and ros_writer.cpp. The header of an image holds a version where ROS has the frame, so
frames tell nothing there.
"""

from __future__ import annotations

import re
from typing import cast

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.bag.messages import FLOAT, TRANSFORM, FloatMessage, Transform, decode_message
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.bag.transforms import make_matrix
from finetune.prepare.calibration import require_rigid
from finetune.utils.errors import DataError, ListError

_STREAM = re.compile(r"^(/device_\d+/sensor_\d+)/[^/]+_\d+/image/data$")
_DATA = "/image/data"


def is_sdk_stream(topic: str) -> bool:
    """Whether a topic has the name that the SDK gives to images."""
    return _STREAM.match(topic) is not None


def sdk_info_topic(topic: str) -> str:
    """The topic of the intrinsics of an image topic."""
    return f"{topic.removesuffix(_DATA)}/info/camera_info"


def read_sdk_unit(bag: Bag, topic: str) -> float | None:
    """
    Meters per unit of a depth topic, from the option Depth Units of its sensor; None where it was not recorded.

    Raises:
        DataError: the message is damaged.
    """
    found = _STREAM.match(topic)
    name = f"{found[1]}/option/Depth_Units/value" if found else ""
    raw = _first(bag, name, FLOAT)
    if raw is None:
        return None
    # The message holds a float32: 0.001 comes back as 0.0010000000474974513.
    return float(f"{cast(FloatMessage, raw).data:.7g}")


def read_sdk_transform(bag: Bag, color_topic: str, depth_topic: str) -> NDArray[np.float64]:
    """
    (4, 4) meters: points of the depth stream into the color stream.

    The bag holds, for each stream, the transform from a reference into it (``device::get_extrinsics``); the player
    computes color * inverse(depth) as well (``playback_device::calc_extrinsic``).

    Raises:
        ListError: one is missing, they have different references, or one is not rigid.
        DataError: a message is damaged.
    """
    (color_group, color), (depth_group, depth) = (_read_stream(bag, topic) for topic in (color_topic, depth_topic))
    if color_group != depth_group:
        raise ListError(
            bag.path,
            f"the transforms of {color_topic} and {depth_topic} have different references, {color_group} and "
            f"{depth_group}",
            "Give a calibration: --calibration FILE",
        )
    matrix = color @ np.linalg.inv(depth)
    require_rigid(matrix, bag.path, f"the transform from {depth_topic} to {color_topic}")
    return matrix


def _read_stream(bag: Bag, topic: str) -> tuple[str, NDArray[np.float64]]:
    prefix = f"{topic.removesuffix(_DATA)}/tf/"
    name = next((name for name in sorted(bag.topics) if name.startswith(prefix)), None)
    message = None if name is None else _first(bag, name, TRANSFORM)
    if name is None or message is None:
        raise ListError(bag.path, f"has no {prefix}0, the transform of {topic}", "Give --calibration FILE")
    return name.removeprefix(prefix), make_matrix(cast(Transform, message), str(bag.path), name)


def _first(bag: Bag, name: str, msgtype: str) -> object | None:
    """The first message of a topic; None where it has none of this type."""
    topic = bag.topics.get(name)
    if topic is None or topic.msgtype != msgtype:
        return None
    for _, raw in bag.messages(name):
        try:
            return decode_message(raw, msgtype, ros1=bag.ros1)
        except ValueError as error:
            raise DataError(bag.path, f"has a damaged message of {name} ({error})", "Copy the bag again") from None
    return None

"""Cameras of image topics, from ROS' ``CameraInfo``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from finetune.data.readers.intrinsics import make_intrinsics
from finetune.prepare.bag.messages import CAMERA_INFO, decode_message
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.bag.realsense import is_sdk_stream, sdk_info_topic
from finetune.prepare.calibration import CalibratedCamera
from finetune.utils.errors import DataError, ListError

# What image_transport appends to the name of an image topic.
TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg", "zstd")
# Names of librealsense for ROS' models, as realsense-ros maps them (base_realsense_node.cpp, updateStreamCalibData).
_MODELS = {
    "inverse brown conrady": "plumb_bob",
    "modified brown conrady": "plumb_bob",
    "brown conrady": "plumb_bob",
    "kannala brandt4": "equidistant",
}
_RECTIFIED = re.compile(r"(^|_)rect(_|$)")


class _Region(Protocol):
    x_offset: int
    y_offset: int
    height: int
    width: int


class _CameraInfo(Protocol):
    height: int
    width: int
    distortion_model: str
    binning_x: int
    binning_y: int
    roi: _Region


def find_info_topic(bag: Bag, image_topic: str) -> str | None:
    """The topic of ``CameraInfo`` that belongs to an image topic, by ROS' and librealsense's names; None without."""
    if is_sdk_stream(image_topic):
        name = sdk_info_topic(image_topic)
    else:
        name = f"{strip_transport(image_topic).rpartition('/')[0]}/camera_info"
    topic = bag.topics.get(name)
    return name if topic is not None and topic.msgtype == CAMERA_INFO and topic.count else None


def strip_transport(topic: str) -> str:
    """``/color/image_raw`` for ``/color/image_raw/compressed``."""
    head, _, tail = topic.rpartition("/")
    return head if tail in TRANSPORTS else topic


def read_camera(bag: Bag, info_topic: str, image_topic: str) -> CalibratedCamera | None:
    """
    Args:
        bag: with the two topics.
        info_topic: of ``CameraInfo``; its first message counts.
        image_topic: a rectified one (``image_rect``, ``image_rect_color``, ``image_rect_raw``) has the projection
            matrix P as its camera, and no distortion; others K and D. Source: ROS' image_proc and ``CameraInfo.msg``.

    Returns:
        The camera of the images as they are: of the region of interest, after binning (image_geometry,
        ``PinholeCameraModel::fromCameraInfo``). None where the driver wrote zeros, as it does without a calibration.

    Raises:
        ListError: the values are no camera, or its lens model is not known.
        DataError: the message is damaged.
    """
    source = f"{bag.path}: {info_topic}"
    time_ns, raw = next(bag.messages(info_topic))
    try:
        message = cast(_CameraInfo, decode_message(raw, CAMERA_INFO, ros1=bag.ros1))
    except ValueError as error:
        raise DataError(source, f"is damaged at {time_ns} ns ({error})", "Name another topic of camera_info") from None
    matrix = _numbers(message, "k")
    model = _MODELS.get(message.distortion_model.lower(), message.distortion_model)
    content: Mapping[str, object] = {"distortion_model": model, "D": _numbers(message, "d")}
    if _RECTIFIED.search(strip_transport(image_topic).rpartition("/")[2]):
        projection, content = _numbers(message, "p"), {}
        if projection[0] > 0:
            matrix = [projection[i] for i in (0, 1, 2, 4, 5, 6, 8, 9, 10)]
    if not matrix[0] > 0:
        return None
    size = {"height": message.height, "width": message.width}
    found = make_intrinsics({**size, **content, "K": matrix}, source, keep_lens=True)
    region = message.roi
    columns, rows = message.binning_x or 1, message.binning_y or 1
    camera = found.camera.cropped(region.y_offset, region.x_offset)
    height, width = (region.height or message.height) // rows, (region.width or message.width) // columns
    if not (height and width):
        fix = "Name another topic of camera_info, or give --calibration FILE"
        raise ListError(source, f"has no pixel left after binning {columns}x{rows}", fix)
    return CalibratedCamera(
        camera=replace(
            camera,
            fx_px=camera.fx_px / columns,
            fy_px=camera.fy_px / rows,
            cx_px=camera.cx_px / columns,
            cy_px=camera.cy_px / rows,
        ),
        height=height,
        width=width,
        lens=found.lens,
    )


def require_info_topic(bag: Bag, name: str) -> str:
    """
    Raises:
        ListError: the bag has no such topic of ``CameraInfo`` with a message.
    """
    topic = bag.topics.get(name)
    if topic is not None and topic.msgtype == CAMERA_INFO and topic.count:
        return name
    listed = ", ".join(list_info_topics(bag)) or "none"
    found = f"has no topic {name}" if topic is None else f"{name} is not camera_info with messages"
    raise ListError(bag.path, found, f"Name one of camera_info: {listed}")


def list_info_topics(bag: Bag) -> list[str]:
    """Topics of ``CameraInfo`` that have messages."""
    return sorted(topic.name for topic in bag.topics.values() if topic.msgtype == CAMERA_INFO and topic.count)


def _numbers(message: _CameraInfo, name: str) -> Sequence[float]:
    """A field of numbers, whose name is a capital in ROS 1."""
    values = getattr(message, name.upper(), None)
    return [float(value) for value in (getattr(message, name) if values is None else values)]

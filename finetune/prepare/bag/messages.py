"""Messages of ROS as objects, by the types that ROS itself comes with, and what of them is read here."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import FinetuneError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
IMAGES = (IMAGE, COMPRESSED_IMAGE)
TF_MESSAGES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
TRANSFORM = "geometry_msgs/msg/Transform"
FLOAT = "std_msgs/msg/Float32"
KNOWN_TYPES = (*IMAGES, CAMERA_INFO, *TF_MESSAGES, TRANSFORM, FLOAT)
_DEPTH_UNITS = struct.Struct("<f")


class Stamp(Protocol):
    sec: int
    nanosec: int


class Header(Protocol):
    stamp: Stamp
    frame_id: str


class Stamped(Protocol):
    header: Header


class ImageMessage(Stamped, Protocol):
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: NDArray[np.uint8]


class CompressedMessage(Stamped, Protocol):
    format: str
    data: NDArray[np.uint8]


class Vector(Protocol):
    x: float
    y: float
    z: float


class Quaternion(Vector, Protocol):
    w: float


class Transform(Protocol):
    translation: Vector
    rotation: Quaternion


class TransformStamped(Stamped, Protocol):
    child_frame_id: str
    transform: Transform


class FloatMessage(Protocol):
    data: float


class TransformsMessage(Protocol):
    transforms: Sequence[TransformStamped]


def require_rosbags() -> None:
    """
    Raises:
        FinetuneError: the package rosbags is not installed.
    """
    try:
        import rosbags.rosbag1  # noqa: F401
    except ImportError:
        raise FinetuneError(
            "Bags are read by the package rosbags, which is not installed. Run `pip install -e '.[bag]'` in the folder "
            "of this repository."
        ) from None


def decode_message(raw: bytes, msgtype: str, *, ros1: bool) -> object:
    """
    Args:
        raw: as the bag holds it.
        msgtype: one of ``KNOWN_TYPES``; ROS has not changed them since its first release with bags.
        ros1: serialized as ROS 1 does it; else as CDR.

    Raises:
        ValueError: the bytes are not of this type, or some are missing.
    """
    from rosbags.serde import SerdeError

    store = _typestore(ros1)
    decode = store.deserialize_ros1 if ros1 else store.deserialize_cdr
    try:
        return decode(raw, msgtype)
    except (SerdeError, IndexError, AssertionError) as error:
        raise ValueError(str(error)) from None


def decode_image(raw: bytes, *, ros1: bool) -> tuple[ImageMessage, float]:
    """
    Returns:
        The message, and meters per unit where it says them, else 0.0: since version 2.50, librealsense appends them to
        ROS' own message (``sensor_msgs/Image.h`` of its copy of rosbag).

    Raises:
        ValueError: the bytes are no image, or some are missing.
    """
    try:
        return cast(ImageMessage, decode_message(raw, IMAGE, ros1=ros1)), 0.0
    except ValueError:
        if not ros1:
            raise
        message = decode_message(raw[: -_DEPTH_UNITS.size], IMAGE, ros1=True)
        return cast(ImageMessage, message), float(_DEPTH_UNITS.unpack(raw[-_DEPTH_UNITS.size :])[0])


def stamp_ns(message: Stamped) -> int:
    """Time of a message's header, nanoseconds."""
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@lru_cache(maxsize=2)
def _typestore(ros1: bool) -> Typestore:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    for name in TF_MESSAGES:
        if name not in store.fielddefs:
            store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", name))
    return store

"""Bags for tests, written by the library rosbags: one list of messages, as ROS 1, SQLite or MCAP."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

rosbags = pytest.importorskip("rosbags.rosbag1", reason="the package rosbags is not installed")

from rosbags.rosbag1 import Writer as Ros1Writer  # noqa: E402
from rosbags.rosbag2 import StoragePlugin  # noqa: E402
from rosbags.rosbag2 import Writer as Ros2Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from rosbags.typesys.store import Typestore  # noqa: E402

KINDS = ("ros1", "sqlite3", "mcap")
START_NS = 1_700_000_000_000_000_000
IMAGE, COMPRESSED, INFO = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo")
TF = "tf2_msgs/msg/TFMessage"


@dataclass(frozen=True)
class Message:
    """A message before it is of a version of ROS: nested mappings stand for messages."""

    topic: str
    msgtype: str
    log_ns: int
    fields: dict[str, Any]
    tail: bytes = b""


@dataclass
class Recording:
    """Messages in the order in which they are written."""

    messages: list[Message] = field(default_factory=list)

    def add(self, topic: str, msgtype: str, log_ns: int, fields: dict[str, Any], tail: bytes = b"") -> None:
        self.messages.append(Message(topic, msgtype, log_ns, fields, tail))


def header(stamp_ns: int, frame: str) -> dict[str, Any]:
    return {"stamp": {"sec": stamp_ns // 10**9, "nanosec": stamp_ns % 10**9}, "frame_id": frame}


def image(
    pixels: np.ndarray,
    encoding: str,
    stamp_ns: int = START_NS,
    frame: str = "camera",
    *,
    padding: int = 0,
    bigendian: bool = False,
) -> dict[str, Any]:
    """The fields of an ``Image``; rows are followed by ``padding`` bytes that are no pixels."""
    rows = pixels.reshape(len(pixels), -1)
    rows = rows.astype(rows.dtype.newbyteorder(">" if bigendian else "<"))
    data = np.pad(rows.view(np.uint8).reshape(len(pixels), -1), ((0, 0), (0, padding)), constant_values=171)
    return {
        "header": header(stamp_ns, frame),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": int(bigendian),
        "step": data.shape[1],
        "data": data.ravel(),
    }


def compressed(data: bytes, kind: str, stamp_ns: int = START_NS, frame: str = "camera") -> dict[str, Any]:
    return {"header": header(stamp_ns, frame), "format": kind, "data": np.frombuffer(data, np.uint8)}


def encode(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def compressed_depth(counts: np.ndarray, factor: float = 0.0, shift: float = 0.0) -> bytes:
    """A PNG after the header of compressed_depth_image_transport."""
    return struct.pack("<iff", 0, factor, shift) + encode(".png", counts)


def camera_info(
    width: int,
    height: int,
    focal: float,
    center: tuple[float, float],
    frame: str = "camera",
    distortion: Sequence[float] = (0.0,) * 5,
    **changed: Any,
) -> dict[str, Any]:
    matrix = [focal, 0.0, center[0], 0.0, focal, center[1], 0.0, 0.0, 1.0]
    fields = {
        "header": header(START_NS, frame),
        "height": height,
        "width": width,
        "distortion_model": "plumb_bob",
        "d": np.array(distortion, np.float64),
        "k": np.array(matrix),
        "r": np.eye(3).ravel(),
        "p": np.array([focal, 0.0, center[0], 0.0, 0.0, focal, center[1], 0.0, 0.0, 0.0, 1.0, 0.0]),
        "binning_x": 0,
        "binning_y": 0,
        "roi": {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False},
    }
    return {**fields, **changed}


def transform(translation: Sequence[float], quaternion: Sequence[float] = (0.0, 0.0, 0.0, 1.0)) -> dict[str, Any]:
    return {
        "translation": dict(zip("xyz", translation, strict=True)),
        "rotation": dict(zip("xyzw", quaternion, strict=True)),
    }


def transforms(*edges: tuple[str, str, dict[str, Any]], stamp_ns: int = START_NS) -> dict[str, Any]:
    """(parent, child, transform) -> the fields of a ``TFMessage``."""
    return {
        "transforms": [
            {"header": header(stamp_ns, parent), "child_frame_id": child, "transform": moved}
            for parent, child, moved in edges
        ]
    }


def write_bag(
    path: Path,
    kind: str,
    recording: Recording,
    extra_types: dict[str, str] | None = None,
    *,
    empty: dict[str, str] | None = None,
) -> Path:
    """
    Args:
        path: a file for ROS 1, a folder for ROS 2.
        kind: one of ``KINDS``.
        recording: what to write.
        extra_types: definitions of messages that ROS does not have.
        empty: topics without messages, and their types.
    """
    ros1 = kind == "ros1"
    store = _store(ros1, extra_types or {})
    if ros1:
        with Ros1Writer(path) as bag:
            _write(bag, recording.messages, store, empty or {}, ros1=True)
    else:
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        with Ros2Writer(path, version=9, storage_plugin=plugin) as bag2:
            _write(bag2, recording.messages, store, empty or {}, ros1=False)
    return path


def make_raw(msgtype: str, fields: dict[str, Any], *, ros1: bool) -> bytes:
    """The bytes of a message as a bag holds them."""
    store = _store(ros1, {})
    return bytes((store.serialize_ros1 if ros1 else store.serialize_cdr)(_make(store, msgtype, fields), msgtype))


def storage_file(path: Path) -> Path:
    """The file with the messages of a bag."""
    return path if path.is_file() else next(file for file in path.iterdir() if file.suffix in (".mcap", ".db3"))


def _store(ros1: bool, extra_types: dict[str, str]) -> Typestore:
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    for name, definition in {TF: "geometry_msgs/TransformStamped[] transforms", **extra_types}.items():
        if name not in store.fielddefs:
            store.register(get_types_from_msg(definition, name))
    return store


def _write(
    bag: Ros1Writer | Ros2Writer, messages: Iterable[Message], store: Typestore, empty: dict[str, str], *, ros1: bool
) -> None:
    connections: dict[str, Any] = {}
    for topic, msgtype in empty.items():
        bag.add_connection(topic, msgtype, typestore=store)
    for message in messages:
        if message.topic not in connections:
            connections[message.topic] = bag.add_connection(message.topic, message.msgtype, typestore=store)
        made = _make(store, message.msgtype, message.fields)
        raw = (store.serialize_ros1 if ros1 else store.serialize_cdr)(made, message.msgtype)
        bag.write(connections[message.topic], message.log_ns, bytes(raw) + message.tail)


def _make(store: Typestore, msgtype: str, fields: dict[str, Any]) -> Any:
    """The message of a type; names of fields are those of ROS 2."""
    made = {}
    for name, (node, described) in store.fielddefs[msgtype][1]:
        value = 0 if name == "seq" else fields[name if name in fields else name.lower()]
        made[name] = _convert(store, node, described, value)
    return store.types[msgtype](**made)


def _convert(store: Typestore, node: Any, described: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return _make(store, described, value)
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_make(store, described[0][1], part) for part in value]
    return value

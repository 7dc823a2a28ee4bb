"""Bags as the RealSense SDK records them: their topics, transforms and unit."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.prepare.bag.open_bag import open_bag
from finetune.prepare.bag.options import BagOptions
from finetune.prepare.bag.realsense import is_sdk_stream, read_sdk_transform, read_sdk_unit, sdk_info_topic
from finetune.prepare.bag.source import open_bags
from finetune.prepare.bag.topics import TopicsNotNamed
from finetune.utils.errors import ListError
from tests.prepare.bag.written_bags import IMAGE, INFO, START_NS, Recording, camera_info, image, transform, write_bag

DEPTH, COLOR = "/device_0/sensor_0/Depth_0/image/data", "/device_0/sensor_1/Color_0/image/data"
UNIT_TOPIC = "/device_0/sensor_0/option/Depth_Units/value"
TOPICS = BagOptions(color=COLOR, depth=DEPTH)
STATIC_NS = 1  # the SDK writes what does not change at the least time
COUNTS = np.arange(1, 24 * 32 + 1, dtype=np.uint16).reshape(24, 32)
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
SIDE_X = (0.015, 0.0, 0.0)


def recorded(
    *,
    unit: float | None = 0.00025,
    tail: bytes = b"",
    color_tf: dict[str, Any] | None = None,
    groups: tuple[int, int] = (0, 0),
    model: str = "Inverse Brown Conrady",
) -> Recording:
    """Four frames. The SDK writes a version, 1, where ROS has the frame, and meters per unit after the image."""
    made = Recording()
    if unit is not None:
        made.add(UNIT_TOPIC, "std_msgs/msg/Float32", STATIC_NS, {"data": unit})
    for topic, group, moved in ((DEPTH, groups[0], transform((0.0, 0.0, 0.0))), (COLOR, groups[1], color_tf)):
        info = camera_info(32, 24, 30.0, (15.5, 11.5), "", distortion_model=model)
        made.add(sdk_info_topic(topic), INFO, STATIC_NS, info)
        if moved is not None:
            made.add(f"{topic.removesuffix('/image/data')}/tf/{group}", "geometry_msgs/msg/Transform", STATIC_NS, moved)
    for k in range(4):
        stamp_ns = START_NS + k * 33_000_000
        made.add(DEPTH, IMAGE, k * 33_000_000 + 5, image(COUNTS, "mono16", stamp_ns, "1"), tail)
        made.add(COLOR, IMAGE, k * 33_000_000 + 9, image(PIXELS, "rgb8", stamp_ns + 1_000_000, "1"), tail and bytes(4))
    return made


def written(tmp_path: Path, recording: Recording) -> Path:
    return write_bag(tmp_path / "rs.bag", "ros1", recording)


@pytest.mark.parametrize("tail", [b"", struct.pack("<f", 0.00025)])
def test_depth_in_the_unit_of_the_device(tmp_path: Path, tail: bytes) -> None:
    found = open_bags([written(tmp_path, recorded(tail=tail, color_tf=transform((0.0, 0.0, 0.0))))], TOPICS)
    assert len(found.keys) == 4
    frame = found.load_frame(2)
    np.testing.assert_array_equal(frame.image, PIXELS)
    np.testing.assert_array_equal(frame.depth_m, (COUNTS * 0.00025).astype(np.float32))
    assert any(
        f"{DEPTH} is in units of 0.00025 m, by the option Depth Units in the bag" in note for note in found.notes
    )
    assert frame.camera is not None and frame.camera.fx_px == 30.0


def test_the_unit_of_the_messages_and_none_at_all(tmp_path: Path) -> None:
    here = transform((0.0, 0.0, 0.0))
    path = written(tmp_path, recorded(unit=None, tail=struct.pack("<f", 0.0001), color_tf=here))
    found = open_bags([path], TOPICS)
    np.testing.assert_array_equal(found.load_frame(0).depth_m, (COUNTS * 0.0001).astype(np.float32))
    assert any("is in units of 0.0001 m, as its messages say" in note for note in found.notes)
    path.unlink()
    found = open_bags([written(tmp_path, recorded(unit=None, color_tf=here))], TOPICS)
    np.testing.assert_array_equal(found.load_frame(0).depth_m, (COUNTS / 1000).astype(np.float32))
    assert any("is taken as millimeters, since the bag has no Depth Units" in note for note in found.notes)


def test_transform_from_depth_to_color_is_that_of_color_where_depth_is_the_reference(tmp_path: Path) -> None:
    quarter_z = (0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5))
    with open_bag(written(tmp_path, recorded(color_tf=transform(SIDE_X, quarter_z)))) as bag:
        found = read_sdk_transform(bag, COLOR, DEPTH)
        assert read_sdk_unit(bag, DEPTH) == 0.00025
        assert read_sdk_unit(bag, COLOR) is None
        back = read_sdk_transform(bag, DEPTH, COLOR)
    expected = np.array([[0.0, -1.0, 0.0, 0.015], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(back @ found, np.eye(4), atol=1e-12)


def test_depth_is_moved_into_the_view_of_color(tmp_path: Path) -> None:
    made = recorded(color_tf=transform(SIDE_X), unit=0.001)
    wall = np.full((24, 32), 450, np.uint16)  # at 0.45 m, 15 mm are 30 * 15 / 450 = 1 px
    wall[:, 20] = 0
    for message in made.messages:
        if message.topic == DEPTH:
            message.fields.update(image(wall, "mono16", START_NS, "1") | {"header": message.fields["header"]})
    depth_m = open_bags([written(tmp_path, made)], TOPICS).load_frame(0).depth_m
    expected = np.full((24, 32), 0.45, np.float32)
    expected[:, [0, 21]] = 0
    np.testing.assert_allclose(depth_m, expected, atol=1e-6)


def test_topics_are_suggested(tmp_path: Path) -> None:
    path = written(tmp_path, recorded())
    with pytest.raises(TopicsNotNamed, match=f"such as --color {COLOR} --depth {DEPTH}"):
        open_bags([path], BagOptions())
    assert is_sdk_stream(COLOR) and not is_sdk_stream("/camera/color/image_raw")


@pytest.mark.parametrize(
    ("recording", "words"),
    [
        (recorded(), r"has no /device_0/sensor_1/Color_0/tf/0, the transform of .*Give --calibration FILE"),
        (recorded(groups=(0, 1), color_tf=transform(SIDE_X)), "have different references, 1 and 0"),
        (recorded(color_tf=transform((15.0, 0.0, 21.0))), "millimeters"),
        (recorded(color_tf=transform(SIDE_X, (0.0, 0.0, 0.0, 0.5))), "has a quaternion of length 0.5, not 1"),
    ],
)
def test_wrong_transforms(tmp_path: Path, recording: Recording, words: str) -> None:
    with pytest.raises(ListError, match=words):
        open_bags([written(tmp_path, recording)], TOPICS)

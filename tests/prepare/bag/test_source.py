"""From bags to frames: pairs, units, views, and every way in which topics do not fit together."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.bag import frames, source
from finetune.prepare.bag.frames import BagFrames
from finetune.prepare.bag.open_bag import Bag
from finetune.prepare.bag.options import BagOptions
from finetune.prepare.bag.source import open_bags
from finetune.prepare.bag.streams import Stream
from finetune.prepare.bag.topics import TopicsNotNamed
from finetune.prepare.calibration import CalibratedCamera
from finetune.prepare.undistortion import choose_pinhole, undistort_depth, undistort_image
from finetune.utils.errors import DataError, FinetuneError, ListError
from tests.prepare.bag.written_bags import (
    COMPRESSED,
    IMAGE,
    INFO,
    KINDS,
    START_NS,
    TF,
    Recording,
    camera_info,
    compressed,
    compressed_depth,
    encode,
    image,
    transform,
    transforms,
    write_bag,
)

COLOR, DEPTH = "/camera/color/image_raw", "/camera/aligned_depth_to_color/image_raw"
TOPICS = BagOptions(color=COLOR, depth=DEPTH)
STEP_NS = 100_000_000
HEIGHT, WIDTH = 24, 32


def color_of(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def counts_of(k: int) -> np.ndarray:
    counts = np.random.default_rng(100 + k).integers(400, 9000, (HEIGHT, WIDTH)).astype(np.uint16)
    counts[:2] = 0
    return counts


def recorded(
    count: int = 6,
    *,
    late_ns: Callable[[int], int] = lambda k: 4_000_000,
    depth_frame: str = "color_frame",
    info: bool = True,
    color: Callable[[int, int], tuple[str, dict[str, Any]]] | None = None,
    depth: Callable[[int, int], tuple[str, dict[str, Any]]] | None = None,
) -> Recording:
    """Color every 0.1 s and depth ``late_ns(k)`` after it; bags record both half a second later."""
    made = Recording()
    if info:
        fields = camera_info(WIDTH, HEIGHT, 30.0, (15.5, 11.5), "color_frame")
        made.add("/camera/color/camera_info", INFO, START_NS, fields)
    color = color or (lambda k, ns: (IMAGE, image(color_of(k), "rgb8", ns, "color_frame")))
    depth = depth or (lambda k, ns: (IMAGE, image(counts_of(k), "16UC1", ns, depth_frame)))
    for k in range(count):
        log_ns = START_NS + k * STEP_NS + 500_000_000
        stamp_ns = START_NS + k * STEP_NS
        made.add(COLOR, color(k, stamp_ns)[0], log_ns, color(k, stamp_ns)[1])
        depth_ns = stamp_ns + late_ns(k)
        made.add(DEPTH, depth(k, depth_ns)[0], log_ns + 1, depth(k, depth_ns)[1])
    return made


def written(tmp_path: Path, recording: Recording, kind: str = "mcap", name: str = "rec") -> Path:
    return write_bag(tmp_path / (f"{name}.bag" if kind == "ros1" else name), kind, recording)


def require_frames(found: BagFrames, numbers: range) -> None:
    assert len(found.keys) == len(numbers)
    for index, k in enumerate(numbers):
        frame = found.load_frame(index)
        np.testing.assert_array_equal(frame.image, color_of(k))
        np.testing.assert_array_equal(frame.depth_m, (counts_of(k) / 1000).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_values_come_back_exactly_in_workers_too(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, recorded(), kind)
    found = open_bags([path], TOPICS)
    require_frames(found, range(6))
    again: BagFrames = pickle.loads(pickle.dumps(found))
    require_frames(again, range(6))
    assert again.load_frame(3).camera == Camera(fx_px=30.0, fy_px=30.0, cx_px=15.5, cy_px=11.5)
    assert found.load_frame(2).source == f"{path}: {COLOR} at 0.200 s"
    assert [key.stem for key in found.keys] == [f"{k:06}" for k in range(6)]
    assert {key.recording for key in found.keys} == {"rec"}
    assert found.keys[2].time_s == pytest.approx((START_NS + 2 * STEP_NS) / 1e9)
    pairs, unit, view = found.notes
    assert "6 color messages and depth messages are matched by time, 4.0 ms apart in the median" in pairs
    assert unit == f"{path}: {DEPTH} is 16UC1: whole numbers are millimeters, floats are meters (REP 118)."
    assert view == f"{path}: depth is in the view of color: both are in the frame color_frame."


def test_thousands_of_messages_are_listed_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    load = frames.load_color

    def counted(bag: Bag, stream: Stream, index: int, encoding: str | None) -> np.ndarray:
        decoded.append(index)
        return load(bag, stream, index, encoding)

    monkeypatch.setattr(source, "load_color", counted)
    path = written(tmp_path, recorded(2000), "ros1")
    found = open_bags([path], TOPICS)
    assert len(found.keys) == 2000
    assert decoded == [0]
    np.testing.assert_array_equal(found.load_frame(1234).image, color_of(1234))


def test_several_bags_are_several_recordings(tmp_path: Path) -> None:
    paths = [written(tmp_path, recorded(n), "sqlite3", name) for n, name in ((2, "a"), (3, "b"))]
    found = open_bags(paths, TOPICS)
    assert [(key.recording, key.stem) for key in found.keys] == [
        *(("a", f"{k:06}") for k in range(2)),
        *(("b", f"{k:06}") for k in range(3)),
    ]
    np.testing.assert_array_equal(found.load_frame(4).image, color_of(2))
    np.testing.assert_array_equal(found.load_frame(0).image, color_of(0))
    (tmp_path / "other").mkdir()
    same = written(tmp_path / "other", recorded(2), "sqlite3", "a")
    assert {key.recording for key in open_bags([paths[0], same], TOPICS).keys} == {"a_0", "a_1"}


def test_messages_of_one_time_are_told_apart(tmp_path: Path) -> None:
    made = recorded(4)
    for i, message in enumerate(made.messages):
        made.messages[i] = type(message)(message.topic, message.msgtype, START_NS, message.fields)
    for kind in KINDS:
        require_frames(open_bags([written(tmp_path, made, kind, kind)], TOPICS), range(4))


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_topics(tmp_path: Path, kind: str) -> None:
    made = recorded(
        color=lambda k, ns: (COMPRESSED, compressed(encode(".png", color_of(k)[..., ::-1]), "rgb8; png", ns, "c")),
        depth=lambda k, ns: (COMPRESSED, compressed(compressed_depth(counts_of(k)), "16UC1; compressedDepth", ns, "c")),
    )
    require_frames(open_bags([written(tmp_path, made, kind)], TOPICS), range(6))


def test_floats_and_bayer(tmp_path: Path) -> None:
    made = recorded(
        color=lambda k, ns: (IMAGE, image(color_of(k)[..., 0], "bayer_grbg8", ns, "c", padding=3)),
        depth=lambda k, ns: (IMAGE, image(counts_of(k).astype(np.float32) / 1000, "32FC1", ns, "c", bigendian=True)),
    )
    frame = open_bags([written(tmp_path, made)], TOPICS).load_frame(3)
    np.testing.assert_array_equal(frame.depth_m, counts_of(3).astype(np.float32) / 1000)
    # Of G R / B G, rows from the top: the green ones inside stay as they are.
    np.testing.assert_array_equal(frame.image[2:-2:2, 2:-2:2, 1], color_of(3)[2:-2:2, 2:-2:2, 0])


def test_clocks_that_drift_are_reported_and_paired_by_the_nearest(tmp_path: Path) -> None:
    """Depth's clock gains 3 ms in each frame: 33 ms after 11 of them, which is less than half an interval."""
    path = written(tmp_path, recorded(12, late_ns=lambda k: 3_000_000 * k))
    found = open_bags([path], TOPICS)
    require_frames(found, range(12))
    assert "the clock of the depth messages gains 33.0 ms in 1.1 s" in found.notes[0]


def test_frames_without_partner_are_left_over(tmp_path: Path) -> None:
    made = recorded(6)
    # Depth of frames 1 and 4 was dropped.
    dropped = [m for m in made.messages if m.topic == DEPTH][1::3]
    path = written(tmp_path, Recording([m for m in made.messages if m not in dropped]))
    found = open_bags([path], TOPICS)
    assert "2 color messages and 0 depth messages are left over" in found.notes[0]
    np.testing.assert_array_equal(found.load_frame(1).image, color_of(2))
    np.testing.assert_array_equal(found.load_frame(1).depth_m, (counts_of(2) / 1000).astype(np.float32))


def test_a_message_that_is_no_image_is_left_out(tmp_path: Path) -> None:
    made = recorded(4)
    at = [i for i, message in enumerate(made.messages) if message.topic == COLOR][1]
    made.messages[at] = replace(made.messages[at], tail=b"123")  # more bytes than an image has
    path = written(tmp_path, made, "ros1")
    found = open_bags([path], TOPICS)
    assert found.notes[0] == f"{path}: left out of {COLOR}: 1 damaged message."
    assert "0 color messages and 1 depth message are left over" in found.notes[1]
    np.testing.assert_array_equal(found.load_frame(1).image, color_of(2))


def test_another_unit(tmp_path: Path) -> None:
    options = BagOptions(color=COLOR, depth=DEPTH, meters_per_unit=0.00025)
    found = open_bags([written(tmp_path, recorded())], options)
    np.testing.assert_array_equal(found.load_frame(0).depth_m, (counts_of(0) * 0.00025).astype(np.float32))
    assert "is in units of 0.00025 m, as --meters-per-unit says" in found.notes[1]


def test_smaller_depth_of_the_same_view_stays_smaller(tmp_path: Path) -> None:
    made = recorded(depth=lambda k, ns: (IMAGE, image(counts_of(k)[::2, ::2], "16UC1", ns, "color_frame")))
    frame = open_bags([written(tmp_path, made)], TOPICS).load_frame(1)
    assert frame.image.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(frame.depth_m, (counts_of(1)[::2, ::2] / 1000).astype(np.float32))


def test_two_frames_at_one_place_are_one_view(tmp_path: Path) -> None:
    """realsense-ros without tf names frames of its own; the transform is the identity and both cameras are equal."""
    made = recorded(depth_frame="depth_frame")
    fields = camera_info(WIDTH, HEIGHT, 30.0, (15.5, 11.5), "depth_frame")
    made.add("/camera/aligned_depth_to_color/camera_info", INFO, START_NS, fields)
    made.add("/tf_static", TF, START_NS, transforms(("color_frame", "depth_frame", transform((0.0, 0.0, 0.0)))))
    found = open_bags([written(tmp_path, made)], TOPICS)
    assert "depth is in the view of color, by the cameras and the transform between them" in found.notes[-1]
    require_frames(found, range(6))


def wall_with_hole(k: int, ns: int) -> tuple[str, dict[str, Any]]:
    """A wall at 2 m, in which nothing was measured in columns 10 to 13 of rows 8 to 15."""
    counts = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    counts[8:16, 10:14] = 0
    return IMAGE, image(counts, "16UC1", ns, "depth_frame")


def require_moved_wall(depth_m: np.ndarray) -> None:
    """By 0.2 m along x, at 2 m and a focal length of 30 px: 3 px to the right, where nothing comes in from the left."""
    expected = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    expected[8:16, 13:17] = 0
    expected[:, :3] = 0
    np.testing.assert_allclose(depth_m, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_depth_of_another_view_is_moved_by_the_transforms_in_the_bag(tmp_path: Path, kind: str) -> None:
    made = recorded(depth=wall_with_hole)
    fields = camera_info(WIDTH, HEIGHT, 30.0, (15.5, 11.5), "depth_frame")
    made.add("/camera/aligned_depth_to_color/camera_info", INFO, START_NS, fields)
    edges = ("link", "color_frame", transform((0.1, 0.0, 0.0))), ("link", "depth_frame", transform((0.3, 0.0, 0.0)))
    made.add("/tf_static", TF, START_NS, transforms(*edges))
    found = open_bags([written(tmp_path, made, kind)], TOPICS)
    assert "depth is moved into the view of color, 200.0, 0.0, 0.0 mm away" in found.notes[-1]
    again: BagFrames = pickle.loads(pickle.dumps(found))
    for frames_of in (found, again):
        frame = frames_of.load_frame(2)
        require_moved_wall(frame.depth_m)
        np.testing.assert_array_equal(frame.image, color_of(2))


def test_transforms_in_millimeters_are_refused(tmp_path: Path) -> None:
    made = recorded(depth=wall_with_hole)
    fields = camera_info(WIDTH, HEIGHT, 30.0, (15.5, 11.5), "depth_frame")
    made.add("/camera/aligned_depth_to_color/camera_info", INFO, START_NS, fields)
    made.add("/tf_static", TF, START_NS, transforms(("color_frame", "depth_frame", transform((-15.0, 0.0, 0.0)))))
    with pytest.raises(
        ListError,
        match=r"rec: its transform from depth to color puts the two cameras 15 m apart, as .* millimeters does\. "
        r"Give the right one by --calibration FILE",
    ):
        open_bags([written(tmp_path, made)], TOPICS)


def test_a_calibration_wins_over_what_the_bag_says(tmp_path: Path) -> None:
    camera = {"width": WIDTH, "height": HEIGHT, "fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5}
    moved = np.eye(4)
    moved[0, 3] = 0.2
    calibration = tmp_path / "rig.json"
    calibration.write_text(json.dumps({"color": camera, "depth": camera, "color_from_depth": moved.tolist()}))
    path = written(tmp_path, recorded(depth=wall_with_hole, info=False))
    options = BagOptions(color=COLOR, depth=DEPTH, calibration=calibration)
    frame = open_bags([path], options).load_frame(0)
    require_moved_wall(frame.depth_m)
    assert frame.camera == Camera(fx_px=30.0, fy_px=30.0, cx_px=15.5, cy_px=11.5)
    calibration.write_text(json.dumps({"color": camera, "color_from_lidar": moved.tolist()}))
    with pytest.raises(ListError, match="describes no depth camera"):
        open_bags([path], options)
    small = {**camera, "width": WIDTH // 2, "height": HEIGHT // 2}
    calibration.write_text(json.dumps({"color": camera, "depth": small, "color_from_depth": moved.tolist()}))
    with pytest.raises(
        ListError, match=r"rec: an image of \S*aligned\S* is 24x32 \(height x width\), .*rig.json is for 12x16"
    ):
        open_bags([path], options)


def test_a_camera_that_is_needed_and_missing(tmp_path: Path) -> None:
    made = recorded(depth=wall_with_hole)
    made.add("/tf_static", TF, START_NS, transforms(("color_frame", "depth_frame", transform((0.2, 0.0, 0.0)))))
    path = written(tmp_path, made)
    with pytest.raises(
        ListError, match=r"no camera_info with numbers for /camera/aligned.* --depth-info TOPIC \(there"
    ):
        open_bags([path], TOPICS)
    same = BagOptions(color=COLOR, depth=DEPTH, depth_info="/camera/color/camera_info")
    require_moved_wall(open_bags([path], same).load_frame(0).depth_m)


@pytest.mark.parametrize("focal_px", [float("nan"), 0.0])
def test_a_camera_without_numbers_is_said(tmp_path: Path, focal_px: float) -> None:
    made = recorded(info=False)
    fields = camera_info(WIDTH, HEIGHT, focal_px, (15.5, 11.5), "color_frame")
    made.add("/camera/color/camera_info", INFO, START_NS, fields)
    found = open_bags([written(tmp_path, made)], TOPICS)
    assert found.load_frame(0).camera is None
    assert f"camera_info of {COLOR} (/camera/color/camera_info) holds no numbers, so the frames" in found.notes[-1]


def test_a_lens_that_bends_rays_is_undistorted_if_asked(tmp_path: Path) -> None:
    made = recorded(info=False)
    bent = camera_info(WIDTH, HEIGHT, 20.0, (15.5, 11.5), "color_frame", distortion=(-0.2, 0.0, 0.0, 0.0, 0.0))
    made.add("/camera/color/camera_info", INFO, START_NS, bent)
    path = written(tmp_path, made)
    found = open_bags([path], TOPICS)
    assert found.load_frame(0).camera is None
    assert "bends rays, so the frames have no intrinsics: --undistort makes" in found.notes[-1]
    straight = open_bags([path], BagOptions(color=COLOR, depth=DEPTH, undistort=True))
    frame = straight.load_frame(0)
    lens = CalibratedCamera(
        camera=Camera(fx_px=20.0, fy_px=20.0, cx_px=15.5, cy_px=11.5),
        height=HEIGHT,
        width=WIDTH,
        lens=Lens(fisheye=False, coefficients=(-0.2, 0.0, 0.0, 0.0, 0.0)),
    )
    pinhole = choose_pinhole(lens, keep_all=False, source="")
    assert frame.camera == pinhole and straight.notes[-1].endswith(f"to a focal length of {pinhole.fx_px:.6g} px.")
    np.testing.assert_array_equal(frame.image, undistort_image(color_of(0), lens, pinhole))
    depth_m = (counts_of(0) / 1000).astype(np.float32)
    np.testing.assert_array_equal(frame.depth_m, undistort_depth(depth_m, lens, pinhole))


def test_an_image_of_another_size_than_the_first(tmp_path: Path) -> None:
    made = recorded(
        color=lambda k, ns: (IMAGE, image(color_of(k)[:: 1 + (k == 2), :: 1 + (k == 2)], "rgb8", ns, "color_frame"))
    )
    found = open_bags([written(tmp_path, made)], TOPICS)
    assert found.load_frame(1).image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match=r"at 0\.200 s: is 12x16 \(height x width\), the first image 24x32\. Record"):
        found.load_frame(2)


def test_one_damaged_image_does_not_refuse_a_bag(tmp_path: Path) -> None:
    made = recorded(
        color=lambda k, ns: (
            COMPRESSED,
            compressed(encode(".png", color_of(k))[: 30 if k == 0 else None], "png", ns, "c"),
        ),
        depth=lambda k, ns: (IMAGE, image(counts_of(k), "16UC1", ns, "c")),
    )
    found = open_bags([written(tmp_path, made)], TOPICS)
    with pytest.raises(DataError, match=r"image_raw at 0\.000 s: is a damaged or truncated PNG"):
        found.load_frame(0)
    assert found.load_frame(1).image.shape == (HEIGHT, WIDTH, 3)


def test_the_user_says_that_depth_is_aligned(tmp_path: Path) -> None:
    path = written(tmp_path, recorded(depth_frame=""))
    with pytest.raises(ListError, match=r"headers of images name no frame.*Give --aligned if"):
        open_bags([path], TOPICS)
    require_frames(open_bags([path], BagOptions(color=COLOR, depth=DEPTH, aligned=True)), range(6))


def test_a_cut_bag_is_prepared_as_far_as_it_goes(tmp_path: Path) -> None:
    path = written(tmp_path, recorded(400), "ros1")
    data = path.read_bytes()
    path.write_bytes(data[: int(0.7 * len(data))])
    found = open_bags([path], TOPICS)
    assert 260 < len(found.keys) < 290
    require_frames(found, range(len(found.keys)))
    assert "30% of its data is missing from its end" in found.notes[0]


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        (recorded(late_ns=lambda k: -START_NS + 7), TOPICS, r"so they are of other clocks. Pair by .*--clock log"),
        (recorded(late_ns=lambda k: -START_NS - k * STEP_NS), TOPICS, "hold the time 0 s. Pair by .*--clock log"),
        (
            recorded(late_ns=lambda k: 40_000_000),
            BagOptions(color=COLOR, depth=DEPTH, tolerance_s=0.01),
            "is near enough in time .*Raise --tolerance SECONDS",
        ),
        (recorded(depth_frame="depth_frame"), TOPICS, r"no transform from depth_frame to color_frame \(frames: none\)"),
        (
            recorded(depth=lambda k, ns: (IMAGE, image(np.ones((24, 24), np.uint16), "16UC1", ns, "color_frame"))),
            TOPICS,
            "has no camera_info with numbers for /camera/aligned_depth_to_color/image_raw.*--depth-info TOPIC",
        ),
        (
            recorded(color=lambda k, ns: (IMAGE, image(np.zeros((10, 10, 3), np.uint8), "rgb8", ns, "color_frame"))),
            BagOptions(color=COLOR, depth=DEPTH, aligned=True),
            r"rec: an image of /camera/color/image_raw is 10x10 \(height x width\), its camera_info is for 24x32",
        ),
        (recorded(color=lambda k, ns: (IMAGE, image(counts_of(k), "16UC1", ns))), TOPICS, "is not read as an image"),
        (recorded(depth=lambda k, ns: (IMAGE, image(color_of(k), "rgb8", ns))), TOPICS, "is not read as depth"),
    ],
)
def test_wrong_bags_are_refused_in_a_sentence(tmp_path: Path, made: Recording, options: BagOptions, words: str) -> None:
    with pytest.raises((ListError, DataError), match=words) as caught:
        open_bags([written(tmp_path, made)], options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_by_the_time_of_recording(tmp_path: Path) -> None:
    path = written(tmp_path, recorded(late_ns=lambda k: -START_NS + 7))
    found = open_bags([path], BagOptions(color=COLOR, depth=DEPTH, clock="log"))
    require_frames(found, range(6))
    assert "0.0 ms apart in the median" in found.notes[0]


def test_topics_are_listed_where_they_are_not_named_or_wrong(tmp_path: Path) -> None:
    made = recorded()
    made.add("/camera/depth/points", "custom_msgs/msg/Cloud", START_NS, {"number": 3})
    path = write_bag(tmp_path / "rec", "mcap", made, {"custom_msgs/msg/Cloud": "uint8 number"})
    with pytest.raises(TopicsNotNamed) as caught:
        open_bags([path], BagOptions())
    assert str(caught.value) == (
        f"{path}: --color and --depth are not given. Name the topics, such as --color {COLOR} --depth {DEPTH}."
    )
    assert caught.value.lines == [
        f"{path} holds images on",
        f"  {DEPTH}: 6 of Image, 32x24 16UC1, frame color_frame",
        f"  {COLOR}: 6 of Image, 32x24 rgb8, frame color_frame",
        "  camera_info: /camera/color/camera_info",
        "  transforms: none",
    ]
    with pytest.raises(
        TopicsNotNamed, match=r"has no topic /camera/color/image for --color\. .* such as .*/image_raw\.$"
    ):
        open_bags([path], BagOptions(color="/camera/color/image", depth=DEPTH))
    with pytest.raises(
        TopicsNotNamed, match=r"--depth /camera/depth/points is of type custom_msgs/msg/Cloud, and Image"
    ):
        open_bags([path], BagOptions(color=COLOR, depth="/camera/depth/points"))
    with pytest.raises(TopicsNotNamed, match=rf"--depth is not given\. Name the topics, such as --color {COLOR} --dep"):
        open_bags([path], BagOptions(color=COLOR))
    require_frames(open_bags([path], BagOptions(color=COLOR.strip("/"), depth=DEPTH.strip("/"))), range(6))


def test_a_bag_without_images_and_an_empty_topic(tmp_path: Path) -> None:
    made = Recording()
    made.add("/camera/depth/points", "custom_msgs/msg/Cloud", START_NS, {"number": 3})
    path = write_bag(tmp_path / "a.bag", "ros1", made, {"custom_msgs/msg/Cloud": "uint8 number"})
    with pytest.raises(ListError, match=r"has no topic of Image or CompressedImage \(types: custom_msgs/msg/Cloud\)"):
        open_bags([path], BagOptions())
    empty = write_bag(tmp_path / "b", "sqlite3", recorded(), empty={"/camera/infra/image_raw": IMAGE})
    with pytest.raises(ListError, match=r"--depth /camera/infra/image_raw has no message"):
        open_bags([empty], BagOptions(color=COLOR, depth="/camera/infra/image_raw"))


def test_without_the_package_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, recorded())
    monkeypatch.setitem(__import__("sys").modules, "rosbags.rosbag1", None)
    with pytest.raises(FinetuneError, match=r"which is not installed\. Run `pip install -e '\.\[bag\]'`"):
        open_bags([path], TOPICS)


def test_floats_in_millimeters_are_refused(tmp_path: Path) -> None:
    made = recorded(depth=lambda k, ns: (IMAGE, image(counts_of(k).astype(np.float32), "32FC1", ns, "color_frame")))
    path = written(tmp_path, made)
    fix = r"as millimeters taken for meters are\. For millimeters give --meters-per-unit 0\.001\.$"
    with pytest.raises(ListError, match=fix):
        open_bags([path], TOPICS)
    require_frames(open_bags([path], replace(TOPICS, meters_per_unit=0.001)), range(6))

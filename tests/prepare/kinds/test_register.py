"""Kind ``register``: frames of two cameras as a user has them, and calibrations that are wrong."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands.prepare import main
from finetune.data.readers.files import read_depth, read_image
from finetune.prepare.kinds.register import add_arguments, open_source
from finetune.prepare.recording import FrameSource
from finetune.prepare.registration import Registration
from tests.prepare.two_cameras import TwoViews, describe_rig, make_rig, write_recording

RIG = make_rig(color=(240, 320, 260.0), depth=(180, 240, 160.0), pinholes=True)
SEEDS = range(20, 28)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("register") / "lab", RIG, SEEDS)


def open_register(recording: Path, *words: str) -> FrameSource:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    calibration = [] if "--calibration" in words else ["--calibration", str(recording / "rig.json")]
    unit = [] if {"--meters-per-unit", "--device"} & set(words) else ["--meters-per-unit", "0.001"]
    return open_source(
        parser.parse_args([str(recording / "rgb"), str(recording / "depth"), *calibration, *unit, *words])
    )


def test_depth_is_in_the_view_of_color(recording: Path) -> None:
    source = open_register(recording)
    assert len(source.keys) == len(SEEDS)
    frame = source.load_frame(3)
    assert frame is not None
    counts = read_depth(recording / "depth" / "0003.png")
    expected = Registration(RIG).depth_in_color((counts / 1000).astype(np.float32))
    np.testing.assert_allclose(frame.depth_m, expected, rtol=1e-6)
    # 160 px of focal length in depth against 260 in color: 240 * 0.615 and 320 * 0.615 pixels.
    assert frame.depth_m.shape == (148, 197)
    np.testing.assert_array_equal(frame.image, read_image(recording / "rgb" / "0003.png"))
    assert frame.image_file == recording / "rgb" / "0003.png"
    assert frame.camera == RIG.color.camera
    assert any("197x148" in note for note in source.notes)


def test_color_is_in_the_view_of_depth(recording: Path) -> None:
    frame = open_register(recording, "--color-to-depth").load_frame(3)
    assert frame is not None
    assert RIG.depth is not None
    assert frame.image.shape == (180, 240, 3)
    counts = read_depth(recording / "depth" / "0003.png")
    kept = frame.depth_m > 0
    np.testing.assert_allclose(frame.depth_m[kept], counts[kept] / 1000, rtol=1e-6)
    assert frame.camera == RIG.depth.camera
    assert frame.image_file is None


def test_distances_along_rays_become_depth(recording: Path, tmp_path: Path) -> None:
    rig = RIG
    assert rig.depth is not None
    views = TwoViews(SEEDS[0], rig)
    rays = rig.depth.camera.rays(rig.depth.height, rig.depth.width)
    folder = tmp_path / "range"
    shutil.copytree(recording, folder)
    for path in sorted((folder / "depth").iterdir())[1:]:
        path.unlink()
        (folder / "rgb" / path.name).unlink()
    (folder / "depth" / "0000.png").unlink()
    np.save(folder / "depth" / "0000.npy", (views.depth_m * np.linalg.norm(rays, axis=-1)).astype(np.float32))
    frame = open_register(folder, "--depth-is", "range", "--meters-per-unit", "1").load_frame(0)
    assert frame is not None
    np.testing.assert_allclose(frame.depth_m, Registration(rig).depth_in_color(views.depth_m), rtol=1e-4)


def test_a_device_fills_in_what_is_known_and_says_so(recording: Path, tmp_path: Path) -> None:
    notes = open_register(recording, "--device", "realsense").notes
    assert any("--meters-per-unit 0.001, --invalid 0 (source: librealsense" in note for note in notes)
    scenes = tmp_path / "kitchen"
    for name in ("rgb", "depth"):
        (scenes / name).mkdir(parents=True)
        shape = (480, 640, 3) if name == "rgb" else (480, 640)
        cv2.imwrite(str(scenes / name / "0.png"), np.full(shape, 1000, np.uint16))
    described = describe_rig(make_rig(color=(480, 640, 525.0), depth=(480, 640, 525.0), pinholes=True))
    # The depth camera of 7-Scenes is published, its color camera is not.
    (scenes / "rig.json").write_text(json.dumps({key: described[key] for key in ("color", "color_from_depth")}))
    source = open_register(scenes, "--device", "7scenes")
    assert any("fx 585, fy 585, cx 320, cy 240 at 640x480" in note for note in source.notes)
    frame = source.load_frame(0)
    assert frame is not None
    assert frame.depth_m.shape == (480, 640)


Change = Callable[[dict[str, object]], object]


def millimeters(content: dict[str, object]) -> None:
    shift(content, 1000)


def shift(content: dict[str, object], by: float) -> None:
    matrix = np.array(content["color_from_depth"])
    matrix[:3, 3] *= by
    content["color_from_depth"] = matrix.tolist()


def invert(content: dict[str, object]) -> None:
    content["color_from_depth"] = np.linalg.inv(np.array(content["color_from_depth"])).tolist()


def stretch(content: dict[str, object]) -> None:
    matrix = np.array(content["color_from_depth"])
    matrix[:3, :3] *= 1.05
    content["color_from_depth"] = matrix.tolist()


def turn(content: dict[str, object], signs: tuple[int, int, int]) -> None:
    content["color_from_depth"] = (np.array(content["color_from_depth"]) @ np.diag((*signs, 1.0))).tolist()


def exchange(content: dict[str, object]) -> None:
    content["color"], content["depth"] = content["depth"], content["color"]


def look_back(content: dict[str, object]) -> None:
    content["color_from_depth"] = np.diag([-1.0, 1.0, -1.0, 1.0]).tolist()


def other_size(name: str) -> Change:
    def change(content: dict[str, object]) -> None:
        camera = content[name]
        assert isinstance(camera, Mapping)
        content[name] = {key: 2 * value for key, value in camera.items()}

    return change


def set_in(camera: str, **values: object) -> Change:
    def change(content: dict[str, object]) -> None:
        before = content[camera]
        assert isinstance(before, dict)
        content[camera] = before | values

    return change


FAULTS: dict[str, tuple[Change, str]] = {
    "no depth camera": (lambda content: content.pop("depth"), "rig.json: has no depth. Add depth: the depth camera"),
    "no transform": (lambda content: content.pop("color_from_depth"), "has no color_from_depth. Add color_from_depth"),
    "nothing": (lambda content: content.clear(), "has no color, depth, color_from_depth. Add color: the color camera"),
    "not rigid": (stretch, "color_from_depth is not rigid: the columns of its rotation have the lengths 1.05"),
    "5 cm in millimeters": (
        millimeters,
        "puts the sensor 49.98 m from the camera, as a translation in millimeters does",
    ),
    "1 cm in millimeters": (
        lambda content: shift(content, 200),
        "m apart, as a translation in millimeters does",
    ),
    "inverse": (invert, "color_from_depth looks like its inverse"),
    "looks back": (
        look_back,
        "color_from_depth looks turned by 180 degrees about y: edges of depth meet",
    ),
    "upside down": (lambda content: turn(content, (-1, -1, 1)), "color_from_depth looks turned by 180 degrees about z"),
    "axes of OpenGL": (lambda content: turn(content, (1, -1, -1)), "looks turned by 180 degrees about x"),
    "exchanged": (exchange, "which in {rig.json} is the size of the depth camera, so color and depth look exchanged"),
    "a digit too many": (lambda content: shift(content, 10), "0.5 m apart, which looks too far: edges of depth meet"),
    "a thousand too little": (lambda content: shift(content, 0.001), "two cameras 0.05 mm apart, nearer than two"),
    "focal length in millimeters": (
        set_in("color", fx=3.04, fy=3.04),
        "rig.json: color: has focal lengths of 3.04 and 3.04 px for images of 320x240, as millimeters or",
    ),
    "focal lengths of two cameras": (set_in("depth", fy=700.0), "which no pixels of one camera have"),
    "color of another size": (other_size("color"), "rig.json: color is for 480x640"),
    # Half of 320 / 2 + 1.6 and 240 / 2 - 1.1.
    "center of half the size": (
        set_in("color", cx=80.8, cy=59.45),
        "rig.json: color: has its center at (80.8, 59.45), not in the middle third of images of 320x240",
    ),
    "center exchanged": (set_in("color", cx=118.9, cy=161.6), "images of another size, or cx and cy are exchanged"),
    "wild distortion": (set_in("depth", distortion=[5, 50, 0, 0, 0]), "rig.json: depth: has a distortion by which a"),
    "distortion without rays": (
        set_in("depth", distortion=[-5, 0, 0, 0, 0]),
        "rig.json: depth: has a distortion by which only",
    ),
    "depth of another size": (other_size("depth"), "rig.json: depth is for 360x480"),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_wrong_calibration_is_one_sentence_and_leaves_nothing(
    name: str, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = FAULTS[name]
    content = json.loads((recording / "rig.json").read_text())
    change(content)
    (tmp_path / "rig.json").write_text(json.dumps(content))
    assert fail(recording, tmp_path, "--calibration", str(tmp_path / "rig.json")) == 2
    assert expected.replace("{rig.json}", str(tmp_path / "rig.json")) in one_sentence(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["rig.json"]


def test_without_a_calibration_it_says_what_to_export(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for device, word in (
        ("realsense", "rs-enumerate-devices -c"),
        ("kinect_v2", "getIrCameraParams"),
        ("azure", "k4a_device_get_calibration"),
        ("7scenes", "did not calibrate"),
    ):
        assert fail(recording, tmp_path, "--device", device) == 2
        sentence = one_sentence(capsys)
        assert "--calibration is missing" in sentence
        assert word in sentence
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_calibration_is_named_by_what_register_takes(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, content in enumerate(([1, 2], describe_rig(RIG) | {"color_from_depth": "x"})):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        assert fail(recording, tmp_path, "--calibration", str(path)) == 2
        sentence = one_sentence(capsys)
        assert "color_from_depth" in sentence
        assert "KITTI" not in sentence and "lidar" not in sentence


def test_millimeters_taken_for_meters_are_named(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = ["--calibration", str(recording / "rig.json")]
    assert fail(recording, tmp_path, *rig, "--meters-per-unit", "1") == 1
    assert "as millimeters taken for meters are. For millimeters give --meters-per-unit 0.001." in one_sentence(capsys)
    assert not list(tmp_path.iterdir())


def fail(recording: Path, folder: Path, *words: str) -> int:
    unit = [] if {"--meters-per-unit", "--device"} & set(words) else ["--meters-per-unit", "0.001"]
    sources = [str(recording / "rgb"), str(recording / "depth")]
    return main(["register", *sources, *words, *unit, "--output", str(folder / "out"), "--workers", "1"])


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("finetune stopped: ")
    return lines[0]


def test_the_inverse_under_its_own_name_is_right(recording: Path, tmp_path: Path) -> None:
    content = json.loads((recording / "rig.json").read_text())
    content["depth_from_color"] = np.linalg.inv(np.array(content.pop("color_from_depth"))).tolist()
    (tmp_path / "rig.json").write_text(json.dumps(content))
    frame = open_register(recording, "--calibration", str(tmp_path / "rig.json")).load_frame(0)
    same = open_register(recording).load_frame(0)
    assert frame is not None and same is not None
    np.testing.assert_allclose(frame.depth_m, same.depth_m, atol=1e-5)

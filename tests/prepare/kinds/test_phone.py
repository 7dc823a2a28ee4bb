"""Export folders of phone apps: sizes, confidence, units, cameras, times and poses, and what is wrong with a folder."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.files import read_image
from finetune.prepare.kinds.phone import add_arguments, open_source
from finetune.prepare.recording import FrameSource
from finetune.utils.errors import DataError, FinetuneError, ListError
from tests.normal_user import as_normal_user
from tests.prepare.phone.phone_folders import (
    DEPTH,
    IMAGE,
    POSITION,
    image,
    millimeters,
    write_polycam,
    write_record3d,
    write_record3d_exr,
    write_stray,
)

WRITERS: dict[str, Callable[[Path], Path]] = {
    "stray": write_stray,
    "polycam": write_polycam,
    "record3d": write_record3d,
    "record3d_exr": write_record3d_exr,
}
# Rows of the depth map that are kept: the first four are of low confidence, the last four of high.
FIRST_ROW = {"low": 0, "medium": 4, "high": 8}


def open_phone(*words: str | Path) -> FrameSource:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return open_source(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module", params=sorted(WRITERS))
def export(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("phone") / "walk"
    return request.param, WRITERS[request.param](folder)


@pytest.mark.parametrize("least", ["low", "medium", "high"])
def test_depth_is_in_meters_and_unsure_depth_is_left_out(export: tuple[str, Path], least: str) -> None:
    app, folder = export
    source = open_phone(folder, "--confidence", least)
    assert len(source.keys) == 4
    for number in (0, 2, 1, 3):  # in this order, a video has to be opened again
        frame = source.load_frame(number)
        assert frame is not None
        expected = (millimeters(number).astype(np.float64) / 1000).astype(np.float32)
        if app != "record3d_exr":  # the only export without confidence
            expected[: FIRST_ROW[least]] = 0
        np.testing.assert_array_equal(frame.depth_m, expected)
        assert frame.depth_m.dtype == np.float32
        assert frame.depth_m.shape == DEPTH
        assert frame.image.shape == (*IMAGE, 3)
        assert frame.image.dtype == np.uint8
        # JPEG and VP9 change a gray by a few levels; frames differ by 30.
        assert np.abs(frame.image.astype(int) - image(number).astype(int)).max() <= 6
        assert frame.source.startswith(str(folder))


@pytest.mark.parametrize("least", ["low", "medium", "high"])
def test_polycam_writes_medium_confidence_as_54_too(tmp_path: Path, least: str) -> None:
    source = open_phone(write_polycam(tmp_path / "p", 1, medium=54), "--confidence", least)
    frame = source.load_frame(0)
    assert frame is not None
    rows = np.flatnonzero(frame.depth_m.any(axis=1))
    assert (rows[0], rows[-1]) == (FIRST_ROW[least], DEPTH[0] - 1)


def test_frames_have_their_camera_time_and_pose(export: tuple[str, Path]) -> None:
    app, folder = export
    source = open_phone(folder)
    assert [key.recording for key in source.keys] == ["walk"] * 4
    times = {"stray": [100 + i / 30 for i in range(4)], "polycam": [1_442_008.525605 + i / 2 for i in range(4)]}
    expected_times = times.get(app, [0.5 + i / 60 for i in range(4)])
    assert [key.time_s for key in source.keys] == pytest.approx(expected_times, abs=1e-6)
    frame = source.load_frame(3)
    assert frame is not None
    # Polycam's test cameras are all alike; the others gain a pixel of focal length with each frame.
    assert frame.camera == Camera(fx_px=50.0 if app == "polycam" else 53.0, fy_px=51.0, cx_px=31.0, cy_px=24.0)
    pose = source.camera_pose(3)
    assert pose is not None
    forward, down, position = pose[:3, 2], pose[:3, 1], pose[:3, 3]
    if app == "polycam":
        # ARKit's identity looks along -z with y up; the corrected camera is 1 m farther along x.
        np.testing.assert_allclose(position, (POSITION[0] + 1, *POSITION[1:]), atol=1e-12)
        np.testing.assert_allclose([forward, down], [[0, 0, -1], [0, -1, 0]], atol=1e-12)
    else:
        # A quarter turn about y takes z to x. Record3D's camera looks along its -z and its y is up.
        sign = -1 if app.startswith("record3d") else 1
        np.testing.assert_allclose(position, POSITION, atol=1e-12)
        np.testing.assert_allclose([forward, down], [[sign, 0, 0], [0, sign, 0]], atol=1e-12)


def test_jpegs_are_copied(export: tuple[str, Path]) -> None:
    app, folder = export
    source = open_phone(folder)
    frame = source.load_frame(0)
    assert frame is not None
    if app == "stray":
        assert frame.image_file is None
    else:
        assert frame.image_file is not None
        np.testing.assert_array_equal(read_image(frame.image_file), frame.image)


def test_a_source_is_pickled_into_workers(export: tuple[str, Path]) -> None:
    source = open_phone(export[1])
    first = source.load_frame(1)
    again = pickle.loads(pickle.dumps(source)).load_frame(1)
    assert first is not None
    np.testing.assert_array_equal(again.depth_m, first.depth_m)
    np.testing.assert_array_equal(again.image, first.image)


def test_notes_say_the_app_and_what_was_kept(tmp_path: Path) -> None:
    first, second = write_stray(tmp_path / "a", 2), write_record3d_exr(tmp_path / "b", 2)
    source = open_phone(first, second)
    assert [key.recording for key in source.keys] == ["a", "a", "b", "b"]
    assert source.notes == [
        f"{first}: 2 frames of Stray Scanner; depth of medium and high confidence is kept",
        f"{second}: 2 frames of Record3D; it has no confidence maps, so every depth is kept",
    ]


def test_older_exports_of_stray_scanner_have_one_camera_and_npy(tmp_path: Path) -> None:
    folder = write_stray(tmp_path / "old", 2, camera_columns=False)
    for number in range(2):
        (folder / "depth" / f"{number:06d}.png").unlink()
        np.save(folder / "depth" / f"{number:06d}.npy", millimeters(number))
    source = open_phone(folder, "--confidence", "low")
    frame = source.load_frame(1)
    assert frame is not None
    assert frame.camera == Camera(fx_px=50.0, fy_px=51.0, cx_px=31.0, cy_px=24.0)
    assert frame.depth_m[11, 15] == np.float32(1.291)  # 1000 + 100 + 191 mm


def test_record3d_without_newer_keys_takes_the_first_camera_and_the_rate(tmp_path: Path) -> None:
    older = {"perFrameIntrinsicCoeffs": None, "frameTimestamps": None, "dw": None, "dh": None}
    source = open_phone(write_record3d(tmp_path / "r", 3, **older))
    assert [key.time_s for key in source.keys] == pytest.approx([0, 1 / 60, 2 / 60])
    frame = source.load_frame(2)
    assert frame is not None
    assert frame.camera == Camera(fx_px=50.0, fy_px=51.0, cx_px=31.0, cy_px=24.0)
    assert frame.depth_m.shape == DEPTH


def test_selfies_of_record3d_have_no_poses(tmp_path: Path) -> None:
    folder = write_record3d(tmp_path / "selfie", 2, poses=[[0, 0, 0, 1, 0, 0, 0]] * 2)
    assert open_phone(folder).camera_pose(0) is None


def test_frames_of_record3d_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    source = open_phone(write_record3d(tmp_path / "r", 12))
    assert [key.stem for key in source.keys] == [str(number) for number in range(12)]


def test_frames_without_a_partner_are_counted(tmp_path: Path) -> None:
    folder = write_polycam(tmp_path / "p", 4)
    next((folder / "keyframes" / "depth").iterdir()).unlink()
    source = open_phone(folder)
    assert len(source.keys) == 3
    assert "1 images or depth maps have no partner" in source.notes[0]


def fault_of(call: Callable[[], object]) -> str:
    with pytest.raises(FinetuneError) as caught:
        call()
    assert isinstance(caught.value, DataError | ListError)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def test_folders_of_no_app_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert "is no export of Stray Scanner" in fault_of(lambda: open_phone(tmp_path / "other"))
    assert "no such folder" in fault_of(lambda: open_phone(tmp_path / "none"))
    archive = tmp_path / "video.r3d"
    archive.write_bytes(b"PK\x03\x04")
    assert "Unpack it" in fault_of(lambda: open_phone(archive))


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_faults_of_stray_scanner(tmp_path: Path) -> None:
    good = write_stray(tmp_path / "good", 3)

    def fault(*changes: Callable[[Path], object], frame: int | None = None) -> str:
        folder = tmp_path / "bad"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        for change in changes:
            change(folder)
        return fault_of(lambda: open_phone(folder) if frame is None else open_phone(folder).load_frame(frame))

    assert "camera_matrix.csv: no such file" in fault(lambda f: delete(f / "camera_matrix.csv"))
    assert "nine numbers" in fault(lambda f: (f / "camera_matrix.csv").write_text("1, 2"))
    for name in ("camera_matrix.csv", "odometry.csv"):
        with as_normal_user():
            said = fault(lambda f, name=name: (f / name).chmod(0))  # type: ignore[misc]
        assert f"{name}: cannot be read (Permission denied). Copy it" in said
    assert "no column qx" in fault(lambda f: (f / "odometry.csv").write_text("x, y, z, qy, qz, qw\n"))
    assert "odometry.csv:2: qw is 'one'" in fault(
        lambda f: (f / "odometry.csv").write_text("frame, x, y, z, qx, qy, qz, qw\n0, 1, 1, 1, 0, 0, 0, one\n")
    )
    assert "holds no depth map" in fault(lambda f: delete(f / "depth"))
    assert "has no" in fault(lambda f: delete(f / "confidence" / "000001.png"), frame=1)
    turned = np.zeros((16, 12), np.uint16)
    assert "turned by 90 degrees" in fault(
        lambda f: cv2.imwrite(str(f / "depth" / "000000.png"), turned), lambda f: delete(f / "confidence"), frame=0
    )
    other = "50, 0, 310\n0, 51, 240\n0, 0, 1"
    assert "is for other images than those of rgb.mp4, which are 64x48" in fault(
        lambda f: (f / "camera_matrix.csv").write_text(other), lambda f: delete(f / "odometry.csv"), frame=0
    )
    small = np.zeros((6, 8), np.uint8)
    assert "confidence is 6x8, its depth map 12x16" in fault(
        lambda f: cv2.imwrite(str(f / "confidence" / "000000.png"), small), frame=0
    )


def test_a_video_that_is_too_short_is_named(tmp_path: Path) -> None:
    folder = write_stray(tmp_path / "short", 3)
    for name in ("depth", "confidence"):
        shutil.copy(folder / name / "000002.png", folder / name / "000007.png")
    sentence = fault_of(lambda: open_phone(folder).load_frame(3))
    assert sentence.startswith(f"{folder / 'rgb.mp4'}: ends after 3 frames, and frame 7 has a depth map")


def test_faults_of_polycam(tmp_path: Path) -> None:
    folder = write_polycam(tmp_path / "p", 1)
    (camera,) = (folder / "keyframes" / "cameras").iterdir()
    content = json.loads(camera.read_text())
    camera.write_text(json.dumps({**content, "width": 1024, "height": 768}))
    assert "is for images of 1024x768" in fault_of(lambda: open_phone(folder).load_frame(0))
    camera.write_text(json.dumps({**content, "fx": "50"}))
    assert "fx is '50', not a number" in fault_of(lambda: open_phone(folder).load_frame(0))
    (better,) = (folder / "keyframes" / "corrected_cameras").iterdir()
    better.write_text(json.dumps({**content, "t_00": 2.0}))
    assert "is no rotation" in fault_of(lambda: open_phone(folder).camera_pose(0))
    better.write_text("{")
    assert "is no JSON object" in fault_of(lambda: open_phone(folder).camera_pose(0))
    shutil.rmtree(folder / "keyframes" / "depth")
    assert "developer mode" in fault_of(lambda: open_phone(folder))


def test_faults_of_record3d(tmp_path: Path) -> None:
    folder = write_record3d(tmp_path / "r", 2)
    depth = folder / "rgbd" / "1.depth"
    content = depth.read_bytes()
    for broken in (content[: len(content) // 2], b"", b"no lzfse"):
        depth.write_bytes(broken)
        assert "1.depth: is no LZFSE file, or is truncated" in fault_of(lambda: open_phone(folder).load_frame(1))
    shutil.copy(folder / "rgbd" / "1.conf", depth)
    assert "1.depth: holds 192 bytes, and a map of 12x16 has 768" in fault_of(lambda: open_phone(folder).load_frame(1))
    shutil.rmtree(folder)
    write_record3d(folder, 2, w=48, h=64)
    assert "is for images of 48x64, and frame 0 is 64x48" in fault_of(lambda: open_phone(folder).load_frame(0))
    (folder / "metadata").unlink()
    assert "metadata.json: cannot be read" in fault_of(lambda: open_phone(folder))


def test_without_the_package_compressed_depth_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_record3d(tmp_path / "r", 1)
    monkeypatch.setitem(sys.modules, "liblzfse", None)
    sentence = fault_of(lambda: open_phone(folder))
    assert "pip install -e '.[record3d]'" in sentence
    assert "C compiler" in sentence


def test_two_folders_of_one_name_are_two_recordings(tmp_path: Path) -> None:
    folders = [write_stray(tmp_path / room / "scan", frames) for room, frames in (("kitchen", 3), ("hall", 2))]
    source = open_phone(*folders)
    assert [key.recording for key in source.keys] == ["scan_0"] * 3 + ["scan_1"] * 2


def test_frame_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = write_stray(tmp_path / "walk")
    rows = (folder / "odometry.csv").read_text()
    for number in ("nan", "inf", "-1"):
        (folder / "odometry.csv").write_text(rows.replace(" 000002,", f" {number},"))
        with pytest.raises(ListError, match=r"odometry\.csv:4: frame is .*, not the number of a frame\. Copy"):
            open_phone(folder)


def test_a_camera_matrix_that_an_editor_saved_is_read(tmp_path: Path) -> None:
    folder = write_stray(tmp_path / "walk", camera_columns=False)
    matrix = folder / "camera_matrix.csv"
    before = open_phone(folder).load_frame(0)
    matrix.write_bytes(b"\xef\xbb\xbf" + matrix.read_bytes())
    after = open_phone(folder).load_frame(0)
    assert before is not None and after is not None and after.camera == before.camera


def test_a_pose_that_is_none_is_written_as_numbers_and_may_be_left_out(tmp_path: Path) -> None:
    stray = write_stray(tmp_path / "s", 1)
    odometry = stray / "odometry.csv"
    odometry.write_text("frame, x, y, z, qx, qy, qz, qw\n0, 1, 2, 3.5, 0, 0, 0, 0\n")
    sentence = fault_of(lambda: open_phone(stray).camera_pose(0))
    assert "holds the pose 0, 0, 0, 0, 1, 2, 3.5, which is no rotation" in sentence
    assert "delete odometry.csv: no poses are written then" in sentence
    for line in ("1e400, 1, 2, 3, 0, 0, 0, 1", "0, nan, 2, 3, 0, 0, 0, 1"):
        odometry.write_text(f"timestamp, x, y, z, qx, qy, qz, qw\n{line}\n")
        assert ", not a finite number. Copy it from the phone again" in fault_of(lambda: open_phone(stray))
    sentence = fault_of(lambda: open_phone(write_record3d(tmp_path / "r", 1, poses=[[1, 2]])).camera_pose(0))
    assert "holds the pose 1, 2, which" in sentence
    assert "delete its poses" in sentence


def test_times_of_record3d_are_finite(tmp_path: Path) -> None:
    folder = write_record3d(tmp_path / "nan", 2, frameTimestamps=[0.5, math.nan])
    assert "metadata: frameTimestamps[1] is nan, not a finite number" in fault_of(lambda: open_phone(folder))
    # A frame divided by this rate is more than a float holds.
    folder = write_record3d(tmp_path / "slow", 2, frameTimestamps=None, fps=1e-320)
    assert open_phone(folder).keys[1].time_s is None


def test_the_pose_of_polycam_is_the_first_one_where_there_is_no_corrected_one(tmp_path: Path) -> None:
    folder = write_polycam(tmp_path / "p", 2)
    source = open_phone(folder)
    corrected = [source.camera_pose(index) for index in (0, 1)]
    better = sorted((folder / "keyframes" / "corrected_cameras").iterdir())[1]
    better.write_text(json.dumps({**json.loads(better.read_text()), "t_00": None}))
    source = open_phone(folder)
    first, second = (source.camera_pose(index) for index in (0, 1))
    assert first is not None and second is not None and corrected[1] is not None
    np.testing.assert_array_equal(first, corrected[0])
    # The folder puts corrected cameras 1 m to the right.
    assert corrected[1][0, 3] - second[0, 3] == pytest.approx(1.0)
    assert any("corrected_cameras has no pose of 1 frames" in note for note in source.notes)

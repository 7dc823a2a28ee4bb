"""Frames of a lens: the camera that is written, and what is refused."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from finetune.prepare.kinds import frames, undistort
from finetune.prepare.recording import FrameSource
from finetune.utils.errors import FinetuneError, ListError
from tests.prepare.kinds.test_frames import write_camera, write_depths, write_images

LENS = {"distortion_model": "plumb_bob", "distortion_coefficients": [-0.2, 0.05, 0.0, 0.0, 0.0]}


def open_undistorted(*words: object) -> FrameSource:
    parser = argparse.ArgumentParser()
    undistort.add_arguments(parser)
    return undistort.open_source(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_images(tmp_path / "rgb"), write_depths(tmp_path / "depth", ".npy")]


@pytest.mark.parametrize(
    "lens", [LENS, {"distortion_model": "equidistant", "distortion_coefficients": [0.02, 0.0, 0.0, 0.0]}]
)
def test_frames_have_the_camera_that_is_announced(folders: list[Path], tmp_path: Path, lens: dict[str, object]) -> None:
    camera = write_camera(tmp_path / "camera.json", **lens)
    source = open_undistorted(*folders, "--meters-per-unit", 1, "--intrinsics", camera)
    frame = source.load_frame(0)
    assert frame is not None and frame.camera is not None
    assert f"fx {frame.camera.fx_px:.6g}" in source.notes[0]
    assert frame.image.shape == (24, 32, 3) and frame.image_file is None
    # The optical axis stays: the depth at the principal point is that of the frame.
    row, column = round(frame.camera.cy_px), round(frame.camera.cx_px)
    assert frame.depth_m[row, column] == pytest.approx((1000 + 11.5 * 32 + 15.5) / 1000, abs=0.05)
    assert np.count_nonzero(frame.depth_m) > 0.9 * frame.depth_m.size


def test_the_focal_length_may_be_chosen(folders: list[Path], tmp_path: Path) -> None:
    camera = write_camera(tmp_path / "camera.json", **LENS)
    words = (*folders, "--meters-per-unit", 1, "--intrinsics", camera, "--new-focal-px", 50)
    frame = open_undistorted(*words).load_frame(0)
    assert frame is not None and frame.camera is not None
    assert (frame.camera.fx_px, frame.camera.cx_px, frame.camera.cy_px) == (50.0, 15.5, 11.5)


def test_the_help_promises_one_camera_alone() -> None:
    for add_arguments, each in ((undistort.add_arguments, False), (frames.add_arguments, True)):
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        assert ("or these for each image" in " ".join(parser.format_help().split())) is each


def test_what_cannot_be_undistorted_is_one_sentence(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="--intrinsics is missing"):
        open_undistorted(*folders, "--meters-per-unit", 1)
    with pytest.raises(ListError, match="describes a pinhole, so there is nothing to undistort"):
        open_undistorted(*folders, "--meters-per-unit", 1, "--intrinsics", write_camera(tmp_path / "pinhole.json"))
    one = {"width": 32, "height": 24, "fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5, **LENS}
    (tmp_path / "each.json").write_text(json.dumps({"000.png": one, "001.png": one}))
    with pytest.raises(ListError, match=r"each\.json: holds a camera for each image, .* that of 000\.png alone"):
        open_undistorted(*folders, "--meters-per-unit", 1, "--intrinsics", tmp_path / "each.json")
    odd = write_camera(tmp_path / "odd.json", cx=2.0, **LENS)
    with pytest.raises(ListError, match=r"odd\.json: has its center at \(2, 11\.5\), not in the middle third"):
        open_undistorted(*folders, "--meters-per-unit", 1, "--intrinsics", odd)
    other = write_camera(tmp_path / "other.json", width=64, height=48, cx=31.5, cy=23.5, **LENS)
    with pytest.raises(FinetuneError, match="is 24x32"):
        open_undistorted(*folders, "--meters-per-unit", 1, "--intrinsics", other).load_frame(0)

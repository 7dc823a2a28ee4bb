"""Folders as the tools of vendors write them, by the pages that data/README.md names, through the command's options."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.prepare.kinds.pairs import add_arguments, open_source
from tests.conftest import ROOT
from tests.prepare.pairing.folders import SIZE, write_image

# Meters of each frame: a wall whose first row is nearer.
DEPTHS_M = (1.5, 2.25, 3.0)


def wall_m(number: int) -> np.ndarray:
    depth_m = np.full(SIZE, DEPTHS_M[number], np.float32)
    depth_m[0] = 1.0
    return depth_m


def save_millimeters(path: Path, number: int) -> None:
    cv2.imwrite(str(path), (1000 * wall_m(number)).astype(np.uint16))


def save_floats(path: Path, number: int) -> None:
    np.save(path, wall_m(number))


def save_24_bits(path: Path, number: int) -> None:
    counts = np.rint(wall_m(number).astype(np.float64) / 1000 * (256**3 - 1)).astype(np.uint32)
    cv2.imwrite(str(path), np.stack([counts >> 16, counts >> 8 & 255, counts & 255], axis=-1).astype(np.uint8))


def save_pfm(path: Path, number: int) -> None:
    path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (SIZE[1], SIZE[0]) + wall_m(number)[::-1].astype("<f4").tobytes())


def save_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, channels).write(str(path))


def save_blender(path: Path, number: int) -> None:
    colors = {f"ViewLayer.Combined.{name}": np.zeros(SIZE, np.float32) for name in "RGBA"}
    save_exr(path, {**colors, "ViewLayer.Depth.Z": wall_m(number)})


def save_unreal(path: Path, number: int) -> None:
    colors = {name: np.zeros(SIZE, np.float16) for name in "RGBA"}
    save_exr(path, {**colors, "FinalImageMovieRenderQueue_WorldDepth.R": 100 * wall_m(number)})


MILLIMETERS = "--meters-per-unit 0.001"
# Device -> image and depth of a frame by its number and its time in microseconds, how depth is saved, and options.
DEVICES: dict[str, tuple[str, str, Callable[[Path, int], None], str]] = {
    "RealSense, by your own script": ("color/{0}.png", "depth/{0}.png", save_millimeters, "--sensor realsense"),
    "Azure Kinect": (
        *("color/{0:06}_{1:011}.jpg", "depth/{0:06}_{1:011}.png"),
        *(save_millimeters, "--sensor azure_kinect"),
    ),
    "Kinect v2": ("registered_{0}.png", "undistorted_{0}.png", save_millimeters, "--sensor kinect_v2"),
    "ZED": ("left{0:06}.png", "depth{0:06}.png", save_millimeters, "--sensor zed"),
    "OAK-D": ("rgb_{1}.png", "depth_{1}.png", save_millimeters, MILLIMETERS),
    "CARLA": (
        *("rgb/{0:06}.png", "depth/{0:06}.png", save_24_bits),
        "--depth-channels rgb24 --meters-per-unit 5.960465e-05",
    ),
    "AirSim": ("images/scene_{0}.png", "images/depth_{0}.pfm", save_pfm, "--meters-per-unit 1"),
    "Isaac Sim": ("rgb_{0:04}.png", "distance_to_image_plane_{0:04}.npy", save_floats, "--meters-per-unit 1"),
    "Blender": ("Image{0:04}.png", "Image{0:04}.exr", save_blender, "--meters-per-unit 1"),
    "Unreal": (
        *("shot.{0:04}.png", "shot.{0:04}.exr", save_unreal),
        "--meters-per-unit 0.01 --depth-key FinalImageMovieRenderQueue_WorldDepth.R",
    ),
}


@pytest.mark.parametrize("device", DEVICES)
def test_frames_are_found_in_meters(tmp_path: Path, device: str) -> None:
    image, depth, save, options = DEVICES[device]
    for number in range(3):
        write_image(tmp_path / image.format(number, 33_333 * number))
        path = tmp_path / depth.format(number, 33_333 * number)
        path.parent.mkdir(exist_ok=True)
        save(path, number)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    source = open_source(parser.parse_args([str(tmp_path), *options.split()]))
    assert len(source.keys) == 3
    for number in range(3):
        frame = source.load_frame(number)
        assert frame is not None and frame.image_file == tmp_path / image.format(number, 33_333 * number)
        np.testing.assert_allclose(frame.depth_m, wall_m(number), rtol=1e-4)


def test_the_table_of_devices_says_of_these_that_files_were_tried_with_these_options() -> None:
    section = (ROOT / "data/README.md").read_text().split("\n## From your device to frames that train\n", 1)[1]
    rows = {row[0]: row for line in section.splitlines() if len(row := re.split(r" *\| *", line.strip("| "))) == 5}
    for device, (_, _, _, options) in DEVICES.items():
        (command,) = re.findall(r"`pairs DIR ([^`]+)`", rows[device][2])
        assert rows[device][4] == "files"
        own = shlex.split(options)
        given = [word for word in own if word not in ("--depth-key", "FinalImageMovieRenderQueue_WorldDepth.R")]
        assert shlex.split(command)[: len(given)] == given, device

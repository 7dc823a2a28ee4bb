"""What the blocks of the README that prepare a recording name: small recordings of the frames of ``data/room``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.files import read_image
from finetune.inference.video import open_video_writer
from tests.conftest import ROOT

ROOM = ROOT / "data" / "room"
FRAMES = 24
CAMERA = json.loads((ROOM / "intrinsics.json").read_text())


def room_image(number: int) -> NDArray[np.uint8]:
    return read_image(ROOM / "color" / f"{number:04}.jpg")


def room_depth(number: int) -> NDArray[np.uint16]:
    return np.asarray(cv2.imread(str(ROOM / "depth" / f"{number:04}.png"), cv2.IMREAD_UNCHANGED), dtype=np.uint16)


def write_sources(folder: Path) -> None:
    """All of them, below a folder."""
    for place, numbers in (("kitchen", range(12)), ("hall", range(12, FRAMES))):
        copy_frames(folder / "recordings" / place, numbers)
    copy_frames(folder / "wide", range(FRAMES))
    (folder / "wide" / "lens.json").write_text(
        json.dumps(CAMERA | {"distortion_model": "plumb_bob", "distortion_coefficients": [-0.05, 0.0, 0.0, 0.0]})
    )
    write_walk(folder)
    write_drive(folder / "drive")
    copy_frames(folder / "two_eyes", range(FRAMES))
    same_place = {"color": CAMERA, "depth": CAMERA, "color_from_depth": np.eye(4).tolist()}
    (folder / "two_eyes" / "cameras.json").write_text(json.dumps(same_place))
    for place, numbers in (("kitchen", range(12)), ("hall", range(12, FRAMES))):
        write_scan(folder / "scans" / place, numbers)
    write_lab_bag(folder / "lab.bag")


def copy_frames(folder: Path, numbers: range) -> None:
    """``color`` and ``depth`` next to each other."""
    for kind, ending in (("color", "jpg"), ("depth", "png")):
        (folder / kind).mkdir(parents=True)
        for number in numbers:
            shutil.copy(ROOM / kind / f"{number:04}.{ending}", folder / kind)


def write_walk(folder: Path) -> None:
    """A video, and a depth map for each of its frames."""
    (folder / "walk_depth").mkdir()
    with open_video_writer(folder / "walk.mp4", 10.0) as write:
        for number in range(FRAMES):
            write(room_image(number))
            cv2.imwrite(str(folder / "walk_depth" / f"{number:06}.png"), room_depth(number))


def write_drive(folder: Path) -> None:
    """Images and sweeps as KITTI's, of a LiDAR at the place of the camera that measures every third pixel."""
    (folder / "camera").mkdir(parents=True)
    (folder / "lidar").mkdir()
    rows, columns = (grid[::3, ::3].ravel() for grid in np.mgrid[: CAMERA["height"], : CAMERA["width"]])
    for number in range(FRAMES):
        shutil.copy(ROOM / "color" / f"{number:04}.jpg", folder / "camera")
        z = room_depth(number)[rows, columns] / 1000
        x, y = ((grid - CAMERA[center]) / CAMERA["fx"] * z for grid, center in ((columns, "cx"), (rows, "cy")))
        points = np.stack([z, -x, -y, np.ones_like(z)], axis=1)[z > 0]
        points.astype(np.float32).tofile(folder / "lidar" / f"{number:04}.bin")
    # x ahead, y left, z up of the LiDAR -> x right, y down, z ahead of the camera.
    color_from_lidar = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    (folder / "rig.json").write_text(json.dumps({"color": CAMERA, "color_from_lidar": color_from_lidar}))


def write_scan(folder: Path, numbers: range) -> None:
    """A scan of Stray Scanner: a video, depth at a half of its size, and confidence."""
    for kind in ("depth", "confidence"):
        (folder / kind).mkdir(parents=True)
    rows = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    with open_video_writer(folder / "rgb.mp4", 30.0) as write:
        for i, number in enumerate(numbers):
            write(room_image(number))
            depth = room_depth(number)[::2, ::2]
            cv2.imwrite(str(folder / "depth" / f"{i:06}.png"), depth)
            cv2.imwrite(str(folder / "confidence" / f"{i:06}.png"), np.full(depth.shape, 2, np.uint8))
            rows.append(f"{100 + i / 30:.6f}, {i:06}, 0, 0, 0, 0, 0, 0, 1")
    (folder / "odometry.csv").write_text("\n".join(rows) + "\n")
    fx, fy, cx, cy = (CAMERA[key] for key in ("fx", "fy", "cx", "cy"))
    (folder / "camera_matrix.csv").write_text(f"{fx}, 0, {cx}\n0, {fy}, {cy}\n0, 0, 1\n")


def write_lab_bag(path: Path) -> None:
    """A bag of ROS 1 whose depth is in the view of color."""
    from tests.prepare.bag.written_bags import IMAGE, INFO, START_NS, Recording, camera_info, image, write_bag

    made = Recording()
    view = camera_info(CAMERA["width"], CAMERA["height"], CAMERA["fx"], (CAMERA["cx"], CAMERA["cy"]), "color")
    for topic in ("/camera/color/camera_info", "/camera/aligned_depth_to_color/camera_info"):
        made.add(topic, INFO, START_NS, view)
    for number in range(FRAMES):
        stamp_ns = START_NS + 300_000_000 * number
        made.add("/camera/color/image_raw", IMAGE, stamp_ns, image(room_image(number), "rgb8", stamp_ns, "color"))
        depth = image(room_depth(number), "16UC1", stamp_ns, "color")
        made.add("/camera/aligned_depth_to_color/image_raw", IMAGE, stamp_ns, depth)
    write_bag(path, "ros1", made)

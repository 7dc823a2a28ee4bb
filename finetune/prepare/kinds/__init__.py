"""The kinds of recordings: name -> what it reads, and a call as an example. Each is a module of this folder."""

from __future__ import annotations

from typing import NamedTuple


class KindText(NamedTuple):
    """
    Attributes:
        purpose: one line for the list of kinds.
        example: a call, for ``--help``.
    """

    purpose: str
    example: str


KINDS = {
    "undistort": KindText(
        "images with depth of the same view, whose lens bends rays (OpenCV's polynomial or fisheye)",
        "finetune prepare undistort rgb/ depth/ --intrinsics camera.json --meters-per-unit 0.001 --output data/mine",
    ),
    "frames": KindText(
        "images or a video, with a folder of depth maps: PNG, TIFF, PFM, EXR, NPY, HDF5",
        "finetune prepare frames rgb/ depth/ --meters-per-unit 0.001 --output data/mine",
    ),
    "pairs": KindText(
        "any folder of images and depth maps that belong together: names, folders and recordings are found",
        "finetune prepare pairs recordings/ --sensor realsense --output data/mine",
    ),
    "register": KindText(
        "a depth camera and a color camera that look from different places",
        "finetune prepare register rgb/ depth/ --calibration rig.json --device realsense --output data/mine",
    ),
    "phone": KindText(
        "exports of Stray Scanner, Polycam (raw data) and Record3D",
        "finetune prepare phone scans/kitchen scans/hall --output data/mine",
    ),
    "bag": KindText(
        "bags of ROS 1, ROS 2 (SQLite, MCAP) and the RealSense SDK",
        "finetune prepare bag lab.bag --color /camera/color/image_raw --depth /camera/depth/image_rect_raw --output "
        "data/mine",
    ),
    "lidar": KindText(
        "images with sweeps of a LiDAR (KITTI and nuScenes .bin, PCD, PLY, NPY, LAS) and a calibration",
        "finetune prepare lidar image_2/ velodyne/ --calibration calib/ --output data/mine",
    ),
    "complete": KindText(
        "images with sparse depth, which a relative model makes denser",
        "finetune prepare complete data/tiny_relative.safetensors data/lidar --output data/mine",
    ),
}

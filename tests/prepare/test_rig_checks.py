"""A bag whose transform between the cameras is the inverse of the right one, seen by a drawn pair of cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from finetune.prepare.bag.options import BagOptions
from finetune.prepare.bag.source import open_bags
from finetune.prepare.calibration import CalibratedCamera
from finetune.utils.errors import ListError
from tests.prepare.bag.written_bags import (
    IMAGE,
    INFO,
    START_NS,
    TF,
    Recording,
    camera_info,
    image,
    transform,
    transforms,
    write_bag,
)
from tests.prepare.two_cameras import TwoViews, make_rig

RIG = make_rig(color=(240, 320, 260.0), depth=(180, 240, 160.0), pinholes=True)
SEEDS = range(20, 24)
OPTIONS = BagOptions(color="/color/image_raw", depth="/depth/image_raw")


def describe_camera(camera: CalibratedCamera, frame: str) -> dict[str, object]:
    pinhole = camera.camera
    return camera_info(camera.width, camera.height, pinhole.fx_px, (pinhole.cx_px, pinhole.cy_px), frame)


def write_views(
    path: Path, views: list[tuple[NDArray[np.uint8], NDArray[np.uint16]]], matrix: NDArray[np.float64]
) -> Path:
    made = Recording()
    assert RIG.depth is not None
    made.add("/color/camera_info", INFO, START_NS, describe_camera(RIG.color, "color"))
    made.add("/depth/camera_info", INFO, START_NS, describe_camera(RIG.depth, "depth"))
    moved = transform(matrix[:3, 3].tolist(), Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist())
    made.add("/tf_static", TF, START_NS, transforms(("color", "depth", moved)))
    for k, (color, depth_mm) in enumerate(views):
        stamp_ns = START_NS + k * 100_000_000
        made.add("/color/image_raw", IMAGE, stamp_ns, image(color, "rgb8", stamp_ns, "color"))
        made.add("/depth/image_raw", IMAGE, stamp_ns + 1, image(depth_mm, "16UC1", stamp_ns, "depth"))
    return write_bag(path, "mcap", made)


@pytest.mark.slow
def test_a_transform_that_is_the_inverse_is_refused(tmp_path: Path) -> None:
    drawn = [TwoViews(seed, RIG) for seed in SEEDS]
    views = [(one.draw_color(), (1000 * one.depth_m).round().clip(0, 60_000).astype(np.uint16)) for one in drawn]
    matrix = RIG.color_from_sensor
    assert len(open_bags([write_views(tmp_path / "right", views, matrix)], OPTIONS).keys) == len(SEEDS)
    with pytest.raises(
        ListError, match=r"its transform from depth to color looks like its inverse: .* Give the right one by --cal"
    ):
        open_bags([write_views(tmp_path / "inverse", views, np.linalg.inv(matrix).astype(np.float64))], OPTIONS)

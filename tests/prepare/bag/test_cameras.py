"""Cameras from camera_info: which topic, which matrix, and what binning and a region do to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.prepare.bag.cameras import find_info_topic, read_camera, require_info_topic
from finetune.prepare.bag.open_bag import open_bag
from finetune.utils.errors import ListError
from tests.prepare.bag.written_bags import IMAGE, INFO, KINDS, START_NS, Recording, camera_info, image, write_bag

BENT = (-0.1, 0.02, 0.001, -0.002, 0.0)


def written(path: Path, kind: str = "mcap", topic: str = "/color/camera_info", **changed: Any) -> Path:
    recording = Recording()
    fields = camera_info(640, 480, 600.0, (321.0, 243.0), distortion=BENT)
    recording.add(topic, INFO, START_NS, {**fields, **changed})
    recording.add("/color/image_raw", IMAGE, START_NS, image(np.zeros((2, 2, 3), np.uint8), "rgb8"))
    return write_bag(path, kind, recording)


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_and_distortion(tmp_path: Path, kind: str) -> None:
    with open_bag(written(tmp_path / ("a.bag" if kind == "ros1" else "a"), kind)) as bag:
        for topic in ("/color/image_raw", "/color/image_raw/compressed", "/color/image_raw/compressedDepth"):
            assert find_info_topic(bag, topic) == "/color/camera_info"
        assert find_info_topic(bag, "/depth/image_raw") is None
        found = read_camera(bag, "/color/camera_info", "/color/image_raw")
    assert found is not None
    assert found.camera == Camera(fx_px=600.0, fy_px=600.0, cx_px=321.0, cy_px=243.0)
    assert (found.height, found.width) == (480, 640)
    assert found.lens is not None and found.lens.coefficients == BENT and not found.lens.fisheye


@pytest.mark.parametrize("name", ["image_rect", "image_rect_color", "image_rect_raw"])
def test_rectified_images_have_the_projection_matrix(tmp_path: Path, name: str) -> None:
    projection = np.array([500.0, 0, 310.0, -25.0, 0, 501.0, 230.0, 0, 0, 0, 1, 0])
    with open_bag(written(tmp_path / "a", p=projection)) as bag:
        found = read_camera(bag, "/color/camera_info", f"/color/{name}/compressed")
    assert found is not None and found.lens is None
    assert found.camera == Camera(fx_px=500.0, fy_px=501.0, cx_px=310.0, cy_px=230.0)


def test_a_region_of_binned_images_by_hand(tmp_path: Path) -> None:
    # Of 640x480 the 400x300 from (100, 50), each 2x2 pixels one: fx 300, cx (321 - 100) / 2, cy (243 - 50) / 2.
    region = {"x_offset": 100, "y_offset": 50, "height": 300, "width": 400, "do_rectify": False}
    with open_bag(written(tmp_path / "a", roi=region, binning_x=2, binning_y=2)) as bag:
        found = read_camera(bag, "/color/camera_info", "/color/image_raw")
    assert found is not None
    assert found.camera == Camera(fx_px=300.0, fy_px=300.0, cx_px=110.5, cy_px=96.5)
    assert (found.height, found.width) == (150, 200)


def test_models_by_the_names_of_ros_and_of_librealsense(tmp_path: Path) -> None:
    four = np.array(BENT[:4])
    for number, (model, fisheye) in enumerate({"equidistant": True, "Kannala Brandt4": True}.items()):
        with open_bag(written(tmp_path / f"f{number}", distortion_model=model, d=four)) as bag:
            found = read_camera(bag, "/color/camera_info", "/color/image_raw")
        assert found is not None and found.lens is not None and found.lens.fisheye is fisheye
    for number, model in enumerate(("Inverse Brown Conrady", "Brown Conrady", "rational_polynomial")):
        with open_bag(written(tmp_path / f"p{number}", distortion_model=model)) as bag:
            found = read_camera(bag, "/color/camera_info", "/color/image_raw")
        assert found is not None and found.lens is not None and found.lens.coefficients == BENT
    unknown = pytest.raises(ListError, match="describes a lens model that is not supported, Ftheta")
    with open_bag(written(tmp_path / "o", distortion_model="Ftheta")) as bag, unknown:
        read_camera(bag, "/color/camera_info", "/color/image_raw")
    with open_bag(written(tmp_path / "z", distortion_model="Ftheta", d=np.zeros(5))) as bag:
        found = read_camera(bag, "/color/camera_info", "/color/image_raw")
    assert found is not None and found.lens is None


def test_zeros_mean_that_nobody_calibrated(tmp_path: Path) -> None:
    with open_bag(written(tmp_path / "a", k=np.zeros(9), p=np.zeros(12))) as bag:
        assert read_camera(bag, "/color/camera_info", "/color/image_raw") is None


def test_a_topic_of_the_users_choice(tmp_path: Path) -> None:
    with open_bag(written(tmp_path / "a", topic="/other/info")) as bag:
        assert require_info_topic(bag, "/other/info") == "/other/info"
        with pytest.raises(ListError, match=r"has no topic /x\. Name one of camera_info: /other/info\.$"):
            require_info_topic(bag, "/x")
        with pytest.raises(ListError, match="/color/image_raw is not camera_info with messages"):
            require_info_topic(bag, "/color/image_raw")

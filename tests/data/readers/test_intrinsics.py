"""Intrinsics in the forms that programs write, and what they say of the lens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.files import DepthCoding, read_frame
from finetune.data.readers.intrinsics import Intrinsics, Lens, read_intrinsics, read_intrinsics_of_images
from finetune.data.readers.pairs import Pairs
from finetune.utils.errors import ListError

SIZE = {"width": 160, "height": 120}
PINHOLE = {**SIZE, "fx": 80.0, "fy": 80.0, "cx": 79.5, "cy": 59.5}
CAMERA = Camera(fx_px=80.0, fy_px=80.0, cx_px=79.5, cy_px=59.5)
MATRIX = [80, 0, 79.5, 0, 80, 59.5, 0, 0, 1]
FISHEYE = (0.05, -0.01, 0.004, -0.001)
BENT = (-0.3, 0.1, 0.001, -0.002, -0.02)


def written(folder: Path, content: Any, name: str = "i.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


@pytest.mark.parametrize(
    "content",
    [
        {"w": 160, "h": 120, "fl_x": 80.0, "fl_y": 80.0, "cx": 79.5, "cy": 59.5, "camera_model": "OPENCV", "k1": 0},
        {"w": 160, "h": 120, "fl_x": 80.0, "cx": 79.5, "cy": 59.5, "frames": [{"file_path": "images/1.png"}]},
        {"image_width": 160, "image_height": 120, "camera_matrix": {"rows": 3, "cols": 3, "data": MATRIX}},
        {**SIZE, "K": np.reshape(MATRIX, (3, 3)).T.tolist()},  # as Record3D writes it, column by column
        {**SIZE, "k": MATRIX, "d": [0.0] * 5, "distortion_model": "plumb_bob"},  # ROS 2
        {**PINHOLE, "coeffs": [0, 0, 0, 0, 0], "model": "inverse_brown_conrady"},  # RealSense
        {**PINHOLE, "distortion": None, "camera_model": "PINHOLE"},
        {key: str(value) for key, value in PINHOLE.items()},
    ],
)
def test_forms_of_a_pinhole(tmp_path: Path, content: dict[str, Any]) -> None:
    for read in (read_intrinsics, read_intrinsics_of_images):
        found = read(written(tmp_path, content))
        assert isinstance(found, Intrinsics)
        assert found.camera == CAMERA and (found.height, found.width) == (120, 160) and found.lens is None


def test_camera_info_of_ros_in_yaml(tmp_path: Path) -> None:
    text = f"image_width: 160\nimage_height: 120\ncamera_matrix:\n  rows: 3\n  cols: 3\n  data: {MATRIX}\n"
    text += f"distortion_model: plumb_bob\ndistortion_coefficients:\n  rows: 1\n  cols: 5\n  data: {list(BENT)}\n"
    found = read_intrinsics(written(tmp_path, text, "camera.yaml"))
    assert found.camera == CAMERA and found.lens == Lens(fisheye=False, coefficients=BENT)
    with pytest.raises(ListError, match=r"bad\.yaml: cannot be read as intrinsics"):
        read_intrinsics(written(tmp_path, "%YAML:1.0\n---\nK: !!opencv-matrix\n", "bad.yaml"))


def test_calibration_of_middlebury(tmp_path: Path) -> None:
    text = "cam0=[80 0 79.5; 0 80 59.5; 0 0 1]\ncam1=[80 0 99.5; 0 80 59.5; 0 0 1]\ndoffs=20\nbaseline=193.001\n"
    found = read_intrinsics(written(tmp_path, text + "width=160\nheight=120\n", "calib.txt"))
    assert found.camera == CAMERA and (found.height, found.width) == (120, 160)
    with pytest.raises(ListError, match="has no width"):
        read_intrinsics(written(tmp_path, text, "calib.txt"))


@pytest.mark.parametrize(
    "said",
    [
        {"k1": -0.3, "k2": 0.1, "p1": 0.001, "p2": -0.002, "k3": -0.02},
        {"camera_model": "OPENCV", "k1": -0.3, "k2": 0.1, "p1": 0.001, "p2": -0.002, "k3": -0.02},
        {"distortion_model": "plumb_bob", "D": BENT},
        {"dist_coeffs": [list(BENT)]},
        {"distCoeffs": [[one] for one in BENT]},
        {"distortion_coefficients": {"rows": 1, "cols": 5, "data": list(BENT)}},
        {"distortion": {"k1": -0.3, "k2": 0.1, "p1": 0.001, "p2": -0.002, "k3": -0.02}},
        {"distortion": BENT, "camera_model": "radtan"},
        {"distortion_parameters": BENT},
        {"coeffs": BENT, "model": "brown_conrady"},
    ],
)
def test_no_name_of_distortion_is_left_out(tmp_path: Path, said: dict[str, Any]) -> None:
    lens = read_intrinsics(written(tmp_path, {**PINHOLE, **said})).lens
    assert lens is not None and not lens.fisheye
    assert lens.coefficients == pytest.approx(BENT)


@pytest.mark.parametrize(
    "said",
    [
        {"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.01, "k3": 0.004, "k4": -0.001},
        {"distortion_model": "equidistant", "D": FISHEYE},
        {"model": "fisheye", "distortion_coefficients": {"data": FISHEYE}},
        {"camera_model": "kannala_brandt", "dist_coeffs": FISHEYE},
    ],
)
def test_a_fisheye_by_any_name(tmp_path: Path, said: dict[str, Any]) -> None:
    assert read_intrinsics(written(tmp_path, {**PINHOLE, **said})).lens == Lens(fisheye=True, coefficients=FISHEYE)


def test_a_fisheye_without_coefficients_is_no_pinhole(tmp_path: Path) -> None:
    found = read_intrinsics(written(tmp_path, {**PINHOLE, "camera_model": "OPENCV_FISHEYE"}))
    assert found.lens == Lens(fisheye=True, coefficients=())


@pytest.mark.parametrize(
    "said",
    [
        {"camera_model": "FOV", "k1": 0.9},
        {"camera_model": "THIN_PRISM_FISHEYE", "k1": 0.05},
        {"camera_model": "EQUIRECTANGULAR"},
        {"distortion_model": "inverse_brown_conrady", "coeffs": BENT},
        {"D": [0.1] * 14},
        {"distortion_model": "equidistant", "D": [0.1] * 5},
    ],
)
def test_a_lens_that_is_not_read_is_refused_and_not_left_out(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(
        ListError, match=r"i\.json: describes a lens model that is not supported.* Undistort images and depth"
    ):
        read_intrinsics(written(tmp_path, {**PINHOLE, **said}))


def test_distortion_of_less_than_a_percent_leaves_a_pinhole(tmp_path: Path) -> None:
    assert read_intrinsics(written(tmp_path, {**PINHOLE, "k1": 0.001})).lens is None


def rays_of(fisheye: bool, coefficients: tuple[float, ...]) -> np.ndarray:
    """(H, W) length of each pixel's ray at depth 1, by OpenCV's own projection turned around by search on a grid."""
    tangents = np.linspace(0, 8, 16001)
    points = np.stack([tangents, np.zeros_like(tangents), np.ones_like(tangents)], -1)[:, None]
    zero, identity = np.zeros(3), np.eye(3)
    if fisheye:
        bent, _ = cv2.fisheye.projectPoints(points, zero, zero, identity, np.array(coefficients))
    else:
        bent, _ = cv2.projectPoints(points, zero, zero, identity, np.array(coefficients))
    x, y = np.meshgrid(np.arange(160.0), np.arange(120.0))
    radius = np.hypot(x - 79.5, y - 59.5) / 80.0
    return np.sqrt(1 + np.interp(radius, bent.reshape(-1, 2)[:, 0], tangents) ** 2)


@pytest.mark.parametrize(
    ("content", "fisheye", "coefficients"),
    [
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.05, "k2": -0.01, "k3": 0.004, "k4": -0.001}, True, FISHEYE),
        ({"camera_model": "OPENCV", "k1": 0.2, "k2": 0.1}, False, (0.2, 0.1, 0.0, 0.0)),
    ],
)
def test_a_wall_at_two_meters_is_there_all_over(
    tmp_path: Path, content: dict[str, Any], fisheye: bool, coefficients: tuple[float, ...]
) -> None:
    written(tmp_path, {**PINHOLE, **content})
    range_m = 2.0 * rays_of(fisheye, coefficients)
    np.save(tmp_path / "0.npy", range_m)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((120, 160, 3), np.uint8))
    (tmp_path / "list.txt").write_text("0.png 0.npy\n")
    reader = Pairs(root=str(tmp_path), list="list.txt", meters_per_unit=1, depth_is="range", intrinsics="i.json")
    sample = reader[0]
    np.testing.assert_allclose(sample.depth_m, 2.0, rtol=2e-3)
    assert sample.valid.all() and sample.camera is None
    pinhole = CAMERA.depth_from_ray(range_m.astype(np.float32))
    assert abs(pinhole[0, 0] / 2 - 1) > 0.05  # what would be read without a look at the lens


def test_pixels_that_a_fisheye_sees_beside_itself_have_no_depth() -> None:
    lens = Lens(fisheye=True, coefficients=())
    wide = Camera(fx_px=40.0, fy_px=40.0, cx_px=79.5, cy_px=59.5)
    depth_m = lens.depth_from_ray(np.ones((120, 160), np.float32), wide)
    # The corner is 99.3 px from the center: an angle of 99.3 / 40 = 2.48, more than a right one.
    assert depth_m[0, 0] == pytest.approx(0.0, abs=1e-6)
    # One pixel of 0.5 px right and down of the center: cos(hypot(0.5, 0.5) / 40).
    assert depth_m[60, 80] == pytest.approx(math.cos(math.hypot(0.5, 0.5) / 40))


def test_pixels_beyond_where_a_polynomial_turns_back_have_no_depth() -> None:
    # r - 0.3 r**3 is largest at r = 1.054, with 0.703: no ray is bent to a place 0.8 from the center.
    lens = Lens(fisheye=False, coefficients=(-0.3, 0.0, 0.0, 0.0))
    cosines = lens.cosines(1, 160, Camera(fx_px=100.0, fy_px=100.0, cx_px=0.0, cy_px=0.0))
    assert cosines[0, 80] == 0
    # 0.5 - 0.3 * 0.125 = 0.4625, at pixel 46.25; the nearest pixels are on either side of its cosine.
    assert cosines[0, 47] < 1 / math.hypot(1, 0.5) < cosines[0, 46]


def test_depth_along_the_axis_is_kept_and_the_camera_left_out(tmp_path: Path) -> None:
    bent = read_intrinsics(written(tmp_path, {**PINHOLE, "camera_model": "OPENCV_FISHEYE"}))
    np.save(tmp_path / "0.npy", np.full((120, 160), 3.0))
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((120, 160, 3), np.uint8))
    coding = DepthCoding(meters_per_unit=1.0)
    sample = read_frame(str(tmp_path / "0.png"), str(tmp_path / "0.npy"), coding, bent)
    assert (sample.depth_m == 3.0).all() and sample.camera is None


def test_disparity_of_a_lens_that_bends_is_refused(tmp_path: Path) -> None:
    written(tmp_path, {**PINHOLE, "D": BENT})
    np.save(tmp_path / "0.npy", np.full((120, 160), 3.0))
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((120, 160, 3), np.uint8))
    (tmp_path / "list.txt").write_text("0.png 0.npy\n")
    reader = Pairs(root=str(tmp_path), list="list.txt", depth_is="disparity", baseline_m=0.1, intrinsics="i.json")
    with pytest.raises(ListError, match="describes a lens with distortion, but disparity belongs to rectified images"):
        reader[0]


def test_transforms_of_nerfstudio_with_a_camera_for_each_frame(tmp_path: Path) -> None:
    frames = [
        {"file_path": "./images/1.png", "fl_x": 80.0, "fl_y": 80.0, "cx": 79.5, "cy": 59.5, "w": 160, "h": 120},
        {"file_path": "images/2.png", "fl_x": 90.0, "fl_y": 91.0, "cx": 79.5, "cy": 59.5, "w": 160, "h": 120},
    ]
    found = read_intrinsics_of_images(written(tmp_path, {"camera_model": "OPENCV", "frames": frames}))
    assert isinstance(found, dict)
    assert found["images/1.png"].camera == CAMERA == found["1.png"].camera
    assert found["images/2.png"].camera.fy_px == 91.0
    with pytest.raises(ListError, match="holds a camera for each frame, but one camera is needed here"):
        read_intrinsics(tmp_path / "i.json")


def test_the_camera_matrix_of_stray_is_named_with_the_line_to_write(tmp_path: Path) -> None:
    path = written(tmp_path, "1590.5, 0.0, 960.25\n0.0, 1591.5, 720.75\n0.0, 0.0, 1.0\n", "camera_matrix.csv")
    with pytest.raises(ListError) as caught:
        read_intrinsics_of_images(path)
    said = str(caught.value)
    assert "is a camera matrix without the size of its images, as Stray Scanner writes it" in said
    assert '{"width": W, "height": H, "fx": 1590.5, "fy": 1591.5, "cx": 960.25, "cy": 720.75}' in said
    assert "about 1920 and 1442" in said
    with pytest.raises(ListError, match="is not JSON"):
        read_intrinsics(written(tmp_path, "a,b\n1,2\n", "other.csv"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (json.dumps({**PINHOLE, "width": math.inf}), "width is inf"),
        (json.dumps({**PINHOLE, "fx": math.inf}), "has fx inf"),
        (json.dumps({**PINHOLE, "cx": math.nan}), "cx nan"),
        (json.dumps({**PINHOLE, "width": 0}), "width is 0; expected a whole number of pixels from 1"),
        (json.dumps({**PINHOLE, "height": -120}), "height is -120"),
        (json.dumps({**PINHOLE, "width": 160.5}), "width is 160.5"),
        (json.dumps({**PINHOLE, "width": True}), "'True' is no number"),
        (json.dumps({**PINHOLE, "fx": int("9" * 400)}), "'9999999999999999999999999999999999999999' is no number"),
        (json.dumps({**PINHOLE, "width": int("9" * 400)}), "is no number of pixels"),
        ('{"width": ' + "9" * 5000 + "}", "cannot be read as intrinsics"),
        (json.dumps({**PINHOLE, "D": ["a"]}), "has coefficients of distortion that cannot be read"),
        (json.dumps({**PINHOLE, "k1": math.nan}), "describes a lens model that is not supported"),
        ("[" * 100_000, "cannot be read as intrinsics"),
        (json.dumps({**SIZE, "K": [[1, 2], 3, {"a": 1}]}), "K has 3 numbers, not 9"),
        (json.dumps({**SIZE, "K": None}), "'None' is no number"),
    ],
)
def test_numbers_that_are_none(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ListError) as caught:
        read_intrinsics(written(tmp_path, text))
    assert found in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


PLAIN = {"width": 320, "height": 240, "fx": 115.0, "fy": 115.0, "cx": 159.5, "cy": 119.5}


@pytest.mark.parametrize(
    "said",
    [
        {"distortion_params": {"k1": -0.3}},
        {"distortion_parameters": {"k1": -0.3, "k2": 0.0}, "camera_model": "OPENCV"},
        {"Distortion": [-0.3, 0.0, 0.0, 0.0]},
        {"kc": [-0.3, 0.0, 0.0, 0.0, 0.0]},
    ],
)
def test_coefficients_are_read_under_other_names_and_one_level_below(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "i.json").write_text(json.dumps(PLAIN | said))
    lens = read_intrinsics(tmp_path / "i.json").lens
    assert lens is not None and not lens.fisheye and lens.coefficients[0] == -0.3


@pytest.mark.parametrize("said", [{"is_fisheye": True}, {"lens_model": "fisheye"}, {"type": "FISHEYE"}])
def test_a_fisheye_is_one_without_coefficients_too(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "i.json").write_text(json.dumps(PLAIN | said))
    lens = read_intrinsics(tmp_path / "i.json").lens
    assert lens is not None and lens.fisheye


@pytest.mark.parametrize(
    "said",
    [
        {"camera_model": "MEI"},
        {"mirror_parameters": {"xi": 2.2}},
        {"xi": 1.2, "k1": 0.0},
        {"radial_distortion": [-0.3, 0.1]},
        {"camera_model": "SIMPLE_RADIAL", "params": [115.0, 159.5, 119.5, -0.3]},
        {"model": "kannala_brandt4", "params": [0.01, 0.0, 0.0, 0.0]},
    ],
)
def test_a_lens_that_is_told_in_a_way_not_read_here_is_no_pinhole(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "i.json").write_text(json.dumps(PLAIN | said))
    with pytest.raises(ListError, match="a lens model that is not supported"):
        read_intrinsics(tmp_path / "i.json")


def test_two_levels_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text(json.dumps(PLAIN | {"k1": 0.0, "distortion_params": {"k1": 0.01}}))
    with pytest.raises(ListError, match=r"says k1 0\.0 and, below distortion_params, 0\.01"):
        read_intrinsics(tmp_path / "i.json")


@pytest.mark.parametrize(
    "said",
    [
        {"model": "PINHOLE", "params": [115.0, 115.0, 159.5, 119.5]},
        {"radial_distortion": [0.0, 0.0], "xi": 0.0},
        {"model": "iPhone 12", "type": "color", "is_fisheye": False},
        {"distortion_params": {"k1": 0.0}, "k1": 0.0},
    ],
)
def test_what_bends_nothing_is_a_pinhole(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "i.json").write_text(json.dumps(PLAIN | said))
    assert read_intrinsics(tmp_path / "i.json").lens is None


def test_json_that_mentions_cam0_is_no_calibration_of_middlebury(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text(json.dumps({**PINHOLE, "note": "cam0=left"}))
    assert read_intrinsics(path).camera == CAMERA

"""Calibrations in the forms that users have, and the mistakes in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.prepare.calibration import read_rig, require_rigid, require_size
from finetune.utils.errors import ListError

COLOR = {"width": 160, "height": 120, "fx": 80.0, "fy": 81.0, "cx": 79.5, "cy": 59.5}
CAMERA = Camera(fx_px=80.0, fy_px=81.0, cx_px=79.5, cy_px=59.5)
# A LiDAR: x ahead, y left, z up; 0.5 m above and 0.2 m to the left of the camera.
FROM_LIDAR: list[list[float]] = [[0, -1, 0, -0.2], [0, 0, -1, -0.5], [1, 0, 0, 0], [0, 0, 0, 1]]


def written(folder: Path, content: Any, name: str = "rig.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder / name


def kitti_lines(**lines: Any) -> str:
    # P2 = K [I | t] with t = (0.5, -0.25, 0.125): its last column is K t.
    last = (80 * 0.5 + 79.5 * 0.125, 81 * -0.25 + 59.5 * 0.125, 0.125)
    base = {
        "P2": (80, 0, 79.5, last[0], 0, 81, 59.5, last[1], 0, 0, 1, last[2]),
        "R0_rect": (1, 0, 0, 0, 1, 0, 0, 0, 1),
        "Tr_velo_to_cam": tuple(np.array(FROM_LIDAR)[:3].flat),
    }
    rows = {key: value for key, value in (base | lines).items() if value is not None}
    return "".join(f"{key}: {' '.join(map(str, numbers))}\n" for key, numbers in rows.items())


def test_our_json_with_two_cameras(tmp_path: Path) -> None:
    depth = {**COLOR, "fx": 70.0, "distortion_model": "plumb_bob", "distortion": [0.01, 0, 0, 0, 0]}
    rig = read_rig(written(tmp_path, {"color": COLOR, "depth": depth, "color_from_depth": FROM_LIDAR}))
    assert rig.color.camera == CAMERA and (rig.color.height, rig.color.width) == (120, 160) and rig.color.lens is None
    # The lens is kept although it bends depth by less than 1 %: pixels move.
    assert rig.depth is not None and rig.depth.lens == Lens(fisheye=False, coefficients=(0.01, 0, 0, 0, 0))
    np.testing.assert_array_equal(rig.color_from_sensor, FROM_LIDAR)


def test_a_camera_without_a_size_is_that_of_images_around_its_center(tmp_path: Path) -> None:
    unsized = {key: value for key, value in COLOR.items() if key not in ("width", "height")}
    path = written(tmp_path, {"color": unsized, "color_from_lidar": FROM_LIDAR})
    rig = read_rig(path, size=(120, 160))
    assert rig.color.camera == CAMERA and (rig.color.height, rig.color.width) == (120, 160)
    for size in ((60, 80), (240, 320), (60, 160)):
        with pytest.raises(ListError, match=r"color: the camera has its center at \(79\.5, 59\.5\), not .* Add width"):
            read_rig(path, size=size)
    # A file that says its size may have its center anywhere.
    sized = written(tmp_path, {"color": {**COLOR, "cx": 120.0}, "color_from_lidar": FROM_LIDAR}, "sized.json")
    assert read_rig(sized, size=(120, 160)).color.camera.cx_px == 120.0


def test_the_inverse_transform_is_turned_around(tmp_path: Path) -> None:
    inverse = np.linalg.inv(np.array(FROM_LIDAR, dtype=float))
    rig = read_rig(written(tmp_path, {"color": COLOR, "lidar_from_color": inverse.tolist()}))
    np.testing.assert_allclose(rig.color_from_sensor, FROM_LIDAR, atol=1e-12)


def test_camera_info_of_ros_takes_the_transform_from_a_file_of_its_own(tmp_path: Path) -> None:
    info = {
        **{"image_width": 160, "image_height": 120, "distortion_model": "equidistant"},
        "camera_matrix": {"rows": 3, "cols": 3, "data": [80.0, 0, 79.5, 0, 81.0, 59.5, 0, 0, 1]},
        "distortion_coefficients": {"rows": 1, "cols": 4, "data": [0.1, 0.01, 0.0, 0.0]},
    }
    path = written(tmp_path, yaml.safe_dump(info), "camera.yaml")
    with pytest.raises(ListError, match=r"camera\.yaml: has no transform .*\. Add \"color_from_lidar\""):
        read_rig(path)
    rig = read_rig(path, extrinsics=written(tmp_path, {"color_from_lidar": FROM_LIDAR}, "mount.json"))
    assert rig.color.camera == CAMERA and rig.color.lens == Lens(fisheye=True, coefficients=(0.1, 0.01, 0.0, 0.0))
    np.testing.assert_array_equal(rig.color_from_sensor, FROM_LIDAR)
    with pytest.raises(ListError, match=r"none\.json: no such file"):
        read_rig(path, extrinsics=tmp_path / "none.json")


def test_kitti_moves_by_the_fourth_column_of_its_camera(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, kitti_lines(), "calib.txt"), size=(120, 160))
    assert rig.color.camera == CAMERA and (rig.color.height, rig.color.width) == (120, 160)
    expected = np.array(FROM_LIDAR, dtype=float)
    expected[:3, 3] += (0.5, -0.25, 0.125)
    np.testing.assert_allclose(rig.color_from_sensor, expected, atol=1e-12)


@pytest.mark.parametrize(("velodyne", "rectify"), [("Tr", None), ("Tr_velo_cam", "R_rect")])
def test_kitti_names_its_lines_by_the_benchmark(tmp_path: Path, velodyne: str, rectify: str | None) -> None:
    lines = kitti_lines(Tr_velo_to_cam=None, R0_rect=None, **{velodyne: np.array(FROM_LIDAR)[:3].flat})
    if rectify:
        lines += f"{rectify} 0 -1 0 1 0 0 0 0 1\n"  # the tracking benchmark writes no colon
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) if rectify else np.eye(3)
    rig = read_rig(written(tmp_path, lines, "0000.txt"), size=(120, 160))
    np.testing.assert_allclose(rig.color_from_sensor[:3, :3], turn @ np.array(FROM_LIDAR)[:3, :3], atol=1e-12)


@pytest.mark.parametrize(
    ("lines", "size", "message"),
    [
        ({}, None, "does not say the size of the images"),
        ({"Tr_velo_to_cam": None}, (120, 160), "has no Tr_velo_to_cam, Tr_velo_cam or Tr"),
        ({"P2": (1, 2, 3)}, (120, 160), "P2 has 3 numbers, not 12"),
        ({"R0_rect": (2, 0, 0, 0, 2, 0, 0, 0, 2)}, (120, 160), "R0_rect is not rigid"),
    ],
)
def test_what_kitti_files_lack(tmp_path: Path, lines: dict[str, Any], size: Any, message: str) -> None:
    with pytest.raises(ListError, match=rf"calib\.txt: {message}"):
        read_rig(written(tmp_path, kitti_lines(**lines), "calib.txt"), size=size)


def changed(rows: dict[tuple[int, int], float], factor: float = 1.0) -> list[list[float]]:
    matrix = np.array(FROM_LIDAR, dtype=float)
    matrix[:3, :3] *= factor
    for place, value in rows.items():
        matrix[place] = value
    return matrix.tolist()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (changed({}, 1.01), r"is not rigid: the columns of its rotation have the lengths 1\.01, 1\.01, 1\.01"),
        (changed({(0, 1): 1.0}), "is not rigid: it mirrors"),
        (np.array(FROM_LIDAR).T.tolist(), "is not rigid: its last row .* column by column"),
        (changed({(3, 3): 2.0}), "is not rigid: its last row is not 0, 0, 0, 1"),
        (
            changed({(1, 3): -500.0}),
            r"puts the sensor 500 m from the camera, as a translation in millimeters does\. Write it in meters",
        ),
        (changed({(1, 3): math.nan}), "is not four rows of four finite numbers"),
        (FROM_LIDAR[:3], r"has three rows, not four\. Write a fourth row 0, 0, 0, 1\."),
        ("left", r"is not four rows of four numbers\. Write color_from_lidar as four rows of four numbers, meters"),
    ],
)
def test_a_transform_that_is_none(tmp_path: Path, matrix: Any, message: str) -> None:
    path = written(tmp_path, {"color": COLOR, "color_from_lidar": matrix})
    with pytest.raises(ListError, match=rf"rig\.json: color_from_lidar {message}"):
        read_rig(path)


def test_a_skewed_rotation_is_not_rigid() -> None:
    matrix = np.eye(4)
    matrix[0, 1], matrix[1, 1] = math.sin(0.01), math.cos(0.01)
    with pytest.raises(ListError, match="not at right angles"):
        require_rigid(matrix, "rig.json", "color_from_lidar")


def test_files_that_are_no_calibration(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"none\.json: no such file\. Give a calibration: KITTI's calib\.txt"):
        read_rig(tmp_path / "none.json")
    with pytest.raises(ListError, match=r"has color_from_lidar and color_from_depth"):
        read_rig(written(tmp_path, {"color": COLOR, "color_from_lidar": FROM_LIDAR, "color_from_depth": FROM_LIDAR}))
    with pytest.raises(ListError, match=r"rig\.json: is no calibration"):
        read_rig(written(tmp_path, [1, 2]))
    with pytest.raises(ListError, match=r"rig\.json: color: has no fy"):
        read_rig(written(tmp_path, {"color": {"width": 4, "height": 4, "fx": 2}, "color_from_lidar": FROM_LIDAR}))


def test_images_of_another_size_are_refused_with_the_scaled_values(tmp_path: Path) -> None:
    rig = read_rig(written(tmp_path, {"color": COLOR, "color_from_lidar": FROM_LIDAR}))
    require_size(rig.color, 120, 160, "0.png", "rig.json")
    # Half the size: fx 40, and cx (79.5 + 0.5) / 2 - 0.5 = 39.5.
    with pytest.raises(ListError, match=r"0\.png: is 60x80 .* rig\.json is for 120x160\. .*fx 40\.000, .*cx 39\.500"):
        require_size(rig.color, 60, 80, "0.png", "rig.json")

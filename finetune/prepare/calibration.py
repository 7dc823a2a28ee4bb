"""Calibrations of a color camera and the LiDAR or depth camera that is mounted with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera, is_near_middle
from finetune.data.readers.intrinsics import Lens, make_intrinsics, parse_camera_file
from finetune.utils.errors import ListError
from finetune.utils.paths import is_file, missing, read_bytes

# Rows of rotation matrices in KITTI's and ROS' files have six or seven digits.
_MAX_OFF_ROTATION = 1e-3
# No sensor is mounted so far from the camera; millimeters give numbers of this size.
_MAX_MOUNT_M = 20.0
_KITTI_LINE = re.compile(r"^([A-Za-z]\w*)\s*:?\s+([-+\d.].*)$")
_KITTI_CAMERAS = ("P0", "P1", "P2", "P3")
_FORMS = (
    'KITTI\'s calib.txt, ROS\' camera_info in YAML, or JSON: {"color": {...}, "color_from_lidar": 4x4 rows, meters}'
)
# Keys of a transform, and whether it is the inverse of the one that is needed.
_TRANSFORMS = {"color_from_lidar": False, "color_from_depth": False, "lidar_from_color": True, "depth_from_color": True}
_TRANSFORM_FIX = 'Add "color_from_lidar" or "color_from_depth": four rows of four numbers, meters'


@dataclass(frozen=True, kw_only=True)
class CalibratedCamera:
    """
    Attributes:
        camera: focal lengths and principal point, pixels.
        height, width: size of its images, pixels.
        lens: what bends its rays; None for a pinhole.
    """

    camera: Camera
    height: int
    width: int
    lens: Lens | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Rig:
    """
    Attributes:
        color: the camera of the images.
        depth: the depth camera; None for a LiDAR.
        color_from_sensor: (4, 4) float64, meters: takes points of the LiDAR or of the depth camera into the frame of
            the color camera; x right, y down, z along the optical axis.
        source: the file, as the user can open it.
    """

    color: CalibratedCamera
    depth: CalibratedCamera | None
    color_from_sensor: NDArray[np.float64]
    source: str = ""


def read_rig(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    extrinsics: str | os.PathLike[str] | None = None,
    kitti_camera: str = "P2",
) -> Rig:
    """
    Args:
        path: KITTI's ``calib.txt`` of the object, tracking or odometry benchmark; ROS' ``camera_info`` as YAML or JSON,
            any other file of ``read_intrinsics``; or JSON ``{"color": {...}, "depth": {...}, "color_from_depth": 4x4}``
            as data/README.md describes it.
        size: (height, width) of the images, pixels, for a file that does not say it, as KITTI's.
        extrinsics: JSON or YAML with the 4x4 alone, where ``path`` has none; it wins over that of ``path``.
        kitti_camera: which of KITTI's four cameras took the images.

    Raises:
        ListError: the file is missing or is none of these, has no transform or no size, a transform is not rigid, or
            it is not in meters.
    """
    if not is_file(path):
        raise ListError(path, missing(path), f"Give a calibration: {_FORMS}")
    lines = _read_kitti_lines(path)
    matrix: NDArray[np.float64] | None
    if lines is not None:
        color, matrix = _read_kitti(lines, str(path), size, kitti_camera)
        depth = None
    else:
        content = parse_camera_file(path)
        if not isinstance(content, dict):
            raise ListError(path, "is no calibration", f"Give {_FORMS}")
        color = _make_camera(content.get("color", content), _part(path, content, "color"), size)
        depth = _make_camera(content["depth"], f"{path}: depth", None) if "depth" in content else None
        matrix = _find_transform(content, str(path), required=extrinsics is None)
    if extrinsics is not None:
        if not is_file(extrinsics):
            raise ListError(extrinsics, missing(extrinsics), _TRANSFORM_FIX)
        matrix = read_transform(extrinsics)
    assert matrix is not None, "required where no extrinsics are given"
    return Rig(color=color, depth=depth, color_from_sensor=matrix, source=str(path))


def read_transform(path: str | os.PathLike[str]) -> NDArray[np.float64]:
    """
    (4, 4) meters: the transform into the color camera from a file of its own.

    Raises:
        ListError: the file holds none, or it is not rigid.
    """
    content = parse_camera_file(path)
    if not isinstance(content, dict):
        raise ListError(path, "holds no transform", _TRANSFORM_FIX)
    matrix = _find_transform(content, str(path), required=True)
    assert matrix is not None
    return matrix


def require_rigid(matrix: NDArray[np.float64], source: object, key: str) -> None:
    """
    Args:
        matrix: (4, 4), meters.
        source, key: the file and its key, named in the error.

    Raises:
        ListError: it is not a rotation and a translation in meters.
    """
    fix = f"Write {key} as a rotation and a translation in meters, row by row, last row 0, 0, 0, 1"
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ListError(source, f"{key} is not four rows of four finite numbers", fix)
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        transposed = np.abs(matrix[:, 3] - (0, 0, 0, 1)).max() <= 1e-6
        hint = ", so it is written column by column" if transposed else ""
        raise ListError(source, f"{key} is not rigid: its last row is not 0, 0, 0, 1{hint}", fix)
    rotation = matrix[:3, :3]
    lengths = np.linalg.norm(rotation, axis=0)
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > _MAX_OFF_ROTATION:
        found = (
            f"{key} is not rigid: the columns of its rotation have the lengths {', '.join(f'{x:.4g}' for x in lengths)}"
        )
        if np.abs(lengths - 1).max() <= _MAX_OFF_ROTATION:
            found = f"{key} is not rigid: the columns of its rotation are not at right angles"
        raise ListError(source, found, fix)
    if np.linalg.det(rotation) < 0:
        raise ListError(source, f"{key} is not rigid: it mirrors, its determinant is -1", fix)
    distance_m = float(np.linalg.norm(matrix[:3, 3]))
    if distance_m > _MAX_MOUNT_M:
        raise ListError(
            source,
            f"{key} puts the sensor {distance_m:.4g} m from the camera, as a translation in millimeters does",
            "Write it in meters",
        )


def require_size(camera: CalibratedCamera, height: int, width: int, path: str, source: str, image: str = "") -> None:
    """
    Args:
        height, width: of an image, pixels.
        path: the image, or the file that holds it, named in the error.
        source: the calibration.
        image: which of the images in ``path``; "" where it is one.

    Raises:
        ListError: the camera was calibrated for images of another size.
    """
    if (height, width) == (camera.height, camera.width):
        return
    scaled = camera.camera.resized(height / camera.height, width / camera.width)
    subject = f"{image} " if image else ""
    raise ListError(
        path,
        f"{subject}is {height}x{width} (height x width), {source} is for {camera.height}x{camera.width}",
        f"If the images were resized, write width {width}, height {height}, fx {scaled.fx_px:.3f}, "
        f"fy {scaled.fy_px:.3f}, cx {scaled.cx_px:.3f}, cy {scaled.cy_px:.3f}; if cropped, calibrate again",
    )


def require_not_exchanged(rig: Rig, height: int, width: int, path: str) -> None:
    """
    Args:
        height, width: of an image of color, pixels.
        path: the image, named in the error.

    Raises:
        ListError: the image has the size of the depth camera, and not that of the color camera.
    """
    color, depth = rig.color, rig.depth
    size = height, width
    if depth is None or size == (color.height, color.width) or size != (depth.height, depth.width):
        return
    found = f"is {height}x{width} (height x width), which in {rig.source} is the size of the depth camera"
    raise ListError(path, f"{found}, so color and depth look exchanged", "Exchange the two")


def _part(path: str | os.PathLike[str], content: Mapping[str, object], key: str) -> str:
    return f"{path}: {key}" if key in content else str(path)


def _make_camera(content: object, source: str, size: tuple[int, int] | None) -> CalibratedCamera:
    """
    Raises:
        ListError: it is no camera, or says no size and none is given.
    """
    takes_size = False
    if size is not None and isinstance(content, dict) and not {"width", "w", "image_width"} & set(content):
        takes_size = True
        content = {**content, "height": size[0], "width": size[1]}
    found = make_intrinsics(content, source, keep_lens=True)
    assert found.height and found.width, "make_intrinsics requires them"
    if size is not None and takes_size:
        fix = "Add width and height of the images that it was calibrated for"
        _require_center(found.camera, size, source, "the camera", fix)
    return CalibratedCamera(camera=found.camera, height=found.height, width=found.width, lens=found.lens)


def _find_transform(content: Mapping[str, object], source: str, *, required: bool) -> NDArray[np.float64] | None:
    """
    Raises:
        ListError: there are two transforms, or none although one is required, or it is not rigid.
    """
    keys = [key for key in _TRANSFORMS if key in content]
    if len(keys) > 1:
        raise ListError(source, f"has {' and '.join(keys)}", "Keep the one of the sensor that measured this depth")
    if not keys:
        if required:
            raise ListError(source, "has no transform from the sensor into the color camera", _TRANSFORM_FIX)
        return None
    key = keys[0]
    value = content[key]
    value = value.get("data", []) if isinstance(value, dict) else value
    try:
        matrix = np.array(value, dtype=np.float64)
        if matrix.shape == (3, 4):
            raise ListError(source, f"{key} has three rows, not four", "Write a fourth row 0, 0, 0, 1")
        matrix = matrix.reshape(4, 4)
    except (ValueError, TypeError):
        fix = f"Write {key} as four rows of four numbers, meters, the fourth row 0, 0, 0, 1"
        raise ListError(source, f"{key} is not four rows of four numbers", fix) from None
    require_rigid(matrix, source, key)
    return np.linalg.inv(matrix).astype(np.float64) if _TRANSFORMS[key] else matrix


def _read_kitti_lines(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]] | None:
    """Key -> numbers of each line ``KEY: numbers``; None if the file is not KITTI's."""
    if Path(path).suffix.lower() != ".txt":
        return None
    try:
        text = read_bytes(path).decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", f"Give {_FORMS}") from None
    lines = {}
    for line in text.splitlines():
        found = _KITTI_LINE.match(line.strip())
        if found:
            try:
                lines[found[1]] = np.array([float(part) for part in found[2].split()])
            except ValueError:
                continue  # calib_time: 09-Jan-2012 13:57:47
    return lines if any(camera in lines for camera in _KITTI_CAMERAS) else None


def _read_kitti(
    lines: Mapping[str, NDArray[np.float64]], source: str, size: tuple[int, int] | None, name: str
) -> tuple[CalibratedCamera, NDArray[np.float64]]:
    """
    The camera ``name`` and the transform into its frame from the Velodyne's.

    P = K [I | t] projects from the rectified frame of camera 0, so camera i is moved by t = K^-1 p4, 6 cm for P2;
    R0_rect turns camera 0 into that frame. Source: Geiger et al. 2013, doi:10.1177/0278364913491297, equations 3 and 7;
    the readme of KITTI's object benchmark.
    """
    if size is None:
        raise ListError(source, "does not say the size of the images", "Give JSON with width and height")
    velodyne = next((key for key in ("Tr_velo_to_cam", "Tr_velo_cam", "Tr") if key in lines), None)
    rectify = next((key for key in ("R0_rect", "R_rect") if key in lines), None)
    if name not in lines or velodyne is None:
        lacking = name if name not in lines else "Tr_velo_to_cam, Tr_velo_cam or Tr"
        raise ListError(
            source, f"has no {lacking}", "Give the calib.txt of KITTI's object, tracking or odometry benchmark"
        )
    projection = _reshape(lines[name], (3, 4), source, name)
    cam0_from_velodyne = np.eye(4)
    cam0_from_velodyne[:3] = _reshape(lines[velodyne], (3, 4), source, velodyne)
    require_rigid(cam0_from_velodyne, source, velodyne)
    rectified_from_cam0 = np.eye(4)
    if rectify is not None:
        rectified_from_cam0[:3, :3] = _reshape(lines[rectify], (3, 3), source, rectify)
        require_rigid(rectified_from_cam0, source, rectify)
    matrix = projection[:, :3]
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0 and np.allclose(matrix[[0, 1, 2, 2], [1, 0, 0, 1]], 0)):
        raise ListError(source, f"{name} is no projection of a rectified camera", "Give the file as KITTI has it")
    camera = Camera(fx_px=matrix[0, 0], fy_px=matrix[1, 1], cx_px=matrix[0, 2], cy_px=matrix[1, 2])
    fix = "Take the images as KITTI has them, or write JSON with the intrinsics of these"
    _require_center(camera, size, source, name, fix)
    color_from_rectified = np.eye(4)
    color_from_rectified[:3, 3] = np.linalg.solve(matrix, projection[:, 3])
    color = CalibratedCamera(camera=camera, height=size[0], width=size[1])
    return color, color_from_rectified @ rectified_from_cam0 @ cam0_from_velodyne


def _require_center(camera: Camera, size: tuple[int, int], source: str, name: str, fix: str) -> None:
    """
    The file does not say the size of its images, but the center of a camera is near the middle of them.

    Raises:
        ListError: it is outside the middle third, so the images were resized or cropped.
    """
    height, width = size
    if is_near_middle(camera, height, width):
        return
    raise ListError(
        source,
        f"{name} has its center at ({camera.cx_px:.1f}, {camera.cy_px:.1f}), not near the middle of images of "
        f"{height}x{width} (height x width), so it is for images of another size",
        fix,
    )


def _reshape(numbers: NDArray[np.float64], shape: tuple[int, int], source: str, key: str) -> NDArray[np.float64]:
    if numbers.size != shape[0] * shape[1]:
        raise ListError(
            source, f"{key} has {numbers.size} numbers, not {shape[0] * shape[1]}", "Give the file as KITTI has it"
        )
    return numbers.reshape(shape)

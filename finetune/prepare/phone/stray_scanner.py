"""Recordings of the app Stray Scanner.

A folder holds ``rgb.mp4``; for each of its frames ``depth/000000.png``, 16 bits, millimeters, and
``confidence/000000.png``, 0, 1 or 2; ``camera_matrix.csv``, 3x3, for the frames of the video; and ``odometry.csv`` with
the columns timestamp (seconds), frame, x, y, z (meters), qx, qy, qz, qw, and in newer versions fx, fy, cx, cy of each
frame. Versions before 1.2 had no timestamp and no frame, and wrote ``depth/000000.npy``.
Sources: docs.strayrobots.io/apps/scanner/format.html; poses are from the camera, with OpenCV's axes, into the world
(maintainer, github.com/strayrobots/scanner issue 11); focal lengths of each frame (issue 17); the older versions
(github.com/kekeblom/StrayVisualizer, stray_visualize.py and pull request 8).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera, camera_of
from finetune.data.readers.files import read_depth
from finetune.prepare.phone.phone_recording import (
    CONFIDENCES,
    Confidence,
    PhoneRecording,
    keep_confident,
    list_files,
    make_camera,
    make_pose,
    require_file,
    require_one_view,
)
from finetune.prepare.recording import FrameKey, RecordedFrame
from finetune.prepare.video_frames import IndexedVideo
from finetune.utils.errors import DataError, FinetuneError, ListError
from finetune.utils.paths import is_file, read_bytes

VIDEO = "rgb.mp4"
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_CAMERA = ("fx", "fy", "cx", "cy")
_METERS_PER_UNIT = 0.001
_NO_ODOMETRY = "Copy it from the phone again, or delete odometry.csv: no poses are written then"


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line of ``odometry.csv``."""

    time_s: float | None
    position_m: tuple[float, ...]
    quaternion: tuple[float, ...]
    camera: tuple[float, ...] | None
    source: str


class StrayScanner(PhoneRecording):
    """A folder that Stray Scanner wrote."""

    app = "Stray Scanner"

    def __init__(self, folder: Path, least: Confidence) -> None:
        """
        Raises:
            ListError: a file that the app writes is missing or is not what it writes.
        """
        super().__init__(folder, least)
        self._video = IndexedVideo(require_file(folder / VIDEO, "the video", self.app))
        self._matrix = _read_matrix(folder / "camera_matrix.csv")
        depth = list_files(folder / "depth", ".png") or list_files(folder / "depth", ".npy")
        if not depth:
            found = "holds no depth map, so the phone has no LiDAR or the folder was not copied as it is"
            raise ListError(folder / "depth", found, "Copy the folder of Stray Scanner with all its files")
        if not all(stem.isdecimal() for stem in depth):
            odd = next(stem for stem in depth if not stem.isdecimal())
            fix = "Move it out of the folder: depth maps are named by the number of their frame, such as 000012.png"
            raise ListError(depth[odd], "is not a depth map of Stray Scanner by its name", fix)
        self._depth = list(depth.values())
        self._numbers = [int(stem) for stem in depth]
        self._confidence = list_files(folder / "confidence", ".png")
        rows = _read_odometry(folder / "odometry.csv")
        self._rows = [rows.get(number) for number in self._numbers]
        name = folder.absolute().name
        self._keys = [
            FrameKey(recording=name, stem=stem, time_s=row.time_s if row else None)
            for stem, row in zip(depth, self._rows, strict=True)
        ]

    @property
    def has_confidence(self) -> bool:
        return bool(self._confidence)

    def load_frame(self, index: int) -> RecordedFrame:
        path = self._depth[index]
        depth_m = (read_depth(path).astype(np.float64) * _METERS_PER_UNIT).astype(np.float32)
        if self._confidence:
            levels = self._confidence.get(path.stem)
            if levels is None:
                fix = "Copy the folder of Stray Scanner with all its files, or leave the frame out"
                raise DataError(path, f"has no {self.folder / 'confidence' / path.stem}.png", fix)
            depth_m = keep_confident(depth_m, read_depth(levels), CONFIDENCES.index(self.least), levels)
        image = self._video.frame(self._numbers[index])
        require_one_view(image, depth_m, path)
        return RecordedFrame(image=image, depth_m=depth_m, camera=self._camera(index, image), source=str(path))

    def _camera(self, index: int, image: NDArray[np.uint8]) -> Camera:
        row = self._rows[index]
        if row and row.camera:
            values, source = row.camera, row.source
        else:
            values, source = self._matrix, str(self.folder / "camera_matrix.csv")
        camera = make_camera(values[0], values[1], values[2], values[3], source)
        try:
            return camera_of(camera, *image.shape[:2])
        except FinetuneError:
            found = f"is for other images than those of {VIDEO}, which are {image.shape[1]}x{image.shape[0]}"
            raise DataError(source, found, "Export the recording again, with its own video") from None

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        row = self._rows[index]
        if row is None:
            return None
        return make_pose(row.quaternion, row.position_m, opengl=False, source=row.source, fix=_NO_ODOMETRY)


def _read_matrix(path: Path) -> tuple[float, ...]:
    """fx, fy, cx, cy of the nine numbers in ``camera_matrix.csv``."""
    require_file(path, "the camera matrix", StrayScanner.app)
    try:
        content = read_bytes(path)
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", "Copy it from the phone again") from None
    try:
        matrix = np.array([float(part) for part in content.decode("utf-8-sig").replace(",", " ").split()]).reshape(3, 3)
    except ValueError:
        found = "does not hold the nine numbers of a camera matrix"
        raise ListError(path, found, "Copy it from the phone again") from None
    return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])


def _read_odometry(path: Path) -> Mapping[int, _Row]:
    """
    The rows of ``odometry.csv`` by the number of their frame; none where the file is missing, since frames can be
    trained on without poses.

    Raises:
        ListError: it is not what the app writes.
    """
    if not is_file(path):
        return {}
    try:
        reader = csv.DictReader(io.StringIO(read_bytes(path).decode("utf-8-sig")), skipinitialspace=True)
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ListError(path, f"cannot be read ({reason})", "Copy it from the phone again") from None
    names = [name.strip() for name in reader.fieldnames or ()]
    lacking = [name for name in _POSE if name not in names]
    if lacking:
        found = f"has no column {', '.join(lacking)}"
        raise ListError(path, found, _NO_ODOMETRY)
    found_rows = {}
    for i, row in enumerate(rows):
        source = f"{path}:{i + 2}"
        number = _number(row, "frame", source)
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise ListError(source, f"frame is {number}, not the number of a frame", "Copy it from the phone again")
        found_rows[i if number is None else int(number)] = _parse_row(row, source)
    return found_rows


def _parse_row(row: Mapping[str, str | None], source: str) -> _Row:
    def finite(name: str) -> float | None:
        value = _number(row, name, source)
        if value is not None and not math.isfinite(value):
            raise ListError(source, f"{name} is {value}, not a finite number", _NO_ODOMETRY)
        return value

    def required(name: str) -> float:
        value = finite(name)
        if value is None:
            raise ListError(source, f"has no {name}", "The file is cut off: copy it from the phone again")
        return value

    camera = [_number(row, name, source) for name in _CAMERA]
    known = tuple(value for value in camera if value is not None)
    return _Row(
        time_s=finite("timestamp"),
        position_m=tuple(required(name) for name in _POSE[:3]),
        quaternion=tuple(required(name) for name in _POSE[3:]),
        camera=known if len(known) == len(camera) else None,
        source=source,
    )


def _number(row: Mapping[str, str | None], name: str, source: str) -> float | None:
    """The number in a column; None where the column or the value is missing."""
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise ListError(source, f"{name} is {text[:40]!r}, not a number", _NO_ODOMETRY) from None

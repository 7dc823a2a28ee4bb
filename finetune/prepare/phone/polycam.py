"""Raw exports of the app Polycam, from a LiDAR or room scan in developer mode.

A folder holds ``keyframes/`` with, for each frame, by its time in microseconds: ``images/T.jpg``, as the camera saw it;
``depth/T.png``, 16 bits, millimeters, smaller; ``confidence/T.png``, 8 bits, 0 low, 255 high, and one number between
for medium; and ``cameras/T.json`` with width, height, fx, fy, cx, cy and the rows t_00 to t_23 of the pose. After loop
closure there are also ``corrected_images`` without distortion and ``corrected_cameras`` with better poses.
Source: github.com/PolyCam/polyform, README.md (data format) and polyform/core/capture_folder.py. Poses are ARKit's:
from a camera with x right, y up, z backward into a world whose y is up.

Depth maps are of the view of ``images``: ARKit gives both. So images and focal lengths are taken from there, and poses
from ``corrected_cameras`` where there are some. Only if the export has no ``images``, the corrected ones are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.files import read_depth, read_stored_image
from finetune.data.readers.orientation import UPRIGHT
from finetune.prepare.phone.phone_recording import (
    Confidence,
    PhoneRecording,
    from_opengl,
    keep_confident,
    list_files,
    make_camera,
    read_json,
    require_one_view,
    to_number,
)
from finetune.prepare.recording import FrameKey, RecordedFrame
from finetune.utils.errors import DataError, ListError
from finetune.utils.paths import is_folder

# Polycam's README says that medium is 127; a reader of its exports has 54 (github.com/pablovela5620/simplecv,
# simplecv/data/polycam.py). There are only three levels, so whatever is not low is at least medium.
_LEVELS = {"low": 0.0, "medium": 1.0, "high": 255.0}
_POSE = tuple(f"t_{row}{column}" for row in range(3) for column in range(4))
_METERS_PER_UNIT = 0.001
_EXPORT = "Export the raw data from Polycam again"


class Polycam(PhoneRecording):
    """A folder of raw data that Polycam exported, or the ``keyframes`` in it."""

    app = "Polycam"

    def __init__(self, folder: Path, least: Confidence) -> None:
        """
        Raises:
            ListError: frames or their cameras are missing.
        """
        super().__init__(folder, least)
        frames = folder / "keyframes" if is_folder(folder / "keyframes") else folder
        self.corrected = not is_folder(frames / "images")
        images = list_files(frames / ("corrected_images" if self.corrected else "images"), ".jpg")
        depth = list_files(frames / "depth", ".png")
        self._cameras = list_files(frames / ("corrected_cameras" if self.corrected else "cameras"), ".json")
        better = list_files(frames / "corrected_cameras", ".json")
        self._confidence = list_files(frames / "confidence", ".png")
        stems = [stem for stem in images if stem in depth and stem in self._cameras]
        if not stems:
            found = f"has no frame with an image, depth and a camera ({len(images)} images, {len(depth)} depth maps, "
            fix = "Scan in LiDAR or room mode with Polycam's developer mode on, export 'raw data', and name that folder"
            raise ListError(frames, f"{found}{len(self._cameras)} cameras)", fix)
        self._left_over = len(images.keys() | depth.keys()) - len(stems)
        corrected = {stem: better[stem] for stem in stems if stem in better and not self.corrected}
        self._better_cameras = {stem: path for stem, path in corrected.items() if _has_pose(path)}
        self._without_better = len(corrected) - len(self._better_cameras)
        self._images = [images[stem] for stem in stems]
        self._depth = [depth[stem] for stem in stems]
        name = (folder.parent if folder.name == "keyframes" else folder).absolute().name
        # The file's name is its time.
        self._keys = [
            FrameKey(recording=name, stem=stem, time_s=int(stem) / 1e6 if stem.isdecimal() else None) for stem in stems
        ]

    @property
    def has_confidence(self) -> bool:
        return bool(self._confidence)

    @property
    def notes(self) -> Sequence[str]:
        if not self._without_better:
            return super().notes
        found = f"corrected_cameras has no pose of {self._without_better} frames, and that of cameras is taken"
        return [*super().notes, f"{self.folder}: {found}"]

    def load_frame(self, index: int) -> RecordedFrame:
        path, stem = self._depth[index], self._keys[index].stem
        depth_m = (read_depth(path).astype(np.float64) * _METERS_PER_UNIT).astype(np.float32)
        if self._confidence:
            levels = self._confidence.get(stem)
            if levels is None:
                raise DataError(path, "has no confidence map of its name, and other frames have one", _EXPORT)
            depth_m = keep_confident(depth_m, read_depth(levels), _LEVELS[self.least], levels)
        image, orientation = read_stored_image(self._images[index])
        require_one_view(image, depth_m, path)
        content, source = read_json(self._cameras[stem], self.app), self._cameras[stem]
        width, height, *values = _numbers(content, ("width", "height", "fx", "fy", "cx", "cy"), source)
        if (height, width) != image.shape[:2]:
            size = f"{image.shape[1]}x{image.shape[0]}"
            found = f"is for images of {width:g}x{height:g}, and {self._images[index]} is {size}"
            raise DataError(source, found, _EXPORT)
        return RecordedFrame(
            image=image,
            depth_m=depth_m,
            camera=make_camera(values[0], values[1], values[2], values[3], source),
            source=str(path),
            image_file=self._images[index] if orientation == UPRIGHT else None,
        )

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        stem = self._keys[index].stem
        source = self._better_cameras.get(stem, self._cameras[stem])
        pose = np.eye(4)
        pose[:3] = np.array(_numbers(read_json(source, self.app), _POSE, source)).reshape(3, 4)
        if not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-3):
            raise DataError(source, "holds a pose in t_00 to t_22 that is no rotation", _EXPORT)
        return from_opengl(pose)


def _has_pose(path: Path) -> bool:
    """Whether a file of ``corrected_cameras`` has a number for each part of a pose; some have null or nothing.

    Raises:
        ListError: it is no JSON object.
    """
    content = read_json(path, Polycam.app)
    return all(content.get(name) is not None for name in _POSE)


def _numbers(content: Mapping[str, object], names: tuple[str, ...], source: Path) -> list[float]:
    """
    Raises:
        DataError: one of the names is missing or is no number.
    """
    return [to_number(content.get(name), source, name) for name in names]

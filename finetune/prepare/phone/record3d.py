"""Recordings of the app Record3D, in the two exports that keep depth as it was measured.

``.r3d``, a ZIP archive, unpacked: ``metadata``, JSON, and in ``rgbd/`` for each frame ``0.jpg``, ``0.depth`` (float32
meters, row by row) and ``0.conf`` (uint8: 0, 1 or 2; with LiDAR alone), the last two compressed by LZFSE.
"EXR + JPG": ``metadata.json``, ``rgb/0.jpg`` and ``depth/0.exr`` (float meters in channel R), without confidence.

Metadata: ``w``, ``h`` of the images and ``dw``, ``dh`` of the depth maps; ``K``, 3x3 column by column, of the first
frame, and in newer versions ``perFrameIntrinsicCoeffs``, fx, fy, cx, cy of each, both in pixels of the image;
``poses``, qx, qy, qz, qw, x, y, z (meters) from the camera, with OpenGL's axes, into the world; in recordings of the
selfie camera, which is not tracked, all are 0, 0, 0, 1, 0, 0, 0; ``fps``, and in newer versions ``frameTimestamps`` in
seconds.
Sources: the author of the app in github.com/marek-simonik/record3d, issues 7 and 93 (files), 67 and 53 (EXR), 81
(confidence), 27, 33 and 36 (poses), 63 (selfie camera), 18, 83 and 108 (intrinsics, both maps show one view).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.files import read_depth, read_stored_image
from finetune.data.readers.orientation import UPRIGHT
from finetune.prepare.phone.phone_recording import (
    CONFIDENCES,
    Confidence,
    PhoneRecording,
    keep_confident,
    list_files,
    make_camera,
    make_pose,
    read_json,
    require_one_view,
    to_floats,
)
from finetune.prepare.recording import FrameKey, RecordedFrame
from finetune.utils.errors import DataError, ListError
from finetune.utils.paths import is_file, is_folder, read_bytes

_EXPORT = "Export the recording from Record3D again"
_NO_POSES = f"{_EXPORT}, or delete its poses: none are written then"
_NO_POSE = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]


class Record3d(PhoneRecording):
    """A folder that Record3D exported."""

    app = "Record3D"

    def __init__(self, folder: Path, least: Confidence) -> None:
        """
        Raises:
            ListError: metadata or frames are missing, or cannot be read.
        """
        super().__init__(folder, least)
        if is_folder(folder / "EXR_RGBD"):
            folder = folder / "EXR_RGBD"
        self._compressed = is_folder(folder / "rgbd")
        named = folder / "metadata"  # in an unpacked .r3d; the other export has metadata.json
        self._metadata_file = named if is_file(named) else folder / "metadata.json"
        self._metadata = read_json(self._metadata_file, self.app)
        if self._compressed:
            images, depth = list_files(folder / "rgbd", ".jpg"), list_files(folder / "rgbd", ".depth")
            self._confidence = list_files(folder / "rgbd", ".conf")
        else:
            images = list_files(folder / "rgb", ".jpg") or list_files(folder / "rgb", ".png")
            depth, self._confidence = list_files(folder / "depth", ".exr"), {}
        stems = [stem for stem in images if stem in depth and stem.isdecimal()]
        if not stems:
            found = f"has no frame with an image and depth ({len(images)} images, {len(depth)} depth maps)"
            fix = "Export as '.r3d' and unpack it, or as 'EXR + JPG', and name that folder"
            raise ListError(folder, found, fix)
        self._left_over = len(images.keys() | depth.keys()) - len(stems)
        self._images = [images[stem] for stem in stems]
        self._depth = [depth[stem] for stem in stems]
        self._poses = self._metadata.get("poses")
        self._intrinsics = self._metadata.get("perFrameIntrinsicCoeffs")
        name = self.folder.absolute().name
        times_s = [_time(self._metadata, int(stem), self._metadata_file) for stem in stems]
        self._keys = [
            FrameKey(recording=name, stem=stem, time_s=time_s) for stem, time_s in zip(stems, times_s, strict=True)
        ]

    @property
    def has_confidence(self) -> bool:
        return bool(self._confidence)

    @property
    def is_compressed(self) -> bool:
        """Whether its depth is compressed by LZFSE."""
        return self._compressed

    def load_frame(self, index: int) -> RecordedFrame:
        path, stem = self._depth[index], self._keys[index].stem
        image, orientation = read_stored_image(self._images[index])
        if self._compressed:
            depth_m = _as_map(_decompress(path), np.dtype("<f4"), self._depth_shape(image), path).astype(np.float32)
        else:
            depth_m = read_depth(path, "r").astype(np.float32)
        depth_m = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, np.float32(0.0))
        if self._confidence:
            levels = self._confidence.get(stem)
            if levels is None:
                raise DataError(path, f"has no {stem}.conf, and other frames have one", _EXPORT)
            values = _as_map(_decompress(levels), np.dtype(np.uint8), depth_m.shape, levels)
            depth_m = keep_confident(depth_m, values, CONFIDENCES.index(self.least), levels)
        require_one_view(image, depth_m, path)
        return RecordedFrame(
            image=image,
            depth_m=depth_m,
            camera=self._camera(int(stem), image),
            source=str(path),
            image_file=self._images[index] if orientation == UPRIGHT else None,
        )

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        number = int(self._keys[index].stem)
        if not isinstance(self._poses, list) or not number < len(self._poses) or self._is_selfie:
            return None
        source = f"{self._metadata_file}: poses[{number}]"
        values = to_floats(self._poses[number], source, "it")
        return make_pose(values[:4], values[4:], opengl=True, source=source, fix=_NO_POSES)

    @property
    def _is_selfie(self) -> bool:
        poses = self._poses
        return isinstance(poses, list) and len(poses) > 1 and all(pose == _NO_POSE for pose in poses)

    def _depth_shape(self, image: NDArray[np.uint8]) -> tuple[int, int] | None:
        """Height and width of the depth maps; None in exports that do not say it, where it follows from the image."""
        sizes = [self._metadata.get(key) for key in ("dh", "dw")]
        if all(isinstance(size, int) and size > 0 for size in sizes):
            return int(str(sizes[0])), int(str(sizes[1]))
        count = len(_decompress(self._depth[0])) // 4
        height = round(math.sqrt(count * image.shape[0] / image.shape[1]))
        return (height, count // height) if height and count % height == 0 else None

    def _camera(self, number: int, image: NDArray[np.uint8]) -> Camera:
        source = str(self._metadata_file)
        listed = self._intrinsics
        if isinstance(listed, list) and number < len(listed):
            source = f"{source}: perFrameIntrinsicCoeffs[{number}]"
            fx, fy, cx, cy = _several(to_floats(listed[number], source, "it"), 4, source)
        else:
            # Column by column, so the center is in the last three.
            matrix = _several(to_floats(self._metadata.get("K"), source, "K"), 9, source)
            fx, fy, cx, cy = matrix[0], matrix[4], matrix[6], matrix[7]
        camera = make_camera(fx, fy, cx, cy, source)
        sizes = [self._metadata.get(key) for key in ("h", "w")]
        if sizes != [None, None] and sizes != [*image.shape[:2]]:
            found = f"is for images of {sizes[1]}x{sizes[0]}, and frame {number} is {image.shape[1]}x{image.shape[0]}"
            raise DataError(source, found, _EXPORT)
        return camera


def _several(values: list[float], count: int, source: str) -> list[float]:
    """
    Raises:
        DataError: there are not ``count`` numbers.
    """
    if len(values) != count:
        raise DataError(source, f"holds intrinsics of {len(values)} numbers instead of {count}", _EXPORT)
    return values


def _time(metadata: Mapping[str, object], number: int, source: Path) -> float | None:
    """
    Seconds of a frame: as listed, else by the rate of the recording; None where neither is known.

    Raises:
        ListError: the time that is listed is not finite.
    """
    times = metadata.get("frameTimestamps")
    if isinstance(times, list) and number < len(times) and isinstance(times[number], int | float):
        if not math.isfinite(times[number]):
            found = f"frameTimestamps[{number}] is {times[number]}, not a finite number"
            raise ListError(source, found, f"{_EXPORT}, or delete its frameTimestamps: fps gives the times then")
        return float(times[number])
    rate = metadata.get("fps")
    # A rate near 0 gives times that no float holds.
    time_s = number / rate if isinstance(rate, int | float) and rate > 0 else math.inf
    return time_s if math.isfinite(time_s) else None


def require_lzfse(folder: Path) -> None:
    """
    Raises:
        ListError: the package that unpacks LZFSE is missing.
    """
    try:
        import liblzfse  # noqa: F401
    except ImportError:
        fix = (
            "Run `pip install -e '.[record3d]'` in the folder of this repository, which needs a C compiler, or export "
            "as 'EXR + JPG'"
        )
        found = "holds depth compressed by LZFSE, and the package pyliblzfse is not installed"
        raise ListError(folder, found, fix) from None


def _decompress(path: Path) -> bytes:
    """
    Raises:
        DataError: the file cannot be read, or is no LZFSE file.
    """
    import liblzfse

    try:
        data = read_bytes(path)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "Make it a file that this user may read") from None
    try:
        return bytes(liblzfse.decompress(data))
    # For a file that is cut off, the package doubles its memory until the system refuses.
    except (liblzfse.error, MemoryError):
        raise DataError(path, "is no LZFSE file, or is truncated", "Unpack the .r3d file again") from None


def _as_map(data: bytes, dtype: np.dtype[np.generic], shape: tuple[int, ...] | None, path: Path) -> NDArray[np.generic]:
    """
    Raises:
        DataError: there are not as many numbers as pixels.
    """
    if shape is None or len(data) != dtype.itemsize * shape[0] * shape[1]:
        expected = f"and a map of {shape[0]}x{shape[1]} has {dtype.itemsize * shape[0] * shape[1]}" if shape else ""
        found = f"holds {len(data)} bytes, {expected or 'which is no map of the shape of its image'}"
        raise DataError(path, found, "Unpack the .r3d file again")
    return np.frombuffer(data, dtype).reshape(shape)

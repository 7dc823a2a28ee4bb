"""What the export folder of every phone app gives: its frames, how sure each depth is, and where the phone was."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.prepare.recording import FrameKey, RecordedFrame
from finetune.utils.errors import DataError, ListError, shown
from finetune.utils.paths import is_file, is_folder, list_folder, missing, read_bytes

# From least to most. ARKit has these three: https://developer.apple.com/documentation/arkit/arconfidencelevel
Confidence = Literal["low", "medium", "high"]
CONFIDENCES: tuple[Confidence, ...] = ("low", "medium", "high")
# Two sizes show one view if the ratios of their sides differ by at most this share; each side is rounded.
_ONE_SHAPE = 0.01
_EXPORT = "Export the recording again, or leave the frame out"


class PhoneRecording(ABC):
    """One export folder. It holds paths and numbers alone, so that it can be pickled into worker processes.

    Attributes:
        app: name of the app that wrote it.
        folder: that it was read from.
        least: depth that is less sure than this is left out.
    """

    app: str

    def __init__(self, folder: Path, least: Confidence) -> None:
        self.folder = folder
        self.least = least
        self._keys: Sequence[FrameKey] = ()
        self._left_over = 0

    @property
    def keys(self) -> Sequence[FrameKey]:
        """Its frames, in order of time."""
        return self._keys

    @abstractmethod
    def load_frame(self, index: int) -> RecordedFrame:
        """
        Frame ``index``; depth is the sensor's own map, smaller than the image.

        Raises:
            DataError: a file of the frame cannot be read, or does not belong to the others.
        """

    @abstractmethod
    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        """(4, 4): points of the camera of frame ``index``, in meters, x right, y down, z forward, into the world of
        the recording; None where it was not tracked."""

    @property
    @abstractmethod
    def has_confidence(self) -> bool:
        """Whether the app recorded how sure each depth is."""

    @property
    def left_over(self) -> int:
        """How many images and depth maps have no partner."""
        return self._left_over

    @property
    def notes(self) -> Sequence[str]:
        """What was read, in sentences without a full stop."""
        found = f"{self.folder}: {len(self.keys)} frames of {self.app}"
        if self.left_over:
            found += f"; {self.left_over} images or depth maps have no partner and are left out"
        if not self.has_confidence:
            return [f"{found}; it has no confidence maps, so every depth is kept"]
        if self.least == "low":
            return [f"{found}; depth of every confidence is kept, though low confidence is often wrong"]
        kept = "medium and high" if self.least == "medium" else "high"
        return [f"{found}; depth of {kept} confidence is kept"]


def keep_confident(
    depth_m: NDArray[np.float32], levels: NDArray[np.generic], at_least: float, source: Path | str
) -> NDArray[np.float32]:
    """
    Args:
        depth_m: (h, w) meters.
        levels: (h, w), how sure each depth is, in the numbers of the app.
        at_least: depth of a lower level becomes 0.
        source: the file that ``levels`` is from.

    Raises:
        DataError: the two differ in size.
    """
    if levels.shape != depth_m.shape:
        sizes = f"{'x'.join(map(str, levels.shape))}, its depth map {'x'.join(map(str, depth_m.shape))}"
        raise DataError(source, f"confidence is {sizes}", _EXPORT)
    return np.where(levels.astype(np.float64) >= at_least, depth_m, np.float32(0.0))


def require_one_view(image: NDArray[np.uint8], depth_m: NDArray[np.float32], source: Path | str) -> None:
    """
    Raises:
        DataError: the depth map has another shape than the image, so it shows another view.
    """
    (height, width), (rows, columns) = image.shape[:2], depth_m.shape
    if abs((rows / height) / (columns / width) - 1) <= _ONE_SHAPE:
        return
    turned = abs((columns / height) / (rows / width) - 1) <= _ONE_SHAPE
    found = f"depth is {rows}x{columns} (height x width), its image {height}x{width}"
    raise DataError(
        source,
        f"{found}, so one of the two is turned by 90 degrees" if turned else f"{found}, which is another shape",
        "Export the recording again, without an edit that turns or crops the video",
    )


def make_pose(
    quaternion: Sequence[float], position_m: Sequence[float], *, opengl: bool, source: Path | str, fix: str
) -> NDArray[np.float64]:
    """
    Args:
        quaternion: x, y, z, w of the rotation from the camera into the world; its length does not matter.
        position_m: of the camera in the world, meters.
        opengl: the camera's axes are OpenGL's and ARKit's: x right, y up, z backward. Else OpenCV's.
        source: names the file in the error.
        fix: what to do about numbers that are no pose, for the error.

    Returns:
        (4, 4), points of the camera with OpenCV's axes, x right, y down, z forward, into the world.

    Raises:
        DataError: the numbers are no rotation.
    """
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    numbers = np.array([*quaternion, *position_m], dtype=np.float64)
    if numbers.shape != (7,) or not np.isfinite(numbers).all() or not numbers[:4].any():
        shown_numbers = ", ".join(f"{number:g}" for number in numbers)
        raise DataError(source, f"holds the pose {shown_numbers}, which is no rotation and position", fix)
    pose[:3, :3] = Rotation.from_quat(numbers[:4]).as_matrix()
    pose[:3, 3] = numbers[4:]
    return from_opengl(pose) if opengl else pose


def from_opengl(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """A (4, 4) pose of a camera with x right, y up, z backward -> the same with x right, y down, z forward."""
    return np.asarray(pose @ np.diag([1.0, -1.0, -1.0, 1.0]), dtype=np.float64)


def make_camera(fx: float, fy: float, cx: float, cy: float, source: Path | str) -> Camera:
    """
    Raises:
        DataError: these are no focal lengths and no center, in pixels.
    """
    if not (0 < fx < np.inf and 0 < fy < np.inf and np.isfinite([cx, cy]).all()):
        raise DataError(source, f"has fx {fx}, fy {fy}, cx {cx}, cy {cy}, which is no camera", _EXPORT)
    return Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)


def list_files(folder: Path, ending: str) -> dict[str, Path]:
    """
    The files of a folder that have this ending, by their stem: in order of their number where all stems are numbers,
    else by name. There are none where there is no such folder.

    Raises:
        ListError: the folder cannot be listed.
    """
    if not is_folder(folder):
        return {}
    try:
        found = {p.stem: p for p in list_folder(folder) if p.suffix.lower() == ending and not p.name.startswith(".")}
    except OSError as error:
        raise ListError(
            folder, f"cannot be listed ({error.strerror})", "Make it a folder that this user may read"
        ) from None
    # Record3D counts without leading zeros: by name, 10 would come before 2.
    if all(stem.isdecimal() for stem in found):
        return dict(sorted(found.items(), key=lambda item: int(item[0])))
    return found


def require_file(path: Path, holds: str, app: str) -> Path:
    """
    Raises:
        ListError: there is no such file in the export folder; says what the app writes there.
    """
    if not is_file(path):
        raise ListError(path, missing(path), f"{app} writes {holds} there: copy the folder with all its files")
    return path


def read_json(path: Path, app: str) -> Mapping[str, object]:
    """
    Raises:
        ListError: the file is missing or is no JSON object.
    """
    try:
        content = json.loads(read_bytes(path).decode("utf-8-sig"))
    except OSError as error:
        fix = f"Copy the folder of {app} with all its files"
        raise ListError(path, f"cannot be read ({error.strerror})", fix) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ListError(path, "is no JSON object, or is truncated", f"Export the recording from {app} again")
    return content


def to_floats(values: object, source: Path | str, key: str) -> list[float]:
    """
    Raises:
        DataError: ``values`` is no list of numbers.
    """
    if not isinstance(values, list):
        raise DataError(source, f"{key} is {shown(values, 40)}, not a list of numbers", _EXPORT)
    return [to_number(value, source, key) for value in values]


def to_number(value: object, source: Path | str, key: str) -> float:
    """
    Raises:
        DataError: ``value`` is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(source, f"{key} is {shown(value, 40)}, not a number", _EXPORT)
    return float(value)

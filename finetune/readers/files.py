"""Decoding image, depth and intrinsics files, and turning raw depth into meters; nothing here resizes or fills."""

from __future__ import annotations

import json
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.camera import Camera
from finetune.errors import DataError, ListError, RecipeError
from finetune.readers.bits import Bits, decode_bits, has_16_bits
from finetune.sample import DepthSample

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".npy", ".npz")
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".npy", ".npz")

# The first bytes of a format tell a damaged file of it from a file that only bears its name.
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"P5": "PGM",
    b"P6": "PPM",
}


# What NumPy raises over bytes that nobody wrote, found by reading mutated files: its header is an expression in Python.
_BROKEN_ARRAYS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class DepthCoding:
    """What the numbers in a depth file mean.

    Attributes:
        meters_per_unit: raw value times this is meters along the optical axis.
        invalid: raw values that mean "nothing measured", compared before scaling.
        min_depth_m: depths up to and including this are not valid; at 0.0 only zero and negative ones are not.
        max_depth_m: depths beyond this are not valid; None for no limit.
        bits: how 16 bits are to be read that are no plain whole number; ``invalid`` is of what they mean.
    """

    meters_per_unit: float
    invalid: tuple[float, ...] = (0.0,)
    min_depth_m: float = 0.0
    max_depth_m: float | None = None
    bits: Bits | None = None

    def to_meters(self, raw: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """
        Args:
            raw: (H, W), as the file stores it.

        Returns:
            (H, W) float32 meters, 0 where the raw value is NaN or infinite, and (H, W) bool, True where measured.
        """
        confident: NDArray[np.bool_] | None = None
        if self.bits:
            raw, confident = decode_bits(raw, self.bits)
        # In float64 a raw 7900 in mm is exactly the nearest float32 to 7.9, and so on the right side of a limit of 7.9.
        with np.errstate(over="ignore"):
            depth_m = np.multiply(raw, self.meters_per_unit, dtype=np.float64).astype(np.float32)
        finite = np.isfinite(depth_m)
        valid = finite & (depth_m > max(self.min_depth_m, 0.0))
        if self.max_depth_m is not None:
            valid &= depth_m <= self.max_depth_m
        if confident is not None:
            valid &= confident
        for value in self.invalid:
            valid &= raw != value
        depth_m[~finite] = 0.0
        return depth_m, valid


def require_depth_range(min_depth_m: float, max_depth_m: float | None) -> None:
    """
    Raises:
        RecipeError: not 0 <= min_depth_m < max_depth_m.
    """
    if not 0.0 <= min_depth_m < math.inf:
        raise RecipeError("min_depth_m", min_depth_m, "a number of meters from 0 up")
    if max_depth_m is not None and not min_depth_m < max_depth_m < math.inf:
        raise RecipeError("max_depth_m", max_depth_m, f"meters above min_depth_m, {min_depth_m}, or null for no limit")


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """A camera and the size of the images it was calibrated for.

    Attributes:
        camera: focal lengths and principal point, pixels.
        height, width: size of the images, pixels.
        source: where it comes from, as a person can find it.
        fix: what to do when an image has another size; "" to suggest the scaled values.
    """

    camera: Camera
    height: int
    width: int
    source: str
    fix: str = ""

    def camera_of(self, image: NDArray[np.uint8], path: str) -> Camera:
        """
        Args:
            image: (H, W, 3).
            path: its file, named in the error.

        Raises:
            DataError: the image has another size; the focal lengths would be those of another camera.
        """
        height, width = image.shape[:2]
        if (height, width) == (self.height, self.width):
            return self.camera
        scaled = self.camera.resized(height / self.height, width / self.width)
        fix = self.fix or (
            f"If the images were resized, write width {width}, height {height}, fx {scaled.fx_px:.3f}, "
            f"fy {scaled.fy_px:.3f}, cx {scaled.cx_px:.3f}, cy {scaled.cy_px:.3f}; if cropped, calibrate again"
        )
        raise DataError(
            path, f"is {height}x{width} (height x width), {self.source} is for {self.height}x{self.width}", fix
        )


def read_frame(
    image_path: str,
    depth_path: str,
    coding: DepthCoding,
    intrinsics: Intrinsics | None,
    *,
    reduce_image: bool = False,
) -> DepthSample:
    """
    Args:
        image_path, depth_path: the two files of a frame.
        coding: what the numbers in the depth file mean.
        intrinsics: of the images, when known.
        reduce_image: bring a larger image to the size of its depth map, by area; both show the same view.

    Raises:
        DataError: a file cannot be decoded, depth has 8 bits, or image, depth and intrinsics are not of one size.
    """
    image, raw = read_image(image_path), read_depth(depth_path)
    if raw.dtype.itemsize == 1:  # 256 steps, and no unit
        raise DataError(
            depth_path,
            "depth is stored in 8 bits, which is a picture of depth and not a measurement",
            "Export it as 16-bit PNG in millimeters, or as .npy in meters",
        )
    if coding.bits and not has_16_bits(raw):
        raise DataError(
            depth_path, f"holds {raw.dtype}, and bits: {coding.bits} is of unsigned 16 bits", "Leave out bits"
        )
    camera = intrinsics.camera_of(image, image_path) if intrinsics else None
    if reduce_image and raw.ndim == 2:
        image, camera = _reduced(image, camera, raw.shape)
    if raw.shape != image.shape[:2]:
        raise DataError(
            depth_path,
            f"depth is {raw.shape[0]}x{raw.shape[1]} (height x width), its image {image_path} is "
            f"{image.shape[0]}x{image.shape[1]}",
            "Export both at one size; of a larger image that shows the same, set reduce_image: true in pairs",
        )
    depth_m, valid = coding.to_meters(raw)
    return DepthSample(image=image, depth_m=depth_m, valid=valid, source=depth_path, camera=camera)


def _reduced(
    image: NDArray[np.uint8], camera: Camera | None, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], Camera | None]:
    """The image and its camera at a smaller size of the same shape; as they are where it is not smaller, or another."""
    import cv2

    down, across = shape[0] / image.shape[0], shape[1] / image.shape[1]
    if max(down, across) >= 1 or abs(down / across - 1) > 0.01:
        return image, camera
    smaller = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, dtype=np.uint8), camera and camera.resized(down, across)


def read_image(path: str | os.PathLike[str], *, upright: bool = False) -> NDArray[np.uint8]:
    """
    Args:
        path: PNG, JPEG or what else OpenCV decodes, 8 or 16 bit, gray, color or with an alpha channel, which is
            dropped; ``.npy``; ``.npz`` with one array, or the array ``rgb`` or ``image``.
        upright: turn the image as its EXIF tag says, as viewers do.

    Returns:
        (H, W, 3) uint8, RGB; 16-bit values are divided by 257 and rounded, so that 65535 becomes 255.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    import cv2

    if _is_array_file(path):
        pixels = _stored_array(path, ("rgb", "image"))
    else:
        # The depth map of a frame has no EXIF tag: turning the image by its own would part the two.
        as_stored = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
        pixels = _decoded(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | as_stored)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(
            path,
            f"its image is {pixels.dtype} of shape {pixels.shape}",
            "Write images as height x width x 3, RGB, 8 or 16 bit",
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    color = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    return np.ascontiguousarray(color, dtype=np.uint8)


def read_depth(path: str | os.PathLike[str]) -> NDArray[Any]:
    """
    Args:
        path: PNG or PGM (8 or 16 bit), TIFF (also float32), ``.npy``, ``.npz`` with one array or the array ``depth``.

    Returns:
        (H, W), the values and the type that the file stores. Whether 8 bits are enough is for the caller to judge.

    Raises:
        DataError: the file is missing, damaged, lossy, in color, or holds no numbers.
    """
    import cv2

    if str(path).lower().endswith((".jpg", ".jpeg")):
        raise DataError(path, "is a JPEG, which changes depth values", "Export depth as 16-bit PNG or .npy")
    is_array = _is_array_file(path)
    raw = _stored_array(path, ("depth",)) if is_array else _decoded(path, cv2.IMREAD_UNCHANGED)
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[2]):
        raw = raw.reshape([size for axis, size in enumerate(raw.shape) if axis == 1 or size > 1])
    if raw.ndim != 2:
        found = (
            f"is an array of shape {raw.shape}" if is_array else f"has {raw.shape[2]} channels: it looks color-mapped"
        )
        raise DataError(path, found, "Export the measured depth itself, one value a pixel, as 16-bit PNG or .npy")
    if raw.dtype.kind not in "uif":
        raise DataError(path, f"holds values of type {raw.dtype}", "Write depth as integers or floats")
    return raw


def read_intrinsics(path: str | os.PathLike[str]) -> Intrinsics:
    """
    Args:
        path: JSON with width, height and one of: fx, fy, cx, cy; ``K``, row by row as ROS writes it;
            ``intrinsic_matrix``, column by column as Open3D writes it. Pixels; other keys are not read.

    Raises:
        ListError: the file is missing, is not JSON, lacks a key, or a focal length is not above 0.
    """
    return _intrinsics_in(_json_in(path), str(path))


def read_intrinsics_of_images(path: str | os.PathLike[str]) -> Mapping[str, Intrinsics] | Intrinsics:
    """
    Args:
        path: as of ``read_intrinsics``; or JSON that holds the same for each image, by its path below the root, its
            file name or its stem: ``{"0001.jpg": {"width": 640, ...}, ...}``.

    Raises:
        ListError: it is neither; names the image.
    """
    content = _json_in(path)
    if not isinstance(content, dict) or not content or not all(isinstance(one, dict) for one in content.values()):
        return _intrinsics_in(content, str(path))
    return {name: _intrinsics_in(one, f"{path}: {name}") for name, one in content.items()}


_INTRINSICS_FIX = 'Write {"width": 640, "height": 480, "fx": 615.2, "fy": 615.4, "cx": 319.1, "cy": 241.7}, in pixels'


def _json_in(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ListError(path, f"cannot be read as intrinsics ({error})", _INTRINSICS_FIX) from None


def _intrinsics_in(content: Any, source: str) -> Intrinsics:
    fix = _INTRINSICS_FIX
    try:
        fx, fy, cx, cy = _four_numbers(content)
        height, width = int(content["height"]), int(content["width"])
    except (ValueError, TypeError) as error:
        raise ListError(source, f"cannot be read as intrinsics ({error})", fix) from None
    except KeyError as error:
        raise ListError(source, f"has no {error.args[0]}", fix) from None
    if not (0 < fx < np.inf and 0 < fy < np.inf and np.isfinite([cx, cy]).all()):
        raise ListError(source, f"has fx {fx}, fy {fy}, cx {cx}, cy {cy}", "Write focal lengths above 0, in pixels")
    camera = Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)
    return Intrinsics(camera=camera, height=height, width=width, source=source)


def _four_numbers(content: Any) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of the three forms that ``read_intrinsics`` knows."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for key, by_column in (("K", False), ("intrinsic_matrix", True)):
        if key in content and "fx" not in content:
            numbers = np.asarray(content[key], dtype=np.float64)
            if numbers.size != 9:
                raise ValueError(f"{key} has {numbers.size} numbers, not 9")
            matrix = numbers.reshape(3, 3).T if by_column else numbers.reshape(3, 3)
            return float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2])
    return float(content["fx"]), float(content["fy"]), float(content["cx"]), float(content["cy"])


def _is_array_file(path: str | os.PathLike[str]) -> bool:
    return str(path).lower().endswith((".npy", ".npz"))


def _decoded(path: str | os.PathLike[str], flags: int) -> NDArray[Any]:
    """The pixels of an image file; OpenCV answers None, or raises, for what it cannot decode whole."""
    import cv2

    try:
        data = Path(path).read_bytes()  # not cv2.imread, which cannot open every Unicode path on Windows
    except OSError as error:
        raise _unreadable(path, error) from None
    if not data:
        raise DataError(path, "is empty (0 bytes)", "Write it again, or leave the frame out")
    try:
        pixels = None if _is_jpeg_of_zeros(data) else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        known = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)
        found = f"is a damaged or truncated {known}" if known else f"is no image: it begins with {data[:12]!r}"
        raise DataError(path, found, "Write it again, or leave the frame out")
    return pixels


def _is_jpeg_of_zeros(data: bytes) -> bool:
    """Whether a JPEG ends in zeros before its end marker, as a crash or a broken download leaves a file whose room was
    set aside; OpenCV fills such an image up with gray. Zeros behind the marker are harmless."""
    return data.startswith(b"\xff\xd8") and data.endswith(b"\0\0") and not data.rstrip(b"\0").endswith(b"\xff\xd9")


def _stored_array(path: str | os.PathLike[str], names: tuple[str, ...]) -> NDArray[Any]:
    """The array of a ``.npy``, or the only one or the first of ``names`` of a ``.npz``."""
    try:
        # Opened here: NumPy leaves a file open whose archive is broken.
        with Path(path).open("rb") as file:
            # Pickled objects could run code when they are loaded.
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            present = [name for name in names if name in loaded.files] or loaded.files
            if len(present) == 1 or (present and present[0] in names):
                return loaded[present[0]]
            listed = ", ".join(loaded.files) or "none"
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise _unreadable(path, error) from None
    except _BROKEN_ARRAYS:
        raise DataError(
            path, "is no NumPy file of numbers, or is truncated", "Write it again, or leave the frame out"
        ) from None
    raise DataError(path, f"holds the arrays {listed}", f"Name the one to read {names[0]}")


def _unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(path, "does not exist", "Restore it, or correct what names it")
    return DataError(path, f"cannot be read ({error.strerror})", "Make it a file that this user may read")

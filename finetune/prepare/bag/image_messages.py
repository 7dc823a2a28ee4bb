"""Pixels of ROS' image messages: color as RGB, depth in meters."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.files import decode_pixels
from finetune.data.readers.formats import JPEG_SIGNATURE
from finetune.prepare.bag.messages import CompressedMessage, ImageMessage
from finetune.utils.errors import DataError

# Whole numbers are millimeters, floats are meters. Source: REP 118, https://www.ros.org/reps/rep-0118.html
MILLIMETERS = 0.001
_AGAIN = "Copy the bag again, or leave the time out"


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """How an ``Image`` stores a pixel.

    Attributes:
        dtype: of a number, without its byte order.
        channels: numbers of a pixel.
        order: of red, green and blue among the channels; () where ``code`` makes them.
        code: name of OpenCV's conversion into RGB; "" for none.
    """

    dtype: str
    channels: int = 1
    order: tuple[int, ...] = (0, 0, 0)
    code: str = ""


# Names as in ROS' sensor_msgs/image_encodings.hpp, in lower case; those in capitals are what librealsense writes for
# formats without a name there (convert in its ros_file_format.h).
_COLORS = {
    "rgb8": _Encoding(dtype="u1", channels=3, order=(0, 1, 2)),
    "bgr8": _Encoding(dtype="u1", channels=3, order=(2, 1, 0)),
    "rgba8": _Encoding(dtype="u1", channels=4, order=(0, 1, 2)),
    "bgra8": _Encoding(dtype="u1", channels=4, order=(2, 1, 0)),
    "rgb16": _Encoding(dtype="u2", channels=3, order=(0, 1, 2)),
    "bgr16": _Encoding(dtype="u2", channels=3, order=(2, 1, 0)),
    "mono8": _Encoding(dtype="u1"),
    "8uc1": _Encoding(dtype="u1"),
    "mono16": _Encoding(dtype="u2"),
    **{
        f"bayer_{pattern}{bits}": _Encoding(dtype=dtype, order=(), code=f"COLOR_Bayer{pattern.upper()}2RGB")
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits, dtype in ((8, "u1"), (16, "u2"))
    },
    **dict.fromkeys(("yuv422", "uyvy"), _Encoding(dtype="u1", channels=2, order=(), code="COLOR_YUV2RGB_UYVY")),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), _Encoding(dtype="u1", channels=2, order=(), code="COLOR_YUV2RGB_YUYV")),
}
# librealsense writes Z16 as mono16.
_DEPTHS = {
    "16uc1": _Encoding(dtype="u2"),
    "mono16": _Encoding(dtype="u2"),
    "z16": _Encoding(dtype="u2"),
    "32fc1": _Encoding(dtype="f4"),
    "64fc1": _Encoding(dtype="f8"),
}
# compressedDepth: an integer and two floats before the PNG.
_DEPTH_HEADER = struct.Struct("<iff")


def holds_depth(encoding: str) -> bool:
    """Whether an encoding, or the format of a compressed message, can be depth."""
    return _first_word(encoding) in _DEPTHS or "compressedDepth" in encoding


def holds_color(encoding: str) -> bool:
    """Whether an encoding, or the format of a compressed message, can be an image."""
    return "compressedDepth" not in encoding and _first_word(encoding) in (*_COLORS, "jpeg", "jpg", "png")


def read_color(message: ImageMessage, source: str, encoding: str | None = None) -> NDArray[np.uint8]:
    """
    Args:
        message: of ``sensor_msgs/Image``.
        source: where it is, named in errors.
        encoding: instead of the message's own.

    Returns:
        (H, W, 3) uint8 RGB. 16-bit values are divided by 257 and rounded, so that 65535 becomes 255; Bayer patterns are
        interpolated bilinearly by OpenCV.

    Raises:
        DataError: the encoding is no color, or bytes are missing.
    """
    name = encoding or message.encoding
    return _to_rgb(_as_array(message, _COLORS, name, "an image", source), name)


def read_depth(message: ImageMessage, meters_per_unit: float | None, source: str) -> NDArray[np.float32]:
    """
    Args:
        message: of ``sensor_msgs/Image``.
        meters_per_unit: None for millimeters of whole numbers and meters of floats, as REP 118 has it.
        source: where it is, named in errors.

    Returns:
        (H, W) meters along the optical axis; 0 where the message says 0, less than 0, NaN or infinity (REP 117).

    Raises:
        DataError: the encoding is no depth, or bytes are missing.
    """
    return _to_meters(_as_array(message, _DEPTHS, message.encoding, "depth", source)[..., 0], meters_per_unit)


def read_compressed_color(message: CompressedMessage, source: str, encoding: str | None = None) -> NDArray[np.uint8]:
    """
    ``read_color`` for ``sensor_msgs/CompressedImage``: JPEG or PNG.

    Files of color are as OpenCV writes them, unless the format says ``compressed rgb``: red and blue are then swapped
    in the file. Those of a Bayer pattern hold the pattern. Source: ``compressed_subscriber.cpp`` of
    ros-perception/image_transport_plugins.

    Raises:
        DataError: the file in it is damaged or is no image.
    """
    import cv2

    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = decode_pixels(source, message.data.tobytes(), flags)
    name = encoding or _first_word(message.format)
    if pixels.ndim == 2 and _COLORS.get(name, _COLORS["mono8"]).code.startswith("COLOR_Bayer"):
        return _to_rgb(pixels[..., None], name)
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3) or pixels.shape[2:] == (2,):
        raise DataError(source, f"is a picture of {pixels.dtype} of shape {pixels.shape}", "Name a topic of color")
    if pixels.ndim == 2:
        return _to_rgb(pixels[..., None], "mono8")
    order = "rgb" if "compressed rgb" in message.format else "bgr"
    return _to_rgb(pixels, f"{order}8" if pixels.shape[2] == 3 else f"{order}a8")


def read_compressed_depth(
    message: CompressedMessage, meters_per_unit: float | None, source: str
) -> NDArray[np.float32]:
    """
    ``read_depth`` for ``sensor_msgs/CompressedImage``: a 16-bit PNG, or what compressed_depth_image_transport writes.

    The latter puts a header of 12 bytes before the PNG, with a and b. Of 16UC1 the PNG holds the numbers themselves; of
    32FC1 it holds q, and depth is a / (q - b) meters, nothing where q is 0. Source: ``decodeCompressedDepthImage`` in
    ``codec.cpp`` and ``ConfigHeader`` in ``compression_common.h`` of ros-perception/image_transport_plugins.

    Raises:
        DataError: the PNG is damaged, is lossy or has 8 bits, or the format is another one.
    """
    import cv2

    data = message.data.tobytes()
    if "compressedDepth" not in message.format:
        if data.startswith(JPEG_SIGNATURE):
            raise DataError(source, "is depth as JPEG, which changes depth values", "Record compressedDepth instead")
        return _to_meters(_png_of(decode_pixels(source, data, cv2.IMREAD_UNCHANGED), source), meters_per_unit)
    if "rvl" in message.format.partition(";")[2]:
        fix = "Let `rosrun image_transport republish compressedDepth in:=TOPIC raw out:=/depth` write it as Image"
        raise DataError(source, "is depth compressed by RVL, which is not supported", fix)
    if len(data) <= _DEPTH_HEADER.size:
        raise DataError(source, f"is a message of compressedDepth of {len(data)} bytes, without a picture", _AGAIN)
    _, factor, shift = _DEPTH_HEADER.unpack_from(data)
    counts = _png_of(decode_pixels(source, data[_DEPTH_HEADER.size :], cv2.IMREAD_UNCHANGED), source)
    if _first_word(message.format) != "32fc1":
        return _to_meters(counts, meters_per_unit)
    with np.errstate(divide="ignore"):
        # As the C++ code does it, in float32.
        depth = np.float32(factor) / (counts.astype(np.float32) - np.float32(shift))
    return _to_meters(np.where(counts > 0, depth, np.float32(0.0)), meters_per_unit)


def _png_of(pixels: NDArray[np.generic], source: str) -> NDArray[np.uint16]:
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        found = f"is a picture of {pixels.dtype} of shape {pixels.shape}, and depth is one of 16 bits"
        raise DataError(source, found, "Name a topic of depth")
    return pixels.astype(np.uint16, copy=False)


def _first_word(encoding: str) -> str:
    """``16uc1`` of ``16UC1; compressedDepth png``."""
    return encoding.partition(";")[0].strip().lower()


def _as_array(
    message: ImageMessage, known: dict[str, _Encoding], name: str, what: str, source: str
) -> NDArray[np.generic]:
    """(H, W, C): the numbers of a message, in the byte order of this machine; rows may be longer than their pixels."""
    encoding = known.get(_first_word(name))
    if encoding is None:
        listed = ", ".join(known)
        raise DataError(source, f"has encoding {name!r}, which is not read as {what}", f"Those are: {listed}")
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(f"{order}{encoding.dtype}")
    row_bytes = message.width * encoding.channels * dtype.itemsize
    # Some drivers leave step at 0.
    step = message.step or row_bytes
    needed = step * (message.height - 1) + row_bytes
    if not message.height or not message.width or step < row_bytes or len(message.data) < needed:
        found = (
            f"is {message.width}x{message.height} of {name} in rows of {step} bytes, but has {len(message.data)} bytes"
        )
        raise DataError(source, found, _AGAIN)
    # Drivers pad rows; twice the bytes or more are those of an encoding with more bytes a pixel.
    if name != message.encoding and step >= 2 * row_bytes and step % row_bytes == 0:
        found = f"has rows of {step} bytes, and {message.width} pixels of {name} take {row_bytes} bytes"
        fix = f"Leave --color-encoding out, since the message says {message.encoding}, or name one that fits"
        raise DataError(source, found, fix)
    pixels: NDArray[np.generic] = np.ndarray(
        shape=(message.height, message.width, encoding.channels),
        dtype=dtype,
        buffer=np.ascontiguousarray(message.data).data,
        strides=(step, encoding.channels * dtype.itemsize, dtype.itemsize),
    )
    return pixels.astype(dtype.newbyteorder("="))


def _to_rgb(pixels: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """(H, W, C) of an encoding of color -> (H, W, 3) uint8 RGB."""
    import cv2

    encoding = _COLORS[_first_word(name)]
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if encoding.code:
        color = cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, encoding.code))
    else:
        color = pixels[..., list(encoding.order)]
    return np.ascontiguousarray(color, dtype=np.uint8)


def _to_meters(numbers: NDArray[np.generic], meters_per_unit: float | None) -> NDArray[np.float32]:
    """(H, W) as stored -> (H, W) float32 meters, 0 where nothing was measured."""
    unit = meters_per_unit or (MILLIMETERS if numbers.dtype.kind == "u" else 1.0)
    depth_m = numbers.astype(np.float32) if unit == 1.0 else np.multiply(numbers, unit, dtype=np.float64)
    measured = np.isfinite(depth_m) & (depth_m > 0)
    return np.where(measured, depth_m, 0.0).astype(np.float32)

"""Depth maps of several channels: which of them is depth, or how together they make up one number."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError

# z: the third, of points x, y, z; r: the first; gray: all are equal, but for alpha; rgb24: red + 256 green + 65536
# blue; bgr24: blue + 256 green + 65536 red.
DepthChannels = Literal["z", "r", "gray", "rgb24", "bgr24"]
_MAX_CHANNELS = 4
# A color map has at most so many colors; depth in 24 bits of three channels has more.
_COLORS_OF_A_MAP = 256
_EXPORT = "Export the measured depth itself, one value a pixel, as 16-bit PNG or .npy"


def one_channel(
    raw: NDArray[np.generic], channels: DepthChannels | None, path: str | os.PathLike[str]
) -> NDArray[np.generic]:
    """
    Args:
        raw: (H, W), (H, W, C) or (C, H, W), with C in the order red, green, blue, alpha, or x, y, z.
        channels: how C becomes one; None: only where there is just one way.
        path: of the file, for the error.

    Returns:
        (H, W).

    Raises:
        DataError: the array has another shape, or it is unknown which channel is depth.
    """
    if raw.ndim == 3 and 1 in (raw.shape[0], raw.shape[2]):
        raw = raw.reshape([size for axis, size in enumerate(raw.shape) if axis == 1 or size > 1])
    if raw.ndim == 3 and raw.shape[2] > _MAX_CHANNELS >= raw.shape[0]:
        raw = np.moveaxis(raw, 0, 2)
    if raw.ndim == 2 and channels in (None, "r", "gray"):
        return raw
    if raw.ndim == 2:
        raise DataError(path, f"has one channel, and depth_channels is {channels}", "Leave depth_channels out")
    if raw.ndim != 3 or not 2 <= raw.shape[2] <= _MAX_CHANNELS:
        raise DataError(path, f"is an array of shape {raw.shape}", _EXPORT)
    if channels is None:
        return _recognize_channel(raw, path)
    if channels == "gray":
        return _take_gray(raw, path)
    return _take_named(raw, channels, path)


def _take_named(raw: NDArray[np.generic], channels: DepthChannels, path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """The channel, or the number, that the recipe names."""
    if channels == "r":
        return np.ascontiguousarray(raw[..., 0])
    if raw.shape[2] < 3:
        raise DataError(path, f"has {raw.shape[2]} channels, and depth_channels {channels} needs three", _EXPORT)
    if channels == "z":
        return np.ascontiguousarray(raw[..., 2])
    if raw.dtype != np.uint8:
        fix = "Leave depth_channels out, or take z or r"
        raise DataError(path, f"is {raw.dtype}, and depth_channels {channels} needs 8 bits each", fix)
    low, middle, high = (raw[..., i].astype(np.uint32) for i in ((0, 1, 2) if channels == "rgb24" else (2, 1, 0)))
    return low + 256 * middle + 65536 * high


def _is_gray(raw: NDArray[np.generic]) -> bool:
    """Whether the color channels are equal; of two, the second is alpha."""
    colors = raw[..., :3] if raw.shape[2] > 2 else raw[..., :1]
    first = colors[..., :1]
    return bool(np.all((colors == first) | ((colors != colors) & (first != first))))


def _take_gray(raw: NDArray[np.generic], path: str | os.PathLike[str]) -> NDArray[np.generic]:
    if not _is_gray(raw):
        raise DataError(path, "has channels that differ, and depth_channels is gray", "Set another depth_channels")
    return np.ascontiguousarray(raw[..., 0])


def _recognize_channel(raw: NDArray[np.generic], path: str | os.PathLike[str]) -> NDArray[np.generic]:
    """
    The one gray value that all channels hold.

    Raises:
        DataError: they do not; says what they may hold, instead of guessing.
    """
    count = raw.shape[2]
    alpha = raw[..., -1] if count in (2, 4) else None
    if _is_gray(raw):
        if alpha is None or (alpha == alpha.flat[0]).all():
            return np.ascontiguousarray(raw[..., 0])
        fix = "Set depth_channels: gray to ignore alpha, or write 0 where alpha says that nothing was measured"
        raise DataError(path, "is gray with an alpha channel that differs from pixel to pixel", fix)
    if raw.dtype.kind == "f":
        fix = f"Set depth_channels: z if they are points x, y, z, or r if the first is depth. Or: {_EXPORT}"
        raise DataError(path, f"has {count} channels of floats, as a map of points x, y, z has", fix)
    if raw.dtype != np.uint8:
        fix = f"Set depth_channels: r if the first is depth. Or: {_EXPORT}"
        raise DataError(path, f"has {count} channels of {raw.dtype}", fix)
    colors = raw[..., :3].astype(np.uint32) @ np.array([1, 256, 65536], np.uint32) if count > 2 else raw[..., 0]
    if len(np.unique(colors)) <= _COLORS_OF_A_MAP:
        raise DataError(path, f"has {count} channels: it looks color-mapped", _EXPORT)
    found = (
        f"has {count} channels of 8 bits and more colors than a color map: depth in 24 bits, as simulators write it, "
    )
    carla = f"depth_channels: rgb24 and meters_per_unit: {1000 / (256**3 - 1):.7g}"
    fix = f"For CARLA set {carla}; if blue is the lowest byte, bgr24. For a picture: {_EXPORT[0].lower()}{_EXPORT[1:]}"
    raise DataError(path, f"{found}or a picture", fix)

"""What kind of numbers an image file holds, by looking at one of many that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from finetune.utils.errors import DataError

# depth: one number a pixel, of 16 bits or more; color: several of 8 or 16 bits; gray: one of 8 bits; channels: several
# floats, such as points; both: an archive with image and depth; unknown: nothing that can be read.
Content = Literal["depth", "color", "gray", "channels", "both", "unknown"]
_IMAGES_ONLY = (".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
_FLOATS_ONLY = (".pfm", ".exr")
_TRIED = 3
_MAX_CHANNELS = 4


def find_content(paths: Sequence[Path]) -> Content:
    """What the first of these files holds that can be read; files of one series are alike."""
    for path in paths[:_TRIED]:
        suffix = path.suffix.lower()
        if suffix in _IMAGES_ONLY:
            return "color"
        if suffix in _FLOATS_ONLY:
            return "depth"
        content = _find_arrays(path) if suffix in (".npy", ".npz", ".h5", ".hdf5") else _find_pixels(path)
        if content != "unknown":
            return content
    return "unknown"


def _find_pixels(path: Path) -> Content:
    import cv2

    from finetune.utils.paths import read_bytes

    try:
        data = read_bytes(path)
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except (OSError, cv2.error):
        return "unknown"
    return "unknown" if pixels is None else _judge(pixels.shape, pixels.dtype)


def _judge(shape: tuple[int, ...], dtype: np.dtype) -> Content:
    """What an array is by its shape; lists of points, poses and matrices are no maps."""
    if len(shape) not in (2, 3) or dtype.kind not in "uif":
        return "unknown"
    *sides, channels = sorted(shape, reverse=True) if len(shape) == 3 else (*shape, 1)
    if min(sides) <= _MAX_CHANNELS or channels > _MAX_CHANNELS:
        return "unknown"
    if channels > 1:
        return "channels" if dtype.kind == "f" else "color"
    return "gray" if dtype.itemsize == 1 else "depth"


def _find_arrays(path: Path) -> Content:
    from finetune.data.readers.arrays import list_arrays

    try:
        found = list_arrays(path)
    except DataError:
        return "unknown"
    kinds = {name: _judge(shape, dtype) for name, (shape, dtype) in found.items()}
    if len(kinds) > 1 and any(name in kinds for name in ("rgb", "image")):
        return "both"
    return next((kind for kind in kinds.values() if kind == "depth"), next(iter(kinds.values()), "unknown"))

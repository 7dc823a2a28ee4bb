"""Small files of a frame, as cameras and programs write them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (6, 8)


def write_image(path: Path, channels: int = 3) -> None:
    """Color or gray, of 8 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(SIZE[0] * SIZE[1] * channels, dtype=np.uint8).reshape(*SIZE, channels)
    assert cv2.imwrite(str(path), values)


def write_depth(path: Path, raw: int = 1500) -> None:
    """A wall, with a ramp in its first row, as the ending of the file has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(SIZE, raw, np.uint16)
    values[0] += np.arange(SIZE[1], dtype=np.uint16)
    if path.suffix == ".npy":
        np.save(path, (values / 1000).astype(np.float32))
    else:
        assert cv2.imwrite(str(path), values)


def write_frames(root: Path, image: str, depth: str, numbers: range = range(3)) -> None:
    """Files of several frames; the two patterns take their number."""
    for number in numbers:
        write_image(root / image.format(number))
        write_depth(root / depth.format(number))

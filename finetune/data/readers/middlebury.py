"""Middlebury's ``calib.txt``: the intrinsics of two cameras, and the offset of their disparity."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

from finetune.utils.errors import ListError
from finetune.utils.paths import read_bytes

CALIBRATION = "calib.txt"


def is_calibration(text: str) -> bool:
    """Whether text is that of Middlebury's ``calib.txt``."""
    return "cam0" in calibration_values(text)


def calibration_values(text: str) -> dict[str, str]:
    """Key -> value of each line ``key=value``."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def require_disparity_offset(*paths: str | os.PathLike[str]) -> None:
    """
    Args:
        paths: files of a frame of disparity whose entry sets no offset.

    Raises:
        ListError: one of them, or a ``calib.txt`` next to one of them, names an offset. Without it depth is too large
            by a factor that grows with distance, 1.8 in the median of Middlebury's Motorcycle.
    """
    for calibration in dict.fromkeys(_calibration_of(path) for path in paths):
        offset_px = _read_offset_px(calibration)
        if offset_px:
            raise ListError(
                calibration,
                f"has doffs {offset_px:g}, pixels to add to each disparity",
                f"Set disparity_offset_px: {offset_px:g} in pairs, one entry per scene, or 0 if it was added already",
            )


def _calibration_of(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).suffix.lower() == ".txt" else Path(path).parent / CALIBRATION


@lru_cache(maxsize=10_000)  # all frames of a folder share it
def _read_offset_px(calibration: Path) -> float:
    """The ``doffs`` of a calibration; 0 if it names none, or is not Middlebury's."""
    try:
        text = read_bytes(calibration).decode("utf-8", errors="replace")
    except OSError:
        return 0.0
    if not is_calibration(text):
        return 0.0
    try:
        offset_px = float(calibration_values(text).get("doffs", 0.0))
    except ValueError:
        return 0.0
    return offset_px if math.isfinite(offset_px) else 0.0

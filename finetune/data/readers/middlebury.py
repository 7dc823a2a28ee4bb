"""What Middlebury's ``calib.txt`` says of a pair of cameras besides their intrinsics."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from pathlib import Path

from finetune.utils.errors import ListError
from finetune.utils.paths import read_bytes

CALIBRATION = "calib.txt"


def require_offset_told(*paths: str | os.PathLike[str]) -> None:
    """
    Args:
        paths: files of a frame of disparity, for which no offset is given.

    Raises:
        ListError: a ``calib.txt`` beside one of them, or one of them itself, names an offset. Without it depth is too
            large by a factor that grows with distance, 1.8 in the median of Middlebury's Motorcycle.
    """
    for place in dict.fromkeys(_calibration_of(path) for path in paths):
        offset_px = _offset_px(place)
        if offset_px:
            raise ListError(
                place,
                f"has doffs {offset_px:g}, the pixels that are to be added to each disparity",
                f"Set disparity_offset_px: {offset_px:g} in pairs, a scene an entry, or 0 if it was added already",
            )


def _calibration_of(path: str | os.PathLike[str]) -> Path:
    return Path(path) if Path(path).suffix.lower() == ".txt" else Path(path).parent / CALIBRATION


@lru_cache(maxsize=10_000)  # it is the same of all frames of a folder
def _offset_px(calibration: Path) -> float:
    """The ``doffs`` of a calibration; 0 where it names none, or is none of Middlebury's."""
    try:
        text = read_bytes(calibration).decode("utf-8", errors="replace")
    except OSError:
        return 0.0
    if "cam0=" not in text:
        return 0.0
    values = {key.strip(): value for key, _, value in (line.partition("=") for line in text.splitlines())}
    try:
        offset_px = float(values.get("doffs", 0.0))
    except ValueError:
        return 0.0
    return offset_px if math.isfinite(offset_px) else 0.0

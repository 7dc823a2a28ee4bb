"""The camera of a photograph as its EXIF data has it, which is a guess."""

from __future__ import annotations

import math
import os

from finetune.data.camera import Camera

_EXIF_FIELDS, _FOCAL_IN_35MM = 0x8769, 0xA405
# The diagonal of 36 x 24 mm film.
DIAGONAL_35MM = math.hypot(36.0, 24.0)


def guess_camera(path: str | os.PathLike[str], height: int, width: int) -> Camera | None:
    """
    The camera by the focal length "as for 35 mm film": f_px = f_35mm * diagonal_px / 43.27.

    It is a guess: phones round it to whole millimeters, and keep it when they crop, zoom or stabilize a picture.
    Source: CIPA DC-008 (EXIF 2.3), FocalLengthIn35mmFilm, which refers to the diagonal.

    Args:
        path: an image file.
        height, width: of the image, pixels; a turned image has the same diagonal.

    Returns:
        None where the file does not say it.
    """
    focal_mm = _read_focal_mm(path)
    if focal_mm is None:
        return None
    focal_px = focal_mm * math.hypot(height, width) / DIAGONAL_35MM
    return Camera(fx_px=focal_px, fy_px=focal_px, cx_px=(width - 1) / 2, cy_px=(height - 1) / 2)


def has_focal_length(path: str | os.PathLike[str]) -> bool:
    """Whether ``guess_camera`` finds one."""
    return _read_focal_mm(path) is not None


def _read_focal_mm(path: str | os.PathLike[str]) -> float | None:
    try:
        from PIL import Image
    except ImportError:  # where exported files run there may be none; nobody knows the camera then
        return None
    try:
        with Image.open(path) as image:
            value = float(image.getexif().get_ifd(_EXIF_FIELDS).get(_FOCAL_IN_35MM, 0))
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError):
        return None  # whoever reads the pixels says what is wrong with the file
    return value if 0 < value < math.inf else None

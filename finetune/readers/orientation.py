"""How an image must be turned to be upright, as its EXIF tag says, and a frame that is turned with its image.

Photographs are stored as the sensor lay, with a tag that says how they are to be seen. Every command of this program
turns them upright: a network sees in training what it will see in use. A depth map has no such tag. It is turned with
its image if it has the size of the image as stored, and left alone if it has that of the upright one.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.camera import Camera
from finetune.readers.tiff import TIFF_SIGNATURES, tag_values
from finetune.sample import DepthSample

UPRIGHT = 1
# Those that swap height and width.
TRANSPOSING = (5, 6, 7, 8)
_ORIENTATION_TAG = 0x0112
_EXIF = b"Exif\0\0"


def orientation_of(data: bytes) -> int:
    """
    Args:
        data: an image file, or its beginning with all that comes before the pixels.

    Returns:
        The EXIF orientation, from 1, upright, to 8; 1 where the file says none. Source: CIPA DC-008 (EXIF 2.3), 4.6.4.
    """
    try:
        block = _exif_block(data)
        values = tag_values(block, _ORIENTATION_TAG) if block else ()
    except (struct.error, ValueError, IndexError):
        return UPRIGHT  # damage is for the decoder to find
    return int(values[0]) if values and values[0] in range(1, 9) else UPRIGHT


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """(H, W, ...) as stored -> upright; (W, H, ...) for ``TRANSPOSING`` orientations."""
    if orientation in TRANSPOSING:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turned_camera(camera: Camera, orientation: int, height: int, width: int) -> Camera:
    """
    Args:
        camera: of the image as stored.
        orientation: as ``orientation_of`` gives it.
        height, width: of the image as stored, pixels.

    Returns:
        The camera of the upright image.
    """
    if orientation in TRANSPOSING:
        camera = Camera(fx_px=camera.fy_px, fy_px=camera.fx_px, cx_px=camera.cy_px, cy_px=camera.cx_px)
        height, width = width, height
    if orientation in (3, 4, 7, 8):
        camera = replace(camera, cy_px=height - 1 - camera.cy_px)
    if orientation in (2, 3, 6, 7):
        camera = replace(camera, cx_px=width - 1 - camera.cx_px)
    return camera


def turned_sample(sample: DepthSample, orientation: int) -> DepthSample:
    """A frame whose image, depth and camera are as stored, upright."""
    if orientation == UPRIGHT:
        return sample
    height, width = sample.valid.shape
    return replace(
        sample,
        image=turned(sample.image, orientation),
        depth_m=turned(sample.depth_m, orientation),
        valid=turned(sample.valid, orientation),
        camera=sample.camera and turned_camera(sample.camera, orientation, height, width),
    )


def _exif_block(data: bytes) -> bytes:
    """The EXIF data of a JPEG, PNG or WebP file, which is a TIFF file of tags; a TIFF file itself; else nothing."""
    if data.startswith(TIFF_SIGNATURES):
        return data
    if data.startswith(b"\xff\xd8"):
        return _in_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _in_chunks(data, 8, ">", b"eXIf")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _in_chunks(data, 12, "<", b"EXIF")
    return b""


def _in_jpeg(data: bytes) -> bytes:
    place = 2
    while data[place] == 0xFF and data[place + 1] != 0xDA:  # up to the pixels
        (size,) = struct.unpack_from(">H", data, place + 2)
        if data[place + 1] == 0xE1 and data.startswith(_EXIF, place + 4):
            return data[place + 4 + len(_EXIF) : place + 2 + size]
        place += 2 + size
    return b""


def _in_chunks(data: bytes, place: int, order: str, wanted: bytes) -> bytes:
    """Of PNG the size comes before the name of a chunk and a checksum behind it; of WebP the name, the size, padding."""
    png = order == ">"
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(f"{order}I", data, place if png else place + 4)
        name = data[place + 4 : place + 8] if png else data[place : place + 4]
        if name == wanted:
            return data[place + 8 : place + 8 + size].removeprefix(_EXIF)
        place += 8 + size + (4 if png else size % 2)
    return b""

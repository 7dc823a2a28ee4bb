"""How an image must be turned to be upright, as its EXIF tag says, and a frame that is turned with its image.

Photographs are stored as the sensor lay, with a tag that says how they are to be seen. Every command of this program
turns them upright: a network sees in training what it will see in use. A depth map has no such tag. It is turned with
its image if it has the size of the image as stored, and left alone if it has that of the upright one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.tiff import TIFF_SIGNATURES, tag_values
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError

UPRIGHT = 1
# Those that swap height and width.
TRANSPOSING = (5, 6, 7, 8)
# What the tag of an image turns: image and depth map, or the image alone since depth is upright already.
ExifTurns = Literal["both", "image"]
_BACK = {6: 8, 8: 6}  # the others are their own inverse
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


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What is still to be done to a frame until it is upright.

    Attributes:
        orientation: of the image's tag.
        done: whether the image has been turned already, to lie as its depth map.
    """

    orientation: int
    done: bool

    def apply(self, sample: DepthSample) -> DepthSample:
        """The frame, upright."""
        return sample if self.done else turned_sample(sample, self.orientation)

    def like_depth(self, pixels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """A mask of the frame, brought to lie as its depth map of ``shape`` where its size says that it does not."""
        return turned(pixels, self._to_depth) if self._lies_across(pixels.shape, shape) else pixels

    def intrinsics(self, intrinsics: Intrinsics | None, shape: tuple[int, ...]) -> Intrinsics | None:
        """Those of the image as it lies now, of ``shape``, where their size says that they are of the other way."""
        if intrinsics is None or intrinsics.height is None or intrinsics.width is None:
            return intrinsics
        if not self._lies_across(given := (intrinsics.height, intrinsics.width), shape):
            return intrinsics
        if intrinsics.lens is not None:
            return intrinsics  # refused for its size: a lens that is turned is another one
        camera = turned_camera(intrinsics.camera, self._to_depth, *given)
        return replace(intrinsics, camera=camera, height=shape[0], width=shape[1])

    @property
    def _to_depth(self) -> int:
        return self.orientation if self.done else _BACK.get(self.orientation, self.orientation)

    def _lies_across(self, given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        return self.orientation in TRANSPOSING and given == shape[::-1] != shape


def turn_like_depth(
    image: NDArray[np.uint8], orientation: int, depth_shape: tuple[int, ...], turns: ExifTurns | None, path: str
) -> tuple[NDArray[np.uint8], Turn]:
    """
    Args:
        image: (H, W, 3), as stored.
        orientation: of its tag.
        depth_shape: of its depth map, as stored.
        turns: what the tag turns; None: told from the sizes.
        path: of the image, for the error.

    Returns:
        The image as its depth map lies, and what is still to be done.

    Raises:
        DataError: the sizes do not tell whether depth lies as the stored image or as the upright one.
    """
    if orientation == UPRIGHT:
        return image, Turn(orientation=UPRIGHT, done=True)
    if turns is None:
        height, width = image.shape[:2]
        if orientation not in TRANSPOSING or height == width:
            raise DataError(
                path,
                f"has the EXIF orientation {orientation}, and sizes do not tell whether its depth map is turned, too",
                "Set exif_turns: both in pairs if depth is stored as the image is, or image if depth is upright; or "
                "write the images without the tag",
            )
        # Sizes may differ where the larger image is to be reduced; shapes do not.
        stands = (depth_shape[0] > depth_shape[1]) if len(depth_shape) == 2 else height > width
        turns = "both" if stands == (height > width) else "image"
    if turns == "both":
        return image, Turn(orientation=orientation, done=False)
    return turned(image, orientation), Turn(orientation=orientation, done=True)


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
    """Content of a chunk. In PNG its size comes before its name, and a checksum last; in WebP its name comes first."""
    png = order == ">"
    while place + 8 <= len(data):
        (size,) = struct.unpack_from(f"{order}I", data, place if png else place + 4)
        name = data[place + 4 : place + 8] if png else data[place : place + 4]
        if name == wanted:
            return data[place + 8 : place + 8 + size].removeprefix(_EXIF)
        place += 8 + size + (4 if png else size % 2)
    return b""

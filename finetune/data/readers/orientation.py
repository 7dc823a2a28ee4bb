"""Turn an image upright, as its EXIF tag says, and the rest of a frame with it.

A camera stores a photograph as its sensor saw it, with a tag that says how to turn it. Every command of this program
turns images upright, so a network sees in training what it will see in use. A depth map has no such tag. It is turned
with its image if it has the size of the stored image, and left alone if it has the size of the upright one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.tiff import TIFF_SIGNATURES, tag_values
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError

_T = TypeVar("_T", bound=np.generic)
UPRIGHT = 1
# Orientations that swap height and width.
TRANSPOSING = (5, 6, 7, 8)
# What the tag of an image turns: image and depth map, or the image alone if depth is upright already.
ExifTurns = Literal["both", "image"]
_INVERSE = {6: 8, 8: 6}  # each other orientation is its own inverse
_ORIENTATION_TAG = 0x0112
_EXIF = b"Exif\0\0"


def orientation_of(data: bytes) -> int:
    """
    Args:
        data: an image file, or its first bytes, up to the pixels or more.

    Returns:
        The EXIF orientation, from 1, upright, to 8; 1 if the file has none. Source: CIPA DC-008 (EXIF 2.3), 4.6.4.
    """
    try:
        block = _exif_block(data)
        values = tag_values(block, _ORIENTATION_TAG) if block else ()
    except (struct.error, ValueError, IndexError):
        return UPRIGHT  # the decoder reports damage
    return int(values[0]) if values and values[0] in range(1, 9) else UPRIGHT


def turn_upright(pixels: NDArray[_T], orientation: int) -> NDArray[_T]:
    """(H, W, ...) as stored -> upright; (W, H, ...) for ``TRANSPOSING`` orientations."""
    if orientation in TRANSPOSING:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_camera_upright(camera: Camera, orientation: int, height: int, width: int) -> Camera:
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


def turn_sample_upright(sample: DepthSample, orientation: int) -> DepthSample:
    """The upright frame of one whose image, depth and camera are as stored."""
    if orientation == UPRIGHT:
        return sample
    height, width = sample.valid.shape
    return replace(
        sample,
        image=turn_upright(sample.image, orientation),
        depth_m=turn_upright(sample.depth_m, orientation),
        valid=turn_upright(sample.valid, orientation),
        weight=None if sample.weight is None else turn_upright(sample.weight, orientation),
        camera=sample.camera and turn_camera_upright(sample.camera, orientation, height, width),
    )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The turn that makes a frame upright.

    Attributes:
        orientation: of the image's tag.
        done: whether the image has been turned already, to match its depth map.
    """

    orientation: int
    done: bool

    def apply(self, sample: DepthSample) -> DepthSample:
        """The frame, upright."""
        return sample if self.done else turn_sample_upright(sample, self.orientation)

    def like_depth(self, pixels: NDArray[_T], shape: tuple[int, ...]) -> NDArray[_T]:
        """A mask of the frame, turned to match its depth map of ``shape`` if its size says that it does not."""
        return turn_upright(pixels, self._to_depth) if self._is_transposed(pixels.shape, shape) else pixels

    def intrinsics(self, intrinsics: Intrinsics | None, shape: tuple[int, ...]) -> Intrinsics | None:
        """Intrinsics of the image as it is now, of ``shape``; turned if they have the size of the unturned one."""
        if intrinsics is None or intrinsics.height is None or intrinsics.width is None:
            return intrinsics
        if not self._is_transposed(given := (intrinsics.height, intrinsics.width), shape):
            return intrinsics
        if intrinsics.lens is not None:
            return intrinsics  # refused later for its size: the coefficients of a lens do not turn with its image
        camera = turn_camera_upright(intrinsics.camera, self._to_depth, *given)
        return replace(intrinsics, camera=camera, height=shape[0], width=shape[1])

    @property
    def _to_depth(self) -> int:
        return self.orientation if self.done else _INVERSE.get(self.orientation, self.orientation)

    def _is_transposed(self, given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
        return self.orientation in TRANSPOSING and given == shape[::-1] != shape


def turn_like_depth(
    image: NDArray[np.uint8], orientation: int, depth_shape: tuple[int, ...], turns: ExifTurns | None, path: str
) -> tuple[NDArray[np.uint8], Turn]:
    """
    Args:
        image: (H, W, 3), as stored.
        orientation: of its tag.
        depth_shape: of its depth map, as stored.
        turns: what the tag turns; None: decided by the sizes.
        path: of the image, for the error.

    Returns:
        The image, turned to match its depth map, and the turn that makes both upright.

    Raises:
        DataError: the sizes do not tell whether depth matches the stored image or the upright one.
    """
    if orientation == UPRIGHT:
        return image, Turn(orientation=UPRIGHT, done=True)
    if turns is None:
        height, width = image.shape[:2]
        if orientation not in TRANSPOSING or height == width:
            raise DataError(
                path,
                f"has the EXIF orientation {orientation}, and the sizes do not tell whether its depth map is turned",
                "Set exif_turns: both in pairs if depth is stored as the image is, or image if depth is upright; or "
                "write the images without the tag",
            )
        # Sizes may differ if the image is to be reduced; shapes do not.
        is_tall = (depth_shape[0] > depth_shape[1]) if len(depth_shape) == 2 else height > width
        turns = "both" if is_tall == (height > width) else "image"
    if turns == "both":
        return image, Turn(orientation=orientation, done=False)
    return turn_upright(image, orientation), Turn(orientation=orientation, done=True)


def _exif_block(data: bytes) -> bytes:
    """The EXIF data of a JPEG, PNG or WebP file, which has the form of a TIFF file; a TIFF file itself; else b""."""
    if data.startswith(TIFF_SIGNATURES):
        return data
    if data.startswith(b"\xff\xd8"):
        return _exif_in_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _exif_in_chunks(data, 8, ">", b"eXIf")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _exif_in_chunks(data, 12, "<", b"EXIF")
    return b""


def _exif_in_jpeg(data: bytes) -> bytes:
    start = 2
    while data[start] == 0xFF and data[start + 1] != 0xDA:  # up to the pixels
        (size,) = struct.unpack_from(">H", data, start + 2)
        if data[start + 1] == 0xE1 and data.startswith(_EXIF, start + 4):
            return data[start + 4 + len(_EXIF) : start + 2 + size]
        start += 2 + size
    return b""


def _exif_in_chunks(data: bytes, start: int, order: str, wanted: bytes) -> bytes:
    """The content of a chunk. In PNG its size comes first and a checksum last; in WebP its name comes first."""
    png = order == ">"
    while start + 8 <= len(data):
        (size,) = struct.unpack_from(f"{order}I", data, start if png else start + 4)
        name = data[start + 4 : start + 8] if png else data[start : start + 4]
        if name == wanted:
            return data[start + 8 : start + 8 + size].removeprefix(_EXIF)
        start += 8 + size + (4 if png else size % 2)
    return b""

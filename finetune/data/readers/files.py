"""Decode the image and depth files of a frame, and turn stored depth into meters; nothing here fills holes."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.coded_depth import NUMBERS, CodedDepth, DepthTable
from finetune.data.readers.arrays import ARRAY_SUFFIXES, is_array_file, load_array, reading_error, unnamed_error
from finetune.data.readers.bits import Bits, decode_bits, has_16_bits
from finetune.data.readers.channels import DepthChannels, one_channel
from finetune.data.readers.exr import read_exr
from finetune.data.readers.formats import EXR_SIGNATURE, JPEG_SIGNATURE, explain_fault
from finetune.data.readers.image_levels import ImageLevels
from finetune.data.readers.intrinsics import Intrinsics
from finetune.data.readers.jpeg import decode_with_warnings, jpeg_is_cut, jpeg_size
from finetune.data.readers.orientation import (
    TRANSPOSING,
    UPRIGHT,
    ExifTurns,
    Turn,
    orientation_of,
    turn_like_depth,
    turn_upright,
)
from finetune.data.readers.pfm import PFM_SIGNATURES, decode_pfm
from finetune.data.readers.tiff import explain_undecoded, tiff_as_stored, tiff_is_short
from finetune.data.sample import CodedSample, DepthSample, enlarge_image
from finetune.utils.errors import DataError, RecipeError
from finetune.utils.paths import read_bytes

if TYPE_CHECKING:
    from finetune.data.preprocessing import Preprocessing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", *ARRAY_SUFFIXES)
DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".pgm", ".pfm", ".exr", *ARRAY_SUFFIXES)

# Two sizes have one shape if the ratios of their sides differ by at most this share; each side is rounded.
_ONE_SHAPE = 0.01


@dataclass(frozen=True, kw_only=True)
class DepthCoding:
    """What the numbers in a depth file mean.

    Attributes:
        meters_per_unit: raw value times this is meters along the optical axis.
        invalid: raw values that mean "nothing measured", compared before scaling.
        min_depth_m: depths up to and including this are not valid; at 0.0 only zero and negative ones are not.
        max_depth_m: depths beyond this are not valid; None for no limit.
        bits: how to read 16 bits that are not a plain whole number; ``invalid`` is compared with what they mean.
        offset: added to raw values after scaling; for disparity, in pixels.
        channels: which channel of several is depth; None where there is one.
        key: name of the array or channel that holds depth, where a file has several by name; None: the usual names.
        allow_8_bit: also read depth in 256 steps, whose unit is known.
        affine_inverse: the numbers are inverse depth of unknown scale and shift, where 0 and less are valid too.
    """

    meters_per_unit: float
    invalid: tuple[float, ...] = (0.0,)
    min_depth_m: float = 0.0
    max_depth_m: float | None = None
    bits: Bits | None = None
    offset: float = 0.0
    channels: DepthChannels | None = None
    key: str | None = None
    allow_8_bit: bool = False
    affine_inverse: bool = False

    def to_meters(self, raw: NDArray[np.number]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """
        Args:
            raw: (H, W), as the file stores it.

        Returns:
            (H, W) float32 meters, 0 where the raw value is NaN or infinite, and (H, W) bool, True where measured.
        """
        coded = self.coded(raw)
        return self._convert(raw) if coded is None else (coded.depth_m(), coded.valid())

    def coded(self, raw: NDArray[np.number]) -> CodedDepth | None:
        """``raw`` with what each of its numbers means, where it has 16 bits and no map has a unit of its own."""
        if raw.dtype != np.uint16 or self.affine_inverse:
            return None
        # Each of the 65,536 numbers is converted once, and looked up from then on.
        return CodedDepth(numbers=cast(NDArray[np.uint16], raw), table=_table_of(self))

    def _convert(self, raw: NDArray[np.number]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """``to_meters``, number by number."""
        confident: NDArray[np.bool_] | None = None
        if self.bits:
            raw, confident = decode_bits(raw, self.bits)
        # Scaling in float64 turns 7900 mm into exactly the float32 nearest to 7.9, so a limit of 7.9 m includes it.
        with np.errstate(over="ignore", invalid="ignore"):  # a half float that is NaN
            scaled = np.multiply(raw, self.meters_per_unit, dtype=np.float64) + self.offset
            depth_m = scaled.astype(np.float32)
        finite = np.isfinite(depth_m)
        valid = finite & ((depth_m > self.min_depth_m) | self.affine_inverse)
        if self.max_depth_m is not None:
            valid &= depth_m <= self.max_depth_m
        if confident is not None:
            valid &= confident
        for value in self.invalid:
            valid &= raw != value
        if self.affine_inverse:
            depth_m = scale_from_1_to_10(scaled, valid)
        depth_m[~finite] = 0.0
        return depth_m, valid


@lru_cache(maxsize=16)
def _table_of(coding: DepthCoding) -> DepthTable:
    meters, measured = coding._convert(np.arange(NUMBERS, dtype=np.uint16).reshape(1, -1))
    return DepthTable(meters=meters[0], measured=measured[0])


def scale_from_1_to_10(inverse: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(H, W) inverse depth of unknown scale and shift -> (H, W) depth, from 1 for the nearest pixel of the map to 10
    for the farthest, and 0 where nothing is valid. Its inverse is the given one, with another scale and shift."""
    if not valid.any():
        return np.zeros(inverse.shape, np.float32)
    least, most = float(inverse[valid].min()), float(inverse[valid].max())
    share = (np.where(valid, inverse, least) - least) / ((most - least) or 1.0)
    return np.where(valid, 1.0 / (0.1 + 0.9 * np.clip(share, 0.0, 1.0)), 0.0).astype(np.float32)


def require_depth_range(min_depth_m: float, max_depth_m: float | None) -> None:
    """
    Raises:
        RecipeError: not 0 <= min_depth_m < max_depth_m.
    """
    if not 0.0 <= min_depth_m < math.inf:
        raise RecipeError("min_depth_m", min_depth_m, "a number of meters from 0 up")
    if max_depth_m is not None and not min_depth_m < max_depth_m < math.inf:
        raise RecipeError("max_depth_m", max_depth_m, f"meters above min_depth_m, {min_depth_m}, or null for no limit")


def read_frame(
    image_path: str,
    depth_path: str,
    coding: DepthCoding,
    intrinsics: Intrinsics | None,
    *,
    levels: ImageLevels | None = None,
    network: Preprocessing | None = None,
) -> DepthSample:
    """The frame in two files, upright. Arguments and errors are those of ``read_stored_frame``."""
    sample, turn = read_stored_frame(image_path, depth_path, coding, intrinsics, levels=levels, network=network)
    return turn.apply(sample)


def read_stored_frame(
    image_path: str,
    depth_path: str,
    coding: DepthCoding,
    intrinsics: Intrinsics | None,
    *,
    reduce_image: bool = False,
    along_rays: bool = False,
    levels: ImageLevels | None = None,
    exif_turns: ExifTurns | None = None,
    network: Preprocessing | None = None,
) -> tuple[DepthSample, Turn]:
    """
    Args:
        image_path, depth_path: the two files of a frame.
        coding: what the numbers in the depth file mean.
        intrinsics: of the images, when known.
        reduce_image: bring a larger image to the size of its depth map, by area; both show the same view.
        along_rays: the file holds distances from the camera's center, which become depth along the axis; needs
            intrinsics. Limits of ``coding`` apply to the distances.
        levels: see ``read_image``.
        exif_turns: what the EXIF tag of an image turns, where sizes do not tell.
        network: see ``read_image_file``. An image that is brought to the size of its depth map is decoded in full.

    Returns:
        The sample as its depth map is stored, and the turn that makes it upright. It has no camera if the lens bends
        rays so far that no pinhole describes it.

    Raises:
        DataError: a file cannot be decoded, depth has 8 bits, or image, depth and intrinsics differ in size.
    """
    image = read_image_file(image_path, levels=levels, network=None if reduce_image else network)
    return combine_frame(
        (image.pixels, image.orientation),
        read_depth(depth_path, coding.channels, coding.key),
        image_path,
        depth_path,
        coding,
        intrinsics,
        reduce_image=reduce_image,
        along_rays=along_rays,
        exif_turns=exif_turns,
        image_scale=image.scale,
        image_size=image.size,
    )


def combine_frame(
    stored_image: tuple[NDArray[np.uint8], int],
    raw: NDArray[np.number],
    image_path: str,
    depth_path: str,
    coding: DepthCoding,
    intrinsics: Intrinsics | None,
    *,
    reduce_image: bool = False,
    along_rays: bool = False,
    exif_turns: ExifTurns | None = None,
    image_scale: int = 1,
    image_size: tuple[int, int] | None = None,
) -> tuple[DepthSample, Turn]:
    """
    ``read_stored_frame`` for a frame that is decoded already.

    Args:
        stored_image: as ``read_stored_image`` gives it.
        raw: (h, w), as ``read_depth`` gives it.
        image_path, depth_path: where the two come from; errors name them.
        coding, intrinsics, reduce_image, along_rays, exif_turns: see ``read_stored_frame``.
        image_scale, image_size: see ``ImageFile``; None: the size of the pixels.

    Raises:
        DataError: depth has 8 bits, or image, depth and intrinsics differ in size.
    """
    image, orientation = stored_image
    size = image_size or (image.shape[0], image.shape[1])
    if intrinsics and intrinsics.height is None:
        intrinsics = replace(intrinsics, height=size[0], width=size[1])
    _require_bits(raw, coding, depth_path)
    image, turn = turn_like_depth(image, orientation, raw.shape, exif_turns, image_path)
    if turn.done and orientation in TRANSPOSING:
        size = size[::-1]
    intrinsics = turn.intrinsics(intrinsics, size)
    camera = intrinsics.camera_of(size, image_path) if intrinsics else None
    if reduce_image and raw.ndim == 2:
        image, camera = _reduce_image(image, camera, raw.shape)
        size = (image.shape[0], image.shape[1])
    if raw.shape != size:
        raise DataError(
            depth_path,
            f"depth is {raw.shape[0]}x{raw.shape[1]} (height x width), its image {image_path} is {size[0]}x{size[1]}",
            _fix_of_sizes(size, raw.shape, reduce_image),
        )
    lens = intrinsics.lens if intrinsics else None
    fields: dict[str, Any] = {"image": image, "source": depth_path, "image_scale": image_scale}
    fields["camera"] = None if lens else camera
    # Sizes were compared, and what is valid is above 0 by its conversion: neither sample needs to be checked.
    coded = None if along_rays else coding.coded(raw)
    if coded is not None:
        return CodedSample.of_valid(**fields, coded=coded), turn
    depth_m, valid = coding.to_meters(raw)
    if along_rays:
        assert camera is not None, "the reader refuses range without intrinsics"
        depth_m = lens.depth_from_ray(depth_m, camera) if lens else camera.depth_from_ray(depth_m)
        valid &= depth_m > 0  # a fisheye also sees what is next to the camera and behind it
    return DepthSample.of_valid(**fields, depth_m=depth_m, valid=valid), turn


def _require_bits(raw: NDArray[np.number], coding: DepthCoding, path: str) -> None:
    """
    Raises:
        DataError: the file has fewer bits than a measurement needs, or other bits than ``coding`` expects.
    """
    if raw.dtype.itemsize == 1 and not coding.allow_8_bit:
        raise DataError(
            path,
            "depth is stored in 8 bits, which is a picture of depth and not a measurement",
            "Export it as 16-bit PNG in millimeters, or as .npy in meters; if 8 bits are all there is, and their unit "
            "is known, set allow_8_bit: true in pairs, and meters_per_unit: 0.0392157 where 255 is 10 m",
        )
    if coding.bits and not has_16_bits(raw):
        raise DataError(path, f"holds {raw.dtype}, and bits: {coding.bits} is for unsigned 16 bits", "Leave out bits")


def _fix_of_sizes(image: tuple[int, ...], depth: tuple[int, ...], reduce_image: bool) -> str:
    """What to do about an image and a depth map of two sizes; ``reduce_image`` helps with a larger image only."""
    only = "Sizes may differ only where the image is the larger one of the same shape. " if reduce_image else ""
    if image == depth[::-1]:
        return f"{only}One of the two is turned by 90 degrees: turn it back, and export both at one size"
    down, across = depth[0] / image[0], depth[1] / image[1]
    if abs(down / across - 1) > _ONE_SHAPE:
        return f"{only}Their shapes differ, so one shows more than the other: export both with the same view and size"
    if max(down, across) < 1:
        return "Export both at one size; if the image is a larger one of the same view, set reduce_image: true in pairs"
    return (
        f"{only}The image is the smaller one: export both at one size, or write depth at the size of the image, by "
        "picking values and never averaging them"
    )


def _reduce_image(
    image: NDArray[np.uint8], camera: Camera | None, shape: tuple[int, ...]
) -> tuple[NDArray[np.uint8], Camera | None]:
    """The image and its camera at a smaller size of the same shape; both unchanged if ``shape`` is not one."""
    import cv2

    down, across = shape[0] / image.shape[0], shape[1] / image.shape[1]
    if max(down, across) >= 1 or abs(down / across - 1) > _ONE_SHAPE:
        return image, camera
    smaller = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(smaller, dtype=np.uint8), camera and camera.resized(down, across)


def read_image(
    path: str | os.PathLike[str], *, upright: bool = False, levels: ImageLevels | None = None
) -> NDArray[np.uint8]:
    """
    Args:
        path: PNG, JPEG or another format that OpenCV decodes, 8 or 16 bit, gray or color, with or without alpha, which
            is dropped; ``.npy``; ``.npz`` or HDF5 with one array, or the array ``rgb`` or ``image``.
        upright: turn the image as its EXIF tag says, as viewers do.
        levels: which numbers become black and white in an image of more than 8 bits or of floats; an image of 8 bits
            stays as it is.

    Returns:
        (H, W, 3) uint8, RGB. Without levels, 16-bit values are divided by 257 and rounded, so that 65535 becomes 255.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    image, orientation = read_stored_image(path, levels=levels)
    return turn_upright(image, orientation) if upright else image


def read_stored_image(
    path: str | os.PathLike[str], *, levels: ImageLevels | None = None
) -> tuple[NDArray[np.uint8], int]:
    """
    Returns:
        (H, W, 3) uint8, RGB, as ``read_image`` describes it but not turned, and the EXIF orientation.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    found = read_image_file(path, levels=levels)
    return found.pixels, found.orientation


class ImageFile(NamedTuple):
    """What an image file holds.

    Attributes:
        pixels: (H, W, 3) uint8, RGB; (ceil(H / scale), ceil(W / scale), 3) where it was reduced.
        size: (H, W), of the file.
        orientation: of its EXIF tag; the pixels are not turned.
        scale: 1, or 2 or 4 where it was decoded at a half or a quarter of its size.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    orientation: int = UPRIGHT
    scale: int = 1

    def turned_upright(self) -> ImageFile:
        """The image as viewers show it."""
        size = self.size[::-1] if self.orientation in TRANSPOSING else self.size
        return ImageFile(turn_upright(self.pixels, self.orientation), size, UPRIGHT, self.scale)

    def full(self) -> NDArray[np.uint8]:
        """(H, W, 3), the image at the size of its file; one that was reduced is enlarged."""
        return enlarge_image(self.pixels, self.size, self.scale)


def read_image_file(
    path: str | os.PathLike[str], *, levels: ImageLevels | None = None, network: Preprocessing | None = None
) -> ImageFile:
    """
    Args:
        path, levels: as for ``read_image``.
        network: what the network will see of the image, which says whether a JPEG is reduced as it is decoded; None: it
            is not.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    import cv2

    orientation, scale, size = UPRIGHT, 1, None
    if is_array_file(path):
        pixels: NDArray[Any] = load_array(path, ("rgb", "image"))
        if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] not in (1, 3, 4):
            pixels = np.moveaxis(pixels, 0, 2)  # as PyTorch and MATLAB order them
    else:
        data = _read_content(path)
        orientation = orientation_of(data)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        size = jpeg_size(data) if network is not None else None
        if network is not None and size is not None:
            scale = _scale_of(network, size, orientation)
            flags |= {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}[scale]
        pixels = decode_pixels(path, data, flags)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    known = pixels.dtype in (np.uint8, np.uint16) or (levels is not None and pixels.dtype.kind in "uif")
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not known:
        raise DataError(
            path,
            f"its image is {pixels.dtype} of shape {pixels.shape}",
            "Write images as height x width x 3, RGB, 8 or 16 bit; for other numbers, set data.image_black and "
            "data.image_white",
        )
    if pixels.dtype != np.uint8 and levels is not None:
        pixels = levels.to_8_bit(pixels[..., :3])
    elif pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    color = np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels[..., :3]
    content: NDArray[np.uint8] = np.ascontiguousarray(color, dtype=np.uint8)
    return ImageFile(content, size if scale > 1 and size else (content.shape[0], content.shape[1]), orientation, scale)


def read_network_image(path: str | os.PathLike[str], network: Preprocessing) -> ImageFile:
    """
    The image in a file, upright, as training and evaluation read it for this network.

    Raises:
        DataError: the file is missing, damaged, or holds something else.
    """
    return read_image_file(path, levels=network.image_levels, network=network).turned_upright()


def _scale_of(network: Preprocessing, size: tuple[int, int], orientation: int) -> int:
    """By how much a JPEG of ``size``, as stored, is reduced for a network."""
    scale = network.image_scale(*(size[::-1] if orientation in TRANSPOSING else size))
    # Turned, the last pixels of a side, which are of fewer pixels of the file, might become the first.
    is_turned = orientation != UPRIGHT
    return next(part for part in (scale, scale // 2, 1) if part and not (is_turned and any(s % part for s in size)))


def read_depth(
    path: str | os.PathLike[str], channels: DepthChannels | None = None, key: str | None = None
) -> NDArray[np.number]:
    """
    Args:
        path: PNG or PGM (8 or 16 bit), TIFF (also floats), PFM, OpenEXR, ``.npy``; ``.npz`` or HDF5 with one array, or
            the array ``depth``.
        channels: which channel of several is depth.
        key: name of the array of ``.npz`` and HDF5, or of the channel of OpenEXR.

    Returns:
        (H, W), the values and the type that the file stores. The caller judges whether 8 bits are enough.

    Raises:
        DataError: the file is missing, damaged, lossy, in color, or holds no numbers.
    """
    return cast(NDArray[np.number], read_values(path, channels, key, kinds="uif"))


def read_values(
    path: str | os.PathLike[str], channels: DepthChannels | None = None, key: str | None = None, *, kinds: str = "buif"
) -> NDArray[np.number | np.bool_]:
    """As ``read_depth``, but of every kind of type in ``kinds``; a mask may also hold yes and no of type bool."""
    raw = load_array(path, ("depth",), key) if is_array_file(path) else _decode_depth(path, key)
    raw = one_channel(raw, channels, path)
    if raw.dtype.kind not in kinds:
        raise DataError(path, f"holds values of type {raw.dtype}", "Write depth as integers or floats")
    return cast(NDArray[np.number | np.bool_], raw)


def _decode_depth(path: str | os.PathLike[str], key: str | None) -> NDArray[np.generic]:
    """(H, W), or (H, W, C) in the order red, green, blue, alpha: the numbers that the file stores."""
    import cv2

    data = _read_content(path)
    if data.startswith(JPEG_SIGNATURE):  # whatever its name says
        raise DataError(path, "is a JPEG, which changes depth values", "Export depth as 16-bit PNG or .npy")
    if data.startswith(EXR_SIGNATURE):
        return read_exr(path, key)
    if key is not None:
        raise unnamed_error(path, key)
    if data.startswith(PFM_SIGNATURES):
        # OpenCV would divide by the number in the header, whose sign alone means something.
        numbers = decode_pfm(data)
        if numbers is None:
            raise _decoding_error(path, data)
        return numbers
    raw = decode_pixels(path, data, cv2.IMREAD_UNCHANGED)
    if raw.ndim == 3 and raw.shape[2] >= 3:
        raw = np.concatenate([raw[..., 2::-1], raw[..., 3:]], axis=2)
    return raw


def decode_pixels(path: str | os.PathLike[str], data: bytes, flags: int) -> NDArray[np.generic]:
    """
    The pixels of an image file, as stored.

    Raises:
        DataError: the file is damaged, or its format is not read here. OpenCV itself returns None, raises, or makes up
            pixels that are missing.
    """
    import cv2

    warning, pixels = "", None
    unturned = tiff_as_stored(data)

    def decode() -> NDArray[np.generic] | None:
        try:
            return cv2.imdecode(np.frombuffer(unturned, np.uint8), flags)
        except cv2.error:
            return None

    if data and not (jpeg_is_cut(data) or tiff_is_short(data) or explain_undecoded(data)):
        pixels, warning = decode_with_warnings(decode) if data.startswith(JPEG_SIGNATURE) else (decode(), "")
    if pixels is None or warning:
        raise _decoding_error(path, data, warning)
    return pixels


def _decoding_error(path: str | os.PathLike[str], data: bytes, warning: str = "") -> DataError:
    """What is wrong with a file that was not decoded; ``warning`` is what the decoder wrote about it."""
    if not data:
        return DataError(path, "is empty (0 bytes)", "Write it again, or leave the frame out")
    if undecoded := explain_undecoded(data):
        return DataError(path, undecoded, "Write it as float32 without compression or with deflate, or as .npy")
    fault = explain_fault(data, os.fspath(path))
    return DataError(path, f"{fault.found} ({warning})" if warning else fault.found, fault.fix)


def _read_content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. ``cv2.imread`` cannot open every Unicode path on Windows."""
    try:
        return read_bytes(path)
    except OSError as error:
        raise reading_error(path, error) from None

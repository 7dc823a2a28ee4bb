"""A frame as the members of a tar archive, and back: everything that a ``DepthSample`` holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.packing.depth_blocks import DepthBlock, make_depth_block
from finetune.data.packing.zstd import compress, decompress
from finetune.data.readers.formats import JPEG_SIGNATURE, PNG_SIGNATURE
from finetune.data.sample import CodedSample, DepthSample
from finetune.utils.errors import DataError, FileFault, ListError

ImageFormat = Literal["jpeg", "png"]
_ENDINGS: Mapping[ImageFormat, str] = {"jpeg": "jpg", "png": "png"}
_CAMERA = ("fx_px", "fy_px", "cx_px", "cy_px")
_SCALE = "image_scale"
_ABOUT, _DEPTH, _VALID, _WEIGHT = "json", "depth.zst", "valid.zst", "weight.zst"
# Other kinds take longer to write and are hardly smaller.
_PNG_LEVEL = 3


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """An image as a file.

    Attributes:
        kind: of the file.
        content: of the file.
    """

    kind: ImageFormat
    content: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, RGB, as the reader of packed data decodes it."""
        return _decode_image(self.content)


def encode_image(image: NDArray[np.uint8], kind: ImageFormat, quality: int) -> EncodedImage:
    """
    Args:
        image: (H, W, 3) uint8, RGB.
        kind: ``png`` keeps every bit.
        quality: of a JPEG, to 100.
    """
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL]
    _, content = cv2.imencode(f".{_ENDINGS[kind]}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return EncodedImage(kind=kind, content=content.tobytes())


def keep_file(content: bytes, image: NDArray[np.uint8], kind: ImageFormat) -> EncodedImage | None:
    """
    Args:
        content: the file that an image was read from.
        image: (H, W, 3) uint8, RGB, as its reader gave it.
        kind: ``jpeg`` keeps JPEG alone, since a PNG takes longer to decode.

    Returns:
        The file itself where it decodes to the same pixels: it is as good, and smaller than one written anew.
    """
    found: ImageFormat
    if content.startswith(JPEG_SIGNATURE):
        found = "jpeg"
    elif kind == "png" and content.startswith(PNG_SIGNATURE):
        found = "png"
    else:
        return None
    same = EncodedImage(kind=found, content=content)
    try:
        return same if np.array_equal(same.pixels(), image) else None
    except ValueError:
        return None


def encode_frame(sample: DepthSample, image: EncodedImage, units: Sequence[float | None]) -> dict[str, bytes]:
    """
    Args:
        sample: what is to be read again, but for its image.
        image: of the same size.
        units: meters per unit to try for its depth.

    Returns:
        Ending of a member -> its content.
    """
    block = make_depth_block(sample.depth_m, units)
    camera = sample.camera
    about: dict[str, Any] = {
        "source": sample.source,
        "size": list(sample.depth_m.shape),
        "meters_per_unit": block.meters_per_unit,
        # JSON writes a float so that the same one is read again.
        "camera": None if camera is None else [getattr(camera, name) for name in _CAMERA],
    }
    if block.has_infinity:
        about["infinity"] = True
    if sample.image_scale != 1:
        about[_SCALE] = sample.image_scale
    parts = {_ABOUT: b"", _ENDINGS[image.kind]: image.content, _DEPTH: compress(_little_endian(block.numbers))}
    # For most readers valid is where depth is above 0; then it needs no bytes of its own.
    if not np.array_equal(sample.valid, sample.depth_m > 0):
        parts[_VALID] = compress(np.packbits(sample.valid).tobytes())
    if sample.weight is not None:
        parts[_WEIGHT] = compress(_little_endian(sample.weight))
    return {**parts, _ABOUT: _to_json(about)}


def encode_fault(fault: FileFault) -> dict[str, bytes]:
    """The member of a frame that cannot be read, so that a run skips it as it would skip it unpacked."""
    about = {"source": fault.source, "found": fault.found, "fix": fault.fix, "code": fault.code}
    return {_ABOUT: _to_json({"fault": about, "listed": isinstance(fault, ListError)})}


def decode_frame(parts: Mapping[str, bytes | memoryview]) -> DepthSample:
    """
    The inverse of ``encode_frame``.

    Raises:
        FileFault: the frame could not be read when it was packed.
        ValueError: a member is missing or damaged.
    """
    try:
        about = json.loads(bytes(parts[_ABOUT]))
        if "fault" in about:
            raise (ListError if about["listed"] else DataError)(**about["fault"])
        shape = tuple(about["size"])
        block = DepthBlock(
            numbers=np.frombuffer(decompress(parts[_DEPTH]), _dtype(about["meters_per_unit"])).reshape(shape),
            meters_per_unit=about["meters_per_unit"],
            has_infinity="infinity" in about,
        )
        coded = None if _VALID in parts else block.coded()
        weight = None
        if _WEIGHT in parts:
            weight = np.frombuffer(decompress(parts[_WEIGHT]), "<f4").reshape(shape).astype(np.float32)
        image = _decode_image(parts[next(ending for ending in _ENDINGS.values() if ending in parts)])
        camera = None if about["camera"] is None else Camera(**dict(zip(_CAMERA, about["camera"], strict=True)))
    except (KeyError, TypeError, StopIteration) as error:
        raise ValueError(f"a member is missing: {error}") from error
    scale = about.get(_SCALE, 1)
    if image.shape[:2] != tuple(-(-side // scale) for side in shape):
        raise ValueError("the image has another size than its depth")
    fields = {"image": image, "source": about["source"], "camera": camera, "weight": weight, "image_scale": scale}
    # Its types and values were checked when it was packed, and the reader compares its checksum.
    if coded is not None:
        return CodedSample.of_valid(**fields, coded=coded)
    depth_m = block.depth_m()
    return DepthSample.of_valid(**fields, depth_m=depth_m, valid=_decode_valid(parts, depth_m))


def _decode_valid(parts: Mapping[str, bytes | memoryview], depth_m: NDArray[np.float32]) -> NDArray[np.bool_]:
    if _VALID not in parts:
        return depth_m > 0
    bits = np.unpackbits(np.frombuffer(decompress(parts[_VALID]), np.uint8), count=depth_m.size)
    return bits.view(np.bool_).reshape(depth_m.shape)


def _decode_image(content: bytes | memoryview) -> NDArray[np.uint8]:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    if pixels is None:
        raise ValueError("the image cannot be decoded")
    return np.asarray(pixels, dtype=np.uint8)


def _dtype(meters_per_unit: float | None) -> np.dtype[np.generic]:
    return np.dtype("<f4" if meters_per_unit is None else "<u2")


def _little_endian(numbers: NDArray[np.generic]) -> bytes:
    return np.ascontiguousarray(numbers, dtype=numbers.dtype.newbyteorder("<")).tobytes()


def _to_json(content: object) -> bytes:
    # A file name that is not UTF-8 is kept by JSON's escapes.
    return json.dumps(content).encode("ascii")

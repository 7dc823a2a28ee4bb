"""What OpenCV's decoder of TIFF ignores: whether the file holds its strips whole, and which way is up."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from finetune.data.readers.formats import TIFF_SIGNATURES

_ORIENTATION = 274
_OFFSETS_AND_COUNTS = ((273, 279), (324, 325))  # tags of strips, and of tiles
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS_PER_STRIP, _FORMAT = 256, 257, 258, 259, 277, 278, 339
_FLOATS = 3  # of _FORMAT
# Compressions that OpenCV's wheels do not decode. Source: libtiff's tiff.h.
_NOT_DECODED = {34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL"}
_TYPES = {1: "B", 3: "H", 4: "I"}
_MAX_TAGS, _MAX_VALUES = 4096, 10_000_000


@dataclass(frozen=True, kw_only=True)
class _Tag:
    """One field of the first directory: its values, and the offset in the file of the first one."""

    values: tuple[int, ...]
    offset: int
    kind: str


def tiff_is_short(data: bytes) -> bool:
    """Whether a strip or tile of the first image ends beyond the file, or is shorter than its pixels; OpenCV fills up
    what is missing. False for other formats, and for a TIFF that does not say."""
    try:
        tags = dict(_tags(data))
    except struct.error:
        return data.startswith(TIFF_SIGNATURES)  # the directory itself is cut off
    for offset_key, count_key in _OFFSETS_AND_COUNTS:
        if offset_key not in tags or count_key not in tags:
            continue
        offsets, counts = tags[offset_key].values, tags[count_key].values
        if len(offsets) != len(counts):
            return True
        if any(offset + count > len(data) or not count for offset, count in zip(offsets, counts, strict=True)):
            return True
        if offset_key == 273 and _strips_are_short(tags, counts):
            return True
    return False


def _strips_are_short(tags: dict[int, _Tag], counts: tuple[int, ...]) -> bool:
    """Whether the strips, if they are not compressed, hold fewer bytes than their pixels need."""

    def value(key: int, default: int) -> int:
        return tags[key].values[0] if key in tags and tags[key].values else default

    if value(_COMPRESSION, 1) != 1:
        return False
    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    bits = value(_BITS, 1) * value(_SAMPLES, 1)
    return sum(counts) < (width * bits + 7) // 8 * height


def explain_undecoded(data: bytes) -> str | None:
    """What a TIFF is that OpenCV's wheels do not decode, in words that follow its name; None where it is damaged."""
    try:
        tags = dict(_tags(data))
    except struct.error:
        return None
    compression = tags[_COMPRESSION].values[0] if _COMPRESSION in tags else 1
    if compression in _NOT_DECODED:
        return f"is a TIFF compressed by {_NOT_DECODED[compression]}, which is not supported"
    is_half = all(tags[key].values[0] == value for key, value in ((_BITS, 16), (_FORMAT, _FLOATS)) if key in tags)
    return "is a TIFF of half floats, which is not supported" if is_half and {_BITS, _FORMAT} <= tags.keys() else None


def tag_values(data: bytes, key: int) -> tuple[int, ...]:
    """
    The numbers of a field in the first directory; none if it has no such field.

    Raises:
        struct.error: the file ends within the directory.
    """
    for found, tag in _tags(data):
        if found == key:
            return tag.values
    return ()


def tiff_as_stored(data: bytes) -> bytes:
    """The file with its orientation set to "as stored": OpenCV turns a TIFF even if asked not to."""
    try:
        tag = dict(_tags(data)).get(_ORIENTATION)
    except struct.error:
        return data
    if tag is None or len(tag.values) != 1 or tag.values[0] == 1:
        return data
    changed = bytearray(data)
    struct.pack_into(tag.kind, changed, tag.offset, 1)
    return bytes(changed)


def _tags(data: bytes) -> Iterator[tuple[int, _Tag]]:
    """
    Key and field of each entry of whole numbers in the first directory. Source: TIFF, revision 6.0, section 2.

    Raises:
        struct.error: the file ends within it.
    """
    if not data.startswith(TIFF_SIGNATURES):
        return
    order = "<" if data.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, start + 2 + 12 * min(count, _MAX_TAGS), 12):
        key, type_code, length = struct.unpack_from(f"{order}HHI", data, entry)
        kind = _TYPES.get(type_code)
        if kind is None or not length or length > _MAX_VALUES:
            continue
        offset = entry + 8
        if length * struct.calcsize(kind) > 4:
            (offset,) = struct.unpack_from(f"{order}I", data, offset)
        values = struct.unpack_from(f"{order}{length}{kind}", data, offset)
        yield key, _Tag(values=values, offset=offset, kind=order + kind)

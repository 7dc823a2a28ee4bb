"""JPEG files with missing or wrong bytes, for which OpenCV's decoder returns a picture all the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from finetune.data.readers.decoder_messages import capture_messages
from finetune.data.readers.formats import JPEG_SIGNATURE

_T = TypeVar("_T")
# What ends the coded data of a scan: a marker that is no stuffed zero, fill byte or restart.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITHOUT_LENGTH = (*range(0xD0, 0xD9), 0x01)
_START_OF_SCAN, _END = 0xDA, 0xD9
# Headers of a frame, one for each process of coding; 0xC4, 0xC8 and 0xCC are none.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# What the decoder writes when bytes cannot be what an encoder wrote; it goes on decoding.
_DAMAGE = re.compile(r"^(Corrupt JPEG data|Premature end of JPEG)")
# Cameras that send JPEGs as a video often pad parts of the picture by a byte or two, which does no harm.
_PADDING = re.compile(r"^Corrupt JPEG data: [12] extraneous bytes before marker 0xd\d")
_WARNING = re.compile(
    r"^(Corrupt JPEG|Premature end of JPEG|Warning: |Invalid SOS|Inconsistent progression|Unknown Adobe)"
)


def jpeg_is_cut(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker; OpenCV fills the rest of such an image with gray. Bytes after the marker
    (zeros, a short film, a second picture) do not matter. False for other formats."""
    if not data.startswith(JPEG_SIGNATURE):
        return False
    position = 2
    while True:
        found = _MARKER.search(data, position)
        if found is None:
            return True
        marker, position = data[found.end() - 1], found.end()
        if marker == _END:
            return False
        if marker in _WITHOUT_LENGTH:
            continue
        if position + 2 > len(data):
            return True
        # The length of a scan covers its header alone; the coded data follow, up to the next marker.
        position += int.from_bytes(data[position : position + 2], "big")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG as stored, pixels; None where its header does not say, and for other formats.

    Source: ITU-T T.81, B.2.2.
    """
    position = 2 if data.startswith(JPEG_SIGNATURE) else len(data)
    while found := _MARKER.search(data, position):
        marker, position = data[found.end() - 1], found.end()
        if marker in _WITHOUT_LENGTH:
            continue
        if marker in _START_OF_FRAME and position + 7 <= len(data):
            height, width = (int.from_bytes(data[i : i + 2], "big") for i in (position + 3, position + 5))
            return (height, width) if height and width else None
        if marker in (_START_OF_SCAN, _END):
            return None
        position += int.from_bytes(data[position : position + 2], "big")
    return None


def decode_with_warnings(decode: Callable[[], _T]) -> tuple[_T, str]:
    """
    Args:
        decode: returns the pixels of a JPEG.

    Returns:
        The pixels, and the first thing that the decoder wrote about damage; "" if it wrote nothing.
    """
    decoded, lines = capture_messages(decode, _WARNING)
    return decoded, next((line for line in lines if _DAMAGE.match(line) and not _PADDING.match(line)), "")

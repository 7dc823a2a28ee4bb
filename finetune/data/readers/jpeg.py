"""What OpenCV's decoder of JPEG gives a picture for though bytes are missing or wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from finetune.data.readers.decoder_words import with_words
from finetune.data.readers.formats import JPEG_SIGNATURE

_T = TypeVar("_T")
# A marker other than a stuffed zero, a fill byte, or a restart: what ends the coded data of a scan.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_WITHOUT_LENGTH = (*range(0xD0, 0xD9), 0x01)
_START_OF_SCAN, _END = 0xDA, 0xD9
# What the decoder says of bytes that cannot be what the encoder wrote, and goes on.
_DAMAGE = re.compile(r"^(Corrupt JPEG data|Premature end of JPEG)")
# Cameras that send JPEGs as a video often pad a part of the picture by a byte or two, which does no harm.
_PADDING = re.compile(r"^Corrupt JPEG data: [12] extraneous bytes before marker 0xd\d")
_WARNING = re.compile(
    r"^(Corrupt JPEG|Premature end of JPEG|Warning: |Invalid SOS|Inconsistent progression|Unknown Adobe)"
)


def jpeg_is_cut(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker; OpenCV fills such an image up with gray. What follows the marker (zeros, a
    short film, a second picture) is not looked at. False of what is no JPEG."""
    if not data.startswith(JPEG_SIGNATURE):
        return False
    place = 2
    while True:
        found = _MARKER.search(data, place)
        if found is None:
            return True
        marker, place = data[found.end() - 1], found.end()
        if marker == _END:
            return False
        if marker in _WITHOUT_LENGTH:
            continue
        if place + 2 > len(data):
            return True
        # Of a scan the header alone: coded data up to the next marker follows.
        place += int.from_bytes(data[place : place + 2], "big")


def with_warnings(decode: Callable[[], _T]) -> tuple[_T, str]:
    """
    Args:
        decode: gives the pixels of a JPEG.

    Returns:
        What it gave, and the first thing the decoder said about damage; "" where it said nothing.
    """
    decoded, lines = with_words(decode, _WARNING)
    return decoded, next((line for line in lines if _DAMAGE.match(line) and not _PADDING.match(line)), "")

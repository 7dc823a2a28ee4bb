"""Depth files whose 16 bits are not a plain whole number."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Bits = Literal["rotated", "float16", "android_confidence", "swapped"]


def has_16_bits(raw: NDArray[np.number]) -> bool:
    """Whether the file stores whole numbers of 16 bits without a sign."""
    return raw.dtype.kind == "u" and raw.dtype.itemsize == 2


def decode_bits(raw: NDArray[np.number], bits: Bits) -> tuple[NDArray[np.number], NDArray[np.bool_]]:
    """
    Args:
        raw: (H, W) of 16 bits, as the file stores it.
        bits: ``rotated``: the three lowest bits come before the others, as SUN RGB-D and SUN3D write them;
            ``float16``: the bits of a half float, as Mid-Air writes meters; ``android_confidence``: the three highest
            bits are a confidence and the others millimeters, as in Android's DEPTH16; ``swapped``: the two bytes are
            exchanged, as programs write PGM that ignore that its high byte comes first.

    Returns:
        (H, W) the numbers that the bits mean, and (H, W) bool, False where the confidence is 0 %.

    Sources: developer.android.com, ``ImageFormat.DEPTH16``: 0 means 100 %, 1 means 0 %, up to 7, 100 %; Netpbm's
    description of PGM: "The most significant byte is first".
    """
    stored = raw.astype(np.uint16, copy=False)  # brings any byte order to that of this machine
    confident = np.ones(stored.shape, dtype=np.bool_)
    if bits == "rotated":
        return (stored >> np.uint16(3)) | (stored << np.uint16(13)), confident
    if bits == "float16":
        return np.ascontiguousarray(stored).view(np.float16).astype(np.float32), confident
    if bits == "swapped":
        return stored.byteswap(), confident
    return stored & np.uint16(0x1FFF), (stored >> np.uint16(13)) != 1

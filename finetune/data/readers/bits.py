"""16 bits of a depth file that are no plain whole number."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Bits = Literal["rotated", "float16", "android_confidence"]


def has_16_bits(raw: NDArray[Any]) -> bool:
    """Whether the file stores whole numbers of 16 bits without a sign."""
    return raw.dtype.kind == "u" and raw.dtype.itemsize == 2


def decode_bits(raw: NDArray[Any], bits: Bits) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """
    Args:
        raw: (H, W) of 16 bits, as the file stores it.
        bits: ``rotated``: the three lowest bits stand before the others, as SUN RGB-D and SUN3D write them;
            ``float16``: the bits of a half float, as Mid-Air writes meters; ``android_confidence``: the three highest
            bits are a confidence, below them are millimeters, as Android's DEPTH16 has them.

    Returns:
        (H, W) the numbers that the bits mean, and (H, W) bool, False where the confidence is 0 %.

    Source of the last: developer.android.com, ``ImageFormat.DEPTH16``: 0 means 100 %, 1 means 0 %, up to 7, 100 %.
    """
    raw = raw.astype(np.uint16, copy=False)  # of any byte order
    confident = np.ones(raw.shape, dtype=np.bool_)
    if bits == "rotated":
        return (raw >> np.uint16(3)) | (raw << np.uint16(13)), confident
    if bits == "float16":
        return np.ascontiguousarray(raw).view(np.float16).astype(np.float32), confident
    return raw & np.uint16(0x1FFF), (raw >> np.uint16(13)) != 1

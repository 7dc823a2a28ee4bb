"""PFM files: a float for each pixel, bottom row first."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

PFM_SIGNATURES = (b"Pf", b"PF")
_HEADER = re.compile(rb"(P[fF])\s+(\d{1,9})\s+(\d{1,9})\s+([-+]?[0-9.eE+-]{1,40})[ \t\r]*?\n")


def decode_pfm(data: bytes) -> NDArray[np.float32] | None:
    """
    Read the numbers of a PFM file.

    The number after width and height gives the byte order by its sign: negative is little-endian. Its size means
    nothing: every program writes another one (1, 1/255, 0.00392), and Middlebury's own reader ignores it.

    Args:
        data: a whole file.

    Returns:
        (H, W) float32, top row first, as the file stores the numbers; (H, W, 3) for a ``PF`` file. None if the header
        is malformed, or fewer numbers follow than it says.

    Source: Debevec's description, http://www.pauldebevec.com/Research/HDR/PFM/.
    """
    header = _HEADER.match(data)
    if header is None:
        return None
    kind, across, down, scale = header.groups()
    width, height, channels = int(across), int(down), 3 if kind == b"PF" else 1
    try:
        order = "<" if float(scale) < 0 else ">"
    except ValueError:
        return None
    count = width * height * channels
    if not count or len(data) - header.end() < 4 * count:
        return None
    numbers = np.frombuffer(data, f"{order}f4", count, header.end()).astype(np.float32)
    pixels = numbers.reshape((height, width, 3) if channels == 3 else (height, width))
    return np.ascontiguousarray(pixels[::-1])

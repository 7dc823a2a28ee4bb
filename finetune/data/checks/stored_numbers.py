"""What the stored numbers of a depth map are: 16 bits in another order, half floats, or shares of a range."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.flatness import flat_shares, measure_bends
from finetune.data.depth_edges import log_steps
from finetune.data.readers.bits import Bits, decode_bits

# Numbers that are all from 0 to 1: linear in depth, or in its inverse as a renderer's depth buffer is.
Scale = Literal["normalized", "z_buffer"]
_MIN_NUMBERS = 500  # fewer say nothing
_MIN_DIFFERENT = 30
_WHOLE = 0.01  # how far a stored whole number may be from one after float32
_JUMP = 0.2  # natural log of the ratio of neighboring depths; a surface has none
_MIN_PATCHES = 6  # pieces of surface, before their flatness is believed
# Ratio of ``_variation`` as stored to that with the bytes exchanged: of real maps at most 0.9, of dense ones with the
# low byte first at least 5.8.
_CLEARLY_ROUGHER = 2.0
_HALF_FLOAT_END = 0x7C00  # from here on they are infinite


class Numbers(NamedTuple):
    """What one map's numbers look like.

    Attributes:
        bits: how the 16 bits are to be read; None: as they are.
        matters: whether that reading is more than another unit: some value wraps around, or has other bits in front.
        scale: what numbers from 0 to 1, or shares of 65535, are; None where they are neither.
    """

    bits: Bits | None = None
    matters: bool = False
    scale: Scale | None = None


def recognize_numbers(depth_m: NDArray[np.float32], valid: NDArray[np.bool_], meters_per_unit: float | None) -> Numbers:
    """
    Args:
        depth_m, valid: (H, W), as a reader gives them.
        meters_per_unit: what the reader multiplied the stored numbers by; None where it did something else.

    Returns:
        What the stored numbers look like.
    """
    known = valid & np.isfinite(depth_m)
    if not meters_per_unit or np.count_nonzero(known) < _MIN_NUMBERS:
        return Numbers()
    raw = np.where(known, depth_m, 0.0) / np.float64(meters_per_unit)
    whole = np.rint(raw)
    if raw.max() <= 1.0 + 1e-6:
        return Numbers(scale=_classify_scale(raw, known))
    if raw.max() > 65535 + _WHOLE or np.abs(raw - whole).max() > _WHOLE:
        return Numbers()
    stored = whole.astype(np.uint16)
    if len(np.unique(stored[known])) < _MIN_DIFFERENT:
        return Numbers()
    if _is_swapped(stored, known):
        return Numbers(bits="swapped", matters=True)
    if _is_rotated(stored[known]):
        return Numbers(bits="rotated", matters=bool((stored[known] & 7).any()))
    if _has_confidence(stored, known):
        return Numbers(bits="android_confidence", matters=True)
    if _is_half_floats(stored, known):
        return Numbers(bits="float16", matters=True)
    # A depth buffer of 16 bits; most of a camera's depth is not near 65 m.
    if np.median(stored[known]) > 0.8 * 65535 and _classify_scale(raw / 65535, known) == "z_buffer":
        return Numbers(scale="z_buffer")
    return Numbers()


def _is_swapped(stored: NDArray[np.uint16], known: NDArray[np.bool_]) -> bool:
    """Whether neighbors are near each other with the two bytes exchanged, and not as they are stored. The high byte of
    depth takes few values, so most maps need no look at neighbors."""
    values = stored[known]
    if len(np.unique(values & 0xFF)) >= len(np.unique(values >> 8)):
        return False
    as_stored, exchanged = _variation(stored, known), _variation(stored.byteswap(), known)
    return as_stored > _CLEARLY_ROUGHER * exchanged


def _variation(numbers: NDArray[np.uint16], known: NDArray[np.bool_]) -> float:
    """How much neighbors differ in the mean, as a share of the standard deviation of all numbers."""
    values = np.where(known, numbers, np.nan).astype(np.float64)
    steps = np.concatenate([np.abs(np.diff(values, axis=axis)).ravel() for axis in (0, 1)])
    spread = float(np.nanstd(values))
    return float(np.nanmean(steps)) / spread if spread > 0 and np.isfinite(steps).any() else 0.0


def _is_rotated(values: NDArray[np.uint16]) -> bool:
    """Millimeters below 16.4 m, rotated left by three bits, hold 0 or 1 in the lowest three bits. The fourth bit, which
    was the lowest, is 1 as often as 0; in numbers that were multiplied by 16 or more it is not."""
    return bool(np.mean((values & 7) <= 1) > 0.98 and 0.1 < np.mean((values >> 3) & 1) < 0.9)


def _has_confidence(stored: NDArray[np.uint16], known: NDArray[np.bool_]) -> bool:
    """Whether surfaces are whole without the three highest bits and in pieces with them."""
    levels = np.bincount(stored[known] >> 13, minlength=8) / np.count_nonzero(known)
    millimeters = stored & np.uint16(0x1FFF)
    if levels[4:].max() == 1.0:
        # One confidence everywhere: from 32.8 m on, in eight meters, no scene has depths that are many times apart.
        low, high = np.percentile(millimeters[known], (5, 95))
        shares = flat_shares(known, 1.0 / np.maximum(millimeters, 1), stored.astype(np.float64))
        return bool(high > 1.5 * low > 0 and shares and shares[0] > shares[1])
    if levels.max() > 0.99:
        return False
    with_them, without = _roughness(stored, known), _roughness(millimeters, known)
    return with_them > 3 * without and with_them > without + 0.005


def _roughness(numbers: NDArray[np.uint16], known: NDArray[np.bool_]) -> float:
    """Share of the pairs of neighbors that are at different depths."""
    known = known & (numbers > 0)
    logs = np.log(np.where(known, numbers, 1).astype(np.float64))
    jumps = log_steps(logs, known) > _JUMP
    return float(jumps.mean()) if jumps.size else 0.0


def _is_half_floats(stored: NDArray[np.uint16], known: NDArray[np.bool_]) -> bool:
    """Half floats of meters are close together as whole numbers, because the exponent comes first.

    Read as floats, small pieces of surface are flatter: in all of 270 frames of half floats, real and drawn, and in
    none of 579 of plain whole numbers between the same ends.
    """
    low, high = np.percentile(stored[known], (0.5, 99.5))
    if not (0x2800 <= low < high < _HALF_FLOAT_END and high < 3 * low):  # from 3 cm on
        return False
    as_floats, _ = decode_bits(stored, "float16")
    # Numbers from the end on are infinity, NaN or negative as half floats.
    usual = known & (stored < _HALF_FLOAT_END) & (stored > 0)
    nearest, farthest = np.percentile(as_floats[usual], (0.5, 99.5))
    if farthest < 1.5 * nearest:
        return False
    bends = measure_bends(usual, *(1.0 / np.where(usual, numbers, 1.0) for numbers in (as_floats, stored)))
    return bool(len(bends) >= _MIN_PATCHES and np.median(np.log(bends[:, 1] / bends[:, 0])) > 0)


def _classify_scale(raw: NDArray[np.float64], known: NDArray[np.bool_]) -> Scale:
    """A depth buffer is linear over a plane, and mostly near 1. Numbers linear in depth have a linear inverse."""
    low, middle, high = np.percentile(raw[known], (0.5, 50, 99.5))
    if middle < 0.5 or high - middle > middle - low:
        return "normalized"
    shares = flat_shares(known, raw, 1.0 / np.where(known, raw, 1.0))
    linear = shares is not None and np.log(max(shares[0], 1e-3) / max(shares[1], 1e-3)) > -0.2
    return "z_buffer" if linear else "normalized"

"""How many columns the numbers of a point file have, where the file itself does not say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_COUNTS = (3, 4, 5, 6)
# Fewer points tell nothing.
_MIN_POINTS = 64
# Numbers of one file that are looked at.
_MOST_NUMBERS = 40_000
# Another count is right if numbers of one column, in rows that follow each other, are nearer by this. With the right
# count no other is: 4 against 3, 5 and 6 columns differ by 250 in a sweep of KITTI, and by 5 in the same with its rows
# in random order, since each column has a range of its own.
_CLEARLY = 3.0


def find_other_count(numbers: NDArray[np.floating], assumed: int) -> int | None:
    """
    Args:
        numbers: (K,), row by row, as the file stores them.
        assumed: columns.

    Returns:
        The number of columns by which the numbers of each column follow each other clearly more closely, as those of a
        scanner that turns do; None where the assumed one does as well.
    """
    if len(numbers) < _MIN_POINTS * assumed:
        return None
    head = numbers[:_MOST_NUMBERS].astype(np.float64)
    step = _median_step(head, assumed)
    fitting = [count for count in _COUNTS if count != assumed and len(numbers) % count == 0]
    return next((count for count in fitting if _CLEARLY * _median_step(head, count) < step), None)


def _median_step(numbers: NDArray[np.float64], count: int) -> float:
    """The median difference of numbers that are ``count`` apart; those of two points without a return do not count."""
    first, second = numbers[:-count], numbers[count:]
    known = np.isfinite(first) & np.isfinite(second) & ((first != 0) | (second != 0))
    return float(np.median(np.abs(second - first)[known])) if known.any() else 0.0

"""Numbers on a command line, read for argparse."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def numbers(
    count: int, expected: str, holds: Callable[[tuple[float, ...]], bool]
) -> Callable[[str], tuple[float, ...]]:
    """
    Args:
        count: how many numbers there are, with commas between them.
        expected: what they are, for the error.
        holds: whether they may be.

    Returns:
        Reads them, for argparse.
    """

    def parse(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in text.split(","))
        except ValueError:
            found = ()
        if len(found) != count or not all(map(math.isfinite, found)) or not holds(found):
            raise argparse.ArgumentTypeError(f"{text} is not {expected}")
        return found

    return parse


def number(expected: str, holds: Callable[[float], bool] = lambda found: found > 0) -> Callable[[str], float]:
    """
    Args:
        expected: what it is, for the error.
        holds: whether it may be; by default any above 0.

    Returns:
        Reads one number, for argparse.
    """
    parse = numbers(1, expected, lambda found: holds(found[0]))
    return lambda text: parse(text)[0]

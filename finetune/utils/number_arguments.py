"""Numbers on a command line, read for argparse."""

from __future__ import annotations

import argparse
import math
import re
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


def whole_number(expected: str) -> Callable[[str], int]:
    """
    Args:
        expected: what it is, for the error.

    Returns:
        Reads a whole number above 0, for argparse.
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = 0
        if value < 1:
            raise argparse.ArgumentTypeError(f"{text} is not {expected}")
        return value

    return parse


def height_and_width(multiple: int, most: int) -> Callable[[str], tuple[int, int]]:
    """
    Args:
        multiple: what both sides are multiples of, pixels.
        most: the longest side, pixels.

    Returns:
        Reads a height and a width such as ``252x336`` or ``252,336``, for argparse.
    """

    def parse(text: str) -> tuple[int, int]:
        found = re.fullmatch(r"(\d{1,5})[x,](\d{1,5})", text.strip().lower())
        sides = tuple(int(side) for side in found.groups()) if found else ()
        if len(sides) != 2 or not all(0 < side <= most and side % multiple == 0 for side in sides):
            raise argparse.ArgumentTypeError(
                f"{text} is not a height and a width such as 252x336, multiples of {multiple} up to {most}"
            )
        return sides[0], sides[1]

    return parse


def shard(text: str) -> tuple[int, int]:
    """
    Args:
        text: I/N, with I from 0 to N-1, as arrays of jobs and ranks are counted.

    Returns:
        Part and parts, for argparse.
    """
    part, separator, parts = text.partition("/")
    if not (separator and part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N with I from 0 to N-1, such as 0/8")
    return int(part), int(parts)

"""Words and numbers in sentences: which word was probably meant, and how counts, shares and depths are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

# A longer word is not a typing error, and comparing words takes the square of their length.
_MAX_LENGTH = 80
# Minimum similarity if one word is a prefix of the other, such as epoch and epochs.
_SIMILARITY_OF_PREFIX = 0.8


def nearest(word: str, known: Sequence[str], cutoff: float = 0.5) -> str | None:
    """
    Args:
        word: as it was written.
        known: what could have been meant; if several are equally similar, the first one wins.
        cutoff: the least ``similarity``.

    Returns:
        The one of ``known`` that is spelled most like ``word``, ignoring case, ``-`` and ``_``: ``batchSize`` and
        ``batch-size`` mean ``batch_size``. None if no word is similar enough.
    """
    return _nearest(word, tuple(known), cutoff)


@lru_cache(maxsize=256)  # a long recipe repeats the same typing error many times
def _nearest(word: str, known: tuple[str, ...], cutoff: float) -> str | None:
    found, best = None, cutoff
    for name in known:
        score = similarity(_letters(word), _letters(name), at_least=best)
        if score > best or (found is None and score >= best):
            found, best = name, score
    return found


def _letters(word: str) -> str:
    # A word of nothing but separators, such as a file named "_", keeps them.
    return "".join(letter for letter in word.casefold() if letter not in "-_") or word


def similarity(left: str, right: str, at_least: float = 0.0) -> float:
    """
    Args:
        left, right: two words.
        at_least: return 0 as soon as it is certain that the result is less than this.

    Returns:
        1 for equal words, down to 0: the share of the longer word that needs no edit (insert, delete or replace a
        letter, or swap two neighbors) to become the shorter one. A word that begins with the other scores higher than
        their lengths say.
    """
    short, long = sorted((left, right), key=len)
    if not short or len(long) > _MAX_LENGTH:
        return float(left == right)
    is_prefix = len(short) >= 3 and long.startswith(short)
    floor = _SIMILARITY_OF_PREFIX + (1.0 - _SIMILARITY_OF_PREFIX) * len(short) / len(long) if is_prefix else 0.0
    shared = (Counter(short) & Counter(long)).total()
    if max(floor, shared / len(long)) < at_least:
        return 0.0
    return max(floor, 1.0 - _edit_distance(short, long) / len(long))


def count_noun(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless the count is 1: "1 step", "400 steps", "2 processes"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def did_you_mean(suggestion: str | None) -> str:
    """A sentence to append, with a space before it; empty if there is no suggestion."""
    return "" if suggestion is None else f" Did you mean {suggestion}?"


def _edit_distance(left: str, right: str) -> int:
    """How many edits turn one word into the other, each letter edited once at most (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left):
        previous, before, row = before, row, [i + 1]
        for j, other in enumerate(right):
            least = min(before[j] + (letter != other), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == right[j - 1] and left[i - 1] == other:
                least = min(least, previous[j - 1] + 1)
            row.append(least)
    return row[-1]


def percent(share: float, decimals: int = 0) -> str:
    """A share, 0 to 1, as a percentage. Below 1 % it has two digits: 0.00012 is "0.012%"; only zero is "0%"."""
    if share <= 0:
        return "0%"
    if share >= 0.01:
        return f"{share:.{decimals}%}"
    two_digits = float(f"{100 * share:.2g}")
    return f"{two_digits:.12f}".rstrip("0").rstrip(".") + "%"


def meters(depth_m: float, digits: int = 3) -> str:
    """A depth with its unit, rounded to ``digits`` digits but never coarser than a meter: "0.0278 m", "1490 m"."""
    if 10**digits <= abs(depth_m) < 1e7:
        return f"{depth_m:.0f} m"
    return f"{depth_m:.{digits}g} m"

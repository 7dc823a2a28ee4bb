"""Which of the known words was probably meant by one that nobody knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

# Longer words are no slip of a finger, and comparing them takes the square of their length.
_LONGEST = 80
# Of a word that another begins with, as epoch does epochs, whatever follows.
_BEGINS = 0.8


def nearest(word: str, known: Sequence[str], cutoff: float = 0.5) -> str | None:
    """
    Args:
        word: as it was written.
        known: what could have been meant; of several that are as near, the first is.
        cutoff: the least ``similarity``.

    Returns:
        The one of ``known`` that is spelled most like ``word``, whatever its case and between its parts: ``batchSize``
        and ``batch-size`` are ``batch_size``. None when none is near.
    """
    return _nearest(word, tuple(known), cutoff)


@lru_cache(maxsize=256)  # in a long recipe one slip is made again and again
def _nearest(word: str, known: tuple[str, ...], cutoff: float) -> str | None:
    found, best = None, cutoff
    for name in known:
        score = similarity(_letters(word), _letters(name), at_least=best)
        if score > best or (found is None and score >= best):
            found, best = name, score
    return found


def _letters(word: str) -> str:
    # Of a word of one or two letters, such as a file's name, an underscore may be the most of it.
    return "".join(letter for letter in word.casefold() if letter not in "-_") or word


def similarity(one: str, other: str, at_least: float = 0.0) -> float:
    """
    Args:
        one, other: two words.
        at_least: where less is certain early, 0 is answered.

    Returns:
        1 for equal words, down to 0: the share of the longer one that needs no slip (a letter too many, one left out,
        one for another, two that changed places) to make one word of the other. A word that another begins with is
        nearer than its length says.
    """
    short, long = sorted((one, other), key=len)
    if not short or len(long) > _LONGEST:
        return float(one == other)
    begins = len(short) >= 3 and long.startswith(short)
    floor = _BEGINS + (1.0 - _BEGINS) * len(short) / len(long) if begins else 0.0
    shared = (Counter(short) & Counter(long)).total()
    if max(floor, shared / len(long)) < at_least:
        return 0.0
    return max(floor, 1.0 - _slips(short, long) / len(long))


def did_you_mean(suggestion: str | None) -> str:
    """A sentence to append, with a space before it, or nothing."""
    return "" if suggestion is None else f" Did you mean {suggestion}?"


def _slips(one: str, other: str) -> int:
    """How many slips lead from one word to the other, no letter in two of them (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one):
        previous, before, row = before, row, [place + 1]
        for at, found in enumerate(other):
            least = min(before[at] + (letter != found), before[at + 1] + 1, row[at] + 1)
            if place and at and letter == other[at - 1] and one[place - 1] == found:
                least = min(least, previous[at - 1] + 1)
            row.append(least)
    return row[-1]

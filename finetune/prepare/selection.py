"""Which frames of a source are taken: every N-th, and at most so many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from finetune.prepare.recording import FrameKey
from finetune.utils.indices import evenly_spread


def select_frames(keys: Sequence[FrameKey], every: int, max_frames: int | None) -> list[int]:
    """
    Args:
        keys: of all frames of the source.
        every: take the first of each recording and every N-th after it.
        max_frames: of those, take at most this many, evenly spread.

    Returns:
        Indices, in order.
    """
    seen: Counter[str] = Counter()
    taken = []
    for index, key in enumerate(keys):
        if seen[key.recording] % every == 0:
            taken.append(index)
        seen[key.recording] += 1
    if max_frames is None or len(taken) <= max_frames:
        return taken
    return [taken[i] for i in evenly_spread(len(taken), max_frames)]

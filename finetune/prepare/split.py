"""Which frames train and which validate: whole recordings, or stretches of time with a gap between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.recording import FrameKey
from finetune.utils.text import count_noun

GAP_S = 2.0  # between a frame of train and one of val, where times are known
GAP_SHARE = 0.05  # of the frames of a recording, where only their order is known
VAL_SHARE = 0.1
# With stretches in several places, validation sees more of a recording. Each costs two gaps.
_STRETCHES = 3
# Most frames that may be lost in gaps, as a share, by number of stretches.
_MAX_GAPS_SHARE = {_STRETCHES: 0.1, 1: 0.4}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Numbers of frames, in order.

    Attributes:
        train, val: no frame is in both, but for a recording that is too short for a split.
        gap: frames in neither, which are too near to both.
        rule: how they were chosen, in a sentence.
    """

    train: Sequence[int]
    val: Sequence[int]
    gap: Sequence[int]
    rule: str

    @property
    def is_shared(self) -> bool:
        """Whether the frames of train are those of val."""
        return not set(self.val).isdisjoint(self.train)


def split_frames(keys: Sequence[FrameKey]) -> Split:
    """
    Args:
        keys: of all frames, at least one, recording after recording, each in order of time.

    Returns:
        The split. Where the only recording is too short for two parts with a gap between them, which takes three
        frames, all of them train and validate.
    """
    recordings = Counter(key.recording for key in keys)
    if len(recordings) > 1:
        return _split_by_recording(keys, recordings)
    return _split_by_time(keys)


def _split_by_recording(keys: Sequence[FrameKey], recordings: Counter[str]) -> Split:
    chosen = _choose_recordings(recordings)
    val = [i for i, key in enumerate(keys) if key.recording in chosen]
    train = [i for i, key in enumerate(keys) if key.recording not in chosen]
    names = ", ".join(sorted(chosen)[:3]) + (f" and {len(chosen) - 3} more" if len(chosen) > 3 else "")
    rule = f"val is {len(chosen)} of {len(recordings)} recordings: {names}"
    return Split(train=train, val=val, gap=(), rule=rule)


def _choose_recordings(recordings: Counter[str]) -> set[str]:
    """The recordings to validate on: as many, from the last, as come nearest to ``VAL_SHARE`` of the frames."""
    wanted = VAL_SHARE * recordings.total()
    # A recording of a few frames says little, unless there is no other.
    named = sorted(recordings, key=lambda name: (abs(recordings[name] - wanted), name))
    chosen, count = {named[0]}, recordings[named[0]]
    for name in named[1:]:
        if len(chosen) + 1 < len(recordings) and abs(count + recordings[name] - wanted) < abs(count - wanted):
            chosen.add(name)
            count += recordings[name]
    return chosen


def _split_by_time(keys: Sequence[FrameKey]) -> Split:
    count = len(keys)
    # A frame is apart from another if at least this many frames are between the two.
    between = max(1, math.ceil(GAP_SHARE * count))
    words = f"{between} frame{'s' * (between > 1)}"
    by_order = _Gap(positions=np.arange(count, dtype=np.float64), least=between + 1.0, words=words)
    times = [key.time_s for key in keys if key.time_s is not None]
    gaps = [by_order]
    if len(times) == count:
        gaps.insert(0, _Gap(positions=np.array(times), least=GAP_S, words=f"{GAP_S:g} s"))
    for gap in gaps:
        for stretches in (_STRETCHES, 1):
            val = _choose_stretches(count, stretches)
            train, left = _keep_apart(gap, val)
            # In a recording of a few seconds, two of them are most of it.
            few_left = len(left) <= _MAX_GAPS_SHARE[stretches] * count
            if train and (few_left or (gap is by_order and stretches == 1)):
                where = "the end" if stretches == 1 else f"{stretches} stretches"
                rule = f"val is {where} of the recording, with a gap of {gap.words} to train"
                return Split(train=train, val=val, gap=left, rule=rule)
    every = range(count)
    rule = f"val is train, as {count_noun(count, 'frame')} of one recording cannot be split with a gap"
    return Split(train=every, val=every, gap=(), rule=rule)


@dataclass(frozen=True, kw_only=True)
class _Gap:
    """What is kept between frames of train and of val.

    Attributes:
        positions: of each frame, seconds or its number.
        least: the least distance between a frame of train and one of val, in the same unit.
        words: the gap in words.
    """

    positions: NDArray[np.float64]
    least: float
    words: str


def _choose_stretches(count: int, stretches: int) -> list[int]:
    """The frames at the end of each of as many equal parts of the recording."""
    length = max(1, round(VAL_SHARE * count / stretches))
    ends = [round(count * (i + 1) / stretches) for i in range(stretches)]
    return sorted({max(0, i) for end in ends for i in range(end - length, end)})


def _keep_apart(gap: _Gap, val: Sequence[int]) -> tuple[list[int], list[int]]:
    """The frames that are far enough from every frame of ``val``, and the others that are not in it."""
    of_val = np.sort(gap.positions[list(val)])
    after = np.searchsorted(of_val, gap.positions)
    earlier, later = of_val[np.maximum(after - 1, 0)], of_val[np.minimum(after, len(of_val) - 1)]
    nearest = np.minimum(np.abs(gap.positions - earlier), np.abs(gap.positions - later))
    others = np.setdiff1d(np.arange(len(gap.positions)), val)
    apart = nearest[others] >= gap.least
    return others[apart].tolist(), others[~apart].tolist()

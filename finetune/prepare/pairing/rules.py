"""Rules by which the names of images and depth maps tell which two are a frame, tried from the safest to the last."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.data.readers.matching import frame_key
from finetune.prepare.matching_times import match_times, require_one_clock
from finetune.utils.errors import ListError
from finetune.utils.text import count_noun

# A rule is taken if it pairs this share of the smaller of the two sides; else the best one, if it pairs at least the
# other share.
_SURE, _LEAST = 0.9, 0.5
_DIGITS = re.compile(r"\d+")
# Seconds with a fraction, seconds and a fraction with another sign between them, or a count of ms, us or ns.
_TIME = re.compile(r"(?<!\d)(?:(\d{1,10}\.\d{2,9})|(\d{10})[_-](\d{6,9})|(\d{13}|\d{16}|\d{19}))(?!\d)")
_UNITS_S = {13: 1e-3, 16: 1e-6, 19: 1e-9}
# Median interval between frames, seconds, of times that are in seconds.
_USUAL_INTERVAL_S = (1e-3, 5.0)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """
    Attributes:
        rule: how they were paired, in words that follow "paired by".
        pairs: (index of the image, index of the depth map), in order of time or of their numbers.
        times_s: of each pair, seconds; empty where the names do not tell.
    """

    rule: str
    pairs: Sequence[tuple[int, int]]
    times_s: Sequence[float] = ()


def pair_names(images: Sequence[str], depths: Sequence[str], tolerance_s: float | None, source: object) -> Paired:
    """
    Args:
        images, depths: names of files, without doubles.
        tolerance_s: most seconds between the two of a pair, where times pair them; None: half a frame interval.
        source: names both, for errors.

    Returns:
        The pairs by the first rule that pairs nearly all, or by the one that pairs most.

    Raises:
        ListError: no rule pairs half of them.
    """
    stems = [os.path.splitext(name)[0] for name in images], [os.path.splitext(name)[0] for name in depths]  # noqa: PTH122 - quick
    rules: tuple[Callable[[], Paired | None], ...] = (
        lambda: _pair_keys("equal stems", *stems),
        lambda: _pair_keys("equal names but for a word for the kind", *(list(map(frame_key, side)) for side in stems)),
        lambda: _pair_numbers(*stems),
        lambda: _pair_times(*stems, tolerance_s),
    )
    smaller = min(len(images), len(depths))
    best: Paired | None = None
    for rule in rules:
        found = rule()
        if found and len(found.pairs) >= _SURE * smaller:
            return _in_order(found, stems[0])
        if found and (best is None or len(found.pairs) > len(best.pairs)):
            best = found
    if best and len(best.pairs) >= _LEAST * smaller:
        return _in_order(best, stems[0])
    if len(images) == len(depths) == 1:
        return Paired(rule="being the only ones of their folder", pairs=[(0, 0)])
    _require_pairs(stems, source)
    most = f"; the best, {best.rule}, pairs {len(best.pairs)}" if best and best.pairs else ""
    raise ListError(
        source,
        f"no rule pairs {count_noun(len(images), 'image')} ({images[0]}, ...) with "
        f"{count_noun(len(depths), 'depth map')} ({depths[0]}, ...){most}",
        "Give both files of a frame one stem or one number; or write `image depth` on each line of a list file, and "
        "name that file",
    )


def read_time_s(stem: str) -> float | None:
    """The time that a name holds, seconds: 1305031102.175304, 1305031102_175304000 or 1305031102175; else None."""
    found = _TIME.search(stem)
    if found is None:
        return None
    seconds, whole, fraction, count = found.groups()
    if seconds:
        return float(seconds)
    return int(count) * _UNITS_S[len(count)] if count else float(f"{whole}.{fraction}")


def plain_times(times: Sequence[float | None]) -> list[float]:
    """The times if all are known and look like those of a camera in seconds; else none."""
    known = sorted(time for time in times if time is not None)
    if len(known) < len(times) or len(set(known)) < 2 or all(time == int(time) for time in known):
        return []
    low, high = _USUAL_INTERVAL_S
    interval = float(np.median(np.diff(known)))
    return [time for time in times if time is not None] if low <= interval <= high else []


def _pair_keys(rule: str, images: Sequence[str], depths: Sequence[str]) -> Paired | None:
    """Pairs of equal keys; None where a key is empty or not of one file alone."""
    of_image, of_depth = ({key: i for i, key in enumerate(side)} for side in (images, depths))
    if len(of_image) < len(images) or len(of_depth) < len(depths) or "" in of_image or "" in of_depth:
        return None
    return Paired(rule=rule, pairs=[(i, of_depth[key]) for key, i in of_image.items() if key in of_depth])


def _pair_numbers(images: Sequence[str], depths: Sequence[str]) -> Paired | None:
    """Pairs of equal numbers, where one number of a name differs from file to file; leading zeros mean nothing."""
    best: Paired | None = None
    for own_place, own in _numbers(images).items():
        for other_place, other in _numbers(depths).items():
            of_depth = {number: i for i, number in enumerate(other)}
            pairs = [(i, of_depth[number]) for i, number in enumerate(own) if number in of_depth]
            # Of equal ones, the number at the same place of both names; the frame's number comes before its time.
            better = best is None or len(pairs) > len(best.pairs)
            if pairs and (better or (len(pairs) == len(best.pairs) and own_place == other_place == 0)):  # type: ignore[union-attr]
                best = Paired(rule="equal numbers in their names", pairs=pairs)
    return best


def _numbers(stems: Sequence[str]) -> Mapping[int, list[int]]:
    """Place among the numbers of a name -> that number of each file, where no two files have the same."""
    found = [_DIGITS.findall(stem) for stem in stems]
    if len({len(numbers) for numbers in found}) != 1:
        found = [numbers[-1:] for numbers in found]  # names of several forms end in the number
    places = range(min(map(len, found)))
    columns = {place: [int(numbers[place]) for numbers in found] for place in places}
    return {place: column for place, column in columns.items() if len(set(column)) == len(column)}


def _pair_times(images: Sequence[str], depths: Sequence[str], tolerance_s: float | None) -> Paired | None:
    times = [[read_time_s(stem) for stem in side] for side in (images, depths)]
    own, other = ([time for time in side if time is not None] for side in times)
    if len(own) < len(images) or len(other) < len(depths):
        return None
    pairs = match_times(own, other, tolerance_s)
    if not pairs:
        return None
    apart_s = max(abs(own[i] - other[k]) for i, k in pairs)
    return Paired(rule=f"the nearest time in their names, at most {apart_s:.4g} s apart", pairs=pairs)


def _require_pairs(stems: tuple[Sequence[str], Sequence[str]], source: object) -> None:
    """
    Raises:
        ListError: both names hold times, of clocks that never meet.
    """
    own, other = ([time for stem in side if (time := read_time_s(stem)) is not None] for side in stems)
    if own and other and len(own) == len(stems[0]) and len(other) == len(stems[1]):
        require_one_clock(own, other, ("images", "depth maps"), source)


def _in_order(found: Paired, stems: Sequence[str]) -> Paired:
    """The pairs in order of the times in the names of the images, or else of the numbers in them."""
    times = plain_times([read_time_s(stems[i]) for i, _ in found.pairs])
    if times:
        ordered = sorted(zip(times, found.pairs, strict=True))
        return Paired(rule=found.rule, pairs=[pair for _, pair in ordered], times_s=[time for time, _ in ordered])
    pairs = sorted(found.pairs, key=lambda pair: natural_order(stems[pair[0]]))
    return Paired(rule=found.rule, pairs=pairs)


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts frame 2 before frame 10."""
    parts: Iterable[str] = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def list_names(paths: Iterable[Path], most: int = 3) -> str:
    """The first names of several files: ``a.png, b.png, c.png, ...``."""
    names = [path.name for path in paths]
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

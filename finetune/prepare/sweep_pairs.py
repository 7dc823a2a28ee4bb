"""Pair each image with the sweep that was measured nearest to it in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.prepare.matching_times import describe_matches, match_times, require_one_clock
from finetune.prepare.point_files import point_stem
from finetune.prepare.sweep_times import read_times, times_in_names
from finetune.utils.errors import ListError

_NAMES = ("images", "sweeps")


@dataclass(frozen=True, kw_only=True)
class SweepPairs:
    """
    Attributes:
        images: the image of each frame, in order of time.
        sweeps: its sweep, a position in ``all_sweeps``.
        times_s: the time of each image, seconds; None where only the order is known.
        all_sweeps: every sweep, in order of time, also those without an image.
        sweep_times_s: of all sweeps, seconds; None where only the order is known.
        rule: how they were paired, in a sentence.
    """

    images: Sequence[Path]
    sweeps: Sequence[int]
    times_s: Sequence[float] | None
    all_sweeps: Sequence[Path]
    sweep_times_s: Sequence[float] | None
    rule: str


def pair_sweeps(
    images: Sequence[Path],
    sweeps: Sequence[Path],
    *,
    times: tuple[Path | None, Path | None] = (None, None),
    tolerance_s: float | None = None,
) -> SweepPairs:
    """
    Args:
        images, sweeps: files, sorted by name.
        times: rows of text with the times of images and sweeps; None: by equal stems, else by the times in the names.
        tolerance_s: see ``match_times``.

    Raises:
        ListError: there are no such rows, the times are of two clocks, or nothing pairs up.
    """
    folders = f"{images[0].parent}, {sweeps[0].parent}"
    image_names, sweep_names = [path.name for path in images], [path.name for path in sweeps]
    if times[0] is not None and times[1] is not None:
        found = read_times(times[0], image_names), read_times(times[1], sweep_names)
        return _pair_by_time(images, sweeps, found, tolerance_s, f"{times[0]}, {times[1]}")
    stems = Counter(map(point_stem, sweeps))
    doubled = [stem for stem, count in stems.items() if count > 1]
    if doubled:
        raise ListError(sweeps[0].parent, f"holds several sweeps named {doubled[0]}", "Keep one of each")
    in_names = times_in_names(image_names), times_in_names(sweep_names)
    places = {point_stem(path): i for i, path in enumerate(sweeps)}
    shared = [(image, places[image.stem]) for image in images if image.stem in places]
    if shared:
        left = len(images) - len(shared), len(sweeps) - len(shared)
        known = in_names[0] is not None and in_names[1] is not None
        time_of = dict(zip(image_names, in_names[0] or (), strict=False))
        return SweepPairs(
            images=[image for image, _ in shared],
            sweeps=[place for _, place in shared],
            times_s=[time_of[image.name] for image, _ in shared] if known else None,
            all_sweeps=sweeps,
            sweep_times_s=in_names[1] if known else None,
            rule=f"{len(shared)} images and sweeps are paired by their names; {left[0]} images and {left[1]} sweeps "
            "are left over",
        )
    if in_names[0] is not None and in_names[1] is not None:
        return _pair_by_time(images, sweeps, (in_names[0], in_names[1]), tolerance_s, folders)
    raise ListError(
        folders,
        f"hold no two files of one name ({image_names[0]}, {sweep_names[0]}), and the names are no times",
        "Give --image-times and --points-times, rows of text with the time of each file",
    )


def _pair_by_time(
    images: Sequence[Path],
    sweeps: Sequence[Path],
    times: tuple[Sequence[float], Sequence[float]],
    tolerance_s: float | None,
    source: str,
) -> SweepPairs:
    """
    Raises:
        ListError: the times are of two clocks, or no two of them are within the tolerance.
    """
    require_one_clock(*times, _NAMES, source)
    order = sorted(range(len(sweeps)), key=lambda i: times[1][i])
    all_sweeps, sweep_times = [sweeps[i] for i in order], [times[1][i] for i in order]
    pairs = match_times(times[0], sweep_times, tolerance_s)
    rule = describe_matches(times[0], sweep_times, pairs, _NAMES)
    if not pairs:
        raise ListError(source, f"{rule}: all are farther apart than the tolerance", "Give a larger --tolerance")
    return SweepPairs(
        images=[images[i] for i, _ in pairs],
        sweeps=[j for _, j in pairs],
        times_s=[times[0][i] for i, _ in pairs],
        all_sweeps=all_sweeps,
        sweep_times_s=sweep_times,
        rule=rule,
    )

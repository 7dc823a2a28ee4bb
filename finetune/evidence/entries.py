"""What the facts of several samples of one data entry, or of two, add up to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.evidence.facts import Facts
from finetune.evidence.findings import Finding
from finetune.evidence.registration import REACH_PX, WIDTH_PX, Fit, fit

# By how much, as a natural log, the largest plane of another reading must hold more pixels in the median frame.
_CLEARLY_OTHER = 0.3
_FEWEST_FRAMES = 4  # to be sure of what single frames only suggest
# Registered frames of seventeen cameras gave 0.13 to 0.36, unregistered ones -0.01 to 0.08.
_LEAST_IN_PLACE = 0.1
_SURELY_NOT_IN_PLACE = 0.06
_FITS = 0.12
_REACH = f"{REACH_PX} px, at a width of {WIDTH_PX},"
_LEAST_FOCAL = 0.1  # of the width: a field of view of 157 degrees
_MOST_DIFFERENT_BITS = 12  # of 256, between images that look alike
_TOO_MUCH_HEADROOM = 5.0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data entry and what was found in its samples.

    Attributes:
        key: dotted, ``data.train.0``.
        where: its place in the recipe, for a fix.
        reader: with its options.
        facts: of the samples that could be read.
        ceiling: depth beyond the range is taught as the end of it.
        limit: key and meters of the range.
    """

    key: str
    where: str
    reader: Any
    facts: Sequence[Facts]
    ceiling: bool
    limit: tuple[str, float]


def findings_of(entry: Entry) -> Iterator[Finding]:
    """Everything but what a wrong unit is, which ``inspection`` tells."""
    for look in (_focal, _reading, _registration, _sentinel, _constant, _range):
        yield from look(entry)


def _focal(entry: Entry) -> Iterator[Finding]:
    short = [one for one in entry.facts if one.focal_px is not None and one.focal_px < _LEAST_FOCAL * one.size[1]]
    if short:
        focal, width = short[0].focal_px, short[0].size[1]
        yield Finding(
            severity="stop",
            name="focal",
            key=entry.key,
            evidence=f"{short[0].source}: a focal length of {focal:g} px for images {width} px wide looks like "
            "millimeters",
            fix=f"Write fx and fy in pixels, millimeters * {width} / the sensor's width in millimeters ({entry.where})",
        )


def _reading(entry: Entry) -> Iterator[Finding]:
    """Disparity, or distance along the ray, taken for depth."""
    planes = [
        {name: share for name, share in one.plane.items() if name != "range" or not _is_short(one)}
        for one in entry.facts
        if one.plane
    ]
    for name, needed in (("disparity", "with baseline_m and intrinsics"), ("range", "with intrinsics")):
        shares = [(one[name], one["z"]) for one in planes if name in one]
        if not shares:
            continue
        logs = [math.log(max(other, 1e-3) / max(z, 1e-3)) for other, z in shares]
        if np.median(logs) < _CLEARLY_OTHER or np.mean([log > 0 for log in logs]) < 2 / 3:
            continue
        other, z = np.median(shares, axis=0)
        meaning = "disparity, which falls with distance" if name == "disparity" else "distance along the ray"
        yield Finding(
            severity="stop" if len(shares) >= _FEWEST_FRAMES else "warn",
            name="depth_is",
            key=entry.key,
            evidence=f"the numbers look like {meaning}: read so, the largest flat surface holds {other:.0%} of the "
            f"pixels in the median of {len(shares)} frames, read as depth {z:.0%}",
            fix=f"Set {entry.key}.depth_is: {name}, {needed} ({entry.where})",
        )


def _is_short(one: Facts) -> bool:
    return one.focal_px is not None and one.focal_px < _LEAST_FOCAL * one.size[1]


def _registration(entry: Entry) -> Iterator[Finding]:
    frames = [one.edges for one in entry.facts if one.edges]
    found = fit(frames)
    if not found or found.in_place >= _LEAST_IN_PLACE:
        return
    sure = found.frames >= _FEWEST_FRAMES
    numbers = (
        f"over {found.frames} frames color changes at depth edges by {_percent(found.in_place)} of its range more than "
        "by chance"
    )
    mirrored = fit(frames, mirrored=True)
    if mirrored and mirrored.in_place >= _FITS:
        yield Finding(
            severity="stop" if sure else "warn",
            name="mirrored",
            key=entry.key,
            evidence=f"depth is mirrored left to right: {numbers}, and by {_percent(mirrored.in_place)} once it is "
            "turned",
            fix=f"Mirror the depth maps, or the images, of {entry.key} ({entry.where})",
        )
        return
    distance = math.hypot(found.across_px, found.down_px)
    if found.best >= _LEAST_IN_PLACE and distance >= 2:
        yield Finding(
            severity="stop" if sure and found.best >= _FITS else "warn",
            name="registration",
            key=entry.key,
            evidence=f"depth does not lie on its image: {numbers}, and by {_percent(found.best)} once it is moved "
            f"{_toward(found)}",
            fix="Register depth to color with the two cameras' calibration, as the sensor's own software does "
            f"({entry.where})",
        )
        return
    yield Finding(
        severity="stop" if found.frames >= 2 * _FEWEST_FRAMES and found.in_place < _SURELY_NOT_IN_PLACE else "warn",
        name="registration",
        key=entry.key,
        evidence=f"depth does not belong to its image: {numbers}, and no shift up to {_REACH} brings "
        f"them together (at most {_percent(found.best)})",
        fix=f"Check that each line of {entry.key} names the depth of its own image, registered to it ({entry.where})",
    )


def _percent(share: float) -> str:
    return f"{max(0.0, share):.0%}"


def _toward(found: Fit) -> str:
    across = f"{abs(found.across_px)} px {'right' if found.across_px > 0 else 'left'}"
    down = f"{abs(found.down_px)} px {'down' if found.down_px > 0 else 'up'}"
    return " and ".join(text for text, moved in ((across, found.across_px), (down, found.down_px)) if moved)


def _sentinel(entry: Entry) -> Iterator[Finding]:
    """One far value that many pixels share, with nothing near it, is a code and not a distance."""
    suspects = [one.most_m for one in entry.facts if one.has_code]
    if not suspects:
        return
    (value_m, count), *_ = Counter(suspects).most_common(1)
    if count < max(2, 0.2 * len(entry.facts)):
        return
    unit = getattr(entry.reader, "meters_per_unit", None)
    raw = value_m / unit if unit else value_m
    raw = round(raw) if math.isclose(raw, round(raw), rel_tol=1e-6) else raw  # depth is float32, raw values often whole
    share = float(np.median([one.most_share for one in entry.facts if one.most_m == value_m]))
    listed = [*getattr(entry.reader, "invalid", ()), raw]
    yield Finding(
        severity="stop" if entry.ceiling else "warn",
        name="sentinel",
        key=entry.key,
        evidence=f"{count} of {len(entry.facts)} depth maps have {share:.1%} of their pixels at exactly {raw:.10g} "
        f"({value_m:.4g} m) and nothing near it: it looks like a code for 'not measured'",
        fix=f"Set {entry.key}.invalid: [{', '.join(f'{value:.10g}' for value in listed)}] ({entry.where})"
        if hasattr(entry.reader, "invalid")
        else f"Leave that value out when the data of {entry.key} are written ({entry.where})",
    )


def _constant(entry: Entry) -> Iterator[Finding]:
    flat = [one.source for one in entry.facts if one.constant]
    if len(flat) > 0.05 * len(entry.facts):
        yield Finding(
            severity="warn",
            name="constant",
            key=entry.key,
            evidence=f"{len(flat)} of {len(entry.facts)} depth maps have one depth at all their pixels, such as "
            f"{flat[0]}",
            fix=f"Leave these frames out of {entry.key}, or export what was measured ({entry.where})",
        )


def _range(entry: Entry) -> Iterator[Finding]:
    key, limit_m = entry.limit
    depths = [one.depth_m[one.depth_m < one.most_m] if one.has_code else one.depth_m for one in entry.facts]
    depth_m = np.concatenate(depths) if depths else np.empty(0, np.float32)
    if not depth_m.size:
        return
    end_m = float(np.percentile(depth_m, 99.5))
    suggested_m = suggested_max_depth_m(end_m)
    beyond = float(np.mean(depth_m > limit_m))
    if beyond > 0.01 and not entry.ceiling:
        yield Finding(
            severity="stop" if beyond > 0.5 else "warn",
            name="max_depth",
            key=entry.key,
            evidence=f"{beyond:.0%} of the measured depth is beyond {key} {limit_m:g} and lost",
            fix=f"Set {key}: {suggested_m:g}, or more if the camera is to answer farther",
        )
    elif limit_m > _TOO_MUCH_HEADROOM * suggested_m:
        yield Finding(
            severity="warn",
            name="max_depth",
            key=entry.key,
            evidence=f"99.5 % of the measured depth ends at {end_m:.3g} m, {end_m / limit_m:.0%} of {key} {limit_m:g}: "
            "the head has to learn the rest of its range from nothing, and answers with little resolution near by",
            fix=f"Set {key}: {suggested_m:g}, unless the camera is to answer farther",
        )
    elif entry.key.startswith("data.train"):
        lost = float(np.mean(depth_m > suggested_m))
        yield Finding(
            severity="note",
            name="max_depth",
            key=entry.key,
            evidence=f"99.5 % of the measured depth ends at {end_m:.3g} m: {key} {suggested_m:g} would lose {lost:.2%} "
            f"above it; at {limit_m:g}, {1 - min(1.0, suggested_m / limit_m):.0%} of the range is headroom",
        )


def suggested_max_depth_m(end_m: float) -> float:
    """The 99.5th percentile of depth rounded up, to two digits below 10 m and to whole meters, or fives, above."""
    if end_m < 10:
        return math.ceil(end_m * 10) / 10 if end_m < 2 else math.ceil(end_m * 2) / 2
    return float(math.ceil(end_m)) if end_m < 30 else math.ceil(end_m / 5) * 5.0


def apart(train: Entry, val: Entry, file_name: Callable[[str], str] = lambda source: source) -> Iterator[Finding]:
    """Whether validation frames look like training frames, or come from the same recording."""
    if train.facts and val.facts:
        looks = np.stack([one.look for one in train.facts])
        alike = []
        for one in val.facts:
            bits = np.count_nonzero(looks != one.look, axis=1)
            nearest = int(bits.argmin())
            if bits[nearest] <= _MOST_DIFFERENT_BITS:
                alike.append((one.source, train.facts[nearest].source))
        if alike:
            yield Finding(
                severity="warn",
                name="near_duplicates",
                key=val.key,
                evidence=f"{len(alike)} of {len(val.facts)} frames looked at are nearly the same picture as one of "
                f"{train.key}, such as {file_name(alike[0][0])} and {file_name(alike[0][1])}: their score says "
                "nothing of other places",
                fix=f"Take validation frames from other places or recordings ({val.where})",
            )
    folders = [{str(Path(one.source).parent) for one in entry.facts} for entry in (train, val)]
    shared = sorted(folders[0] & folders[1] - {".", ""})
    if shared:
        yield Finding(
            severity="note",
            name="one_recording",
            key=val.key,
            evidence=f"frames of {train.key} and {val.key} lie in one folder, {shared[0]}: if that is one recording, "
            "neighboring frames are no test",
        )

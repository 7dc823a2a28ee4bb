"""What the facts of many samples say about one data entry, or about two."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from finetune.data.checks.depth_encoding import find_bits, find_shares
from finetune.data.checks.entry import Entry
from finetune.data.checks.findings import Finding
from finetune.data.checks.flatness import Reading
from finetune.data.checks.frame_stats import Facts
from finetune.data.checks.ranges import find_lost_depth, find_sentinel
from finetune.data.checks.registration import MIN_FRAMES, Fit, fit_edges
from finetune.utils.text import count_noun, percent

# How many more pixels, as a natural log, the largest plane of another reading must hold in the median frame.
_CLEARLY_OTHER = 0.3
_MIN_FRAMES = 4  # fewer frames only suggest it
_FEW_LEVELS = 16  # gray levels out of 256; even dark photographs use more than a hundred
# Other readings of the numbers, and what ``depth_is`` needs for each.
_READINGS: tuple[tuple[Reading, str], ...] = (
    (
        "disparity",
        "with baseline_m and intrinsics; of inverse depth depth_is: inverse, with inverse_per_unit; of a renderer's "
        "reversed depth buffer depth_is: z_buffer, with z_buffer_range: one_to_zero",
    ),
    ("range", "with intrinsics"),
)
_MIN_FOCAL = 0.1  # focal length as a share of the width: a field of view of 157 degrees
_MAX_DIFFERENT_BITS = 12  # bits out of the 256 of ``hash_image`` that differ between images that look alike


def find_problems(entry: Entry) -> Iterator[Finding]:
    """All findings of an entry but a wrong unit, which ``training.preflight`` finds."""
    for look in (
        _find_short_focal,
        find_bits,
        find_shares,
        _find_other_reading,
        _find_misregistration,
        find_sentinel,
        _find_constant_depth,
        find_lost_depth,
        _find_few_levels,
    ):
        yield from look(entry)


def _find_short_focal(entry: Entry) -> Iterator[Finding]:
    short = [frame for frame in entry.facts if _is_short(frame)]
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


def _find_few_levels(entry: Entry) -> Iterator[Finding]:
    """Images of more than 8 bits that use few levels: divided by 257, a thermal camera's 900 counts are four grays."""
    levels = [frame.image_levels for frame in entry.facts]
    if len(levels) < _MIN_FRAMES or not 1 < np.median(levels) <= _FEW_LEVELS:
        return
    yield Finding(
        severity="warn",
        name="image_levels",
        key=entry.key,
        evidence=f"its images use {np.median(levels):.0f} of 256 levels, {entry.facts[0].source} first",
        fix="If the images have more than 8 bits, set data.image_black and data.image_white to the stored numbers of "
        "both, or data.image_percentiles: [1, 99]; if they have 8, export them with more contrast",
    )


def _find_other_reading(entry: Entry) -> Iterator[Finding]:
    """Disparity, or distance along the ray, taken for depth."""
    if any(frame.numbers.bits or frame.numbers.scale == "z_buffer" for frame in entry.facts):
        return  # surfaces of such numbers are bent for another reason
    planes = [
        {name: share for name, share in frame.plane.items() if name != "range" or not _is_short(frame)}
        for frame in entry.facts
        if frame.plane
    ]
    for name, needed in _READINGS:
        shares = [(plane[name], plane["z"]) for plane in planes if name in plane]
        if not shares:
            continue
        logs = [math.log(max(other, 1e-3) / max(z, 1e-3)) for other, z in shares]
        if np.median(logs) < _CLEARLY_OTHER or np.mean([log > 0 for log in logs]) < 2 / 3:
            continue
        other, z = np.median(shares, axis=0)
        meaning = (
            "disparity or inverse depth, which fall with distance" if name == "disparity" else "distance along the ray"
        )
        yield Finding(
            severity="stop" if len(shares) >= _MIN_FRAMES else "warn",
            name="depth_is",
            key=entry.key,
            evidence=f"the numbers look like {meaning}: read so, the largest flat surface holds {other:.0%} of the "
            f"pixels in the median of {count_noun(len(shares), 'frame')}, read as depth {z:.0%}",
            fix=f"Set {entry.key}.depth_is: {name}, {needed} ({entry.where})",
        )


def _is_short(frame: Facts) -> bool:
    return frame.focal_px is not None and frame.focal_px < _MIN_FOCAL * frame.size[1]


def _find_misregistration(entry: Entry) -> Iterator[Finding]:
    found = fit_edges([frame.edges for frame in entry.facts if frame.edges])
    if not found:
        if entry.facts and all(frame.sparse for frame in entry.facts):
            yield _note_sparse(entry)
        return
    if found.verdict == "unknown":
        return
    numbers = (
        f"over {count_noun(found.frames, 'frame')} the color at depth edges changes by "
        f"{_percent(found.rise.in_place)} of its range more than around them"
    )
    if entry.reader.has_pseudo_labels:
        yield _warn_of_faint_edges(entry, numbers)
        return
    sure = found.frames >= MIN_FRAMES
    mirrored = fit_edges([frame.edges for frame in entry.facts if frame.edges], mirrored=True)
    if mirrored and mirrored.fits and found.rise.in_place < 0.5 * mirrored.rise.in_place:
        yield Finding(
            severity="stop" if sure else "warn",
            name="mirrored",
            key=entry.key,
            evidence=f"depth is mirrored left to right: {numbers}, and by {_percent(mirrored.rise.in_place)} once it "
            "is turned",
            fix=f"Mirror the depth maps, or the images, of {entry.key} ({entry.where})",
        )
    elif found.verdict == "moved":
        yield Finding(
            severity="stop" if sure else "warn",
            name="registration",
            key=entry.key,
            evidence=f"depth is not aligned with its image: {numbers}, and by {_percent(found.rise.best)} once it is "
            f"moved {_describe_shift(found)}",
            fix="Register depth to color with the two cameras' calibration, as the sensor's own software does "
            f"({entry.where})",
        )
    else:
        yield Finding(
            severity="stop" if sure else "warn",
            name="registration",
            key=entry.key,
            evidence=f"depth does not belong to its image: {numbers}, and moved by up to a sixth of the width by no "
            f"more than {_percent(found.rise.best)}, which is chance",
            fix=f"Check that each line of {entry.key} names the depth of its own image, registered to it, and that its "
            f"numbers are distances, not heights or labels ({entry.where})",
        )


def _warn_of_faint_edges(entry: Entry, numbers: str) -> Finding:
    """A teacher makes a label from its image. One that sees edges badly looks like wrong pairs, so nothing stops."""
    return Finding(
        severity="warn",
        name="registration",
        key=entry.key,
        evidence=f"the edges of the teacher's labels are not where the color changes: {numbers}",
        fix="Label again if the images are not those that were labeled; else the teacher sees edges badly, as finetune "
        f"check --html shows ({entry.where})",
    )


def _note_sparse(entry: Entry) -> Finding:
    share = float(np.median([frame.valid_share for frame in entry.facts]))
    return Finding(
        severity="note",
        name="registration",
        key=entry.key,
        evidence=f"depth is sparse, {percent(share)} of the pixels in the median frame: between its points an edge "
        "can be anywhere, so whether depth is aligned with its image is not judged; finetune check --html shows it",
    )


def _percent(share: float) -> str:
    return f"{max(0.0, share):.0%}"


def _describe_shift(found: Fit) -> str:
    across_px, down_px = found.shift_px
    across = f"{abs(across_px)} px {'right' if across_px > 0 else 'left'}"
    down = f"{abs(down_px)} px {'down' if down_px > 0 else 'up'}"
    return " and ".join(text for text, moved in ((across, across_px), (down, down_px)) if moved)


def _find_constant_depth(entry: Entry) -> Iterator[Finding]:
    flat = [frame.source for frame in entry.facts if frame.constant]
    if len(flat) > 0.05 * len(entry.facts):
        yield Finding(
            severity="warn",
            name="constant",
            key=entry.key,
            evidence=f"{len(flat)} of {len(entry.facts)} depth maps have one depth at all their pixels, such as "
            f"{flat[0]}",
            fix=f"Leave these frames out of {entry.key}, or export what was measured ({entry.where})",
        )


def find_shared_scenes(train: Entry, val: Entry) -> Iterator[Finding]:
    """Whether validation frames look like training frames, or come from the same recording."""
    if train.facts and val.facts:
        looks = np.stack([frame.look for frame in train.facts])
        alike = []
        for frame in val.facts:
            differing = np.count_nonzero(looks != frame.look, axis=1)
            nearest = int(differing.argmin())
            if differing[nearest] <= _MAX_DIFFERENT_BITS:
                alike.append((frame.source, train.facts[nearest].source))
        if alike:
            yield Finding(
                severity="warn",
                name="near_duplicates",
                key=val.key,
                evidence=f"{len(alike)} of {len(val.facts)} frames looked at are nearly the same picture as one of "
                f"{train.key}, such as {alike[0][0]} and {alike[0][1]}: their score says "
                "nothing of other places",
                fix=f"Take validation frames from other places or recordings ({val.where})",
            )
    folders = [{str(Path(frame.source).parent) for frame in entry.facts} for entry in (train, val)]
    shared = sorted(folders[0] & folders[1] - {".", ""})
    if shared:
        yield Finding(
            severity="note",
            name="one_recording",
            key=val.key,
            evidence=f"frames of {train.key} and {val.key} are in one folder, {shared[0]}: if that is one recording, "
            "neighboring frames test nothing",
        )

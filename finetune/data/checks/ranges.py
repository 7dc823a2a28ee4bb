"""Where depth ends: a code, the end of the sensor, or the range that the recipe gives it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from finetune.data.checks.depth_encoding import describe_shares
from finetune.data.checks.entry import Entry, drop_sensor_ends, find_sensor_ends
from finetune.data.checks.findings import Finding
from finetune.data.checks.units import describe_range, suggest_max_depth_m
from finetune.data.reader import Reader
from finetune.utils.text import meters, percent

MAX_SEEN_M = 2000.0  # no camera sees farther; aerial images show 1,400 m
_TOO_MUCH_HEADROOM = 5.0
# Where this share of the depth is within the range, the rest may be the noise of a sensor.
_MOSTLY_WITHIN = 0.95


def find_sentinel(entry: Entry) -> Iterator[Finding]:
    """A far value that many pixels share is no distance: with nothing near it, it is a code; where all maps end at it,
    it is the end of the sensor or of the file."""
    if describe_shares(entry):
        return  # shares end where their range ends
    suspects = [frame.most_m for frame in entry.facts if frame.has_code]
    if suspects:
        (value_m, count), *_ = Counter(suspects).most_common(1)
        if count < max(2, 0.2 * len(entry.facts)):
            return
        nature = "nothing near it: it looks like a code for 'not measured'"
    else:
        ends = find_sensor_ends(entry.facts)
        if not ends:
            return
        value_m = max(ends)
        count = sum(frame.most_m == value_m for frame in entry.facts)
        nature = "nothing beyond it: it looks like the end of the sensor or of the renderer, and not like a distance"
    raw = entry.reader.stored_number(value_m)
    if raw is None:
        evidence = f"{count} of {len(entry.facts)} depth maps have many pixels at their farthest value, and {nature}"
        fix = f"If it is a code, add the number that the files have there to {entry.key}.invalid ({entry.where})"
        yield Finding(severity="warn", name="sentinel", key=entry.key, evidence=evidence, fix=fix)
        return
    # Depth is float32, and raw values are often whole numbers.
    raw = round(raw) if math.isclose(raw, round(raw), rel_tol=1e-6) else raw
    share = float(np.median([frame.most_share for frame in entry.facts if frame.most_m == value_m]))
    listed = [*(entry.reader.invalid or ()), raw]
    yield Finding(
        severity="stop" if entry.ceiling and suspects else "warn",
        name="sentinel",
        key=entry.key,
        evidence=f"{count} of {len(entry.facts)} depth maps have {percent(share)} of their pixels at exactly "
        f"{raw:.10g} ({meters(value_m, 4)}) and {nature}",
        fix=f"Set {entry.key}.invalid: [{', '.join(f'{value:.10g}' for value in listed)}] ({entry.where})"
        if entry.reader.has_option("invalid")
        else f"Leave that value out when the data of {entry.key} are written ({entry.where})",
    )


def find_lost_depth(entry: Entry) -> Iterator[Finding]:
    """Measured depth beyond the range of the recipe, and a range far wider than all depth."""
    key, limit_m = entry.limit
    found = [frame.depth_m for frame in entry.facts]
    depth_m = drop_sensor_ends(np.concatenate(found), entry.facts) if found else np.empty(0, np.float32)
    if not depth_m.size or describe_shares(entry):
        return
    end_m = float(np.percentile(depth_m, 99.5))
    suggested_m = suggest_max_depth_m(end_m)
    beyond = float(np.mean(depth_m > limit_m))
    if beyond > 0.01 and not entry.ceiling:
        yield Finding(
            severity="stop" if beyond > 0.5 else "warn",
            name="max_depth",
            key=entry.key,
            evidence=f"{percent(beyond)} of the measured depth is beyond {key} {limit_m:g} and lost",
            fix=explain_beyond_range(entry.key, entry.reader, (key, limit_m), end_m, beyond),
        )
    elif suggested_m is None or (end_m > limit_m and not entry.ceiling):
        yield Finding(
            severity="note",
            name="max_depth",
            key=entry.key,
            evidence=f"{percent(beyond)} of the measured depth is beyond {key} {limit_m:g} and lost",
        )
    elif limit_m > _TOO_MUCH_HEADROOM * suggested_m:
        yield Finding(
            severity="warn",
            name="max_depth",
            key=entry.key,
            evidence=f"99.5 % of the measured depth ends at {meters(end_m)}, {percent(end_m / limit_m)} of {key} "
            f"{limit_m:g}: the head has to learn the rest of its range from nothing, and resolves "
            "little near by",
            fix=f"Set {key}: {suggested_m:g}, unless the model is to predict farther",
        )
    elif entry.key.startswith("data.train"):
        lost = float(np.mean(depth_m > suggested_m))
        yield Finding(
            severity="note",
            name="max_depth",
            key=entry.key,
            evidence=f"99.5 % of the measured depth ends at {meters(end_m)}: {key} {suggested_m:g} would lose "
            f"{percent(lost)} above it; at {limit_m:g}, {percent(1 - min(1.0, suggested_m / limit_m))} of the range "
            "is headroom",
        )


def explain_beyond_range(entry_key: str, reader: Reader, limit: tuple[str, float], end_m: float, beyond: float) -> str:
    """What to set where a share of the depth is beyond the limit. The noise of a sensor is no reason to raise it."""
    key, limit_m = limit
    if reader.depth_is == "disparity" and not reader.disparity_offset_px:
        # Middlebury's doffs: without it, what is far is many times too far.
        set_offset = f"If the calibration names an offset (doffs), set {entry_key}.disparity_offset_px; if not, set"
        return f"{set_offset} {describe_range(key, end_m)}, or more if the model is to predict farther"
    if end_m > MAX_SEEN_M and reader.has_option("max_depth_m"):
        sky = f"No camera sees {meters(end_m)}, so it is sky or a code: set "
        if entry_key.startswith("data.train"):
            sky += f"{entry_key}.out_of_range: ceiling to teach it as far away, or "
        return f"{sky}{entry_key}.max_depth_m: {limit_m:g} to leave it out"
    farther = f"Set {describe_range(key, end_m)}, or more if the model is to predict farther"
    if beyond > 1 - _MOSTLY_WITHIN or not reader.has_option("max_depth_m"):
        return farther
    own_m = reader.max_depth_m or limit_m
    return (
        f"Set {entry_key}.max_depth_m: {min(own_m, limit_m):g} if the sensor measures no farther, and what is beyond "
        f"is noise; where it is measured well, set {describe_range(key, end_m)}"
    )

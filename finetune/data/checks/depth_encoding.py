"""Stored numbers of an entry that are no plain depth: packed bits, shares of a range, another unit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import Finding
from finetune.data.reader import Reader
from finetune.data.readers.bits import Bits
from finetune.utils.text import meters

_FAR_BEYOND = 5.0  # times as far as all depth: a range that ends there was meant for another unit
# What each coding of bits is called, and the unit of the numbers it holds; None: any.
_BITS: dict[Bits, tuple[str, float | None]] = {
    "rotated": ("millimeters rotated by three bits, as SUN RGB-D and SUN3D write them", 0.001),
    "float16": ("the bits of half floats, as Mid-Air writes meters", 1.0),
    "android_confidence": ("millimeters below three bits of confidence, as Android's DEPTH16 has them", 0.001),
    "swapped": ("whole numbers whose two bytes are exchanged, as in a PGM with its low byte first", None),
}
# Ratios of the medians of two entries that a wrong unit gives: 1/1000 for 1/5000, 1/4000 or 1/256; meters for
# millimeters.
_RATIOS_OF_UNITS = ((3.8, 6.2), (900.0, 1100.0))


def find_bits(entry: Entry) -> Iterator[Finding]:
    """Numbers of 16 bits that are no plain whole numbers."""
    found = Counter(frame.numbers.bits for frame in entry.facts if frame.numbers.bits)
    if not found:
        return
    (kind, count), *_ = found.most_common(1)
    assert kind is not None
    if count < 0.6 * len(entry.facts):
        return
    unit = entry.reader.meters_per_unit
    wraps = any(frame.numbers.matters for frame in entry.facts if frame.numbers.bits == kind)
    if not wraps and unit is not None and math.isclose(unit, 0.001 / 8):
        return  # while nothing wraps around, that unit reads the same
    name, unit_m = _BITS[kind]
    with_unit = "" if unit_m is None else f" and {entry.key}.meters_per_unit: {unit_m:g}"
    way = (
        f"Set {entry.key}.bits: {kind}{with_unit} ({entry.where})"
        if entry.reader.has_option("bits")
        else f"Read the data of {entry.key} by the reader pairs, with bits: {kind} ({entry.where})"
    )
    yield Finding(
        severity="stop",
        name="bits",
        key=entry.key,
        evidence=f"the numbers of {count} of {len(entry.facts)} depth maps look like {name}",
        fix=way,
    )


def find_shares(entry: Entry) -> Iterator[Finding]:
    """Numbers that are all from 0 to 1: meters in front of a camera at a desk, or no meters at all."""
    evidence = describe_shares(entry)
    if evidence:
        fix = explain_shares(entry.key, entry.where, entry.reader)
        yield Finding(severity="warn", name="unit", key=entry.key, evidence=evidence, fix=fix)


def describe_shares(entry: Entry) -> str | None:
    """Why the numbers of an entry may be no meters; None where nothing is strange about them."""
    scaled = [frame for frame in entry.facts if frame.numbers.scale]
    if not scaled or len(scaled) < sum(frame.points > 0 for frame in entry.facts):
        return None
    unit = entry.reader.meters_per_unit or 1.0
    end = 1 if max(frame.most_m for frame in scaled) <= unit * (1 + 1e-6) else 65535
    ends = sum(math.isclose(frame.most_m, end * unit, rel_tol=1e-6) for frame in scaled)
    evidence = f"all numbers are from 0 to {end}, and {ends} of {len(scaled)} depth maps end at exactly {end}"
    if sum(frame.numbers.scale == "z_buffer" for frame in scaled) > 0.5 * len(scaled):
        return f"{evidence}; most of them are near {end}, as in a renderer's depth buffer"
    # Meters of things near by look the same, so these are strange only where a much wider range was meant.
    meant_farther = entry.limit[1] > _FAR_BEYOND * max(frame.most_m for frame in scaled)
    return evidence if ends or unit < 1.0 or meant_farther else None


def explain_shares(key: str, where: str, reader: Reader) -> str:
    """What numbers from 0 to 1 may be, and how to read each; the page of the data set says which they are."""
    by_pairs = "" if reader.has_option("z_near_m") else "read the data by the reader pairs, and "
    return (
        "The data set or the renderer says what they are. Shares of a far plane: set "
        f"{key}.meters_per_unit to its meters (of 16 bits, to its meters / 65535). A depth buffer: "
        f"{by_pairs}set {key}.depth_is: z_buffer, with z_near_m and z_far_m of the renderer's camera, and of 16 bits "
        "z_buffer_per_unit: 1.5259e-5. Each map stretched to its own range: the scale is lost, and only "
        f"head: relative can use them. Meters of what is nearer than 1 m: leave them as they are ({where})"
    )


def find_differing_units(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Entries whose depths differ by as much as two units do: one of them is read in the wrong unit."""
    medians = {entry.key: median for entry in entries if (median := _median_m(entry)) > 0}
    others = [entry for entry in entries if entry.key in medians]
    for i, entry in enumerate(others):
        for first in others[:i]:
            ratio = medians[entry.key] / medians[first.key]
            if not _differ_as_units(ratio, first.reader.meters_per_unit, entry.reader.meters_per_unit):
                continue
            times = f"{max(ratio, 1 / ratio):.3g}" if 0.001 < ratio < 1000 else f"{max(ratio, 1 / ratio):.0f}"
            yield Finding(
                severity="warn",
                name="unit",
                key=entry.key,
                evidence=f"the median depth of {first.key} is {meters(medians[first.key])} and that of {entry.key} "
                f"{meters(medians[entry.key])}, {times} times apart, as if one unit were wrong",
                fix=f"Check meters_per_unit of both ({first.where}; {entry.where}); if one of them really shows what "
                "is so much nearer, set data.accept: [unit]",
            )
            break  # one finding an entry is enough


def _differ_as_units(ratio: float, first: float | None, second: float | None) -> bool:
    """Whether two medians differ by about as much as their units do, or, in one unit, by as much as other units do."""
    times = max(ratio, 1 / ratio)
    of_units = second / first if first and second else 1.0
    if not math.isclose(of_units, 1.0, rel_tol=1e-6):
        # The raw numbers are alike: the depths differ by the units alone.
        return times > 3 and abs(math.log(ratio / of_units)) < min(math.log(2), 0.5 * abs(math.log(of_units)))
    return any(low <= times <= high for low, high in _RATIOS_OF_UNITS)


def _median_m(entry: Entry) -> float:
    depths = [frame.depth_m for frame in entry.facts if frame.depth_m.size]
    return float(np.median(drop_sensor_ends(np.concatenate(depths), entry.facts))) if depths else 0.0

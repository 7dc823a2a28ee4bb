"""What the stored numbers of an entry are, where they are no plain depth: bits, shares of a range, another unit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import Finding
from finetune.data.readers.bits import Bits
from finetune.utils.text import meters

_FAR_BEYOND = 5.0  # a range that ends so many times farther than all depth
# What the bits are called, and the unit of the numbers that they mean.
_BITS: dict[Bits, tuple[str, float]] = {
    "rotated": ("millimeters turned by three bits, as SUN RGB-D and SUN3D write them", 0.001),
    "float16": ("the bits of half floats, as Mid-Air writes meters", 1.0),
    "android_confidence": ("millimeters below three bits of confidence, as Android's DEPTH16 has them", 0.001),
}
# Ratios of the medians of two entries that other units have: 1/1000 beside 1/5000, 1/4000 or 1/256, meters beside
# millimeters.
_RATIOS_OF_UNITS = ((3.8, 6.2), (900.0, 1100.0))


def find_bits(entry: Entry) -> Iterator[Finding]:
    """16 bits that are no plain whole number."""
    found = Counter(one.numbers.bits for one in entry.facts if one.numbers.bits)
    if not found:
        return
    (kind, count), *_ = found.most_common(1)
    assert kind is not None
    if count < 0.6 * len(entry.facts):
        return
    unit = entry.reader.meters_per_unit
    wraps = any(one.numbers.matters for one in entry.facts if one.numbers.bits == kind)
    if not wraps and unit is not None and math.isclose(unit, 0.001 / 8):
        return  # which is the same as long as nothing wraps around
    name, unit_m = _BITS[kind]
    way = (
        f"Set {entry.key}.bits: {kind} and {entry.key}.meters_per_unit: {unit_m:g} ({entry.where})"
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
    """Numbers that all lie from 0 to 1, which are meters of a camera at a desk, or no meters at all."""
    evidence = describe_shares(entry)
    if evidence:
        fix = explain_shares(entry.key, entry.where)
        yield Finding(severity="warn", name="unit", key=entry.key, evidence=evidence, fix=fix)


def describe_shares(entry: Entry) -> str | None:
    """Why the numbers of an entry may be no meters; None where they are nothing strange."""
    told = [one for one in entry.facts if one.numbers.scale]
    if not told or len(told) < len([one for one in entry.facts if one.points]):
        return None
    unit = entry.reader.meters_per_unit or 1.0
    end = 1 if max(one.most_m for one in told) <= unit * (1 + 1e-6) else 65535
    ends = sum(math.isclose(one.most_m, end * unit, rel_tol=1e-6) for one in told)
    evidence = f"all numbers are from 0 to {end}, and {ends} of {len(told)} depth maps end at exactly {end}"
    if sum(one.numbers.scale == "z_buffer" for one in told) > 0.5 * len(told):
        return f"{evidence}; most of them are near {end}, as in a renderer's depth buffer"
    # As meters of what is near they are nothing strange, unless a much wider range was meant.
    meant_farther = entry.limit[1] > _FAR_BEYOND * max(one.most_m for one in told)
    return evidence if ends or unit < 1.0 or meant_farther else None


def explain_shares(key: str, where: str) -> str:
    """What numbers from 0 to 1 are to be read as; the data set's page says which."""
    return (
        "The data set or the renderer says what they are. Shares of a far plane: set "
        f"{key}.meters_per_unit to its meters (of 16 bits, to its meters / 65535). A depth buffer: write meters, "
        "near * far / (far - number * (far - near)). Each map stretched to its own range: the scale is lost, and only "
        f"head: relative can use them. Meters of what is nearer than 1 m: leave them as they are ({where})"
    )


def find_differing_units(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Entries whose depths differ as two units do: one of them is read in a wrong one."""
    medians = {entry.key: median for entry in entries if (median := _median_m(entry)) > 0}
    others = [entry for entry in entries if entry.key in medians]
    for place, entry in enumerate(others):
        for first in others[:place]:
            ratio = medians[entry.key] / medians[first.key]
            if not _differ_as_units(ratio, first.reader.meters_per_unit, entry.reader.meters_per_unit):
                continue
            times = f"{max(ratio, 1 / ratio):.3g}" if 0.001 < ratio < 1000 else f"{max(ratio, 1 / ratio):.0f}"
            yield Finding(
                severity="warn",
                name="unit",
                key=entry.key,
                evidence=f"the median depth of {first.key} is {meters(medians[first.key])} and that of {entry.key} "
                f"{meters(medians[entry.key])}, {times} times apart, as where one unit is wrong",
                fix=f"Check meters_per_unit of both ({first.where}; {entry.where}); if one of them does show what is "
                "so much nearer, set data.accept: [unit]",
            )
            break  # one is enough to look at an entry


def _differ_as_units(ratio: float, first: float | None, second: float | None) -> bool:
    """Whether two medians are apart by about as much as their units, or, in one unit, by as much as others are."""
    times = max(ratio, 1 / ratio)
    of_units = second / first if first and second else 1.0
    if not math.isclose(of_units, 1.0, rel_tol=1e-6):
        # The raw numbers are alike, so that the depths differ by the units alone.
        return times > 3 and abs(math.log(ratio / of_units)) < min(math.log(2), 0.5 * abs(math.log(of_units)))
    return any(low <= times <= high for low, high in _RATIOS_OF_UNITS)


def _median_m(entry: Entry) -> float:
    found = [one.depth_m for one in entry.facts if one.depth_m.size]
    return float(np.median(drop_sensor_ends(np.concatenate(found), entry.facts))) if found else 0.0

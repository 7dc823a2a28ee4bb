"""Which units fit the numbers in depth files, for a user who has to say which one it is."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetune.data.checks.stored_numbers import Numbers, recognize_numbers
from finetune.data.checks.units import UNITS, Unit, find_fitting_units
from finetune.data.readers.bits import decode_bits, has_16_bits
from finetune.data.readers.files import read_depth
from finetune.data.readers.sensors import SENSORS
from finetune.utils.errors import FinetuneError
from finetune.utils.indices import evenly_spread
from finetune.utils.text import count_noun, meters

_LOOKED_AT = 12
# Maps as they come have stray returns far beyond the scene, and sky.
_END_PERCENT = 75
# Ends of ranges, meters, that cameras look at: a desk, a room, a street.
_RANGES_M = (1.0, 10.0, 80.0)
_UNITS_OF_FLOATS = (1.0, 0.01, 0.001)  # the others are those of whole numbers
# A farthest number that more than this share of the pixels have, and all others are nearer by this ratio, is a code.
_FEW, _APART = 5e-4, 1.5


def require_unit(depths: Sequence[Path], arguments: argparse.Namespace) -> None:
    """
    Args:
        depths: the depth files.
        arguments: parsed, with those of ``add_depth_arguments``.

    Raises:
        FinetuneError: no option says what a number in these files is in meters. It names every unit that fits, each
            with the words to add to the call.
        DataError: a file cannot be read.
    """
    if arguments.depth_is not in ("z", "range") or arguments.sensor or arguments.meters_per_unit is not None:
        return
    looked_at = [depths[i] for i in evenly_spread(len(depths), _LOOKED_AT)]
    values, packed = _read_numbers(looked_at, arguments)
    more = f" and {count_noun(len(looked_at) - 1, 'more depth map')}" if len(looked_at) > 1 else ""
    where = f"{looked_at[0]}{more}"
    if packed:
        raise FinetuneError(
            f"{where}: the 16 bits of a number do not look like a plain whole number. Add --bits {packed} to the call, "
            "then the units that fit are listed. Nothing was written."
        )
    if not values.size:
        raise FinetuneError(f"{where}: no number above 0 is in them. Name maps in which something was measured.")
    median, end = float(np.median(values)), float(np.percentile(values, _END_PERCENT))
    units = list_units(median, end) or list_units(median, median)  # most of an open view may be sky
    if not bool(np.all(values == np.rint(values))):
        units = [unit for unit in reversed(units) if unit.meters in _UNITS_OF_FLOATS]
    numbers = f"numbers around {median:.6g}, {_END_PERCENT} % of them up to {end:.6g}"
    found = f"{where}: {numbers}, and nothing says what 1 is in meters"
    if not units:
        raise FinetuneError(
            f"{found}; no usual unit fits. Give --meters-per-unit as the device or the data set says. Nothing was "
            "written."
        )
    rows = [_describe_unit(unit, end) for unit in units]
    raise FinetuneError(
        "\n".join((f"{found}. Nothing was written; add to the call what the device or the data set says:", *rows))
    )


def list_units(median: float, end: float) -> list[Unit]:
    """The units that bring numbers around ``median``, and up to ``end``, into the range of a desk, a room or a
    street, most frequent first."""
    fitting = {
        unit.meters: unit for range_m in _RANGES_M for unit in find_fitting_units(median, end, range_m, current=0.0)
    }
    return [fitting[unit_m] for unit_m in UNITS if unit_m in fitting]


def _describe_unit(unit: Unit, end: float) -> str:
    """``--meters-per-unit 0.001   millimeters: half within 1.72 m, 75 % within 2.9 m; or --sensor realsense``."""
    named = [name for name, (of_sensor, _, _) in SENSORS.items() if math.isclose(of_sensor, unit.meters, rel_tol=1e-6)]
    sensors = f"; for a sensor of these, --sensor {' | '.join(named)}" if named else ""
    distances = f"half within {meters(unit.median_m)}, {_END_PERCENT} % within {meters(end * unit.meters)}"
    return f"  --meters-per-unit {unit.meters:<11.9g} {unit.name}: {distances}{sensors}"


def _read_numbers(paths: Sequence[Path], arguments: argparse.Namespace) -> tuple[np.ndarray, str | None]:
    """The measured numbers of several files, as many of each, and how their bits are packed, if they are."""
    values: list[np.ndarray] = []
    packed: list[Numbers] = []
    for path in paths:
        raw = read_depth(path, arguments.depth_channels, arguments.depth_key)
        if arguments.bits and has_16_bits(raw):
            raw, _ = decode_bits(raw, arguments.bits)
        known = np.isfinite(raw) & (raw > 0)
        for value in arguments.invalid or ():
            known &= raw != value
        known = _drop_code(raw, known)
        if has_16_bits(raw) and not arguments.bits:
            packed.append(recognize_numbers(raw.astype(np.float32), known, 1.0))
        found = raw[known].astype(np.float64)
        values.append(found[:: max(1, len(found) // 20_000)])
    bits = [numbers.bits for numbers in packed if numbers.bits and numbers.matters]
    return np.concatenate(values), bits[0] if len(bits) > 0.6 * len(packed) else None


def _drop_code(raw: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The known pixels without those of a code, for sky or for what is too far."""
    if not known.any():
        return known
    most = raw[known].max()
    below = raw[known & (raw < most)]
    is_code = below.size and (most > _APART * float(below.max()) and known.sum() - below.size > _FEW * known.sum())
    return known & (raw < most) if is_code else known

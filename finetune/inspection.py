"""What is looked at before step 1: that the files are there, and what a few samples say about units and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.batches import evenly_spread
from finetune.errors import DataError, ListError
from finetune.readers.files import DEPTH_SUFFIXES, read_depth
from finetune.recipe import DataEntry, Recipe
from finetune.sample import DepthSample

SAMPLES = 24
FILES_LOOKED_FOR = 20_000  # frames of an entry; half a second
# Below this share of valid pixels the measured part says nothing; 64-line LiDAR has 0.04, a sparse rig 0.002.
_NEARLY_NOTHING = 0.0005
# Options of a reader that say what is valid.
_LIMITS = ("invalid", "min_depth_m", "max_depth_m")
# Units that depth maps are found in, most frequent first: meters for one raw unit -> what it is called.
_UNITS = {
    0.001: "millimeters",
    1 / 256: "KITTI's 1/256 m",
    0.01: "centimeters",
    0.0002: "TUM's 1/5000 m",
    0.0001: "tenths of a millimeter",
    1.0: "meters",
}


@dataclass(frozen=True, kw_only=True)
class EntryDepth:
    """Depth of the samples of one data entry.

    Attributes:
        key: dotted path of the entry in the recipe.
        sources: the samples looked at.
        valid_share: median over the samples of the share of valid pixels.
        depth_m: depths of valid pixels, the same number from each sample; where none is valid, all positive ones.
            What is infinitely far is not among them.
    """

    key: str
    sources: tuple[str, ...]
    valid_share: float
    depth_m: NDArray[np.float32]


def inspect_before_training(recipe: Recipe) -> list[EntryDepth]:
    """
    Look for the files, and at samples, of every entry of ``data.train`` and ``data.val``.

    Raises:
        ListError: files are missing; the first of them, and how many. Told before any sample is decoded.
        DataError: a sample cannot be read, or units, invalid values or max depth cannot be right; names the likely fix.
    """
    entries = {
        f"data.{part}.{place}": entry
        for part, listed in (("train", recipe.data.train), ("val", recipe.data.val))
        for place, entry in enumerate(listed)
    }
    for entry in entries.values():
        _require_files(entry.source)
    looked_at = []
    for key, entry in entries.items():
        depth = _look(entry, key)
        _require_plausible(depth, recipe, entry.source)
        looked_at.append(depth)
    return looked_at


def _require_files(reader: Any) -> None:
    """A training run of hours must not end at the first frame that is not there."""
    if not hasattr(reader, "require_files"):
        return
    looked_for = evenly_spread(len(reader), FILES_LOOKED_FOR)
    missing = []
    for index in looked_for:
        try:
            reader.require_files(index)
        except ListError as error:
            missing.append(error)
    if not missing:
        return
    first, *others = missing
    found = first.found
    if others:
        dots = ", ..." if len(others) > 2 else ""
        found += f", nor do files of {len(others)} more of the {len(looked_for)} frames looked for "
        found += f"({', '.join(error.source for error in others[:2])}{dots})"
    raise ListError(first.source, found, first.fix)


def _look(entry: DataEntry, key: str) -> EntryDepth:
    reader = entry.source
    samples = [reader[index] for index in evenly_spread(len(reader), SAMPLES)]
    _require_deep_enough(samples[0].source)
    shares = [float(sample.valid.mean()) for sample in samples]
    # Beside a few valid ones, the others may be raw values that mean "nothing measured"; they say nothing of the unit.
    only_valid = max(shares) > 0
    return EntryDepth(
        key=key,
        sources=tuple(sample.source for sample in samples),
        valid_share=float(np.median(shares)),
        depth_m=np.concatenate([_some_depths(sample, only_valid) for sample in samples]),
    )


def _some_depths(sample: DepthSample, only_valid: bool) -> NDArray[np.float32]:
    """At most 4096 depths of a sample, evenly picked."""
    chosen = sample.valid if only_valid else sample.depth_m > 0
    depths = sample.depth_m[chosen & np.isfinite(sample.depth_m)]  # how far sky is says nothing
    return depths[:: max(1, len(depths) // 4096)]


def _require_deep_enough(source: str) -> None:
    """8-bit depth is a preview: 256 steps, and no unit."""
    path = Path(source)
    if path.suffix.lower() not in DEPTH_SUFFIXES or not path.is_file():
        return
    if read_depth(source).dtype == np.uint8:
        raise DataError(
            source,
            "depth is stored in 8 bits, which is a picture of depth and not a measurement",
            "Export it as 16-bit PNG in millimeters, or as .npy in meters",
        )


def _require_plausible(depth: EntryDepth, recipe: Recipe, reader: Any) -> None:
    limit, max_depth_m = _limit(recipe)
    where = recipe.where(depth.key)
    source, maps = depth.sources[0], f"{len(depth.sources)} depth maps of {depth.key}"
    if not depth.depth_m.size:
        raise DataError(source, f"none of {maps} has a measured pixel", f"{_check_limits(depth.key, reader)} ({where})")
    median_m = float(np.median(depth.depth_m))
    beyond = float(np.mean(depth.depth_m > max_depth_m))
    found = f"median {median_m:.4g} m over {maps}"
    if beyond > 0.5:
        found += f", {beyond:.0%} of it beyond {limit} {max_depth_m:g}"
    elif median_m < 0.01 * max_depth_m:
        found += f", below 1 % of {limit} {max_depth_m:g}"
    elif depth.valid_share <= _NEARLY_NOTHING:
        # A plausible median rules out a wrong unit: it is the limits that leave nothing.
        found = f"{depth.valid_share:.2%} of the pixels are valid over {maps}, though depth of median {median_m:.4g} m"
        raise DataError(source, f"{found} is there", f"{_check_limits(depth.key, reader)} ({where})")
    else:
        return
    raise DataError(source, *_likely(found, depth.key, where, median_m, (limit, max_depth_m), reader))


def _limit(recipe: Recipe) -> tuple[str, float]:
    """The key that says how far depth goes, and its meters."""
    if recipe.model.max_depth_m is not None:
        return "model.max_depth_m", recipe.model.max_depth_m
    return "evaluation.max_depth_m", recipe.depth_range_m[1]


def _check_limits(key: str, reader: Any) -> str:
    """The options of an entry that say what is valid, with their values."""
    limits = [f"{name} {getattr(reader, name)}" for name in _LIMITS if hasattr(reader, name)]
    return f"Check {key}: {', '.join(limits)}" if limits else f"Check the depth maps of {key}"


def _likely(
    found: str, key: str, where: str, median_m: float, limit: tuple[str, float], reader: Any
) -> tuple[str, str]:
    """What was found with its likely cause, and the fix; ``limit`` as ``_limit`` gave it."""
    name_of_limit, max_depth_m = limit
    right_range = f"{name_of_limit} to what your camera sees"
    meters_per_unit = getattr(reader, "meters_per_unit", None)
    if meters_per_unit is not None:
        raw = median_m / meters_per_unit
        for unit, name in _UNITS.items():
            if not np.isclose(unit, meters_per_unit) and 0.03 <= raw * unit / max_depth_m <= 0.95:
                fix = f"Set {key}.meters_per_unit: {unit:.10g} ({where})"
                return f"{found}: looks like {name}", f"{fix}; if {meters_per_unit:.10g} is right, {right_range}"
    return found, f"Set {right_range}, or mend the entry {key} ({where})"

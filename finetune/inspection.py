"""What is looked at before step 1: a few samples of each data entry, and what they say about units and ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.batches import evenly_spread
from finetune.errors import DataError
from finetune.readers.files import DEPTH_SUFFIXES, read_depth
from finetune.recipe import DataEntry, Recipe
from finetune.sample import DepthSample

SAMPLES = 24
# Below this share of valid pixels the measured part says nothing; 64-line LiDAR has 0.04, a sparse rig 0.002.
_NEARLY_NOTHING = 0.0005
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
        depth_m: depths of valid pixels, the same number from each sample; where hardly any is valid, all positive ones.
    """

    key: str
    sources: tuple[str, ...]
    valid_share: float
    depth_m: NDArray[np.float32]


def inspect_before_training(recipe: Recipe) -> list[EntryDepth]:
    """
    Look at samples of every entry of ``data.train`` and ``data.val``.

    Raises:
        DataError: a sample cannot be read, or units, invalid values or max depth cannot be right; names the likely fix.
    """
    looked_at = []
    for part, entries in (("train", recipe.data.train), ("val", recipe.data.val)):
        for place, entry in enumerate(entries):
            depth = _look(entry, f"data.{part}.{place}")
            _require_plausible(depth, recipe, getattr(entry.source, "meters_per_unit", None))
            looked_at.append(depth)
    return looked_at


def _look(entry: DataEntry, key: str) -> EntryDepth:
    reader = entry.source
    samples = [reader[index] for index in evenly_spread(len(reader), SAMPLES)]
    _require_deep_enough(samples[0].source)
    shares = [float(sample.valid.mean()) for sample in samples]
    share = float(np.median(shares))
    return EntryDepth(
        key=key,
        sources=tuple(sample.source for sample in samples),
        valid_share=share,
        depth_m=np.concatenate([_some_depths(sample, share > _NEARLY_NOTHING) for sample in samples]),
    )


def _some_depths(sample: DepthSample, only_valid: bool) -> NDArray[np.float32]:
    """At most 4096 depths of a sample, evenly picked."""
    depths = sample.depth_m[sample.valid] if only_valid else sample.depth_m[sample.depth_m > 0]
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


def _require_plausible(depth: EntryDepth, recipe: Recipe, meters_per_unit: float | None) -> None:
    max_depth_m = recipe.model.max_depth_m
    where = recipe.where(depth.key)
    if not depth.depth_m.size:
        raise DataError(
            depth.sources[0],
            f"none of {len(depth.sources)} depth maps of {depth.key} has a measured pixel",
            f"Check {depth.key}.invalid, min_depth_m and max_depth_m ({where})",
        )
    median_m = float(np.median(depth.depth_m))
    beyond = float(np.mean(depth.depth_m > max_depth_m))
    if depth.valid_share > _NEARLY_NOTHING and beyond <= 0.5 and median_m >= 0.01 * max_depth_m:
        return
    found = f"median {median_m:.4g} m over {len(depth.sources)} depth maps of {depth.key}"
    if beyond > 0.5:
        found += f", {beyond:.0%} of it beyond model.max_depth_m {max_depth_m:g}"
    elif median_m < 0.01 * max_depth_m:
        found += f", below 1 % of model.max_depth_m {max_depth_m:g}"
    else:
        found += f", but only {depth.valid_share:.2%} of the pixels are valid"
    raise DataError(depth.sources[0], *_likely(found, depth.key, where, median_m, max_depth_m, meters_per_unit))


def _likely(
    found: str, key: str, where: str, median_m: float, max_depth_m: float, meters_per_unit: float | None
) -> tuple[str, str]:
    """What was found with its likely cause, and the fix."""
    if meters_per_unit is not None:
        raw = median_m / meters_per_unit
        for unit, name in _UNITS.items():
            if not np.isclose(unit, meters_per_unit) and 0.03 <= raw * unit / max_depth_m <= 0.95:
                return f"{found}: looks like {name}", f"Set {key}.meters_per_unit: {unit:.10g} ({where})"
    return found, f"Set model.max_depth_m to what your camera sees, or mend the entry {key} ({where})"

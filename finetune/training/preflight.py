"""Checks before step 1: whether the files exist, and whether a few samples have plausible units and ranges."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.depth_encoding import explain_shares, find_differing_units
from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import JUDGMENTS, Finding, accept_findings, sort_findings
from finetune.data.checks.frame_stats import Facts, collect_facts, left_out_share, plain_unit
from finetune.data.checks.ranges import MAX_SEEN_M, explain_beyond_range
from finetune.data.checks.rules import find_problems
from finetune.data.checks.units import describe_range, find_fitting_units, join_with_or, unit_name
from finetune.data.checks.zoom import find_mixed_lenses
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import (
    FEW_BAD_PERCENT,
    FEW_BAD_SAMPLES,
    NAMED_BAD_SAMPLES,
    Reader,
    list_sources,
    too_many_bad,
    try_read,
)
from finetune.data.readers.files import DEPTH_SUFFIXES, read_depth
from finetune.data.sample import DepthSample
from finetune.recipe.schema import DataEntry, Recipe
from finetune.utils.errors import DataError, FileFault, ListError
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import is_file
from finetune.utils.text import count_noun, meters, percent

SAMPLES = 24
SAMPLES_LOOKED_INTO = 12  # samples searched for edges and surfaces, 50 ms each; eight must have edges
FILES_LOOKED_FOR = 20_000  # frames of an entry; half a second
# With fewer measured pixels an image, in the median, a run learns scale and hardly any shape.
_FEW_POINTS = 50
# With this many times more numbers left out than valid, the limits are at fault.
_MOSTLY_LEFT_OUT = 10
# What a camera in a room, or at a desk, sees: a median depth between these, and nearly all depth up to the third.
_USUAL_MEDIAN_M = (0.3, 8.0)
_USUAL_END_M = 12.0
# A larger share of measured depth beyond the range is worth a warning. Every sensor's maps have a few stray returns.
MAX_BEYOND = 0.01


@dataclass(frozen=True, kw_only=True)
class EntryDepth:
    """Depth of the samples of one data entry.

    Attributes:
        key: dotted path of the entry in the recipe.
        sources: the samples looked at.
        valid_share: median over the samples of the share of valid pixels.
        points: median over the samples of the number of valid pixels.
        left_out_share: median over the samples of the share of pixels with a positive number that is not valid.
        depth_m: depths of valid pixels, the same number from each sample; if no pixel is valid, all positive depths.
            Infinite depths are left out, and so are the ends of the sensor's range if there is any other depth.
        facts: of some of the samples, for what single numbers do not show.
        constant: every sample with more than one valid pixel has one depth at all of them, and there is such a sample.
        skipped: what was wrong with frames that are missing or cannot be read, where the recipe says to skip them.
    """

    key: str
    sources: tuple[str, ...]
    valid_share: float
    points: float
    left_out_share: float
    depth_m: NDArray[np.float32]
    facts: tuple[Facts, ...] = ()
    constant: bool = False
    skipped: tuple[str, ...] = ()


def inspect_before_training(recipe: Recipe) -> list[EntryDepth]:
    """
    Look for the files, and at samples, of every entry of ``data.train`` and ``data.val``.

    Where ``data.on_bad_sample`` is ``skip``, a few training frames may be missing or unreadable.

    Raises:
        ListError: files are missing; names the first, and how many. Or a frame is in both train and val. Raised before
            any sample is decoded.
        DataError: a sample cannot be read, or units, invalid values or max depth cannot be right; names the likely fix.
    """
    entries = {
        f"data.{part}.{i}": entry
        for part, listed in (("train", recipe.data.train), ("val", recipe.data.val))
        for i, entry in enumerate(listed)
    }
    may_skip = {key for key in entries if key.startswith("data.train.") and recipe.data.on_bad_sample == "skip"}
    missing = {key: find_missing_files(entry.source, may_skip=key in may_skip) for key, entry in entries.items()}
    if not recipe.data.val_may_repeat_train:
        require_apart(recipe)
    looked_at = []
    for key, entry in entries.items():
        depth = _inspect_entry(entry, key, missing[key], may_skip=key in may_skip)
        worst = next(iter(judge_entry(recipe, depth, make_entry(recipe, key, depth.facts))), None)
        if worst and worst.severity == "stop":
            raise DataError(key, worst.evidence, worst.way_on)
        looked_at.append(depth)
    return looked_at


def judge_entry(recipe: Recipe, depth: EntryDepth, entry: Entry) -> list[Finding]:
    """
    The findings of one entry, by which ``check`` and ``train`` stop alike. What the recipe accepts becomes a note.

    Args:
        depth, entry: what was found in the same samples, or in more of them.
    """
    found = list(find_problems(entry))
    implausible: list[Finding] = []
    if any(finding.name == "bits" and finding.severity == "stop" for finding in found):
        # Numbers that are no depth have no unit.
        found = [finding for finding in found if finding.name != "max_depth"]
    else:
        for finding in find_implausible(depth, recipe, entry.reader):
            implausible.append(finding)
            # Each explains the later ones, unless it is as it should be.
            if finding.name not in recipe.data.accept:
                break
    if implausible:
        # Nothing is said twice about the unit or the range.
        said = {"max_depth", *(finding.name for finding in implausible)}
        found = [*(finding for finding in found if finding.name not in said), *implausible]
    return sort_findings(accept_findings(found, recipe.data.accept))


def make_entry(recipe: Recipe, key: str, facts: Sequence[Facts]) -> Entry:
    """The entry of a key such as ``data.train.0``, as the rules for findings take it."""
    _, part, number = key.split(".")
    entry = (recipe.data.train if part == "train" else recipe.data.val)[int(number)]
    return Entry(
        key=key,
        where=recipe.where(key),
        reader=entry.source,
        facts=facts,
        ceiling=part == "train" and entry.out_of_range == "ceiling",
        limit=_find_limit(recipe) if part == "train" else _find_scored_limit(recipe),
    )


def quick_warnings(looked_at: Sequence[EntryDepth], recipe: Recipe) -> list[str]:
    """Sentences about what does not stop a run and should be looked at; ``finetune check`` looks at more samples."""
    entries = [make_entry(recipe, depth.key, depth.facts) for depth in looked_at]
    found = [finding for entry in entries for finding in find_problems(entry)] + list(find_differing_units(entries))
    if recipe.data.camera.mode == "none" and recipe.model.head == "metric":
        trained = [entry for entry in entries if entry.key.startswith("data.train.")]
        found += find_mixed_lenses(trained, Preprocessing(input_size=recipe.data.input_size))
    return [
        f"{finding.sentence()} finetune check says more."
        for finding in sort_findings(accept_findings(found, recipe.data.accept))
        # ``beyond_range_notes`` is about depth beyond the range.
        if finding.name in JUDGMENTS and finding.name != "max_depth" and finding.severity == "warn"
    ]


def skipped_notes(looked_at: Sequence[EntryDepth]) -> list[str]:
    """A sentence for each entry that has frames which will be skipped."""
    return [
        f"{depth.key}: frames are missing or cannot be read, and others will replace them; the run ends once more "
        f"than {FEW_BAD_SAMPLES} samples, and more than {FEW_BAD_PERCENT} % of them, were such: "
        + "; ".join(depth.skipped[:NAMED_BAD_SAMPLES])
        + (f"; and {more} more" if (more := len(depth.skipped) - NAMED_BAD_SAMPLES) > 0 else "")
        for depth in looked_at
        if depth.skipped
    ]


def beyond_range_notes(looked_at: Sequence[EntryDepth], recipe: Recipe) -> list[str]:
    """A sentence for each entry with measured depth beyond what the head can predict, or beyond what is scored."""
    notes = []
    for depth in looked_at:
        part, number = depth.key.split(".")[1:]
        limit, max_depth_m = _find_limit(recipe) if part == "train" else _find_scored_limit(recipe)
        if part == "train" and recipe.data.train[int(number)].out_of_range == "ceiling":
            continue  # the recipe says what becomes of it
        share = float(np.mean(depth.depth_m > max_depth_m))
        if share <= MAX_BEYOND:
            continue
        end_m = float(np.percentile(depth.depth_m, 99.5))
        left_out = "is not trained on" if part == "train" else "is not scored"
        reader = make_entry(recipe, depth.key, ()).reader
        notes.append(
            f"{percent(share)} of the measured depth of {depth.key} is beyond {limit} {max_depth_m:g} m and "
            f"{left_out}. " + explain_beyond_range(depth.key, reader, (limit, max_depth_m), end_m, share)
        )
    return notes


def find_missing_files(reader: Reader, *, may_skip: bool) -> list[FileFault]:
    """Frames without files. A training run of hours must not end at the first of them."""
    looked_for = evenly_spread(len(reader), FILES_LOOKED_FOR)
    missing: list[FileFault] = []
    for index in looked_for:
        try:
            reader.require_files(index)
        except ListError as error:
            missing.append(error)
    if not missing or (may_skip and not too_many_bad(len(missing), len(looked_for))):
        return missing
    first, *others = missing
    found = first.found
    if others:
        dots = ", ..." if len(others) > 2 else ""
        found += f", nor do files of {len(others)} more of the {len(looked_for)} frames looked for "
        found += f"({', '.join(error.source for error in others[:2])}{dots})"
    raise ListError(first.source, found, first.fix)


def require_apart(recipe: Recipe) -> None:
    """Refuse frames in both train and val, whose score says nothing about other frames."""
    held_out = {
        find_real_place(source): (f"data.val.{i}", source)
        for i, entry in enumerate(recipe.data.val)
        for source in list_sources(entry.source)
    }
    for i, entry in enumerate(recipe.data.train):
        shared = dict.fromkeys(
            found for source in list_sources(entry.source) if (found := held_out.get(find_real_place(source)))
        )
        if not shared:
            continue
        train, (val, first) = f"data.train.{i}", next(iter(shared))
        count = sum(of == val for of, _ in shared)
        raise ListError(
            recipe.where(val),
            f"{val} and {train} ({recipe.where(train)}) share {count_noun(count, 'frame')}, {first} first",
            "Take what is shared out of one of them, or, if this is meant, set data.val_may_repeat_train: true",
            code="repeated",
        )


def find_real_place(source: str) -> tuple[str, str]:
    """The real folder of a source, which a recipe may name in several ways, and its name in that folder."""
    folder, name = os.path.split(source)
    if name in _links_in(folder):
        folder, name = os.path.split(os.path.realpath(source))
    return _real_folder(folder), name


@lru_cache(maxsize=100_000)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


@lru_cache(maxsize=100_000)
def _links_in(folder: str) -> frozenset[str]:
    """Names of the links in a folder, read at once: asking for each file takes minutes over a network."""
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(entry.name for entry in entries if os.DirEntry.is_symlink(entry))
    except (OSError, ValueError):
        return frozenset()


def _inspect_entry(entry: DataEntry, key: str, missing: Sequence[FileFault], *, may_skip: bool) -> EntryDepth:
    """``missing``: frames that are known not to be there, and to be skipped."""
    reader = entry.source
    looked_at = [try_read(reader, index) for index in evenly_spread(len(reader), SAMPLES)]
    samples = [found for found in looked_at if isinstance(found, DepthSample)]
    faults = [found for found in looked_at if isinstance(found, FileFault)]
    if faults and not (may_skip and samples and not too_many_bad(len(faults), len(looked_at))):
        raise faults[0]
    spans_m = [span_m for sample in samples if (span_m := _span_m(sample)) is not None]
    shares = [float(sample.valid.mean()) for sample in samples]
    # Where a few pixels are valid, the others may hold raw values that mean "nothing measured", which have no unit.
    only_valid = max(shares) > 0
    looked_into = evenly_spread(len(samples), SAMPLES_LOOKED_INTO)
    facts = tuple(collect_facts(samples[i], plain_unit(reader)) for i in looked_into)
    return EntryDepth(
        key=key,
        sources=tuple(sample.source for sample in samples),
        valid_share=float(np.median(shares)),
        points=float(np.median([np.count_nonzero(sample.valid) for sample in samples])),
        left_out_share=float(np.median([left_out_share(sample) for sample in samples])),
        depth_m=drop_sensor_ends(np.concatenate([_pick_depths(sample, only_valid) for sample in samples]), facts),
        facts=facts,
        constant=bool(spans_m) and not any(spans_m),
        skipped=tuple(dict.fromkeys(fault.cause for fault in (*missing, *faults))),
    )


def _pick_depths(sample: DepthSample, only_valid: bool) -> NDArray[np.float32]:
    """At most 4096 depths of a sample, evenly picked."""
    chosen = sample.valid if only_valid else sample.depth_m > 0
    depths = sample.depth_m[chosen & np.isfinite(sample.depth_m)]  # how far sky is says nothing
    return depths[:: max(1, len(depths) // 4096)]


def _span_m(sample: DepthSample) -> float | None:
    """By how much the measured depths of a sample differ; None where fewer than two pixels have any."""
    depths = sample.depth_m[sample.valid & np.isfinite(sample.depth_m)]
    return float(np.ptp(depths)) if len(depths) > 1 else None


def _nothing_measured(source: str, reader: Reader) -> tuple[str, str]:
    """What the numbers in a depth file without any measured pixel are, and how to fix them; empty if unknown."""
    path = Path(source)
    if path.suffix.lower() not in DEPTH_SUFFIXES or not is_file(path):
        return "", ""
    raw = read_depth(source, reader.depth_channels, reader.depth_key)
    finite = raw[np.isfinite(raw)]
    if not finite.size:
        return "; all numbers in this one are NaN or infinite", "Export depth as numbers above 0. "
    least, most = finite.min(), finite.max()
    return (
        f"; the numbers in this one are from {least:g} to {most:g}",
        "" if most > 0 else "Export depth as numbers above 0. ",
    )


def find_implausible(depth: EntryDepth, recipe: Recipe, reader: Reader) -> Iterator[Finding]:
    """What is wrong with unit, range, count and spread of the measured depth of an entry; causes come first."""
    limit, max_depth_m = _find_limit(recipe)
    where = recipe.where(depth.key)
    source, maps = depth.sources[0], f"{len(depth.sources)} depth maps of {depth.key}"

    def finding(name: str, evidence: str, fix: str) -> Finding:
        evidence, fix = f"{source}: {evidence}", fix if where in fix else f"{fix} ({where})"
        return Finding(severity="stop", name=name, key=depth.key, evidence=evidence, fix=fix)

    if not depth.depth_m.size:
        numbers, fix = _nothing_measured(source, reader)
        yield finding(
            "few_points",
            f"none of {maps} has a measured pixel{numbers}",
            f"{fix}{_check_limits(depth.key, reader)}",
        )
        return
    median_m = float(np.median(depth.depth_m))
    beyond = float(np.mean(depth.depth_m > max_depth_m))
    found = f"median {meters(median_m, 4)} over {maps}"
    if beyond > 0.5 or median_m < 0.01 * max_depth_m:
        found += (
            f", {percent(beyond)} of it beyond {limit} {max_depth_m:g}"
            if beyond > 0.5
            else f", below 1 % of {limit} {max_depth_m:g}"
        )
        depths_m = median_m, float(np.percentile(depth.depth_m, 99.5))
        yield finding(*_explain_range(found, depth, where, depths_m, (limit, max_depth_m), reader))
    if depth.points < _FEW_POINTS and depth.left_out_share > _MOSTLY_LEFT_OUT * depth.valid_share:
        share = percent(depth.valid_share)
        found = f"{share} of the pixels are valid over {maps}, though depth of median {meters(median_m, 4)} is there"
        yield finding("few_points", found, _check_limits(depth.key, reader))
    elif depth.points < _FEW_POINTS:
        pixels = f"{depth.points:.3g} measured pixel{'s' * (depth.points != 1)}"
        found = f"{pixels} an image ({percent(depth.valid_share)}) in the median of {maps}"
        fix = "a rangefinder, a radar or a reconstruction gives so few, which teach the scale and hardly any shape"
        yield finding("few_points", found, f"{_check_limits(depth.key, reader)}; {fix}")
    if depth.constant:
        found = f"each of {maps} has the same depth at all its pixels, {meters(median_m, 4)} in the median"
        yield finding("constant", found, f"Export the depth that was measured, or fix the entry {depth.key}")


def _find_limit(recipe: Recipe) -> tuple[str, float]:
    """The key that says how far depth goes, and its meters."""
    if recipe.model.max_depth_m is not None:
        return "model.max_depth_m", recipe.model.max_depth_m
    return "evaluation.max_depth_m", recipe.depth_range_m[1]


def _find_scored_limit(recipe: Recipe) -> tuple[str, float]:
    """The key that says up to which depth is scored, and its meters."""
    key = "model.max_depth_m" if recipe.evaluation.max_depth_m is None else "evaluation.max_depth_m"
    return key, recipe.depth_range_m[1]


def _check_limits(key: str, reader: Reader) -> str:
    """The options of an entry that say what is valid, with their values."""
    values = {"invalid": reader.invalid, "min_depth_m": reader.min_depth_m, "max_depth_m": reader.max_depth_m}
    limits = [f"{name} {value}" for name, value in values.items() if reader.has_option(name)]
    return f"Check {key}: {', '.join(limits)}" if limits else f"Check the depth maps of {key}"


def _explain_range(
    found: str,
    depth: EntryDepth,
    where: str,
    depths_m: tuple[float, float],
    limit: tuple[str, float],
    reader: Reader,
) -> tuple[str, str, str]:
    """
    The name of a finding, what was found with its likely causes, and the fix.

    Args:
        depths_m: the median, and where nearly all of the depth ends.
        limit: as ``_find_limit`` gave it.
    """
    key, (median_m, end_m), (name_of_limit, max_depth_m) = depth.key, depths_m, limit
    meters_per_unit = reader.meters_per_unit
    if meters_per_unit is None:
        return "max_depth", found, f"Set {describe_range(name_of_limit, end_m)}, or fix the entry {key} ({where})"
    kept = f"; if {unit_name(meters_per_unit)} are right, set {describe_range(name_of_limit, end_m)}"
    if depth.facts and all(facts.numbers.scale for facts in depth.facts):
        return "unit", f"{found}: the numbers look like shares of a range", explain_shares(key, where, reader)
    units = find_fitting_units(median_m / meters_per_unit, end_m / meters_per_unit, max_depth_m, meters_per_unit)
    numbers = join_with_or([f"{unit.meters:.10g}" for unit in units])
    if _USUAL_MEDIAN_M[0] <= median_m <= _USUAL_MEDIAN_M[1] and end_m <= _USUAL_END_M:
        # With this unit the depth is what cameras see, so the range is wrong.
        fix = f"Set {describe_range(name_of_limit, end_m)}, where nearly all of it ends, or fix the entry {key}"
        others = f"; {key}.meters_per_unit: {numbers} would fit too: the device or the data set says" if units else ""
        return "max_depth", found, f"{fix}{others} ({where})"
    if not units:
        return "unit", found, f"Set {describe_range(name_of_limit, end_m)}, or fix the entry {key} ({where})"
    found += f": looks like {join_with_or([f'{unit.name} (median {meters(unit.median_m)})' for unit in units])}"
    which = ", whichever the device or the data set says" if len(units) > 1 else ""
    fix = f"Set {key}.meters_per_unit: {numbers}{which} ({where})"
    # A larger depth is in another unit.
    return "unit", found, fix + (kept if end_m <= MAX_SEEN_M else "")

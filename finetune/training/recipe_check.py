"""All that ``finetune check`` looks at: recipe, data, checkpoint, and one real step; nothing is trained or written."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from finetune.data.checks.depth_encoding import find_differing_units
from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import Finding, accept_findings, sort_findings
from finetune.data.checks.frame_stats import Facts, collect_facts, plain_unit
from finetune.data.checks.rules import find_shared_scenes
from finetune.data.checks.summary import Checked, Summary
from finetune.data.checks.zoom import find_differing_zoom, find_elongated
from finetune.data.dataloader import ErrorCapturingDataset, init_worker
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, try_read
from finetune.data.readers.files import read_depth
from finetune.data.sample import DepthSample
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.models.encoder_specs import PATCH
from finetune.recipe.load import default_notes
from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import MAX_PATCHES, MIN_PATCHES, DataEntry, Recipe
from finetune.training.build import make_run, total_steps
from finetune.training.environment import make_accelerator, try_compiler
from finetune.training.preflight import EntryDepth, entry_of, judged, missing_files, require_apart
from finetune.training.promises import require_exports, require_protocols
from finetune.training.startup import Startup, prepare_startup, with_auto_resolved
from finetune.utils.errors import CheckpointError, DataError, FileFault, FinetuneError, ListError
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import expand_path

SAMPLES = 200
_PERCENTILES = (0, 1, 50, 95, 99.5, 100)
_BINS = 40
_TRIAL_STEPS = 3
_SMALL, _LARGE = 252, 518  # short sides of the two input sizes that are suggested, pixels


def check_recipe(recipe: Recipe, path: str, *, samples: int = SAMPLES, step: bool = True) -> Checked:
    """
    Args:
        recipe: as read; its file is ``path``.
        samples: how many of each entry to look at, at most.
        step: also take real steps on real batches, to know what one costs.

    Returns:
        What was found; nothing of it raises.
    """
    checked = Checked(recipe=path)
    entries: dict[str, Entry] = {}
    for part, listed in (("train", recipe.data.train), ("val", recipe.data.val)):
        for place, data_entry in enumerate(listed):
            key = f"data.{part}.{place}"
            found = _look(recipe, key, data_entry, samples, checked)
            if found:
                entries[key] = found
    _look_across(recipe, entries, checked)
    begin = None
    if not any(finding.severity == "stop" for finding in checked.findings):
        checked.findings += _of_promise("evaluation", "evaluation.protocols", lambda: require_protocols(recipe))
        begin = _try_model(recipe, step, checked)
    checked.findings += _of_promise("export", "export", lambda: require_exports(recipe, begin))
    checked.findings += _taken_folder(recipe)
    checked.findings = sort_findings(checked.findings)
    return checked


def _of_promise(name: str, key: str, require: Callable[[], None]) -> list[Finding]:
    """What ``train`` would refuse before step 1, as findings, one a line."""
    try:
        require()
    except FinetuneError as fault:
        return [
            Finding(severity="stop", name=name, key=key, evidence=line.rstrip(".")) for line in str(fault).splitlines()
        ]
    return []


def _taken_folder(recipe: Recipe) -> list[Finding]:
    """That there is a run in the run folder, which ``train`` does not touch; or that it cannot be written to."""
    folder = RunFolder(expand_path(recipe.output) / recipe.name)
    for severity, resume in (("stop", True), ("note", False)):
        try:
            folder.require_free(resume=resume, overwrite=False)
        except FinetuneError as fault:
            return [Finding(severity=severity, name="run", key="output", evidence=str(fault).rstrip("."))]  # type: ignore[arg-type]
    return []


def _look(recipe: Recipe, key: str, entry: DataEntry, samples: int, checked: Checked) -> Entry | None:
    """One entry; None where nothing of it can be read."""
    reader, where = entry.source, recipe.where(key)
    try:
        frames = len(reader)
        missing_files(reader, may_skip=False)
    except FileFault as fault:
        checked.findings.append(_of_fault(key, fault, where))
        return None
    indices = evenly_spread(frames, samples)
    looked_at = list(_facts(reader, indices, recipe.data.workers, key))
    faults = [one for one in looked_at if isinstance(one, FileFault)]
    facts = [one for one in looked_at if isinstance(one, Facts)]
    if faults:
        checked.findings.append(_of_faults(key, reader, faults, len(indices), where))
    if not facts:
        return None
    found = entry_of(recipe, key, facts)
    checked.findings += judged(recipe, _depth(key, facts), found)
    checked.summaries.append(_summary(key, frames, facts))
    checked.worst[key] = _worst(reader, indices, looked_at)
    return found


class _FactsOf(Dataset[Any]):
    """The facts of picked samples of a reader, or what is wrong with them."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self._reader = reader
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> Facts | FileFault:
        found = try_read(self._reader, self._indices[place])
        return collect_facts(found, plain_unit(self._reader)) if isinstance(found, DepthSample) else found


def _facts(reader: Reader, indices: Sequence[int], workers: int, key: str) -> Iterator[Facts | FileFault]:
    loader = DataLoader(
        ErrorCapturingDataset(_FactsOf(reader, indices)),
        batch_size=None,
        sampler=range(len(indices)),
        num_workers=min(workers, len(indices) // 8),  # starting one takes longer than looking at a few
        collate_fn=_as_is,
        worker_init_fn=init_worker,
    )
    yield from tqdm(loader, desc=key, unit="sample", dynamic_ncols=True, disable=None)


def _as_is(facts: Any) -> Any:
    return facts


def _of_fault(key: str, fault: FileFault, where: str, name: str = "files") -> Finding:
    fix = fault.fix if where in fault.fix else f"{fault.fix} ({where})"
    return Finding(severity="stop", name=name, key=key, evidence=fault.cause, fix=fix)


def _of_faults(key: str, reader: Reader, faults: Sequence[FileFault], looked_at: int, where: str) -> Finding:
    first = faults[0]
    evidence = first.cause + (f", and {len(faults) - 1} more of {looked_at} looked at" if len(faults) > 1 else "")
    if len(faults) == looked_at and _is_swapped(reader):
        return Finding(
            severity="stop",
            name="files",
            key=key,
            evidence=f"image and depth are swapped: {evidence}, while what stands for the image is one value a pixel",
            fix=f"Write the image first and the depth map second in the lines of {key} ({where})",
        )
    return Finding(severity="stop", name="files", key=key, evidence=evidence, fix=f"{first.fix} ({where})")


def _is_swapped(reader: Reader) -> bool:
    """Whether what a reader takes for images can be read as depth of 16 bits or more."""
    try:
        files = reader.files(0)
        return files is not None and read_depth(files[0]).dtype.itemsize > 1
    except (DataError, ListError):
        return False


def _depth(key: str, facts: Sequence[Facts]) -> EntryDepth:
    """The facts in the form that ``inspection`` judges units by."""
    usable = [one for one in facts if one.depth_m.size]
    return EntryDepth(
        key=key,
        sources=tuple(one.source for one in facts),
        valid_share=float(np.median([one.valid_share for one in facts])),
        points=float(np.median([one.points for one in facts])),
        left_out_share=float(np.median([one.left_out_share for one in facts])),
        depth_m=drop_sensor_ends(np.concatenate([one.depth_m for one in usable]), facts)
        if usable
        else np.empty(0, np.float32),
        facts=tuple(facts),
        constant=any(one.constant for one in facts) and all(one.constant for one in usable if len(one.depth_m) > 1),
    )


def _summary(key: str, frames: int, facts: Sequence[Facts]) -> Summary:
    depth_m = np.concatenate([one.depth_m for one in facts])
    sizes: dict[str, int] = {}
    for one in facts:
        size = f"{one.size[0]}x{one.size[1]}"
        sizes[size] = sizes.get(size, 0) + 1
    percentiles: dict[str, float] = {}
    edges: NDArray[np.floating] = np.empty(0)
    counts: NDArray[np.integer] = np.empty(0, dtype=np.intp)
    if depth_m.size:
        values = np.percentile(depth_m, _PERCENTILES)
        percentiles = {f"{share:g}": float(value) for share, value in zip(_PERCENTILES, values, strict=True)}
        edges = np.geomspace(max(float(values[0]), 1e-6) * 0.999, float(values[-1]) * 1.001, _BINS + 1)
        counts, _ = np.histogram(depth_m, bins=edges)
    return Summary(
        key=key,
        frames=frames,
        looked_at=len(facts),
        sizes=sizes,
        valid_share=float(np.median([one.valid_share for one in facts])),
        percentiles_m=percentiles,
        bin_edges_m=[float(edge) for edge in edges],
        counts=[int(count) for count in counts],
    )


def _worst(
    reader: Reader, indices: Sequence[int], looked_at: Sequence[Facts | FileFault], most: int = 3
) -> list[DepthSample]:
    """The samples whose depth edges meet the least color; without edges, those with the least depth."""

    def badness(one: Facts) -> float:
        if one.edges is None:
            return 1.0 + one.valid_share
        return float(one.edges.color[one.edges.rows, one.edges.columns].mean()) / 255

    places = [place for place, one in enumerate(looked_at) if isinstance(one, Facts)]
    places.sort(key=lambda place: badness(looked_at[place]))  # type: ignore[arg-type]
    return [reader[indices[place]] for place in places[:most]]


def _look_across(recipe: Recipe, entries: dict[str, Entry], checked: Checked) -> None:
    """What two entries say of each other, and the sizes that suit all."""
    if not recipe.data.val_may_repeat_train:
        try:
            require_apart(recipe)
        except FileFault as fault:
            if fault.code == "repeated":
                fix = f"{fault.fix} ({fault.source})"
                repeated = Finding(severity="stop", name="repeated", key="data.val", evidence=fault.found, fix=fix)
                checked.findings.append(repeated)
            elif len(entries) == len(recipe.data.train) + len(recipe.data.val):
                # An entry whose list cannot be read is not among them, and its fault was named when it was looked at.
                checked.findings.append(_of_fault("data.val", fault, recipe.where("data.val")))
        for key, train in entries.items():
            for other, val in entries.items():
                if key.startswith("data.train") and other.startswith("data.val"):
                    checked.findings += find_shared_scenes(train, val)
    checked.findings += accept_findings(find_differing_units(list(entries.values())), recipe.data.accept)
    checked.findings += _zooms(recipe, entries)
    sizes = [one.size for entry in entries.values() for one in entry.facts]
    if sizes:
        height, width = max(set(sizes), key=sizes.count)
        small, large = (f"[{', '.join(map(str, fitting_size(height, width, short)))}]" for short in (_SMALL, _LARGE))
        ours = recipe.data.input_size
        checked.findings.append(
            Finding(
                severity="note",
                name="input_size",
                key="data.input_size",
                evidence=f"most frames are {height}x{width} (height x width); sizes of that shape are {small} to try "
                f"things and {large} as Depth Anything V2 was trained; the recipe has [{ours[0]}, {ours[1]}]",
            )
        )


def _zooms(recipe: Recipe, entries: dict[str, Entry]) -> Iterator[Finding]:
    preprocessing = Preprocessing(input_size=recipe.data.input_size)
    trained, scored = (
        [entry for key, entry in entries.items() if key.startswith(f"data.{part}.")] for part in ("train", "val")
    )
    for entry in trained:
        yield from find_elongated(entry, preprocessing)
    crops = [protocol_settings(name).image_crop for name in recipe.evaluation.protocols or ("plain",)]
    yield from find_differing_zoom(trained, scored, preprocessing, crops)


def fitting_size(height: int, width: int, short_px: int) -> tuple[int, int]:
    """(height, width) that a recipe takes, multiples of the patch, of the shape of an image and ``short_px`` at its
    short side; less where the long one would be too long."""
    scale = min(short_px / min(height, width), MAX_PATCHES * PATCH / max(height, width))
    sides = (min(MAX_PATCHES, max(MIN_PATCHES, round(side * scale / PATCH))) * PATCH for side in (height, width))
    rows, columns = sides
    return rows, columns


def _try_model(recipe: Recipe, step: bool, checked: Checked) -> Startup | None:
    """Read the checkpoint, hold it against labeled pixels, and take real steps; what a run would start from."""
    begin = None
    try:
        accelerator, notes = make_accelerator(recipe)
        if recipe.run.compile:
            try_compiler(accelerator.device)
        begin = prepare_startup(recipe, accelerator)
        entries = (*recipe.data.train, *recipe.data.val)
        of_readers = dict.fromkeys(note for entry in entries for note in entry.source.notes)
        checked.notes += [*of_readers, *default_notes(recipe), *notes, *begin.notes]
        if begin.checkpoint and begin.checkpoint.license:
            checked.notes.append(f"license of the base: {begin.checkpoint.license}")
        recipe = with_auto_resolved(recipe, begin.checkpoint, accelerator.mixed_precision)
        steps = total_steps(recipe, accelerator.num_processes)
        run = make_run(recipe, accelerator, begin, RunFolder(expand_path(recipe.output) / recipe.name), log=False)
        if step:
            _take_steps(run, steps, checked)
    except FinetuneError as fault:
        of_checkpoint = isinstance(fault, CheckpointError)
        name, key = ("checkpoint", "model.checkpoint") if of_checkpoint else ("run", "")
        checked.findings.append(Finding(severity="stop", name=name, key=key, evidence=str(fault).rstrip(".")))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    return begin


def _take_steps(run: Any, steps: int, checked: Checked) -> None:
    device = run.accelerator.device
    seconds = []
    for _ in range(_TRIAL_STEPS):
        began = time.perf_counter()
        run.take_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    # The first one waits for workers to start and for kernels to be chosen.
    a_step = statistics.median(seconds[1:])
    on_gpu = device.type == "cuda"
    # Of this process since it began; Linux counts kilobytes, macOS bytes.
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peak = torch.cuda.max_memory_allocated(device) if on_gpu else resident
    hours = a_step * steps / 3600
    checked.step = {"seconds": a_step, "peak_bytes": float(peak), "steps": steps, "hours": hours}
    checked.findings.append(
        Finding(
            severity="note",
            name="step",
            key="run",
            evidence=f"a step takes {a_step:.3g} s on {device}, with {peak / 2**30:.2f} GiB of "
            f"{'its memory' if on_gpu else 'memory'} at most: {steps} steps are {hours:.2g} hours, evaluation and "
            "saving aside",
        )
    )

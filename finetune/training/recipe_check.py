"""What ``finetune check`` looks at: recipe, data, checkpoint, and a few real steps. Nothing is written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from numpy.typing import NDArray
from torch.utils.data import Dataset
from tqdm import tqdm

from finetune.data.checks.depth_encoding import find_differing_units
from finetune.data.checks.entry import Entry, drop_sensor_ends
from finetune.data.checks.findings import Finding, accept_findings, sort_findings
from finetune.data.checks.frame_stats import Facts, collect_facts, plain_unit
from finetune.data.checks.rules import find_shared_scenes
from finetune.data.checks.summary import Checked, Summary
from finetune.data.checks.zoom import find_differing_zoom, find_elongated, find_mixed_lenses, seen_focals_px
from finetune.data.dataloader import ErrorCapturingDataset, make_loader
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, try_read
from finetune.data.readers.files import read_depth
from finetune.data.sample import DepthSample
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.models.encoder_specs import PATCH
from finetune.recipe.load import default_notes
from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import MAX_PATCHES, MIN_PATCHES, DataEntry, Recipe
from finetune.training.build import make_run
from finetune.training.data_loading import choose_loading
from finetune.training.environment import make_accelerator, try_compiler
from finetune.training.preflight import EntryDepth, find_missing_files, judge_entry, make_entry, require_apart
from finetune.training.promises import require_exports, require_protocols
from finetune.training.retention import KEY, require_retention
from finetune.training.startup import Startup, prepare_startup
from finetune.training.step_cost import cost_sentence, peak_memory_bytes
from finetune.training.trackers import require_trackers
from finetune.training.trainer import Trainer
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
        for i, data_entry in enumerate(listed):
            key = f"data.{part}.{i}"
            found = _check_entry(recipe, key, data_entry, samples, checked)
            if found:
                entries[key] = found
    _check_across(recipe, entries, checked)
    startup = None
    if not any(finding.severity == "stop" for finding in checked.findings):
        checked.findings += _find_refusals("evaluation", "evaluation.protocols", lambda: require_protocols(recipe))
        startup = _try_model(recipe, step, checked)
        base = startup.checkpoint if startup else None
        checked.findings += _find_refusals("evaluation", KEY, lambda: require_retention(recipe, base))
    checked.findings += _find_refusals("export", "export", lambda: require_exports(recipe, startup))
    checked.findings += _find_refusals("run", "run.trackers", lambda: require_trackers(recipe))
    checked.findings += _find_taken_folder(recipe)
    checked.findings = sort_findings(checked.findings)
    return checked


def _find_refusals(name: str, key: str, require: Callable[[], None]) -> list[Finding]:
    """What ``train`` would refuse before step 1, as findings, one a line."""
    try:
        require()
    except FinetuneError as fault:
        return [
            Finding(severity="stop", name=name, key=key, evidence=line.rstrip(".")) for line in str(fault).splitlines()
        ]
    return []


def _find_taken_folder(recipe: Recipe) -> list[Finding]:
    """A finding where the run folder holds a run already, which ``train`` does not touch, or cannot be written to."""
    folder = RunFolder(expand_path(recipe.output) / recipe.name)
    for severity, resume in (("stop", True), ("note", False)):
        try:
            folder.require_free(resume=resume, overwrite=False)
        except FinetuneError as fault:
            return [Finding(severity=severity, name="run", key="output", evidence=str(fault).rstrip("."))]  # type: ignore[arg-type]
    return []


def _check_entry(recipe: Recipe, key: str, entry: DataEntry, samples: int, checked: Checked) -> Entry | None:
    """One entry; None where nothing of it can be read."""
    reader, where = entry.source, recipe.where(key)
    try:
        frames = len(reader)
        find_missing_files(reader, may_skip=False)
    except FileFault as fault:
        checked.findings.append(_make_fault_finding(key, fault, where))
        return None
    indices = evenly_spread(frames, samples)
    workers = choose_loading(recipe.data, torch.device("cpu")).workers
    looked_at = list(_collect_facts(reader, indices, workers, key))
    faults = [found for found in looked_at if isinstance(found, FileFault)]
    facts = [found for found in looked_at if isinstance(found, Facts)]
    if faults:
        checked.findings.append(_make_faults_finding(key, reader, faults, len(indices), where))
    if not facts:
        return None
    found = make_entry(recipe, key, facts)
    checked.findings += judge_entry(recipe, _summarize_depth(key, facts), found)
    focals_px = seen_focals_px(facts, Preprocessing(input_size=recipe.data.input_size))
    checked.summaries.append(_summarize_entry(key, frames, facts, focals_px))
    checked.worst[key] = _pick_worst(reader, indices, looked_at)
    return found


class _FactsOf(Dataset[Any]):
    """The facts of picked samples of a reader, or what is wrong with them."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self._reader = reader
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Facts | FileFault:
        found = try_read(self._reader, self._indices[i])
        return collect_facts(found, plain_unit(self._reader)) if isinstance(found, DepthSample) else found


def _collect_facts(reader: Reader, indices: Sequence[int], workers: int, key: str) -> Iterator[Facts | FileFault]:
    loader = make_loader(
        ErrorCapturingDataset(_FactsOf(reader, indices)),
        batch_size=None,
        sampler=range(len(indices)),
        num_workers=min(workers, len(indices) // 8),  # starting one takes longer than looking at a few
        collate_fn=_as_is,
    )
    yield from tqdm(loader, desc=key, unit="sample", dynamic_ncols=True, disable=None)


def _as_is(facts: Any) -> Any:
    return facts


def _make_fault_finding(key: str, fault: FileFault, where: str, name: str = "files") -> Finding:
    fix = fault.fix if where in fault.fix else f"{fault.fix} ({where})"
    return Finding(severity="stop", name=name, key=key, evidence=fault.cause, fix=fix)


def _make_faults_finding(key: str, reader: Reader, faults: Sequence[FileFault], looked_at: int, where: str) -> Finding:
    first = faults[0]
    evidence = first.cause + (f", and {len(faults) - 1} more of {looked_at} looked at" if len(faults) > 1 else "")
    if len(faults) == looked_at and _is_swapped(reader):
        return Finding(
            severity="stop",
            name="files",
            key=key,
            evidence=f"image and depth are swapped: {evidence}, while the image's file has one value a pixel",
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


def _summarize_depth(key: str, facts: Sequence[Facts]) -> EntryDepth:
    """The facts in the form that ``preflight`` judges units by."""
    usable = [frame for frame in facts if frame.depth_m.size]
    return EntryDepth(
        key=key,
        sources=tuple(frame.source for frame in facts),
        valid_share=float(np.median([frame.valid_share for frame in facts])),
        points=float(np.median([frame.points for frame in facts])),
        left_out_share=float(np.median([frame.left_out_share for frame in facts])),
        depth_m=drop_sensor_ends(np.concatenate([frame.depth_m for frame in usable]), facts)
        if usable
        else np.empty(0, np.float32),
        facts=tuple(facts),
        constant=any(frame.constant for frame in facts)
        and all(frame.constant for frame in usable if len(frame.depth_m) > 1),
    )


def _summarize_entry(key: str, frames: int, facts: Sequence[Facts], focals_px: Sequence[float]) -> Summary:
    depth_m = np.concatenate([frame.depth_m for frame in facts])
    sizes: dict[str, int] = {}
    for frame in facts:
        size = f"{frame.size[0]}x{frame.size[1]}"
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
        valid_share=float(np.median([frame.valid_share for frame in facts])),
        percentiles_m=percentiles,
        bin_edges_m=[float(edge) for edge in edges],
        counts=[int(count) for count in counts],
        focal_px=(min(focals_px), float(np.median(focals_px)), max(focals_px)) if focals_px else None,
    )


def _pick_worst(
    reader: Reader, indices: Sequence[int], looked_at: Sequence[Facts | FileFault], most: int = 3
) -> list[DepthSample]:
    """The samples whose depth edges fit color edges least; without edges, those with the least depth."""

    def fit(facts: Facts) -> float:
        if facts.edges is None:
            return 1.0 + facts.valid_share
        return float(facts.edges.color[facts.edges.rows, facts.edges.columns].mean()) / 255

    readable = [(facts, index) for facts, index in zip(looked_at, indices, strict=True) if isinstance(facts, Facts)]
    readable.sort(key=lambda pair: fit(pair[0]))
    return [reader[index] for _, index in readable[:most]]


def _check_across(recipe: Recipe, entries: dict[str, Entry], checked: Checked) -> None:
    """Findings about two entries together, and input sizes that suit most frames."""
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
                checked.findings.append(_make_fault_finding("data.val", fault, recipe.where("data.val")))
        for key, train in entries.items():
            for other, val in entries.items():
                if key.startswith("data.train") and other.startswith("data.val"):
                    checked.findings += find_shared_scenes(train, val)
    checked.findings += accept_findings(find_differing_units(list(entries.values())), recipe.data.accept)
    checked.findings += _compare_zooms(recipe, entries)
    sizes = [facts.size for entry in entries.values() for facts in entry.facts]
    if sizes:
        height, width = max(set(sizes), key=sizes.count)
        small, large = (f"[{', '.join(map(str, fitting_size(height, width, short)))}]" for short in (_SMALL, _LARGE))
        wanted = recipe.data.input_size
        checked.findings.append(
            Finding(
                severity="note",
                name="input_size",
                key="data.input_size",
                evidence=f"most frames are {height}x{width} (height x width); sizes of that shape are {small} to try "
                f"things and {large} as Depth Anything V2 was trained; the recipe has [{wanted[0]}, {wanted[1]}]",
            )
        )


def _compare_zooms(recipe: Recipe, entries: dict[str, Entry]) -> Iterator[Finding]:
    preprocessing = Preprocessing(input_size=recipe.data.input_size)
    trained, scored = (
        [entry for key, entry in entries.items() if key.startswith(f"data.{part}.")] for part in ("train", "val")
    )
    for entry in trained:
        yield from find_elongated(entry, preprocessing)
    if recipe.data.camera.mode == "canonical":
        return
    crops = [protocol_settings(name).image_crop for name in recipe.evaluation.protocols or ("plain",)]
    yield from find_differing_zoom(trained, scored, preprocessing, crops)
    if recipe.model.head == "metric":
        yield from accept_findings(find_mixed_lenses(trained, preprocessing), recipe.data.accept)


def fitting_size(height: int, width: int, short_px: int) -> tuple[int, int]:
    """(height, width) that a recipe takes, multiples of the patch, of the shape of an image and ``short_px`` at its
    short side; less where the long one would be too long."""
    scale = min(short_px / min(height, width), MAX_PATCHES * PATCH / max(height, width))
    sides = (min(MAX_PATCHES, max(MIN_PATCHES, round(side * scale / PATCH))) * PATCH for side in (height, width))
    rows, columns = sides
    return rows, columns


def _try_model(recipe: Recipe, step: bool, checked: Checked) -> Startup | None:
    """Read the checkpoint, compare it with labeled pixels, and take real steps; what a run would start from."""
    startup = None
    try:
        accelerator, notes = make_accelerator(recipe)
        if recipe.run.compile:
            try_compiler(accelerator.device)
        startup = prepare_startup(recipe, accelerator)
        entries = (*recipe.data.train, *recipe.data.val)
        of_readers = dict.fromkeys(note for entry in entries for note in entry.source.notes)
        checked.notes += [*of_readers, *default_notes(recipe), *notes, *startup.warnings, *startup.notes]
        checked.notes += [startup.loaded] if startup.loaded else []
        checked.notes += [str(startup.baselines)] if startup.baselines else []
        if startup.checkpoint and startup.checkpoint.license:
            checked.notes.append(f"license of the base: {startup.checkpoint.license}")
        run = make_run(startup, RunFolder(expand_path(recipe.output) / recipe.name), log=False)
        if step:
            _take_steps(run.trainer, checked)
    except FinetuneError as fault:
        of_checkpoint = isinstance(fault, CheckpointError)
        name, key = ("checkpoint", "model.checkpoint") if of_checkpoint else ("run", "")
        checked.findings.append(Finding(severity="stop", name=name, key=key, evidence=str(fault).rstrip(".")))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    return startup


def _take_steps(trainer: Trainer, checked: Checked) -> None:
    device, steps = trainer.accelerator.device, trainer.total_steps
    seconds = []
    for _ in range(_TRIAL_STEPS):
        began = time.perf_counter()
        trainer.take_step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    # The first step waits for workers to start and for kernels to be chosen.
    a_step = statistics.median(seconds[1:])
    peak = float(peak_memory_bytes(device))
    checked.step = {"seconds": a_step, "peak_bytes": peak, "steps": steps, "hours": a_step * steps / 3600}
    evidence = cost_sentence(a_step, steps, peak, device)
    checked.findings.append(Finding(severity="note", name="step", key="run", evidence=evidence))

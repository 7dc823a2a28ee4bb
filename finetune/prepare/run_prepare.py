"""From the frames of a source to a folder that trains: frame by frame in several processes, then lists and recipe."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

import finetune
from finetune.prepare.depth_unit import DepthRange, join_ranges
from finetune.prepare.frame_record import FrameRecord
from finetune.prepare.frame_work import FrameTask, FrameWork
from finetune.prepare.journal import Journal
from finetune.prepare.naming import name_frames
from finetune.prepare.output_folder import require_output, write_texts
from finetune.prepare.poses import format_poses
from finetune.prepare.recording import FrameSource
from finetune.prepare.selection import select_frames
from finetune.prepare.split import split_frames
from finetune.prepare.summary import PreparedFrames
from finetune.prepare.workers import run_tasks
from finetune.prepare.writer import DepthLimits
from finetune.utils.errors import DataError, FinetuneError
from finetune.utils.files import explain_write_errors, move_into_place
from finetune.utils.paths import real_path


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What is the same for every kind.

    Attributes:
        output: the folder to make.
        request: what the user asked for, as JSON takes it: a later call with the same goes on where this one stops.
        every, max_frames: see ``select_frames``.
        limits: of the depth that is kept.
        workers: number of processes.
        skip_bad: leave out frames that cannot be read.
        overwrite: replace a folder that was prepared before.
        checkpoint: for the recipe; None: the embedded one.
    """

    output: Path
    request: Mapping[str, object]
    every: int = 1
    max_frames: int | None = None
    limits: DepthLimits = field(default_factory=DepthLimits)
    workers: int = 1
    overwrite: bool = False
    skip_bad: bool = False
    checkpoint: str | None = None


def prepare_frames(source: FrameSource, options: PrepareOptions) -> PreparedFrames:
    """
    Write the folder.

    Args:
        source: the frames.
        options: see there.

    Returns:
        What is in the folder.

    Raises:
        FinetuneError: there is nothing to prepare, a frame cannot be read, or the folder cannot be written. Frames
            that are done stay, for a later call; without any, nothing is left behind.
    """
    require_output(options.output, overwrite=options.overwrite)
    taken = select_frames(source.keys, options.every, options.max_frames)
    if not taken:
        raise DataError(options.output, "there is no frame to prepare", "Name a source that holds frames")
    journal = Journal(real_path(options.output), _describe_request(source, taken, options))
    with journal:
        try:
            with explain_write_errors(options.output):
                journal.open(overwrite=options.overwrite)
            _write_frames(source, taken, journal, options)
            prepared = _summarize_or_discard(source, taken, journal, options)
            with explain_write_errors(options.output):
                write_texts(journal.content, prepared)
                move_into_place(journal.content, real_path(options.output))
                journal.discard()
        except (FinetuneError, KeyboardInterrupt):
            journal.discard_if_empty()
            raise
    return prepared


def _describe_request(source: FrameSource, taken: Sequence[int], options: PrepareOptions) -> dict[str, object]:
    """What must be the same for a later call to go on: the version, what was asked for, and the frames there are."""
    names = "\n".join(f"{key.recording}/{key.stem}" for key in (source.keys[index] for index in taken))
    frames = f"{len(taken)} frames, {zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"
    return {**options.request, "version": finetune.__version__, "frames": frames}


def _write_frames(source: FrameSource, taken: Sequence[int], journal: Journal, options: PrepareOptions) -> None:
    """Write the frames that are not written yet, then the depth of those whose unit does not fit all frames."""
    names = dict(zip(taken, name_frames([source.keys[index] for index in taken]), strict=True))
    work = FrameWork(
        source=source,
        folder=journal.content,
        output=options.output,
        limits=options.limits,
        skip_bad=options.skip_bad,
    )
    known = _KnownRange(join_ranges(record.range for record in journal.records.values() if not record.left_out))
    missing = [index for index in taken if index not in journal.records]

    def make_task(index: int) -> FrameTask:
        return FrameTask(index=index, name=names[index], known=known.range)

    tasks = [partial(make_task, index) for index in missing]
    with tqdm(
        total=len(taken), initial=len(taken) - len(missing), unit="frame", dynamic_ncols=True, disable=None
    ) as bar:
        for record in run_tasks(work, tasks, options.workers):
            _note(record, journal, options)
            if not record.left_out:
                known.range = known.range.joined(record.range)
            bar.update()
    # Frames that were written before a farther one, or one with other numbers, was seen.
    again = [
        partial(FrameTask, index=record.index, name=names[record.index], known=known.range, record=record)
        for record in (journal.records[index] for index in taken)
        if not record.left_out and record.unit != known.range.unit
    ]
    if again:
        unit = f"depth again, in units of {known.range.unit:.6g} m"
        for record in tqdm(
            run_tasks(work, again, options.workers), unit, len(again), unit="frame", dynamic_ncols=True, disable=None
        ):
            _note(record, journal, options)


@dataclass
class _KnownRange:
    """The range of the frames that are written so far."""

    range: DepthRange


def _note(record: FrameRecord, journal: Journal, options: PrepareOptions) -> None:
    with explain_write_errors(options.output):
        journal.add(record)


def _summarize_or_discard(
    source: FrameSource, taken: Sequence[int], journal: Journal, options: PrepareOptions
) -> PreparedFrames:
    """``_summarize``; what it refuses, no later call can make good."""
    try:
        return _summarize(source, taken, journal, options)
    except DataError:
        journal.discard()
        raise


def _summarize(source: FrameSource, taken: Sequence[int], journal: Journal, options: PrepareOptions) -> PreparedFrames:
    """
    Raises:
        DataError: no depth was measured.
    """
    records = [journal.records[index] for index in taken]
    kept = [record for record in records if not record.left_out]
    if not kept:
        reasons = "; ".join(f"{len(frames)}: {reason}" for reason, frames in _list_left_out(records).items())
        raise DataError(
            options.output,
            f"none of {len(records)} frames can be used ({reasons})",
            "Look at the depth files, their unit, and the values that mean nothing was measured",
        )
    keys = [source.keys[record.index] for record in kept]
    totals: Counter[str] = Counter()
    for record in kept:
        totals.update(record.totals or {})
    facts = {record.source: record.facts or {} for record in kept}
    at_end = [*source.describe_counts(totals), *source.describe_facts(facts)]
    return PreparedFrames(
        output=options.output,
        request=options.request,
        records=kept,
        keys=keys,
        split=split_frames(keys),
        left_out=_list_left_out(records),
        notes=[*source.notes, *at_end],
        notes_at_end=at_end,
        recipe_options=source.recipe_options,
        poses=format_poses(source, [record.index for record in kept]),
        checkpoint=options.checkpoint,
    )


def _list_left_out(records: Sequence[FrameRecord]) -> dict[str, list[str]]:
    """Why frames were left out -> where to find them."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record.left_out:
            found.setdefault(record.left_out, []).append(record.source)
    return found

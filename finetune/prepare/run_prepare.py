"""From the frames of a source to a folder that trains: frame by frame in several processes, then lists and recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

import finetune
from finetune.prepare.depth_unit import DepthRange, join_ranges
from finetune.prepare.frame_record import FrameRecord
from finetune.prepare.journal import Journal
from finetune.prepare.naming import name_frames
from finetune.prepare.output_folder import require_output, write_texts
from finetune.prepare.recording import FrameLeftOut, FrameSource
from finetune.prepare.selection import select_frames
from finetune.prepare.split import split_frames
from finetune.prepare.summary import PreparedFrames
from finetune.prepare.workers import run_tasks
from finetune.prepare.writer import DepthLimits, keep_depth, write_depth, write_frame
from finetune.utils.errors import DataError, FinetuneError
from finetune.utils.files import explain_write_errors, move_into_place


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What is the same for every kind.

    Attributes:
        output: the folder to make.
        request: what the user asked for, as JSON takes it: a later call with the same goes on where this one stops.
        every, max_frames: see ``select_frames``.
        limits: of the depth that is kept.
        workers: number of processes.
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
    request = {**options.request, "version": finetune.__version__, "frames": len(taken)}
    journal = Journal(options.output, request)
    with explain_write_errors(options.output), journal:
        journal.open(overwrite=options.overwrite)
        try:
            _write_frames(source, taken, journal, options)
            prepared = _summarize(source, taken, journal, options)
            write_texts(journal.content, prepared)
            move_into_place(journal.content, options.output)
        except FinetuneError:
            # Without a frame that is done, there is nothing for a later call.
            if all(record.left_out for record in journal.records.values()):
                journal.discard()
            raise
        journal.discard()
    return prepared


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A frame to load and write.

    Attributes:
        index, name: of the frame.
        known: the range of frames that are written.
        record: of the frame, if its image is written, and only its depth has to be written again, in the unit of
            ``known``; else None.
    """

    index: int
    name: str
    known: DepthRange
    record: FrameRecord | None = None


@dataclass(frozen=True, kw_only=True)
class _FrameWork:
    """Loads and writes frames; pickled into the processes."""

    source: FrameSource
    folder: Path
    output: Path
    limits: DepthLimits

    def __call__(self, task: _Task) -> FrameRecord:
        try:
            frame = self.source.load_frame(task.index)
        except FrameLeftOut as reason:
            return FrameRecord(index=task.index, source=task.name, left_out=str(reason))
        if frame is None:
            return FrameRecord(index=task.index, source=task.name, left_out="they are of no use")
        with explain_write_errors(self.output):
            if task.record is not None:
                return write_depth(self.folder, task.record, keep_depth(frame, self.limits), task.known.unit)
            return write_frame(self.folder, task.index, task.name, frame, self.limits, task.known)


def _write_frames(source: FrameSource, taken: Sequence[int], journal: Journal, options: PrepareOptions) -> None:
    """Write the frames that are not written yet, then the depth of those whose unit does not fit all frames."""
    names = dict(zip(taken, name_frames([source.keys[index] for index in taken]), strict=True))
    work = _FrameWork(source=source, folder=journal.content, output=options.output, limits=options.limits)
    known = _Known(join_ranges(record.range for record in journal.records.values() if not record.left_out))
    missing = [index for index in taken if index not in journal.records]
    first = [
        partial(lambda index: _Task(index=index, name=names[index], known=known.range), index) for index in missing
    ]
    bar = tqdm(total=len(taken), initial=len(taken) - len(missing), desc="frames", unit="frame", leave=False)
    with bar:
        for record in run_tasks(work, first, len(first), options.workers):
            journal.add(record)
            if not record.left_out:
                known.range = known.range.joined(record.range)
            bar.update()
    again = [
        partial(_Task, index=record.index, name=names[record.index], known=known.range, record=record)
        for record in sorted(journal.records.values(), key=lambda record: record.index)
        if not record.left_out and record.unit != known.range.unit
    ]
    # Frames that were written before a farther one, or one with other numbers, was seen.
    for record in tqdm(
        run_tasks(work, again, len(again), options.workers),
        total=len(again),
        desc="unit",
        unit="frame",
        leave=False,
        disable=not again,
    ):
        journal.add(record)


@dataclass
class _Known:
    """The range of the frames that are written so far."""

    range: DepthRange


def _summarize(source: FrameSource, taken: Sequence[int], journal: Journal, options: PrepareOptions) -> PreparedFrames:
    """
    Raises:
        DataError: no depth was measured, or the frames are too few for train and val.
    """
    records = [journal.records[index] for index in taken]
    kept = [record for record in records if not record.left_out]
    if not kept:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in _count_reasons(records).items())
        raise DataError(
            options.output,
            f"none of {len(records)} frames can be used ({reasons})",
            "Look at the depth files, their unit, and the values that mean nothing was measured",
        )
    split = split_frames([source.keys[record.index] for record in kept])
    if split is None:
        raise DataError(
            options.output,
            f"{len(kept)} frame{'s' * (len(kept) > 1)} of one recording are too few for train and val with a gap "
            "between them",
            "Take three or more, or name several recordings",
        )
    totals: Counter[str] = Counter()
    for record in kept:
        totals.update(record.totals or {})
    at_end = source.describe_counts(totals)
    return PreparedFrames(
        output=options.output,
        request=options.request,
        records=kept,
        keys=[source.keys[record.index] for record in kept],
        split=split,
        left_out=_count_reasons(records),
        notes=[*source.notes, *at_end],
        notes_at_end=at_end,
        recipe_options=source.recipe_options,
        checkpoint=options.checkpoint,
    )


def _count_reasons(records: Sequence[FrameRecord]) -> dict[str, int]:
    """Why frames were left out -> how many."""
    return dict(Counter(record.left_out for record in records if record.left_out))

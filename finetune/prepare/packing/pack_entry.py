"""Write the shards of one entry, from the first frame that is not written yet."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from finetune.data.packing.pack_info import PackIndex
from finetune.data.packing.shards import ShardWriter
from finetune.data.reader import FEW_BAD_PERCENT, FEW_BAD_SAMPLES, too_many_bad
from finetune.prepare.packing.encode_frames import EncodedFrame, FrameEncoder
from finetune.prepare.packing.pack_folder import PackFolder, ShardNote, WrittenShard
from finetune.prepare.packing.progress import PackProgress
from finetune.prepare.workers import run_tasks
from finetune.utils.errors import DataError
from finetune.utils.text import count_noun

# A shard ends with the frame that makes it this long. A killed call does this much again, and an object store has one
# object for it.
SHARD_BYTES = 128 * 2**20


@dataclass(kw_only=True)
class _OpenShard:
    """A shard that is being written, and what is known of its frames so far."""

    writer: ShardWriter
    reduced: int = 0
    lossy: int = 0
    levels_off: float = 0.0
    files_bytes: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, frame: EncodedFrame) -> None:
        self.writer.add(frame.index, frame.source, frame.parts)
        self.reduced += frame.is_reduced
        self.lossy += frame.levels_off > 0
        self.levels_off += frame.levels_off
        self.files_bytes += sum(frame.files.values())
        if frame.fault:
            self.faults.append(frame.fault)

    def finish(self) -> WrittenShard:
        """The shard, under its own name."""
        self.writer.finish()
        index = PackIndex.of_places(self.writer.places)
        note = ShardNote(
            size_bytes=self.writer.size_bytes,
            index_checksum=zlib.crc32(index.to_bytes()),
            reduced=self.reduced,
            lossy=self.lossy,
            levels_off=self.levels_off,
            files_bytes=self.files_bytes,
            faults=self.faults,
        )
        return WrittenShard(note=note, index=index)


def pack_entry(
    encoder: FrameEncoder,
    folder: PackFolder,
    name: str,
    pack_id: str,
    *,
    workers: int,
    progress: PackProgress,
) -> list[WrittenShard]:
    """
    Args:
        encoder: of the frames of the entry.
        folder: opened.
        name: of the entry's folder in it.
        pack_id: of the entry.
        workers: number of processes.
        progress: of all entries.

    Returns:
        All shards of the entry, in order.

    Raises:
        FileFault: a frame cannot be read, or too many cannot.
        OSError: a shard cannot be written.
    """
    shards = folder.open_entry(name)
    done = sum(len(shard.index) for shard in shards)
    progress.skip(done)
    count = len(encoder.reader)
    tasks = [partial(int, index) for index in range(done, count)]
    open_shard: _OpenShard | None = None
    try:
        for frame in _in_order(run_tasks(encoder, tasks, workers), done):
            if open_shard is None:
                writer = ShardWriter(folder.content / name, len(shards), pack_id)
                open_shard = _OpenShard(writer=writer)
            open_shard.add(frame)
            if frame.fault:
                _require_few_faults([*_faults(shards), *open_shard.faults], count)
            progress.advance()
            if open_shard.writer.size_bytes >= SHARD_BYTES or frame.index == count - 1:
                shards.append(open_shard.finish())
                open_shard = None
                folder.note(name, len(shards) - 1, shards[-1])
    finally:
        if open_shard is not None:
            open_shard.writer.discard()
    return shards


def _in_order(frames: Iterable[EncodedFrame], first: int) -> Iterator[EncodedFrame]:
    """The frames by their index; processes give them as they are done."""
    waiting: dict[int, EncodedFrame] = {}
    for frame in frames:
        waiting[frame.index] = frame
        while first in waiting:
            yield waiting.pop(first)
            first += 1


def _faults(shards: Sequence[WrittenShard]) -> list[str]:
    return [fault for shard in shards for fault in shard.note.faults]


def _require_few_faults(faults: Sequence[str], count: int) -> None:
    """
    Raises:
        DataError: a run that skips bad frames would end for their number.
    """
    if too_many_bad(len(faults), count):
        raise DataError(
            faults[0],
            f"this frame and {count_noun(len(faults) - 1, 'other')} of {count} cannot be read, more than "
            f"{FEW_BAD_SAMPLES} and more than {FEW_BAD_PERCENT} %",
            "Restore them, or leave them out of the list",
        )

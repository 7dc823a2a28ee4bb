"""From a recipe to a folder with its packed entries and the recipe that trains from them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.packing.pack_info import INDEX, INFO, SUMMARY, PackIndex, PackInfo
from finetune.data.packing.zstd import require_zstandard
from finetune.prepare.output_folder import require_output
from finetune.prepare.packing.encode_frames import FrameEncoder
from finetune.prepare.packing.pack_entry import pack_entry
from finetune.prepare.packing.pack_folder import PackFolder, WrittenShard
from finetune.prepare.packing.pack_plan import PackChoice, PlannedEntry, plan_packs
from finetune.prepare.packing.packed_recipe import format_packed_recipe
from finetune.prepare.packing.progress import PackProgress
from finetune.recipe.schema import Recipe
from finetune.utils.errors import FinetuneError
from finetune.utils.files import explain_write_errors, write_file
from finetune.utils.paths import real_path


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What is asked for besides the recipe.

    Attributes:
        output: the folder to make.
        choice: for the frames of ``data.train``.
        workers: number of processes.
        overwrite: replace a folder that was packed before.
    """

    output: Path
    choice: PackChoice
    workers: int = 1
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class PackedEntry:
    """A packed entry, in numbers.

    Attributes:
        entry: as it was planned.
        frames: how many there are.
        shards: how many there are.
        packed_bytes: of all its shards.
        files_bytes: of the images and depth maps that it was made of; 0 where frames have no files of their own.
        reduced, lossy: see ``PackInfo``.
        levels_off: mean over its images of the mean difference, on the scale from 0 to 255.
        faults: why frames could not be read.
    """

    entry: PlannedEntry
    frames: int
    shards: int
    packed_bytes: int
    files_bytes: int
    reduced: int
    lossy: int
    levels_off: float
    faults: Sequence[str]


def pack_recipe(recipe: Recipe, options: PackOptions) -> list[PackedEntry]:
    """
    Write the folder.

    Args:
        recipe: whose ``data`` is packed.
        options: see there.

    Returns:
        What is in the folder.

    Raises:
        FinetuneError: the library is missing, a frame cannot be read, or the folder cannot be written. Shards that are
            whole stay, for a later call; without any, nothing is left behind.
    """
    require_zstandard()
    output = real_path(options.output)
    with explain_write_errors(options.output):
        require_output(options.output, overwrite=options.overwrite, mark=SUMMARY, command="finetune pack")
    planned = plan_packs(recipe, options.choice)
    folder = PackFolder(output, {entry.name: entry.request for entry in planned})
    with folder:
        try:
            with explain_write_errors(options.output):
                folder.open(overwrite=options.overwrite)
                packed = _pack_entries(planned, folder, options.workers)
                write_file(folder.content / "recipe.yaml", format_packed_recipe(recipe, planned, output))
                write_file(folder.content / SUMMARY, _format_summary(packed))
                folder.finish()
        except (FinetuneError, KeyboardInterrupt):
            folder.discard_if_empty()
            raise
    return packed


def _pack_entries(planned: Sequence[PlannedEntry], folder: PackFolder, workers: int) -> list[PackedEntry]:
    packed: list[PackedEntry] = []
    with PackProgress(sum(len(entry.reader) for entry in planned)) as progress:
        for entry in planned:
            encoder = FrameEncoder(reader=entry.reader, form=entry.form)
            shards = pack_entry(encoder, folder, entry.name, entry.pack_id, workers=workers, progress=progress)
            packed.append(_finish_entry(entry, shards, folder.content / entry.name))
    return packed


def _finish_entry(entry: PlannedEntry, shards: Sequence[WrittenShard], folder: Path) -> PackedEntry:
    """Write what the shards of an entry hold next to them."""
    index, notes = PackIndex.joined(shard.index for shard in shards), [shard.note for shard in shards]
    content = index.to_bytes()
    levels = entry.reader.image_levels
    info = PackInfo(
        id=entry.pack_id,
        frames=len(index),
        shard_bytes=[note.size_bytes for note in notes],
        index_checksum=zlib.crc32(content),
        input_size=entry.form.input_size,
        zoom=entry.form.zoom,
        reduced=sum(note.reduced for note in notes),
        lossy=sum(note.lossy for note in notes),
        image_levels=None if levels is None else levels.to_mapping(),
        pseudo_labels=entry.reader.has_pseudo_labels,
        decode=entry.form.decode,
    )
    write_file(folder / INDEX, content)
    write_file(folder / INFO, info.to_json())
    return PackedEntry(
        entry=entry,
        frames=len(index),
        shards=len(shards),
        packed_bytes=sum(info.shard_bytes) + len(content),
        files_bytes=sum(note.files_bytes for note in notes),
        reduced=info.reduced,
        lossy=info.lossy,
        levels_off=sum(note.levels_off for note in notes) / len(index),
        faults=[fault for note in notes for fault in note.faults],
    )


def _format_summary(packed: Sequence[PackedEntry]) -> str:
    """What was packed from what, as JSON."""
    entries = {
        found.entry.name: {
            "keys": found.entry.keys,
            "frames": found.frames,
            "files_bytes": found.files_bytes,
            "packed_bytes": found.packed_bytes,
            "reduced": found.reduced,
            "lossy": found.lossy,
            "unreadable": found.faults,
            "request": found.entry.request,
        }
        for found in packed
    }
    return json.dumps(entries, indent=1) + "\n"

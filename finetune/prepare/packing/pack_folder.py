"""The hidden folder in which entries are packed, so that a later call goes on where one stopped."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.data.packing.pack_info import PackIndex, shard_name
from finetune.prepare.unfinished_folder import PACKING, UnfinishedFolder
from finetune.utils.errors import DataError
from finetune.utils.files import move_into_place, remove, write_file
from finetune.utils.paths import is_file, make_folder

_REQUEST = "request.json"
_NOTES = "shards"


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What is known of a shard that is written.

    Attributes:
        size_bytes: of the shard.
        index_checksum: of the index of its frames.
        reduced, lossy: how many of its frames are smaller than they were, and how many images are not what was read.
        levels_off: sum over its images of the mean difference, on the scale from 0 to 255.
        files_bytes: of the files that its frames were read from; 0 where they have none.
        faults: why frames could not be read.
    """

    size_bytes: int
    index_checksum: int
    reduced: int
    lossy: int
    levels_off: float
    files_bytes: int
    faults: list[str]


@dataclass(frozen=True, kw_only=True)
class WrittenShard:
    """A shard that is whole: what is noted of it, and the places of its frames."""

    note: ShardNote
    index: PackIndex


class PackFolder(UnfinishedFolder):
    """The request, and notes of the shards that are written."""

    def __init__(self, output: Path, request: Mapping[str, object]) -> None:
        """
        Args:
            output: the folder that will be made.
            request: what decides the shards, as JSON takes it.
        """
        begun = "by a recipe with other data, another size or other options"
        super().__init__(output, request, doing=PACKING, begun=begun)

    def open(self, *, overwrite: bool) -> None:
        """
        Take over what an earlier call with the same request has done, or begin.

        Args:
            overwrite: discard what was begun with another request.

        Raises:
            FileFault: another request was begun, or another process is at work on it.
            OSError: the folder cannot be made.
        """
        self._lock("lock")
        if not self._goes_on(self._read_request(), overwrite=overwrite):
            remove(self.folder / _NOTES)
            write_file(self.folder / _REQUEST, json.dumps(self._request))
        make_folder(self.content)

    def open_entry(self, name: str) -> list[WrittenShard]:
        """
        The shards of an entry that are whole, from the first on; whatever else is in its folder is removed.

        Raises:
            OSError: its folder cannot be made or read.
        """
        folder, notes = self.content / name, self.folder / _NOTES / name
        make_folder(folder)
        make_folder(notes)
        whole: list[WrittenShard] = []
        while (found := self._read_note(folder, notes, len(whole))) is not None:
            whole.append(found)
        kept = {shard_name(number) for number in range(len(whole))}
        for path in folder.iterdir():  # also what a killed call left unfinished
            if path.name not in kept:
                remove(path)
        return whole

    def note(self, name: str, number: int, shard: WrittenShard) -> None:
        """
        Note a shard that is written; its note makes it count.

        Raises:
            OSError: it cannot be written.
        """
        path = self.folder / _NOTES / name / f"{number}.npz"
        write_file(path, shard.index.to_bytes())
        write_file(path.with_suffix(".json"), json.dumps(asdict(shard.note)))

    def finish(self) -> None:
        """
        Make the content the output.

        Raises:
            OSError: it cannot be moved.
        """
        move_into_place(self.content, self._output)
        self.discard()

    def _holds_something(self) -> bool:
        return any((self.folder / _NOTES).rglob("*.json"))

    def _read_request(self) -> object:
        """The request that was begun; None where there is none that can be read."""
        try:
            return json.loads((self.folder / _REQUEST).read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _read_note(self, folder: Path, notes: Path, number: int) -> WrittenShard | None:
        """A shard that is whole; None if it is not: a power cut loses what was not synced."""
        path, shard = notes / f"{number}.npz", folder / shard_name(number)
        try:
            note = ShardNote(**json.loads(path.with_suffix(".json").read_bytes()))
            if not is_file(shard) or shard.stat().st_size != note.size_bytes:
                return None
            content = path.read_bytes()
            if zlib.crc32(content) != note.index_checksum:
                return None
            return WrittenShard(note=note, index=PackIndex.from_bytes(content, str(path)))
        except (FileNotFoundError, ValueError, TypeError, DataError):
            return None

"""Tar shards: the first member says which packed entry the shard belongs to, then come the frames."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from finetune.data.packing.pack_info import FramePlace, shard_name
from finetune.data.packing.store import Store
from finetune.data.packing.tar_members import ARCHIVE_END, join_members, split_members
from finetune.utils.files import remove, sync, unfinished_name

_HEAD = "pack"


class ShardWriter:
    """Writes one shard under a hidden name; it has its own once it is whole.

    Attributes:
        places: of the frames that are in it.
        size_bytes: of what is written.
    """

    def __init__(self, folder: Path, number: int, pack_id: str) -> None:
        """
        Args:
            folder: of the packed entry; it exists.
            number: of the shard.
            pack_id: of the packed entry.

        Raises:
            OSError: it cannot be written.
        """
        self.path = folder / shard_name(number)
        self.number = number
        self.places: list[FramePlace] = []
        self.size_bytes = 0
        self._unfinished = unfinished_name(self.path)
        self._file: IO[bytes] = self._unfinished.open("wb")
        self._write(join_members(_HEAD, {"json": json.dumps({"id": pack_id, "shard": number}).encode()}))

    def add(self, index: int, source: str, parts: Mapping[str, bytes]) -> None:
        """
        Args:
            index: of the frame in its entry.
            source: its name.
            parts: ending -> content of its members.

        Raises:
            OSError: it cannot be written.
        """
        data = join_members(f"{index:09d}", parts)
        self.places.append(
            FramePlace(
                shard=self.number, start=self.size_bytes, length=len(data), checksum=zlib.crc32(data), source=source
            )
        )
        self._write(data)

    def finish(self) -> None:
        """
        Give the shard its name.

        Raises:
            OSError: it cannot be written.
        """
        self._write(ARCHIVE_END)
        self._file.close()
        sync(self._unfinished)
        self._unfinished.replace(self.path)

    def discard(self) -> None:
        """Remove what is written of an unfinished shard."""
        self._file.close()
        remove(self._unfinished)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size_bytes += len(data)


def read_shard_id(store: Store, name: str) -> str | None:
    """The packed entry that a shard says it belongs to; None where it says nothing that can be read."""
    try:
        head = store.read_stretch(name, 0, 2 * tarfile.BLOCKSIZE)
        return str(json.loads(bytes(split_members(head)["json"]))["id"])
    except (ValueError, KeyError, TypeError):
        return None

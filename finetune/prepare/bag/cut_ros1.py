"""ROS 1 bags whose end is missing: everything up to there, without the index, which a bag has at its end."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from io import BytesIO

from rosbags.interfaces import Connection
from rosbags.rosbag1 import Reader, ReaderError
from rosbags.rosbag1.reader import Chunk, Header, IndexData, RecordType, read_bytes, read_uint32

from finetune.utils.text import percent


class CutRos1Reader(Reader):
    """
    Reads a bag from its start, as ``rosbag reindex`` does, and leaves the file as it is.

    Records and their fields: http://wiki.ros.org/Bags/Format/2.0. A chunk that is cut is read up to the cut if it is
    not compressed.

    Attributes:
        missing: what is not in the file, in words that follow its name.
    """

    missing = ""

    def open(self) -> None:
        """
        Raises:
            ReaderError: not even the first record is there.
        """
        self.bio = self.path.open("rb")
        try:
            self._list_messages()
        except BaseException:
            with suppress(Exception):
                self.close()
            raise

    def _list_messages(self) -> None:
        assert self.bio is not None
        size = os.fstat(self.bio.fileno()).st_size
        self.bio.readline()
        header = Header.read(self.bio, RecordType.BAGHEADER)
        self.bio.seek(read_uint32(self.bio), os.SEEK_CUR)
        found: dict[int, Connection] = {}
        indexes: dict[int, list[IndexData]] = defaultdict(list)
        lost_bytes = 0
        while (position := self.bio.tell()) < size:
            try:
                record = Header.read(self.bio)
                length, operation = read_uint32(self.bio), record.get_uint8("op")
            except (ReaderError, ValueError):
                lost_bytes += size - position
                break
            end = self.bio.tell() + length
            if operation == RecordType.CHUNK:
                self.bio.seek(position)
                lost_bytes += self._read_chunk(position, min(end, size), found, indexes)
            self.bio.seek(min(end, size))
        self.indexes = {number: sorted(indexes[number]) for number in found}
        self.connections = [
            connection._replace(msgcount=len(self.indexes[number])) for number, connection in found.items()
        ]
        index_bytes = header.get_uint64("index_pos")
        if index_bytes > size:
            share = percent((index_bytes - size) / index_bytes)
            self.missing = f"{share} of its data is missing from its end ({index_bytes - size} of {index_bytes} bytes)"
        elif index_bytes:
            self.missing = "its index is damaged"
        else:
            self.missing = "it was never closed, so it does not say how much is missing from its end"
        if lost_bytes:
            self.missing += f", and {lost_bytes} bytes of it cannot be read"

    def _read_chunk(
        self,
        position: int,
        end: int,
        found: dict[int, Connection],
        indexes: dict[int, list[IndexData]],
    ) -> int:
        """Add the connections and messages of a chunk up to ``end``; the number of its bytes that cannot be read."""
        assert self.bio is not None
        chunk = self.read_chunk()
        kept = Chunk(end - chunk.datapos, chunk.datapos, chunk.decompressor)
        self.bio.seek(chunk.datapos)
        try:
            data = BytesIO(chunk.decompressor(read_bytes(self.bio, kept.datasize)))
        except (OSError, EOFError, RuntimeError, ValueError):
            return kept.datasize
        self.chunks[position] = kept
        file, self.bio = self.bio, data  # the library reads connections from there
        size = len(data.getbuffer())
        read = 0
        try:
            while read < size:
                header = Header.read(data)
                if header.get_uint8("op") == RecordType.CONNECTION:
                    data.seek(read)
                    connection = self.read_connection()
                    found.setdefault(connection.id, connection)
                else:
                    number, time = header.get_uint32("conn"), header.get_time("time")
                    read_bytes(data, read_uint32(data))
                    indexes[number].append(IndexData(time, position, read))
                read = data.tell()
        except (ReaderError, ValueError):
            return size - read
        finally:
            self.bio = file
        return 0

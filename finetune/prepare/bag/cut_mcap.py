"""MCAP files without their summary, which is at the end, and files without chunks, which the library reads slowly."""

from __future__ import annotations

import heapq
import os
import struct
from collections import Counter
from collections.abc import Collection, Generator
from functools import partial
from operator import itemgetter
from typing import NamedTuple

from rosbags.interfaces import Connection
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.storage_mcap import ChunkInfo, McapReader, read_exact, read_string

_MAGIC = b"\x89MCAP0\r\n"
_HEADER, _MESSAGE, _CHUNK, _DATA_END = 0x01, 0x05, 0x06, 0x0F
_RECORD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQI")  # first and last log time, size, checksum
_LENGTH = struct.Struct("<Q")


class _Loose(NamedTuple):
    """A message outside of chunks."""

    time_ns: int
    channel: int
    offset: int
    size: int


class WalkedMcapReader(McapReader):
    """
    Lists chunks and messages by going through the file from its start.

    Records: https://mcap.dev/spec. A chunk that is cut is read up to the cut if it is not compressed.

    Attributes:
        missing: what is not in the file, in words that follow its name; "" if nothing is.
    """

    missing = ""

    def _open(self) -> None:
        """
        Raises:
            ReaderError: it is no MCAP file of ROS 2, or nothing of it is complete.
        """
        assert self.bio is not None
        size = os.fstat(self.bio.fileno()).st_size
        if self.bio.read(len(_MAGIC)) != _MAGIC:
            raise ReaderError("File magic is invalid.")
        operation, length = _RECORD.unpack(read_exact(self.bio, _RECORD.size))
        self.data_start = self.bio.tell() + length
        if operation != _HEADER or read_string(self.bio) != "ros2":
            raise ReaderError("Profile is not ros2.")
        chunks: list[ChunkInfo] = []
        self.loose: list[_Loose] = []
        self.in_cut_chunk: list[_Loose] = []
        self.data_end = self._walk(size, chunks)
        self.meta_scan()
        every = {connection.id: 1 for connection in self.connections}
        # The library skips chunks by these counts; here each chunk may hold any channel.
        self.chunks = [chunk._replace(channel_count=every) for chunk in chunks]
        assert self.statistics is not None
        counts = Counter(self.statistics.channel_message_counts)
        counts.update(message.channel for message in self.in_cut_chunk)
        self.connections = [connection._replace(msgcount=counts[connection.id]) for connection in self.connections]

    def _walk(self, size: int, chunks: list[ChunkInfo]) -> int:
        """List the chunks and messages; the end of the last complete record."""
        assert self.bio is not None
        position = self.data_start
        while position + _RECORD.size <= size:
            self.bio.seek(position)
            operation, length = _RECORD.unpack(read_exact(self.bio, _RECORD.size))
            if operation == _DATA_END:
                return position
            end = position + _RECORD.size + length
            if end > size:
                self.missing = f"its end is missing: the last record holds {size - position} of {end - position} bytes"
                if operation == _CHUNK:
                    self._list_cut_chunk(size)
                return position
            if operation == _MESSAGE:
                self.loose.append(self._read_place(length))
            elif operation == _CHUNK:
                first_ns, last_ns, uncompressed, _ = _CHUNK_HEAD.unpack(read_exact(self.bio, _CHUNK_HEAD.size))
                compression = read_string(self.bio)
                (compressed,) = _LENGTH.unpack(read_exact(self.bio, _LENGTH.size))
                chunks.append(
                    ChunkInfo(
                        first_ns, last_ns, position, end - position, {}, 0, compression, compressed, uncompressed, {}
                    )
                )
            position = end
        self.missing = "its end is missing"
        return position

    def _list_cut_chunk(self, size: int) -> None:
        """List the complete messages of the chunk whose content begins here and ends behind the file."""
        assert self.bio is not None
        try:
            read_exact(self.bio, _CHUNK_HEAD.size)
            compression = read_string(self.bio)
            read_exact(self.bio, _LENGTH.size)
        except ReaderError:
            return
        position = self.bio.tell()
        while not compression and position + _RECORD.size <= size:
            self.bio.seek(position)
            operation, length = _RECORD.unpack(read_exact(self.bio, _RECORD.size))
            position += _RECORD.size + length
            if operation == _MESSAGE and position <= size:
                self.in_cut_chunk.append(self._read_place(length))

    def _read_place(self, length: int) -> _Loose:
        """The place of the message whose record of ``length`` bytes begins here."""
        assert self.bio is not None
        channel, _, time_ns, _ = _MESSAGE_HEAD.unpack(read_exact(self.bio, _MESSAGE_HEAD.size))
        return _Loose(time_ns, channel, self.bio.tell(), length - _MESSAGE_HEAD.size)

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        """Connection, log time in nanoseconds, and bytes of each message, in order of time."""
        in_order = super().messages if self.chunks else partial(self._read, self.loose)
        rest = self._read(self.in_cut_chunk, connections, start, stop)
        yield from heapq.merge(in_order(connections, start, stop), rest, key=itemgetter(1))

    def _read(
        self, messages: Collection[_Loose], connections: Collection[Connection], start: int | None, stop: int | None
    ) -> Generator[tuple[Connection, int, bytes], None, None]:
        assert self.bio is not None
        wanted = {connection.id: connection for connection in connections}
        for message in sorted(messages):
            after = start is None or message.time_ns >= start
            if after and (stop is None or message.time_ns < stop) and message.channel in wanted:
                self.bio.seek(message.offset)
                yield wanted[message.channel], message.time_ns, read_exact(self.bio, message.size)

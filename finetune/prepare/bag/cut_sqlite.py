"""SQLite files of ROS 2 whose end is missing: the messages up to there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import apsw
from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import ReaderError

from finetune.utils.text import percent

# Bytes 16 and 17 of the file: the size of a page; 28 to 31: the number of pages. https://sqlite.org/fileformat.html
_HEAD_BYTES = 100
_PAGE_SIZE, _PAGES = slice(16, 18), slice(28, 32)


class _FullPagesFile(apsw.VFSFile):
    """A file without the page that a cut left incomplete, which SQLite would fill with zeros and read as pixels."""

    def xFileSize(self) -> int:
        size = super().xFileSize()
        return size - size % max(1, _read_page_size(super().xRead(_HEAD_BYTES, 0)))


class _FullPages(apsw.VFS):
    """Opens files as ``_FullPagesFile``."""

    def __init__(self) -> None:
        self.name = "finetune_full_pages"
        super().__init__(self.name, base="")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _FullPagesFile("", name, flags)


@cache
def _full_pages() -> _FullPages:
    """Known to SQLite for as long as the process runs."""
    return _FullPages()


def _read_page_size(head: bytes) -> int:
    size = int.from_bytes(head[_PAGE_SIZE], "big")
    return 65536 if size == 1 else size


class CutSqliteReader:
    """
    Reads rows in the order in which they were written until one is not complete.

    SQLite refuses a file with fewer pages than its first one says, unless ``writable_schema`` is on; the file is opened
    for reading only, and stays as it is.

    Attributes:
        connections: the topics, as the library describes them.
        missing: what is not in the file, in words that follow its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.missing = ""
        self._database: apsw.Connection | None = None
        self._rows: list[tuple[int, int, int]] = []  # time in nanoseconds, id, topic

    def open(self) -> None:
        """
        Raises:
            ReaderError: not even the list of topics is there.
        """
        self.missing = self._measure_loss()
        database = apsw.Connection(
            f"{self.path.absolute().as_uri()}?mode=ro&immutable=1",
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
            vfs=_full_pages().name,
        )
        try:
            database.execute("PRAGMA writable_schema=ON")
            topics = [
                (number, name, msgtype)
                for number, name, msgtype in database.execute("SELECT id, name, type FROM topics")
                if isinstance(number, int) and isinstance(name, str) and isinstance(msgtype, str)
            ]
        except apsw.Error as error:
            database.close()
            raise ReaderError(str(error)) from None
        self._database = database
        self._rows = sorted(self._list_rows(database))
        counts = Counter(topic for _, _, topic in self._rows)
        self.connections = [
            Connection(
                id=topic,
                topic=name,
                msgtype=msgtype,
                msgdef=MessageDefinition(MessageDefinitionFormat.NONE, ""),
                digest="",
                msgcount=counts[topic],
                ext=ConnectionExtRosbag2("cdr", []),
                owner=self,
            )
            for topic, name, msgtype in topics
        ]

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()
        self._database = None

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Connection, log time in nanoseconds, and bytes of each message, in order of time."""
        assert self._database is not None
        wanted = {connection.id: connection for connection in connections}
        for time_ns, number, topic in self._rows:
            if (start is None or time_ns >= start) and (stop is None or time_ns < stop) and topic in wanted:
                data = self._database.execute("SELECT data FROM messages WHERE id = ?", (number,)).get
                yield wanted[topic], time_ns, data

    def _list_rows(self, database: apsw.Connection) -> Iterator[tuple[int, int, int]]:
        # Read the rows, not the index of times, which is elsewhere in the file: only so a cut file is noticed.
        try:
            for row in database.execute("SELECT timestamp, id, topic_id, data FROM messages NOT INDEXED ORDER BY id"):
                # A lost page gives rows without a time, or without a message.
                if all(isinstance(value, int) for value in row[:3]) and isinstance(row[3], bytes):
                    yield row[:3]
        except apsw.Error:
            return

    def is_cut(self) -> bool:
        """Whether the file has less bytes than its first page says."""
        size, full = self._measure_bytes()
        return full > size

    def _measure_bytes(self) -> tuple[int, int]:
        """Those of the file, and those that its first page says, 0 where it is not there."""
        with self.path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, 2)
        if len(head) < _HEAD_BYTES:
            return size, 0
        return size, int.from_bytes(head[_PAGES], "big") * _read_page_size(head)

    def _measure_loss(self) -> str:
        size, full = self._measure_bytes()
        if size < _HEAD_BYTES:
            return f"only {size} bytes of it are there"
        if full > size:
            share = percent((full - size) / full)
            return f"{share} of it is missing from its end ({full - size} of {full} bytes)"
        return "a part of it is damaged"

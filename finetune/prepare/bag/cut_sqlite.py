"""SQLite files of ROS 2 whose end is missing: the messages up to there."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from rosbags.interfaces import Connection, ConnectionExtRosbag2, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import ReaderError

from finetune.utils.text import percent

# Bytes 16 and 17 of the file: the size of a page; 28 to 31: the number of pages. https://sqlite.org/fileformat.html
_HEAD_BYTES = 100
_PAGE_SIZE, _PAGES = slice(16, 18), slice(28, 32)


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
        self._database: sqlite3.Connection | None = None
        self._rows: list[tuple[int, int, int]] = []  # time in nanoseconds, id, topic

    def open(self) -> None:
        """
        Raises:
            ReaderError: not even the list of topics is there.
        """
        self.missing = self._measure_loss()
        database = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            database.execute("PRAGMA writable_schema=ON")
            topics = database.execute("SELECT id, name, type FROM topics").fetchall()
        except sqlite3.Error as error:
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
                (data,) = self._database.execute("SELECT data FROM messages WHERE id = ?", (number,)).fetchone()
                yield wanted[topic], time_ns, data

    def _list_rows(self, database: sqlite3.Connection) -> Iterator[tuple[int, int, int]]:
        # Read the rows, not the index of times, which is elsewhere in the file: only so a cut file is noticed.
        try:
            for row in database.execute("SELECT timestamp, id, topic_id, data FROM messages NOT INDEXED ORDER BY id"):
                yield row[:3]
        except sqlite3.Error:
            return

    def _measure_loss(self) -> str:
        with self.path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, 2)
        if len(head) < _HEAD_BYTES:
            return f"only {size} bytes of it are there"
        page = int.from_bytes(head[_PAGE_SIZE], "big")
        full = int.from_bytes(head[_PAGES], "big") * (65536 if page == 1 else page)
        if full > size:
            share = percent((full - size) / full)
            return f"{share} of it is missing from its end ({full - size} of {full} bytes)"
        return "a part of it is damaged"

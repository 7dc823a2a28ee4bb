"""Open the bags of ROS 1 and ROS 2, and read messages of a topic in order or one by one."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import yaml

from finetune.data.readers.formats import foreign_fault
from finetune.prepare.bag.messages import require_rosbags
from finetune.utils.errors import DataError, ListError, first_line
from finetune.utils.paths import is_file, is_folder, list_folder, missing, read_text
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from rosbags.interfaces import Connection

_ROS1 = b"#ROSBAG V"
_MCAP = b"\x89MCAP0\r\n"
_SQLITE = b"SQLite format 3\x00"
_HEAD_BYTES = 1024
_METADATA = "metadata.yaml"
_FIX = "Give a .bag of ROS 1 or RealSense, a folder of `ros2 bag record`, or a .mcap or .db3 of one"


class StorageReader(Protocol):
    """What the readers of the library have in common."""

    connections: list[Connection]

    def open(self) -> None: ...

    def close(self) -> None: ...

    def messages(
        self, connections: Collection[Connection], start: int | None = None, stop: int | None = None
    ) -> Iterable[tuple[Connection, int, bytes]]: ...


@dataclass(frozen=True, kw_only=True)
class Topic:
    """
    Attributes:
        name: such as ``/camera/color/image_raw``.
        msgtype: such as ``sensor_msgs/msg/Image``, also for ROS 1.
        count: of its messages.
    """

    name: str
    msgtype: str
    count: int


class Bag:
    """
    An open bag: one file, or all files of a folder of ROS 2.

    Attributes:
        path: as the user can open it.
        ros1: messages are serialized as ROS 1 does it.
        topics: by name.
        notes: sentences on what is missing.
    """

    def __init__(self, path: Path, readers: Sequence[StorageReader], *, ros1: bool, notes: Sequence[str]) -> None:
        self.path = path
        self.ros1 = ros1
        self.notes = notes
        self._readers = readers
        self.topics: dict[str, Topic] = {}
        for connection in (connection for reader in readers for connection in reader.connections):
            known = self.topics.get(connection.topic)
            count = connection.msgcount + (known.count if known else 0)
            self.topics[connection.topic] = Topic(name=connection.topic, msgtype=connection.msgtype, count=count)

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its files."""
        for reader in self._readers:
            with suppress(Exception):
                reader.close()

    def messages(
        self, topic: str, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """
        Args:
            topic: one of ``topics``.
            start_ns, stop_ns: only messages that were recorded from then on, and before then.

        Yields:
            The time at which each message was recorded, nanoseconds, and its bytes; file after file, in order of time.

        Raises:
            DataError: the bag is damaged there.
        """
        for reader in self._readers:
            connections = [connection for connection in reader.connections if connection.topic == topic]
            if not connections:
                continue
            found = iter(reader.messages(connections, start_ns, stop_ns))
            while True:
                try:
                    _, time_ns, raw = next(found)
                except StopIteration:
                    break
                except broken_bag_errors() as error:
                    raise DataError(
                        self.path,
                        f"cannot be read in messages of {topic} ({_reason_of(error)})",
                        "Copy the bag again; `rosbag fix`, `mcap recover` or `sqlite3 FILE .recover` may save the rest",
                    ) from None
                yield time_ns, bytes(raw)

    def read_message(self, topic: str, time_ns: int, number: int = 0) -> bytes:
        """
        The bytes of the message that was recorded at a time; ``number`` counts those of one time from 0.

        Raises:
            DataError: the bag is damaged there, or is another one than when its messages were listed.
        """
        for i, (_, raw) in enumerate(self.messages(topic, time_ns, time_ns + 1)):
            if i == number:
                return raw
        raise DataError(
            self.path, f"has no message of {topic} at {time_ns} ns any more", "Run again with the bag as it was"
        )


def broken_bag_errors() -> tuple[type[Exception], ...]:
    """What the library raises for damaged bags: its own errors, those of its decompressors and of SQLite, and what
    Python raises where bytes are missing."""
    import apsw
    from rosbags.rosbag1 import ReaderError as Ros1Error
    from rosbags.rosbag2 import ReaderError as Ros2Error
    from rosbags.rosbag2.storage_mcap import zstd

    of_python = (OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, MemoryError, OverflowError)
    of_storages = (Ros1Error, Ros2Error, apsw.Error, sqlite3.Error, zstd.ZstdError)
    return (*of_storages, AssertionError, AttributeError, struct.error, *of_python)


def _reason_of(error: Exception) -> str:
    """What the library or the system says; the words of Python itself help nobody who owns a damaged bag."""
    if isinstance(error, OSError):
        return error.strerror or "its bytes cannot be read"
    return "its bytes are damaged" if type(error).__module__ in ("builtins", "struct") else first_line(error)


def open_bag(path: Path) -> Bag:
    """
    Raises:
        FinetuneError: the package rosbags is missing.
        ListError: there is no bag at ``path``, or nothing of it can be read.
    """
    require_rosbags()
    if is_folder(path):
        return _open_folder(path)
    if not is_file(path):
        raise ListError(path, missing(path, "file or folder"), _FIX)
    reader, note = _open_file(path)
    return Bag(path, [reader], ros1=_read_head(path).startswith(_ROS1), notes=[note] if note else [])


def _open_folder(folder: Path) -> Bag:
    """
    A folder of ``ros2 bag record``, with its ``metadata.yaml`` or, where the recorder was killed, without.

    Raises:
        ListError: it holds no bag, or a file is missing or cannot be read.
    """
    try:
        entries = list_folder(folder)
    except OSError as error:
        raise ListError(folder, f"cannot be listed ({error.strerror})", _FIX) from None
    files = [path for path in entries if path.suffix in (".mcap", ".db3")]
    metadata = _read_metadata(folder) if is_file(folder / _METADATA) else None
    if metadata is not None:
        if str(metadata.get("compression_mode") or "none").lower() != "none":
            return _open_compressed(folder)
        files = [folder / Path(str(name)).name for name in _list_of(metadata.get("relative_file_paths"))]
    if not files:
        bags = [path.name for path in entries if path.suffix == ".bag"]
        if bags:
            found = f"is a folder with {count_noun(len(bags), 'bag')} of ROS 1"
            raise ListError(folder, found, f"Name the bags: {folder / '*.bag'}")
        raise ListError(folder, "is a folder without a bag", _FIX)
    absent = [path for path in files if not is_file(path)]
    if absent:
        raise ListError(absent[0], f"{missing(absent[0])}, but {_METADATA} lists it", "Copy the folder again")
    readers, notes = [], []
    if metadata is None:
        held = count_noun(len(files), "file")
        notes.append(f"{folder}: has no {_METADATA}, as if its recorder was killed; it has {held}.")
    for file in files:
        reader, note = _open_file(file)
        readers.append(reader)
        notes += [note] if note else []
    bag = Bag(folder, readers, ros1=False, notes=notes)
    promised = metadata.get("message_count") if metadata else None
    count = sum(topic.count for topic in bag.topics.values())
    if isinstance(promised, int) and count < promised:
        bag.notes = [*notes, f"{folder}: {promised - count} of {promised} messages are missing."]
    return bag


def _open_compressed(folder: Path) -> Bag:
    """
    A folder whose files or messages are compressed, which the library reads as a folder only.

    Raises:
        ListError: it cannot be read.
    """
    from rosbags.rosbag2 import Reader

    reader = Reader(folder)
    try:
        reader.open()
    except broken_bag_errors() as error:
        raise ListError(folder, f"cannot be read ({_reason_of(error)})", "Copy the folder again") from None
    return Bag(folder, [reader.storage], ros1=False, notes=[])


def _read_metadata(folder: Path) -> dict[str, object]:
    """
    Raises:
        ListError: ``metadata.yaml`` is not what ``ros2 bag record`` writes.
    """
    path = folder / _METADATA
    fix = f"Let `ros2 bag reindex {folder}` write it again, or move it out of the way"
    try:
        content = yaml.safe_load(read_text(path))
        information = content["rosbag2_bagfile_information"]
        if not isinstance(information, dict):
            raise TypeError("not a mapping")
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", fix) from None
    except (yaml.YAMLError, ValueError, KeyError, TypeError) as error:
        raise ListError(path, f"does not describe a bag ({first_line(error)})", fix) from None
    return information


def _list_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise ListError(path, f"cannot be read ({error.strerror})", _FIX) from None


def _open_file(path: Path) -> tuple[StorageReader, str]:
    """
    The open reader of a file, by its first bytes, and a sentence on what is missing of it, else "".

    Raises:
        ListError: it is no bag, or nothing of it can be read.
    """
    head = _read_head(path)
    for signature, open_storage in ((_ROS1, _open_ros1), (_MCAP, _open_mcap), (_SQLITE, _open_sqlite)):
        if head.startswith(signature):
            return open_storage(path)
    if not head:
        raise ListError(path, "is empty (0 bytes)", "Record or copy it again")
    if not head.strip(b"\0"):
        raise ListError(path, "begins with zeros, which a crash leaves behind", "Copy it again")
    if any(signature.startswith(head) for signature in (_ROS1, _MCAP, _SQLITE)):
        raise ListError(path, f"has only {len(head)} bytes", "Record or copy it again")
    fault = foreign_fault(head, path.name, path.stat().st_size)
    raise ListError(path, fault.found if fault else f"is no bag: it begins with {head[:12]!r}", _FIX)


def _open_ros1(path: Path) -> tuple[StorageReader, str]:
    from rosbags.rosbag1 import Reader

    from finetune.prepare.bag.cut_ros1 import CutRos1Reader

    reader = Reader(path)
    try:
        reader.open()
        return reader, ""
    except broken_bag_errors() as error:
        reason = first_line(error)
    if "is not supported" in reason:
        raise ListError(path, f"cannot be read ({reason})", "Let `rosbag fix` or `rosbag decompress` write a new one")
    cut = CutRos1Reader(path)
    return cut, _open_cut(cut, path, "Let `rosbag reindex` try, or copy the bag again")


def _open_mcap(path: Path) -> tuple[StorageReader, str]:
    from rosbags.rosbag2.storage_mcap import McapReader

    from finetune.prepare.bag.cut_mcap import WalkedMcapReader

    reader = McapReader(path)
    try:
        reader.open()
        if reader.chunks or not reader.connections:
            return reader, ""
        reader.close()  # without chunks, the library reads the file from its start for each message
    except broken_bag_errors() as error:
        if "Profile" in first_line(error):
            fix = "Record MCAP by `ros2 bag record -s mcap`"
            raise ListError(path, "is an MCAP file, but none of ROS 2", fix) from None
    walked = WalkedMcapReader(path)
    return walked, _open_cut(walked, path, "Let `mcap recover` try, or copy the bag again")


def _open_sqlite(path: Path) -> tuple[StorageReader, str]:
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

    from finetune.prepare.bag.cut_sqlite import CutSqliteReader

    log = path.with_name(f"{path.name}-wal")  # where SQLite writes first; a recorder that was killed leaves it
    recover = "Let `sqlite3 FILE .recover` try, or copy the bag again"
    move = f"`sqlite3 {path} 'PRAGMA wal_checkpoint'` moves them over" if is_file(log) and log.stat().st_size else ""
    cut = CutSqliteReader(path)
    reader = Sqlite3Reader(path)
    try:
        reader.open()
        if cut.is_cut():  # the library opens a file whose last pages are missing, and then fails in its messages
            reader.close()
            return cut, _open_cut(cut, path, recover)
    except broken_bag_errors() as error:
        if "missing tables" in first_line(error):
            if move:
                raise ListError(path, f"is empty, but its messages may be in {log.name}", move) from None
            raise ListError(path, "is an SQLite database, but no bag of ROS 2", _FIX) from None
        return cut, _open_cut(cut, path, recover)
    return reader, f"{path}: messages in {log.name} are not read: {move}." if move else ""


def _open_cut(reader: StorageReader, path: Path, fix: str) -> str:
    """
    Open a reader of files whose end is missing; a sentence on what is missing.

    Raises:
        ListError: nothing of it can be read.
    """
    try:
        reader.open()
    except broken_bag_errors() as error:
        raise ListError(path, f"cannot be read as a bag ({_reason_of(error)})", fix) from None
    count = sum(connection.msgcount for connection in reader.connections)
    lost = str(getattr(reader, "missing", ""))
    if not count:
        reader.close()
        raise ListError(path, f"holds no message that can be read: {lost or 'it is empty'}", fix)
    return f"{path}: {lost}. The other {count_noun(count, 'message')} are read." if lost else ""

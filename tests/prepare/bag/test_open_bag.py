"""Bags of all three kinds, sound and cut, and what is no bag."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_typestore

from finetune.prepare.bag.open_bag import open_bag
from finetune.utils.errors import FinetuneError, ListError
from tests.prepare.bag.written_bags import (
    IMAGE,
    KINDS,
    START_NS,
    Recording,
    image,
    make_raw,
    storage_file,
    write_bag,
)

COUNT = 60
STEP_NS = 33_000_000


@pytest.fixture(scope="module", params=KINDS)
def bag(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 messages of 30 kB on a topic of color, each filled with its number, and as many on one of depth."""
    recording = Recording()
    for k in range(COUNT):
        log_ns = START_NS + k * STEP_NS
        recording.add("/color", IMAGE, log_ns, image(np.full((100, 100, 3), k, np.uint8), "rgb8", log_ns))
        recording.add("/depth", IMAGE, log_ns + 5, image(np.full((100, 100), k, np.uint16), "16UC1", log_ns))
    path = tmp_path_factory.mktemp("bags") / ("a.bag" if request.param == "ros1" else "a")
    return write_bag(path, request.param, recording)


def cut(bag: Path, tmp_path: Path, share: float) -> Path:
    """A copy of the file with the messages, without its end."""
    file = storage_file(bag)
    data = file.read_bytes()
    path = tmp_path / file.name
    path.write_bytes(data[: int(share * len(data))])
    return path


def numbers(path: Path, topic: str) -> list[int]:
    with open_bag(path) as opened:
        return [raw[-1] if topic == "/color" else raw[-2] for _, raw in opened.messages(topic)]


def test_messages_in_order_and_one_by_one(bag: Path) -> None:
    for path in {bag, storage_file(bag)}:
        with open_bag(path) as opened:
            assert {topic.name: topic.count for topic in opened.topics.values()} == {"/color": COUNT, "/depth": COUNT}
            assert {topic.msgtype for topic in opened.topics.values()} == {IMAGE}
            assert opened.notes == []
            listed = list(opened.messages("/depth"))
            assert [time_ns for time_ns, _ in listed] == [START_NS + k * STEP_NS + 5 for k in range(COUNT)]
            for time_ns, raw in reversed(listed):
                assert opened.read_message("/depth", time_ns) == raw
            with pytest.raises(FinetuneError, match="has no message of /depth at 7 ns any more"):
                opened.read_message("/depth", 7)


@pytest.mark.parametrize("share", [0.5, 0.63, 0.97])
def test_a_cut_bag_gives_what_it_holds(bag: Path, tmp_path: Path, share: float) -> None:
    path = cut(bag, tmp_path, share)
    found = numbers(path, "/color")
    assert found == list(range(len(found)))
    # A message of color and one of depth are 50 kB of the 3 MB.
    assert share * COUNT - 3 <= len(found) <= share * COUNT + 1
    with open_bag(path) as opened:
        (note,) = opened.notes
        last_ns, raw = list(opened.messages("/depth"))[-1]
        assert opened.read_message("/depth", last_ns) == raw
    assert note.startswith(f"{path}: ")
    assert "missing" in note
    assert f"The other {len(found) + len(numbers(path, '/depth'))} messages are read." in note


@pytest.mark.parametrize("share", [0.7, 0.97])
def test_a_small_database_without_its_last_pages(tmp_path: Path, share: float) -> None:
    """Several messages are in one page: a cut leaves rows without a time, or a file that opens and then fails."""
    recording = Recording()
    for k in range(10):
        log_ns = START_NS + k * STEP_NS
        recording.add("/color", IMAGE, log_ns, image(np.full((24, 32, 3), k, np.uint8), "rgb8", log_ns))
        recording.add("/depth", IMAGE, log_ns + 5, image(np.full((24, 32), k, np.uint16), "16UC1", log_ns))
    path = cut(write_bag(tmp_path / "a", "sqlite3", recording), tmp_path, share)
    found = numbers(path, "/color")
    assert found == list(range(len(found))) and 10 * share - 3 <= len(found) <= 10
    with open_bag(path) as opened:
        assert f"{100 - 100 * share:.0f}% of it is missing from its end" in opened.notes[0]


def test_how_much_is_missing_is_what_was_cut(bag: Path, tmp_path: Path) -> None:
    path = cut(bag, tmp_path, 0.6)
    with open_bag(path) as opened:
        (note,) = opened.notes
    if path.suffix == ".mcap":  # only its end says how long the file was
        assert "its end is missing: the last record holds" in note
    else:
        assert "40% of " in note


def test_a_bag_whose_recorder_was_killed(tmp_path: Path, bag: Path) -> None:
    path = cut(bag, tmp_path, 0.5)
    if path.suffix == ".bag":
        data = bytearray(path.read_bytes())
        at = data.find(b"index_pos=") + len(b"index_pos=")
        data[at : at + 8] = bytes(8)  # as rosbag leaves it until it is closed
        path.write_bytes(data)
        with open_bag(path) as opened:
            assert "it was never closed, so it does not say how much is missing" in opened.notes[0]
    else:  # without metadata.yaml
        with open_bag(tmp_path) as opened:
            assert "has no metadata.yaml, as if its recorder was killed; it has 1 file." in opened.notes[0]
    assert len(numbers(path, "/color")) >= COUNT // 2 - 3


def test_a_damaged_index_and_a_damaged_chunk(tmp_path: Path, bag: Path) -> None:
    if bag.suffix != ".bag":
        pytest.skip("the others have no index that is read alone")
    data = bytearray(bag.read_bytes())
    at = data.rindex(b"chunk_pos=")
    data[at : at + 4] = b"xxxx"
    # The first record of the second chunk.
    start = data.index(b"op=\x05", data.index(b"op=\x05") + 1)
    at = data.index(b"op=\x02", start)
    data[at : at + 4] = b"xx=\x02"
    path = tmp_path / "a.bag"
    path.write_bytes(data)
    found = numbers(path, "/color")
    assert 0 < len(found) < COUNT and found[-1] == COUNT - 1
    with open_bag(path) as opened:
        assert re.search(r"its index is damaged, and \d+ bytes of it cannot be read\. The other", opened.notes[0])


def test_metadata_says_how_many_messages_are_missing(tmp_path: Path, bag: Path) -> None:
    if bag.is_file():
        pytest.skip("ROS 1 has no metadata.yaml")
    path = cut(bag, tmp_path, 0.5)
    (tmp_path / "metadata.yaml").write_bytes((bag / "metadata.yaml").read_bytes())
    with open_bag(tmp_path) as opened:
        held = sum(topic.count for topic in opened.topics.values())
        assert opened.notes[-1] == f"{tmp_path}: {2 * COUNT - held} of {2 * COUNT} messages are missing."
    path.unlink()
    with pytest.raises(ListError, match=r"no such file, but metadata\.yaml lists it\. Copy the folder again\.$"):
        open_bag(tmp_path)
    (tmp_path / "metadata.yaml").write_text("nothing: here\n")
    with pytest.raises(ListError, match=r"does not describe a bag .*ros2 bag reindex"):
        open_bag(tmp_path)


def test_a_bag_with_nothing_left_is_refused(bag: Path, tmp_path: Path) -> None:
    for share in (0.0005, 0.001, 0.004):
        path = cut(bag, tmp_path, share)
        with pytest.raises(ListError, match=r"(cannot be read as a bag|holds no message|has only) .*[Cc]opy") as caught:
            open_bag(path)
        assert "\n" not in str(caught.value)


def test_every_cut_is_read_or_refused_in_a_sentence(bag: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for share in random.uniform(0, 1, 40) ** 3:
        try:
            with open_bag(cut(bag, tmp_path, share)) as opened:
                for name in opened.topics:
                    assert len(list(opened.messages(name))) == opened.topics[name].count
        except FinetuneError as error:
            assert str(error).endswith(".") and "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (bytes(2000), "begins with zeros"),
        (b"#ROSB", "has only 5 bytes"),
        (b"import numpy as np\n", "is no bag: it begins with b'import numpy'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"#ROSBAG V1.2\n" + bytes(500), "(Bag version 102 is not supported). Let `rosbag fix`"),
        (
            b"\x89MCAP0\r\n\x01" + (15).to_bytes(8, "little") + b"\x04\0\0\0ros1\x03\0\0\0lib" + b"\x0f" * 80,
            "none of ROS 2",
        ),
    ],
)
def test_what_is_no_bag(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.bag"
    path.write_bytes(content)
    with pytest.raises(ListError) as caught:
        open_bag(path)
    assert words in str(caught.value)


def test_other_places(tmp_path: Path) -> None:
    with pytest.raises(ListError, match="no such file or folder"):
        open_bag(tmp_path / "none.bag")
    with pytest.raises(ListError, match="is a folder without a bag"):
        open_bag(tmp_path)
    (tmp_path / "x.bag").touch()
    with pytest.raises(ListError, match=r"is a folder with 1 bag of ROS 1\. Name the bags: .*\*\.bag"):
        open_bag(tmp_path)
    database = tmp_path / "other.db3"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE notes(text)")
    connection.close()
    with pytest.raises(ListError, match="is an SQLite database, but no bag of ROS 2"):
        open_bag(database)


def test_messages_that_were_not_moved_into_the_database_are_named(bag: Path, tmp_path: Path) -> None:
    file = storage_file(bag)
    if file.suffix != ".db3":
        pytest.skip("only SQLite has a log of its own")
    path = cut(bag, tmp_path, 1.0)
    path.with_name(f"{path.name}-wal").write_bytes(b"1")
    with open_bag(path) as opened:
        assert "messages in a.db3-wal are not read: `sqlite3 " in opened.notes[0]


def test_a_recorder_that_was_killed_before_sqlite_wrote_its_file(bag: Path, tmp_path: Path) -> None:
    file = storage_file(bag)
    if file.suffix != ".db3":
        pytest.skip("only SQLite has a log of its own")
    live = sqlite3.connect(tmp_path / "live.db3")
    live.execute("PRAGMA journal_mode=WAL")
    for line in sqlite3.connect(file).iterdump():
        if not line.startswith(("BEGIN", "COMMIT")):
            live.execute(line)
    live.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for ending in ("", "-wal"):
        (killed / f"a.db3{ending}").write_bytes((tmp_path / f"live.db3{ending}").read_bytes())
    with pytest.raises(
        ListError, match=r"is empty, but its messages may be in a\.db3-wal\. `sqlite3 .* moves them over"
    ):
        open_bag(killed / "a.db3")
    live.close()
    moved = sqlite3.connect(killed / "a.db3")
    moved.execute("PRAGMA wal_checkpoint")
    moved.close()
    assert numbers(killed / "a.db3", "/color") == list(range(COUNT))


@pytest.mark.parametrize("compression", [Ros1Writer.CompressionFormat.BZ2, Ros1Writer.CompressionFormat.LZ4])
def test_compressed_chunks_of_ros_1(tmp_path: Path, compression: Ros1Writer.CompressionFormat) -> None:
    path = tmp_path / "a.bag"
    writer = Ros1Writer(path)
    writer.set_compression(compression)
    fill(writer, ros1=True)
    assert numbers(path, "/color") == list(range(COUNT))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"op=\x05") - 60])  # the last chunk is cut
    found = numbers(path, "/color")
    assert found == list(range(35))  # of 30 kB are a chunk of 1 MB


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_folders_of_ros_2(tmp_path: Path, mode: CompressionMode) -> None:
    writer = Ros2Writer(tmp_path / "a", version=9)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    fill(writer, ros1=False)
    assert numbers(tmp_path / "a", "/color") == list(range(COUNT))
    for file in (tmp_path / "a").glob("*.db3*"):
        file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(ListError, match="Copy the folder again"):
        open_bag(tmp_path / "a")


def test_mcap_without_chunks(bag: Path, tmp_path: Path) -> None:
    file = storage_file(bag)
    if file.suffix != ".mcap":
        pytest.skip("only MCAP has chunks that may be missing")
    path = tmp_path / "a.mcap"
    path.write_bytes(without_chunks(file.read_bytes()))
    assert numbers(path, "/color") == list(range(COUNT))
    with open_bag(path) as opened:
        assert opened.notes == []
        times = [time_ns for time_ns, _ in opened.messages("/depth")]
        assert opened.read_message("/depth", times[7])[-2] == 7
    path.write_bytes(path.read_bytes()[:-20_000])
    assert numbers(path, "/color")[-1] == COUNT - 1 and len(numbers(path, "/depth")) == COUNT - 1


def test_a_folder_of_several_files_without_metadata(bag: Path, tmp_path: Path) -> None:
    file = storage_file(bag)
    if file.suffix == ".bag":
        pytest.skip("ROS 1 has no folders")
    for part in ("a_0", "a_1"):
        (tmp_path / f"{part}{file.suffix}").write_bytes(file.read_bytes())
    with open_bag(tmp_path) as opened:
        assert opened.topics["/color"].count == 2 * COUNT
        assert "it has 2 files." in opened.notes[0]
        first = opened.read_message("/color", START_NS)
        assert opened.read_message("/color", START_NS, 1) == first
    assert numbers(tmp_path, "/color") == 2 * list(range(COUNT))


def fill(writer: Ros1Writer | Ros2Writer, *, ros1: bool) -> None:
    """Numbers 0 to 59 on a topic of color, by a writer that is not open yet."""
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.LATEST)
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    with writer as opened:
        connection = opened.add_connection("/color", IMAGE, typestore=store)
        for k in range(COUNT):
            noise[-1, -1, -1] = k
            opened.write(connection, START_NS + k, make_raw(IMAGE, image(noise, "rgb8"), ros1=ros1))


def without_chunks(data: bytes) -> bytes:
    """The records of an MCAP file with those of its chunks in their place, and without index and summary."""
    kept, position = data[:8], 8
    while position < len(data) - 8:
        operation, length = data[position], int.from_bytes(data[position + 1 : position + 9], "little")
        record = data[position : position + 9 + length]
        position += len(record)
        if operation == 0x06:  # a chunk: 28 bytes, the name of its compression, its size
            name = int.from_bytes(record[37:41], "little")
            kept += record[9 + 28 + 4 + name + 8 :]
        elif operation in (0x01, 0x0F):
            kept += record
    return kept + b"\x02" + (20).to_bytes(8, "little") + bytes(20) + data[:8]

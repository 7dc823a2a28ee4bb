"""Result files exist whole or not at all, whatever the disk does."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.utils.errors import FinetuneError
from finetune.utils.files import (
    atomic_write,
    explain_write_errors,
    move_into_place,
    unfinished_name,
    write_file,
    write_output,
)


@contextmanager
def limited_files(max_bytes: int) -> Iterator[None]:
    """As on a full disk, a file cannot grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_the_old_one_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "result.json"
    write_file(path, "old\n")
    with limited_files(1000), pytest.raises(OSError, match="too large"):
        write_file(path, b"x" * 1001)
    assert path.read_text() == "old\n"
    write_file(path, "new\r\n")
    assert path.read_bytes() == b"new\r\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/x.npy", "(Not a directory|File exists)"), (".", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    sentence = rf"cannot be written \({reason}\)\. Name an --output where this user may write"
    with pytest.raises(FinetuneError, match=sentence):
        write_output(tmp_path / name, "x")
    assert names_in(tmp_path) == ["file"]


def test_what_is_written_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), tmp_path))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_file(tmp_path / "a.json", "{}")
    assert synced == [".a.json.writing", "."]
    synced.clear()
    with atomic_write(tmp_path / "adapter") as folder:
        folder.mkdir()
        (folder / "weights").write_bytes(b"1")
        assert not (tmp_path / "adapter").exists()
    assert synced == [".adapter.writing/weights", ".adapter.writing", "."]


def test_a_folder_replaces_an_older_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with atomic_write(tmp_path / "folder") as folder:
            folder.mkdir()
            (folder / content).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "new"]


def test_a_folder_of_its_own_takes_what_a_library_writes_next_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    with pytest.raises(FinetuneError), explain_write_errors(path), atomic_write(path, in_folder=True) as unfinished:
        unfinished.with_name("random").touch()
        raise OSError(28, "No space left on device")
    assert (path.read_text(), names_in(tmp_path)) == ("old", ["w.safetensors"])
    with atomic_write(path, in_folder=True) as unfinished:
        unfinished.write_text("new")
        unfinished.with_name("random").touch()
    assert (path.read_text(), names_in(tmp_path)) == ("new", ["w.safetensors"])


def test_what_a_kill_left_and_a_foreign_link_are_not_written_through(tmp_path: Path) -> None:
    path, foreign = tmp_path / "a.csv", tmp_path / "foreign"
    foreign.write_text("precious")
    unfinished_name(path).symlink_to(foreign)
    write_file(path, "1")
    assert (path.read_text(), foreign.read_text()) == ("1", "precious")
    unfinished_name(path).mkdir()
    (unfinished_name(path) / "half").touch()
    write_file(path, "2")
    assert path.read_text() == "2"
    assert names_in(tmp_path) == ["a.csv", "foreign"]


def test_a_pipe_that_nobody_reads_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "table.json"
    os.mkfifo(pipe)
    with pytest.raises(FinetuneError, match=r"table\.json: cannot be written \(no process reads this pipe\)"):
        write_output(pipe, "{}")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_output(pipe, "{}")
        assert os.read(reader, 10) == b"{}"
    finally:
        os.close(reader)


def test_an_own_link_keeps_pointing_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "real.json")
    write_file(tmp_path / "link.json", "1")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "there" / "real.json").read_text() == "1"


def test_a_device_is_written_directly() -> None:
    write_file(Path("/dev/null"), "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OSError, match="No space left"):
        write_file(Path("/dev/full"), "x")


def test_the_longest_names_and_names_of_other_encodings(tmp_path: Path) -> None:
    names = ["x" * 251 + ".npy", "x" * 251 + ".png", "ü" * 125 + ".npy", os.fsdecode(b"\xff\xfe.npy")]
    for name in names:
        write_file(tmp_path / name, name)
    assert names_in(tmp_path) == sorted(names)
    assert (tmp_path / names[3]).read_text() == "\\udcff\\udcfe.npy"
    assert unfinished_name(tmp_path / names[0]) != unfinished_name(tmp_path / names[1])


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_the_mode_is_that_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_file(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_a_file_that_cannot_be_synced_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_file(tmp_path / "a", "x")
    assert not list(tmp_path.iterdir())

    def unknown(descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unknown)
    (tmp_path / "b").touch()
    move_into_place(tmp_path / "b", tmp_path / "c")
    assert list(tmp_path.iterdir()) == [tmp_path / "c"]

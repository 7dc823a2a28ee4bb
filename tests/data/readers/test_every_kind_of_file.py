"""Only regular files are read: a pipe would never end."""

from __future__ import annotations

import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.intrinsics import read_intrinsics
from finetune.data.readers.listing import read_list
from finetune.utils.errors import DataError, FinetuneError, ListError


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.npz", "a.pfm", "a.exr", "a.tiff"])
@pytest.mark.parametrize("read", [read_image, read_depth])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=r"cannot be read \(is a pipe, not a file\)"):
        read(tmp_path / name)


def test_pipes_as_list_and_intrinsics(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for read in (lambda: list(read_list(str(tmp_path / "pipe"))), lambda: read_intrinsics(tmp_path / "pipe")):
        with pytest.raises(ListError, match=r"pipe: cannot be read.* \(is a pipe, not a file\)"):
            read()


def test_a_pipe_as_video_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    from finetune.inference.video import VideoFrames

    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4: cannot be read \(is a pipe, not a file\)"):
        VideoFrames(tmp_path / "a.mp4")


def test_sockets_and_devices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has a limit
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("a.png")
        with pytest.raises(DataError, match="is a socket, not a file"):
            read_image("a.png")
    with pytest.raises(DataError, match="is a device, not a file"):
        read_depth("/dev/zero")


def test_a_link_to_a_file_is_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    (tmp_path / "b.npy").symlink_to("a.npy")
    assert read_depth(tmp_path / "b.npy").shape == (2, 3)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png", "loop.npy"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop.npy").symlink_to("loop.npy")
    with pytest.raises(FinetuneError):
        read_depth(tmp_path / name)
    with pytest.raises(FinetuneError):
        read_intrinsics(tmp_path / name)


def test_archives_with_members_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, depth=np.ones((2, 3)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "by hand")
    assert read_depth(path).shape == (2, 3)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("depth", "no array")
        archive.writestr("notes.txt", "no array either")
    with pytest.raises(DataError, match=r"a\.npz: holds no array"):
        read_depth(path)


def test_a_member_whose_first_bytes_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, depth=np.ones((2, 3)))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("depth.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("depth.npy", b"?" + content[1:])
    with pytest.raises(DataError, match=r"a\.npz: is no NumPy file of numbers"):
        read_depth(path)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (0, 5, 3), (1, 0, 5)])
def test_arrays_of_no_number(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    np.savez(tmp_path / "b.npz", depth=np.zeros(shape, np.uint8))
    for name in ("a.npy", "b.npz"):
        for read in (read_image, read_depth):
            with pytest.raises(DataError, match="without numbers"):
                read(tmp_path / name)

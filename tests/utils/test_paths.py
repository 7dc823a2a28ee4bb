import os
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune.utils import paths
from tests.normal_user import as_normal_user, closed_folder

QUESTIONS: list[Callable[[str | Path], object]] = [paths.path_exists, paths.is_file, paths.is_folder]


def impossible_paths(folder: Path) -> dict[str, str]:
    """Path -> what is to be said of it."""
    loop = folder / "loop"
    loop.symlink_to("loop")
    return {
        str(folder / ("a" * 300)): "no such file: a name in it is longer than a file name can be",
        "/".join(["abcdefg"] * 1000): "no such file: a name in it is longer than a file name can be",
        "a\0b": "no such file: it has a character that no path can have",
        str(loop): "no such file: its links lead in a circle",
        str(loop / "below"): "no such file: its links lead in a circle",
        "a\ud800b": "no such file: it has a character that no path can have",
        "~no_such_user/x": "no such file",
        str(folder / "a\udcffb"): "no such file",
        str(folder): "is a folder, not a file",
        "/dev/null": "is a device, not a file",
        "": "no such file",
    }


def test_no_path_is_answered_with_an_exception(tmp_path: Path) -> None:
    for path, said in impossible_paths(tmp_path).items():
        assert not paths.is_file(path)
        assert paths.missing(path) == said
        assert isinstance(paths.expand_path(path), Path)
        paths.real_path(path)
        for ask in QUESTIONS:
            ask(path)
        with pytest.raises(OSError, match=r".") as error:
            paths.read_bytes(path)
        assert error.value.strerror
    with pytest.raises(OSError, match="null"):
        paths.list_folder("a\0b")


def test_a_folder_that_is_closed_holds_nothing_and_is_named() -> None:
    with closed_folder() as closed, as_normal_user():
        for inside in ("file.txt", "folder", "nothing"):
            assert not any(ask(closed / inside) for ask in QUESTIONS)
            assert paths.missing(closed / inside) == f"no permission to look it up in {closed}"
        with pytest.raises(PermissionError):
            paths.list_folder(closed)
        with pytest.raises(PermissionError):
            paths.read_bytes(closed / "file.txt")


def test_what_is_there_is_found(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"text")
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link"):
        assert [ask(path) for ask in QUESTIONS] == [True, True, False]
        assert paths.read_bytes(path) == b"text"
        assert paths.real_path(path) == file.resolve()
        assert paths.missing(path, "folder") == "is a file, not a folder"
    assert [ask(tmp_path) for ask in QUESTIONS] == [True, False, True]
    assert paths.list_folder(tmp_path) == [file, tmp_path / "link"]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe, not a file"):
        paths.read_bytes(tmp_path / "pipe")
    assert paths.missing(tmp_path / "pipe") == "is a pipe, not a file"


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 256, "ü" * 128, "runs/" + "a" * 256 + "/x"])
def test_where_no_file_can_be_made(path: str) -> None:
    assert not paths.is_possible(path)


@pytest.mark.parametrize("path", ["a" * 255, "ü" * 127, "/".join(["a" * 100] * 5), "", "~/runs"])
def test_where_a_file_can_be_made(path: str) -> None:
    assert paths.is_possible(path)


def test_the_home_folder_is_put_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert paths.expand_path("~/runs") == Path("/home/someone/runs")
    assert paths.expand_path("runs/~") == Path("runs/~")


def test_what_is_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    for path, said in (
        (tmp_path / "link", f"{tmp_path / 'link'} is a link to a folder that is missing"),
        (tmp_path / "link" / "below", f"{tmp_path / 'link'} is a link to a folder that is missing"),
        (tmp_path / "file", "a file has its name"),
    ):
        with pytest.raises(FileExistsError) as caught:
            paths.make_folder(path)
        assert caught.value.strerror == said

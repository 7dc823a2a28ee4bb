"""List files and folders: which image belongs to which depth map."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from finetune.data.readers.listing import Listing, list_tree, locate, read_list, require_file, require_folder
from finetune.data.readers.pairs import Pairs
from finetune.utils.errors import ListError, RecipeError
from tests.normal_user import as_normal_user


def rows_of(folder: Path, text: str) -> list[tuple[int, str, str]]:
    path = folder / "list.txt"
    path.write_bytes(text.encode())
    return list(read_list(str(path)))


def test_lines_comments_further_columns_and_line_ends(tmp_path: Path) -> None:
    text = "\ufeff# image depth\n\na.jpg a.png\r\n  b.jpg\t b.png \n#c.jpg c.png\nd#1.jpg d.png 518.8579 extra"
    assert rows_of(tmp_path, text) == [(3, "a.jpg", "a.png"), (4, "b.jpg", "b.png"), (6, "d#1.jpg", "d.png")]


def test_paths_with_spaces_quotes_backslashes_and_unicode(tmp_path: Path) -> None:
    lines = [
        '"my room/a 1.jpg" "my room/a 1.png" 518.8',
        "'my room/b 1.jpg' b.png",
        "my room/c 1.jpg\tmy room/c 1.png\t518.8",
        "küche/d.jpg 厨房/d.png",
        r"rooms\e.jpg rooms\e.png",
        "bob's/f.jpg bob's/f.png",
    ]
    assert [row[1:] for row in rows_of(tmp_path, "\n".join(lines))] == [
        ("my room/a 1.jpg", "my room/a 1.png"),
        ("my room/b 1.jpg", "b.png"),
        ("my room/c 1.jpg", "my room/c 1.png"),
        ("küche/d.jpg", "厨房/d.png"),
        (r"rooms\e.jpg", r"rooms\e.png"),
        ("bob's/f.jpg", "bob's/f.png"),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\f", "\v", "\x85", "\u2028", "\u2029"])
def test_all_ends_of_lines_part_frames(tmp_path: Path, end: str) -> None:
    text = f"a.jpg a.png{end}# comment{end}b.jpg b.png 518.8{end}c.jpg c.png"
    assert rows_of(tmp_path, text) == [(1, "a.jpg", "a.png"), (3, "b.jpg", "b.png"), (4, "c.jpg", "c.png")]


@pytest.mark.parametrize(
    "text",
    [
        "image,depth\na 1.jpg,d/a.png\nb.jpg,d/b.png\n",
        "frame;depth_path;image_path\n1;d/a.png;a 1.jpg\n2;d/b.png;b.jpg\n",
        'id, depth map, RGB file\n1, "d/a.png", "a 1.jpg"\n2, d/b.png, b.jpg\n',
        "depth_m\tfilename\nd/a.png\ta 1.jpg\nd/b.png\tb.jpg\n",
        "depth image\nd/a.png 'a 1.jpg'\nd/b.png b.jpg\n",
        "a 1.jpg,d/a.png\nb.jpg,d/b.png\n",
        '"a 1.jpg", d/a.png\nb.jpg, d/b.png\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_with_and_without_a_header(tmp_path: Path, text: str, encoding: str) -> None:
    for name in ("list.csv", "list.txt") if "a 1.jpg,d" not in text.split("\n")[0] else ("list.csv",):
        (tmp_path / name).write_text(text, encoding=encoding)
        assert [row[1:] for row in read_list(str(tmp_path / name))] == [("a 1.jpg", "d/a.png"), ("b.jpg", "d/b.png")]


def test_commas_and_spaces_of_other_scripts_are_characters_of_a_path(tmp_path: Path) -> None:
    text = "a,1.jpg a,1.png\n写\u3000真.jpg b\xa01.png"
    assert [row[1:] for row in rows_of(tmp_path, text)] == [("a,1.jpg", "a,1.png"), ("写\u3000真.jpg", "b\xa01.png")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("image,z_buffer\na.jpg,a.png\n", r"list\.csv:1: the header names image, z_buffer, and no depth"),
        ("image,depth\na.jpg\n", r"list\.csv:2: has fewer columns than the header"),
        ("image,depth\na.jpg,\n", r"list\.csv:2: lacks a depth map"),
        ("image,depth\n", "names no frame"),
    ],
)
def test_a_header_that_does_not_fit_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ListError, match=found):
        Listing.of_list(str(path), read_list(str(path)), str(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("b.jpg", "has one column, 'b.jpg'"),
        ("0.033 rgb/b.png 0.041 depth/b.png", "has a number where a path belongs"),
        ("b.jpg 518.8579", "has a number where a path belongs"),
    ],
)
def test_a_malformed_line_is_named_with_what_was_expected(tmp_path: Path, line: str, found: str) -> None:
    with pytest.raises(ListError, match=found) as caught:
        rows_of(tmp_path, f"a.jpg a.png\n\n{line}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'list.txt'}:3: ")
    assert "Write `image depth`" in str(caught.value)


def test_a_list_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(ListError, match=r"list\.txt: is not UTF-8 text"):
        list(read_list(str(tmp_path / "list.txt")))
    with pytest.raises(ListError, match="cannot be read"):
        list(read_list(str(tmp_path)))


def test_a_file_is_looked_for_below_root_and_then_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("list.txt").touch()
    assert locate("root", "list.txt") == "list.txt"
    require_file("list", "root", "list.txt")
    Path("root/list.txt").touch()
    assert Path(locate("root", "list.txt")) == Path("root/list.txt")
    require_folder("root", "root")
    with pytest.raises(RecipeError, match=r"root is 'list.txt'; expected an existing folder"):
        require_folder("root", "list.txt")
    with pytest.raises(RecipeError, match=r"list is 'other.txt'; expected an existing file, below root or from"):
        require_file("list", "root", "other.txt")
    os.mkfifo("root/pipe.txt")
    for name, said in (("pipe.txt", r"root/pipe\.txt is a pipe"), (".", "root is a folder")):
        with pytest.raises(RecipeError, match=rf"expected an existing file, .*; {said}, not a file"):
            require_file("list", "root", name)


def test_200_000_lines_are_listed_in_less_than_two_seconds_without_a_look_at_the_frames(tmp_path: Path) -> None:
    line = "scene/image_02/data/{0:010}.png scene/proj_depth/groundtruth/image_02/{0:010}.png 721.5377\n"
    (tmp_path / "list.txt").write_text("".join(line.format(number) for number in range(200_000)))
    started = time.process_time()
    reader = Pairs(root=str(tmp_path), list="list.txt", meters_per_unit=0.001)
    assert len(reader) == 200_000
    assert reader.source(199_999).endswith("/image_02/0000199999.png")
    assert time.process_time() - started < 2.0
    with pytest.raises(ListError, match=r"list\.txt:200000: "):
        reader[199_999]


def test_what_is_in_a_closed_folder_is_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a" / "inner").mkdir(parents=True)
    (tmp_path / "b.txt").touch()
    (tmp_path / "lost+found").mkdir(mode=0)  # at the root of a disk, closed to all but root
    (tmp_path / ".Trash-0").mkdir(mode=0)
    everything = sorted(path for path in tmp_path.rglob("*"))
    with as_normal_user():
        assert list_tree(tmp_path) == everything
    (tmp_path / "a" / "inner").chmod(0)
    with as_normal_user(), pytest.raises(ListError, match=r"a/inner: cannot be listed \(Permission denied\)\. Make it"):
        list_tree(tmp_path)

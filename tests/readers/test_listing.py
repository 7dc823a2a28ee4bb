"""List files and folders: which image belongs to which depth map."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from finetune.errors import ListError, RecipeError
from finetune.readers.listing import locate, match_by_stem, read_list, require_file, require_folder
from finetune.readers.pairs import Pairs


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


def test_stems_are_matched_and_sorted(tmp_path: Path) -> None:
    for name in ("rgb/10.jpg", "rgb/2.PNG", "rgb/.hidden.jpg", "rgb/notes.txt", "rgb/sub/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth/2.npy").touch()
    (tmp_path / "depth/10.png").touch()
    pairs = match_by_stem(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    assert pairs == [("10.jpg", "10.png"), ("2.PNG", "2.npy")]


def test_stems_without_counterpart_are_counted_and_named_both_ways(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    for stem in ("a", "b", "c", "d", "e"):
        (tmp_path / f"rgb/{stem}.jpg").touch()
    for stem in ("e", "f"):
        (tmp_path / f"depth/{stem}.png").touch()
    with pytest.raises(ListError) as caught:
        match_by_stem(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    assert "4 of 5 images have no depth map (a, b, c, ...); 1 of 2 depth maps have no image (f)" in str(caught.value)
    (tmp_path / "rgb/e.png").touch()
    with pytest.raises(ListError, match=r"rgb: holds e\.jpg and e\.png, of one stem"):
        match_by_stem(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ListError, match=r"empty: holds no \.png"):
        match_by_stem(str(tmp_path / "empty"), str(tmp_path / "depth"))
    with pytest.raises(ListError, match=r"nowhere: cannot be read"):
        match_by_stem(str(tmp_path / "nowhere"), str(tmp_path / "depth"))


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


def test_200_000_lines_are_listed_in_less_than_two_seconds_without_a_look_at_the_frames(tmp_path: Path) -> None:
    line = "scene/image_02/data/{0:010}.png scene/proj_depth/groundtruth/image_02/{0:010}.png 721.5377\n"
    (tmp_path / "list.txt").write_text("".join(line.format(number) for number in range(200_000)))
    started = time.perf_counter()
    reader = Pairs(root=str(tmp_path), list="list.txt", meters_per_unit=0.001)
    assert len(reader) == 200_000
    assert reader.source(199_999).endswith("/image_02/0000199999.png")
    assert time.perf_counter() - started < 2.0
    with pytest.raises(ListError, match=r"list\.txt:200000: "):
        reader[199_999]

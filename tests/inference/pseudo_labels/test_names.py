from __future__ import annotations

from pathlib import Path

import pytest

from finetune.inference.inputs import Input
from finetune.inference.pseudo_labels.names import absolute_path, name_inputs
from finetune.utils.errors import FinetuneError


def named(*paths: str) -> list[str]:
    return name_inputs([Input(path=Path(path)) for path in paths], Path("/out"))


def test_names_are_stems_where_all_differ() -> None:
    assert named("/in/a/one.jpg", "/in/b/two.v2.png") == ["one", "two.v2"]


def test_equal_stems_are_told_apart_by_their_folders() -> None:
    assert named("/in/a/0001.jpg", "/in/b/0001.jpg", "/in/b/deep/0002.jpg") == ["a/0001", "b/0001", "b/deep/0002"]


def test_equal_stems_in_one_folder_are_told_apart_by_their_endings() -> None:
    assert named("/in/0001.jpg", "/in/0001.png") == ["0001.jpg", "0001.png"]


def test_an_image_is_not_in_the_folder_of_the_frames_of_a_video() -> None:
    # By folders alone the first would be walk/000000, which is the video's first frame.
    names = named("/in/walk/000000.png", "/in/other/000000.png", "/in/walk.mp4")
    assert names == ["walk/000000.png", "other/000000.png", "walk.mp4"]


def test_the_name_of_one_image_does_not_depend_on_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert absolute_path(Path("tmp/../in/a.png")) == Path("/in/a.png")
    assert named("in/a.png", "in/b/a.png") == ["a", "b/a"]


def test_an_image_in_the_output_folder_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "labels" / "a.png"
    with pytest.raises(FinetuneError, match=r"a\.png: is in .*, the folder of the labels"):
        name_inputs([Input(path=image)], tmp_path)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(FinetuneError, match="more than 255 bytes"):
        named(f"/in/{'x' * 251}.png")

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.inference.pseudo_labels.label_folder import LabelFolder, VideoFramesDone, frame_name
from finetune.inference.pseudo_labels.label_table import LabelRow
from finetune.utils.errors import FileFault

INPUTS = [("a", "/in/a.png", False), ("b", "/in/b.png", False)]


def opened(path: Path, **changes: object) -> LabelFolder:
    request = {"teacher": {"digest": "d1"}, "anchor": "none", "options": (1, 2), **changes}
    folder = LabelFolder(folder=path, request=request)
    folder.open()
    return folder


def add(folder: LabelFolder, name: str) -> None:
    folder.add(name, LabelRow(image=f"/in/{name}.png", label=f"labels/{name}.png"), {f"labels/{name}.png": b"x"})


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_call_that_ends_last_completes_the_folder_and_nothing_else_is_left(tmp_path: Path) -> None:
    first, second = opened(tmp_path / "out"), opened(tmp_path / "out")
    add(first, "b")
    assert first.finish(INPUTS) is None and not (tmp_path / "out" / "labels.csv").exists()
    assert second.has("b") and not second.has("a") and second.count_left(["a", "b"]) == 1
    add(second, "a")
    # What a kill leaves is no file of the folder.
    (tmp_path / "out" / ".labeling" / "unfinished" / "half").write_bytes(b"half")
    summary = second.finish(INPUTS)
    assert summary is not None and (summary["labels"], summary["refused"]) == (2, 0)
    assert names(tmp_path / "out") == ["labels.csv", "labels.json", "labels/a.png", "labels/b.png"]
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["image", "/in/a.png", "/in/b.png"]
    # The first counts what is left when the lines are gone already, and looks again: it is complete for it too.
    assert not (tmp_path / "out" / ".labeling").exists()
    assert not first.is_complete and first.count_left(["a", "b"]) == 0
    assert first.finish(INPUTS) == summary
    third = opened(tmp_path / "out")
    assert third.is_complete and third.has("anything") and third.finish(INPUTS) == summary


def test_a_call_that_ended_before_labels_json_goes_on(tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    for name in ("a", "b"):
        add(folder, name)
    (tmp_path / "out" / "labels.csv").write_text("half")
    assert opened(tmp_path / "out").finish(INPUTS) is not None
    assert len((tmp_path / "out" / "labels.csv").read_text().splitlines()) == 3


def test_the_frames_of_a_video_are_lines_of_their_own(tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    for number in (0, 2):
        add(folder, frame_name("walk", number))
    inputs = [("walk", "/in/walk.mp4", True), ("broken", "/in/broken.mp4", True)]
    assert folder.finish(inputs) is None
    folder.end_video("walk", VideoFramesDone(numbers=(0, 2)))
    folder.end_video("broken", VideoFramesDone(numbers=(), refused="no video"))
    summary = folder.finish(inputs)
    assert summary is not None and (summary["labels"], summary["refused"]) == (2, 1)
    lines = (tmp_path / "out" / "labels.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["labels/walk/000000.png", "labels/walk/000002.png", ""]
    assert lines[3].startswith("/in/broken.mp4,") and lines[3].endswith(",no video")


@pytest.mark.parametrize("finished", [False, True])
def test_another_request_is_refused_by_name_and_overwrite_begins_again(tmp_path: Path, finished: bool) -> None:
    folder = opened(tmp_path / "out")
    for name in ("a", "b"):
        add(folder, name)
    if finished:
        folder.finish(INPUTS)
    begun = "made" if finished else "begun"
    with pytest.raises(FileFault, match=f"out: was {begun} with another teacher and another options. Name another"):
        opened(tmp_path / "out", teacher={"digest": "d2"}, options=(1, 3))
    again = LabelFolder(folder=tmp_path / "out", request={"teacher": {"digest": "d2"}, "anchor": "none"})
    again.discard()
    again.open()
    assert not again.has("a") and names(tmp_path / "out") == [".labeling/request.json"]


def test_what_label_did_not_write_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"mine")
    folder = LabelFolder(folder=tmp_path, request={})
    for call in (folder.open, folder.discard):
        with pytest.raises(FileFault, match="holds files that finetune label did not write"):
            call()
    with pytest.raises(FileFault, match=r"photo\.png: is a file"):
        LabelFolder(folder=tmp_path / "photo.png", request={}).open()
    assert names(tmp_path) == ["photo.png"]


def test_a_damaged_summary_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(FileFault, match=r"labels\.json: is damaged. Add --overwrite"):
        opened(tmp_path)
    (tmp_path / "labels.json").write_text(json.dumps([1]))
    with pytest.raises(FileFault, match="is damaged"):
        opened(tmp_path)

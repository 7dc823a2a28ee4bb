"""Whatever path a user names, and may not read or write: one sentence, never a traceback."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune.commands import calibrate, check, compare, evaluate, export, label, pack, predict, train
from tests.conftest import CHECKPOINT, write_recipe
from tests.normal_user import as_normal_user, closed_folder
from tests.small_models import write_model

MAINS = {
    "train": train.main,
    "check": check.main,
    "evaluate": evaluate.main,
    "pack": pack.main,
    "predict": predict.main,
    "label": label.main,
    "export": export.main,
    "calibrate": calibrate.main,
    "compare": compare.main,
}
IMAGE = str(CHECKPOINT.parent / "room" / "color" / "0000.jpg")
# Where CLOSED stands, each path of the tests is put in.
CALLS = [
    "train CLOSED",
    "train RECIPE output=CLOSED",
    "train RECIPE model.checkpoint=CLOSED",
    "train RECIPE data.train.0.root=CLOSED",
    "train RECIPE data.train.0.list=CLOSED",
    "train RECIPE data.train.0.mask=CLOSED",
    "train RECIPE data.val.0.intrinsics=CLOSED",
    "train RECIPE data.train.0.list=null data.train.0.image_dir=CLOSED data.train.0.depth_dir=CLOSED",
    "check CLOSED",
    "check RECIPE data.val.0.root=CLOSED",
    "pack CLOSED --output OUTPUT",
    "pack RECIPE --output CLOSED",
    "train RECIPE data.train.0={reader:packed,root:CLOSED}",
    "evaluate CLOSED --recipe RECIPE",
    "evaluate MODEL --recipe CLOSED",
    "evaluate --predictions CLOSED --recipe RECIPE",
    "predict CLOSED IMAGE --output OUTPUT",
    "predict MODEL CLOSED --output OUTPUT",
    "predict MODEL CLOSED/*.jpg --output OUTPUT",
    "predict MODEL IMAGE --output CLOSED",
    "label CLOSED IMAGE --output OUTPUT",
    "label MODEL CLOSED --output OUTPUT",
    "label MODEL IMAGE --output CLOSED",
    "label MODEL IMAGE --output OUTPUT --anchor metric CLOSED",
    "label MODEL IMAGE --output OUTPUT --anchor sparse --recipe CLOSED",
    "export CLOSED --to official --output OUTPUT/a.pth",
    "export MODEL --to official --output CLOSED",
    "export MODEL --to official --output CLOSED/a.pth",
    "export MODEL --to official --output OUTPUT/a.pth --image CLOSED",
    "calibrate MODEL --known-distances CLOSED --output OUTPUT/a.safetensors",
    "calibrate MODEL --recipe RECIPE --output CLOSED/a.safetensors",
    "calibrate MODEL --recipe CLOSED --output OUTPUT/a.safetensors",
    "compare CLOSED CLOSED",
]


@pytest.fixture(scope="module")
def closed() -> Iterator[Path]:
    with closed_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def recipe(frames: Path, closed: Path) -> Path:
    return write_recipe(closed.parent, frames)


@pytest.mark.parametrize("call", CALLS)
def test_a_path_that_cannot_be_had_is_one_sentence(
    call: str, recipe: Path, closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = call.split()
    for path in (closed, closed / "file.txt", closed.parent / ("a" * 300), f"{closed.parent}/a\0b"):
        puts = {"RECIPE": recipe, "MODEL": CHECKPOINT, "IMAGE": IMAGE, "OUTPUT": closed.parent / "out", "CLOSED": path}
        typed = arguments
        for word, put in puts.items():
            typed = [argument.replace(word, str(put)) for argument in typed]
        with as_normal_user():
            try:
                status = MAINS[name](typed)
            except SystemExit as stop:
                status = int(stop.code or 0)
        said = capsys.readouterr().err
        assert status in (1, 2), (typed, said)
        assert "finetune stopped: " in said


@pytest.mark.parametrize(
    "call",
    [
        "train RECIPE data.train.0.list=LIST",
        "train RECIPE data.train.0.mask=CLOSED",
        "train RECIPE data.train.0.sky_mask=CLOSED/*.png",
        "train RECIPE data.train.0.sky_mask=CLOSED/file.txt",
        "train RECIPE model.checkpoint=CLOSED/file.txt",
        "check RECIPE model.checkpoint=LINK",
        "check RECIPE data.val.0.root=CLOSED",
        "check RECIPE data.train.0.list=null data.train.0.image_dir=CLOSED/folder data.train.0.depth_dir=.",
        "predict MODEL LIST --output OUTPUT",
        "predict CLOSED IMAGE --output OUTPUT",
        "export MODEL --to official --output OUTPUT.pth --image CLOSED/a.png",
        "evaluate --predictions CLOSED --recipe RECIPE",
        "evaluate --predictions CLOSED/folder --recipe RECIPE",
        "calibrate MODEL --known-distances LIST --output OUTPUT/a.safetensors",
        "compare CLOSED OUTPUT",
    ],
)
def test_what_lies_where_one_may_not_look_is_not_told_to_be_missing(
    call: str, recipe: Path, closed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A frame of a list, or a point of one.
    listed = tmp_path / "list.txt"
    listed.write_text(f"{closed}/file.txt {'3 4 2.5' if 'known' in call else closed / 'file.png'}\n")
    model = write_model(tmp_path / "metric.safetensors")
    puts = {"RECIPE": recipe, "MODEL": model, "OUTPUT": tmp_path / "out", "CLOSED": closed, "LIST": listed}
    (tmp_path / "link").symlink_to(closed / "file.txt")
    puts |= {"IMAGE": Path(IMAGE), "LINK": tmp_path / "link"}
    name, *arguments = call.split()
    for word, put in puts.items():
        arguments = [argument.replace(word, str(put)) for argument in arguments]
    with as_normal_user():
        assert MAINS[name](arguments) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: ") and f"no permission to look it up in {closed}." in said
    assert "perhaps" not in said


def test_a_closed_video_is_not_called_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "metric.safetensors")
    (tmp_path / "drive.mp4").write_bytes(b"x")
    (tmp_path / "drive.mp4").chmod(0)
    with as_normal_user():
        assert predict.main([str(model), str(tmp_path / "drive.mp4"), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "drive.mp4: cannot be read (Permission denied)" in said and "WARN" not in said

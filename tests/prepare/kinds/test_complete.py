"""Kind complete: sparse frames are filled where points agree, others are left and named, and wrong calls say why."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.commands import prepare
from finetune.data.readers.pairs import Pairs
from finetune.inference.anchoring import AnchoringOptions
from finetune.prepare.completion import complete_frame
from finetune.prepare.recording import RecordedFrame
from finetune.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "data" / "tiny_relative.safetensors"
ROOM = ROOT / "data" / "room"
SIZE = (120, 160)


def write_sparse_room(folder: Path, counts: list[int]) -> Path:
    """Frames of ``data/room`` at (120, 160), each with so many random pixels of its depth in millimeters."""
    for kind in ("image", "depth"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = (ROOM / "train.txt").read_text().splitlines()
    for i, (line, count) in enumerate(zip(lines, counts, strict=False)):
        image, depth = (ROOM / name for name in line.split()[:2])
        pixels = cv2.resize(cv2.imread(str(image)), SIZE[::-1], interpolation=cv2.INTER_AREA)
        full = cv2.resize(cv2.imread(str(depth), cv2.IMREAD_UNCHANGED), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
        sparse = np.zeros_like(full)
        chosen = tuple(rng.permutation(np.argwhere(full > 0))[:count].T)
        sparse[chosen] = full[chosen]
        cv2.imwrite(str(folder / "image" / f"{i:03}.png"), pixels)
        cv2.imwrite(str(folder / "depth" / f"{i:03}.png"), sparse)
    return folder


def run(*words: object) -> int:
    return prepare.main(["complete", *map(str, words)])


def read_gray(path: Path) -> NDArray[np.uint16]:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


@pytest.mark.slow
def test_a_folder_is_filled_and_what_is_left_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sparse_room(tmp_path / "sparse", [600, 600, 3, 600, 600])
    output = tmp_path / "out"
    call = (MODEL, folder, "--meters-per-unit", 0.001, "--no-check", "--device", "cpu")
    assert run(*call, "--output", output) == 0
    said = capsys.readouterr().out
    assert "4 of 5 frames are filled" in said
    assert f"1 of 5 frames are left as they are: {folder}/depth/002.png (it has 3 points, and 30 are the least)" in said
    rows = list(csv.DictReader((output / "frames.csv").read_text().splitlines()))
    assert [row["outcome"] for row in rows].count("filled") == 4 and float(rows[0]["inlier_share"]) > 0.5
    assert all(float(rows[0][name]) for name in ("scale_per_m", "residual", "filled_share"))
    unit = json.loads((output / "prepare.json").read_text())["meters_per_unit"]
    for i in range(5):
        sparse = read_gray(folder / "depth" / f"{i:03}.png") * 0.001
        depth_m = read_gray(output / "depth" / f"{i:03}.png") * unit
        confidence = read_gray(output / "confidence" / f"{i:03}.png")
        np.testing.assert_array_equal(depth_m > 0, confidence > 0)
        measured = confidence == 255
        assert (sparse[measured] > 0).all()
        np.testing.assert_allclose(depth_m[measured], sparse[measured], atol=unit)
        assert (depth_m > 0).mean() > 0.2 or i == 2
    # Twice the same call, twice the same bytes.
    assert run(*call, "--output", tmp_path / "again") == 0
    for path in sorted(output.glob("*/*.png")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(output)).read_bytes()


def test_it_trains_on_all_depth_and_validates_on_what_was_measured(tmp_path: Path) -> None:
    folder = write_sparse_room(tmp_path / "sparse", [600] * 5)
    prepared, output = tmp_path / "prepared", tmp_path / "out"
    given = ["--sensor", "realsense", "--no-check"]
    assert prepare.main(["pairs", str(folder), *given, "--output", str(prepared)]) == 0
    # A folder that was prepared needs no unit.
    assert run(MODEL, prepared, "--no-check", "--output", output) == 0
    for name in ("train.txt", "val.txt"):
        before, after = ((each / name).read_text().splitlines() for each in (prepared, output))
        assert [line.split()[:2] for line in after] == [line.split() for line in before]
    recipe = load_recipe(str(output / "recipe.yaml"), [])
    train, val = recipe.data.train[0].source, recipe.data.val[0].source
    assert isinstance(train, Pairs) and isinstance(val, Pairs)
    assert train[0].valid.mean() > 0.2
    sample = val[0]
    measured = read_gray(prepared / "depth" / Path(sample.source).name) > 0
    assert 500 < sample.valid.sum() <= 600 and measured[sample.valid].all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--meters-per-unit", "0.001", "--agree-within", "2"), "2 is not a share between 0 and 1, such as 0.1"),
        (("--meters-per-unit", "0.001", "--min-inliers", "all"), "all is not a share between 0 and 1, such as 0.1"),
        (("--meters-per-unit", "0.001", "--input-size", "100x100"), "multiples of 14"),
        ((), "nothing says what 1 is in meters"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    folder = write_sparse_room(tmp_path / "sparse", [600] * 4)
    call = (MODEL, folder, *words, "--output", tmp_path / "out")
    try:
        status = run(*call)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_model_and_a_broken_prepared_folder_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sparse_room(tmp_path / "sparse", [600] * 4)
    output = tmp_path / "out"
    gone = tmp_path / "gone.safetensors"
    assert run(gone, folder, "--meters-per-unit", 0.001, "--output", output) == 2
    assert f"{gone}: no such file" in capsys.readouterr().err
    (folder / "prepare.json").write_text('{"frames": []}')
    assert run(MODEL, folder, "--output", output) == 2
    assert "prepare.json: is not what finetune prepare writes" in capsys.readouterr().err
    assert not output.exists()


def test_a_frame_that_cannot_be_filled_keeps_its_depth() -> None:
    depth_m = np.zeros((6, 8), np.float32)
    depth_m[1, 2:5] = 2.0
    frame = RecordedFrame(image=np.zeros((6, 8, 3), np.uint8), depth_m=depth_m, camera=None, source="here")
    found = complete_frame(frame, np.ones((6, 8), np.float32), AnchoringOptions())
    np.testing.assert_array_equal(found.depth_m, depth_m)
    assert found.confidence is not None
    np.testing.assert_array_equal(found.confidence, np.where(depth_m > 0, 255, 0))
    assert found.facts == {"outcome": "it has 3 points, and 30 are the least", "points": 3}


def test_millimeters_taken_for_meters_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sparse_room(tmp_path / "sparse", [600] * 3)
    assert run(MODEL, folder, "--meters-per-unit", 1, "--output", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "as millimeters taken for meters are. For millimeters give --meters-per-unit 0.001." in said
    assert not (tmp_path / "out").exists()


def test_no_guess_is_paid_for_that_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    depth_m = np.where(rng.random((60, 80)) < 0.1, 2.0 + np.indices((60, 80))[1] / 20.0, 0.0).astype(np.float32)
    image = np.zeros((60, 80, 3), np.uint8)
    frame = RecordedFrame(image=image, depth_m=depth_m, camera=None, source="drawn")
    relative = (1.0 / (2.0 + np.indices((60, 80))[1] / 20.0)).astype(np.float32)
    monkeypatch.setattr("finetune.inference.anchoring._guess", None)
    assert complete_frame(frame, relative, AnchoringOptions()).facts["outcome"] == "filled"

"""The command: the folder that it writes, what it says, and what it refuses."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import prepare
from finetune.data.readers.files import read_image
from finetune.data.readers.pairs import Pairs
from finetune.recipe.load import load_recipe

UNIT_M = 0.001


def write_recording(folder: Path, count: int = 12, size: tuple[int, int] = (24, 32)) -> tuple[Path, Path]:
    """Images and depth maps of a recording: a wall at 1 m, 1.1 m, ... with a hole in its corner."""
    images, depths = folder / "rgb", folder / "depth"
    for path in (images, depths):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(images / f"{i:04}.jpg"), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        cv2.imwrite(str(depths / f"{i:04}.png"), wall(i, size))
    return images, depths


def wall(i: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    counts = np.full(size, 1000 + 100 * i, np.uint16)
    counts[:4, :8] = 0
    return counts


def test_a_folder_that_pairs_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, depths = write_recording(tmp_path)
    output = tmp_path / "out"
    call = ["frames", str(images), str(depths), "--sensor", "realsense", "--output", str(output), "--no-check"]
    assert prepare.main(call) == 0
    said = capsys.readouterr().out
    assert f"{output}: 12 frames, 10 train, 1 val: val is the end of the recording, with a gap of 1 frame " in said
    assert sorted(path.name for path in output.iterdir()) == [
        *("depth", "image", "prepare.json", "preview.html", "recipe.yaml", "train.txt", "val.txt")
    ]
    recipe = load_recipe(str(output / "recipe.yaml"), [])
    train = recipe.data.train[0].source
    assert isinstance(train, Pairs) and len(train) == 10
    sample = train[3]
    # (24, 32) pixels of 1.3 m, but for a hole of (4, 8)
    assert np.unique(sample.depth_m[sample.valid]).tolist() == [np.float32(1.3)]
    assert sample.valid.sum() == 24 * 32 - 4 * 8
    np.testing.assert_array_equal(sample.image, read_image(images / "0003.jpg"))
    summary = json.loads((output / "prepare.json").read_text())
    assert summary["meters_per_unit"] == 0.001 and summary["rounding_m"] == 0.0
    assert not (tmp_path / ".out.preparing").exists()

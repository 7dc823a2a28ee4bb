"""One recipe, one entry made wrong at a time; the sentence must name the file, the key and the fix."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.errors import DataError
from finetune.inspection import inspect_before_training
from finetune.recipe import load_recipe
from tests.conftest import write_frame


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.train.0.meters_per_unit=1.0"], "looks like millimeters. Set data.train.0.meters_per_unit: 0.001"),
        (["data.val.0.meters_per_unit=1.0"], "data.val.0.meters_per_unit: 0.001"),
        (["data.train.0.meters_per_unit=1.0", "data.train.0.max_depth_m=20.0"], "meters_per_unit: 0.001"),
        (["data.train.0.meters_per_unit=1e-6"], "looks like millimeters"),
        (["data.train.0.meters_per_unit=0.00390625"], "looks like millimeters"),
        (["model.max_depth_m=0.5"], "beyond model.max_depth_m 0.5"),
        (["model.max_depth_m=900.0"], "below 1 % of model.max_depth_m 900"),
    ],
)
def test_a_wrong_unit_or_range_is_named_with_its_fix(recipe: Path, overrides: list[str], expected: str) -> None:
    with pytest.raises(DataError) as stopped:
        inspect_before_training(load_recipe(recipe, overrides))
    assert expected in str(stopped.value)
    assert ".png" in str(stopped.value)


def test_a_sound_recipe_passes_and_says_what_it_saw(recipe: Path) -> None:
    train, val = inspect_before_training(load_recipe(recipe))
    assert (train.key, val.key) == ("data.train.0", "data.val.0")
    assert train.valid_share == pytest.approx(1 - 15 / (48 * 64))
    assert 1.0 < np.median(train.depth_m) < 6.0


def test_eight_bit_depth_is_a_picture(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gray"
    folder.mkdir()
    write_frame(folder, "a", np.full((48, 64), 2.0))
    cv2.imwrite(str(folder / "a.png"), np.full((48, 64), 200, np.uint8))
    (folder / "train.txt").write_text("a.jpg a.png\n")
    with pytest.raises(DataError, match=r"a\.png: depth is stored in 8 bits"):
        inspect_before_training(load_recipe(recipe, [f"data.train.0.root={folder}"]))


def test_nothing_measured_names_what_to_check(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    write_frame(folder, "a", np.zeros((48, 64)))
    (folder / "train.txt").write_text("a.jpg a.png\n")
    with pytest.raises(DataError, match=r"none of 1 depth maps of data\.train\.0.*invalid"):
        inspect_before_training(load_recipe(recipe, [f"data.train.0.root={folder}"]))

"""Black and white of images of more than 8 bits: in a reader, in training, in the weights and in predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

import finetune
from finetune.data.checks.frame_stats import collect_facts
from finetune.data.checks.rules import find_problems
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_image
from finetune.data.readers.image_levels import ImageLevels
from finetune.recipe.load import load_recipe
from finetune.utils.errors import DataError, RecipeFaults
from tests.data.checks.test_rules import entry
from tests.runs import launch
from tests.synthetic import tilted_plane

COUNTS = np.array([[7000, 7200, 7650, 8100, 9000]], np.uint16)


def test_by_hand(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), COUNTS)
    # (7650 - 7200) / 900 = 0.5 of 255 is 127.5, which rounds to the even 128.
    levels = ImageLevels(black=7200, white=8100)
    assert read_image(tmp_path / "a.png", levels=levels)[0, :, 1].tolist() == [0, 0, 128, 255, 255]
    # Without them four gray levels are left: 7000 / 257 = 27.2, 9000 / 257 = 35.02.
    assert read_image(tmp_path / "a.png")[0, :, 1].tolist() == [27, 28, 30, 32, 35]
    # The 25th and the 75th percentile of these five numbers are the second and the fourth.
    percentiles = ImageLevels(percentiles=(25, 75))
    assert read_image(tmp_path / "a.png", levels=percentiles)[0, :, 1].tolist() == [0, 0, 128, 255, 255]


def test_images_of_8_bits_stay_as_they_are(tmp_path: Path) -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    for levels in (ImageLevels(black=10, white=12), ImageLevels(percentiles=(1, 99))):
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", levels=levels), image)


def test_floats_and_an_image_of_one_number(tmp_path: Path) -> None:
    celsius = np.array([[-10.0, 20.0, np.nan, 35.0, np.inf]], np.float32)
    np.save(tmp_path / "a.npy", celsius)
    levels = ImageLevels(black=20, white=40)
    assert read_image(tmp_path / "a.npy", levels=levels)[0, :, 0].tolist() == [0, 0, 0, 191, 255]
    with pytest.raises(DataError, match=r"its image is float32.* set data\.image_black and data\.image_white"):
        read_image(tmp_path / "a.npy")
    np.save(tmp_path / "flat.npy", np.full((2, 3), 7300, np.uint16))
    assert (read_image(tmp_path / "flat.npy", levels=ImageLevels(percentiles=(1, 99))) == 0).all()


def test_alpha_is_no_part_of_the_percentiles(tmp_path: Path) -> None:
    color = np.linspace(1000, 2000, 60).astype(np.uint16).reshape(4, 5, 3)
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([color, np.full((4, 5), 65535, np.uint16)]))
    cv2.imwrite(str(tmp_path / "b.png"), color)
    levels = ImageLevels(percentiles=(0, 100))
    with_alpha, without = (read_image(tmp_path / name, levels=levels) for name in ("a.png", "b.png"))
    np.testing.assert_array_equal(with_alpha, without)


@pytest.mark.parametrize("levels", [None, ImageLevels(black=7200, white=8100), ImageLevels(percentiles=(1, 99.5))])
def test_they_are_saved_with_the_preprocessing(levels: ImageLevels | None) -> None:
    preprocessing = Preprocessing(input_size=(56, 70), image_levels=levels)
    saved = preprocessing.to_mapping()
    assert Preprocessing.from_mapping(saved) == preprocessing
    assert ("image_levels" in saved) == (levels is not None)


@pytest.mark.parametrize(
    "saved",
    [
        {"black": 1},
        {"black": 2, "white": 1},
        {"black": 1, "white": float("inf")},
        {"black": 1, "white": 10**400},
        {"black": "a", "white": 2},
        {"percentiles": [1]},
        {"percentiles": [1, 101]},
        {"percentiles": [1, 99], "black": 3},
        [1, 2],
        None,
        7,
    ],
)
def test_a_mapping_that_is_none_of_ours_is_refused(saved: object) -> None:
    mapping = {**Preprocessing(input_size=(56, 70)).to_mapping(), "image_levels": saved}
    with pytest.raises(ValueError, match=r"image_levels is .*; expected black and white, or percentiles"):
        Preprocessing.from_mapping(mapping)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (["data.image_black=100"], "data.image_black is 100 and data.image_white is null"),
        (["data.image_black=100", "data.image_white=100"], "data.image_white is 100"),
        (["data.image_percentiles=[99, 1]"], "expected the lower first, such as [1, 99]"),
        (["data.image_percentiles=[1, 101]"], "data.image_percentiles is [1, 101]"),
        (
            ["data.image_percentiles=[1, 99]", "data.image_black=1", "data.image_white=3"],
            "data.image_black is 1 and data.image_percentiles is [1, 99]",
        ),
    ],
)
def test_what_a_recipe_cannot_say(recipe: Path, override: list[str], said: str) -> None:
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(recipe, override, check_files=False)
    assert said in str(caught.value)


def test_every_reader_of_files_gets_them(recipe: Path) -> None:
    loaded = load_recipe(recipe, ["data.image_black=7200", "data.image_white=8100"], check_files=False)
    for one in (*loaded.data.train, *loaded.data.val):
        assert one.source.image_levels == ImageLevels(black=7200, white=8100)
    assert load_recipe(recipe, check_files=False).data.train[0].source.image_levels is None


def test_images_that_use_few_levels_are_told() -> None:
    plane = tilted_plane()
    dull = dataclasses.replace(plane, image=(plane.image // 64).astype(np.uint8))
    assert 1 < len(np.unique(dull.image)) <= 4
    found = [one for one in find_problems(entry([collect_facts(dull)] * 4)) if one.name == "image_levels"]
    assert len(found) == 1 and f"use {len(np.unique(dull.image))} of 256 levels" in found[0].evidence
    assert "data.image_percentiles: [1, 99]" in found[0].fix
    lively = dataclasses.replace(plane, image=np.arange(plane.image.size).reshape(plane.image.shape).astype(np.uint8))
    assert not [one for one in find_problems(entry([collect_facts(lively)] * 4)) if one.name == "image_levels"]


@pytest.mark.slow
def test_training_predict_and_evaluate_see_one_image(recipe: Path, frames: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thermal"
    folder.mkdir()
    for path in sorted(frames.glob("*.jpg")):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert gray is not None
        cv2.imwrite(str(folder / path.name.replace(".jpg", ".color.png")), 7200 + gray.astype(np.uint16) * 4)
        (folder / f"{path.stem}.png").write_bytes((frames / f"{path.stem}.png").read_bytes())
    for name in ("train.txt", "val.txt"):
        (folder / name).write_text((frames / name).read_text().replace(".jpg", ".color.png"))
    roots = [f"data.{part}.0.root={folder}" for part in ("train", "val")]
    levels = ["data.image_black=7200", "data.image_white=8220"]
    assert launch(recipe, *roots, *levels, "run.steps=2", "run.evaluate_every_steps=2", "export=[]") == 0
    model = finetune.load_model(tmp_path / "runs" / "small")
    assert model.preprocessing.image_levels == ImageLevels(black=7200, white=8220)
    stored = cv2.imread(str(folder / "00.color.png"), cv2.IMREAD_UNCHANGED)
    assert stored is not None and stored.dtype == np.uint16
    by_hand = np.repeat(np.rint((stored[..., None] - 7200.0) / 1020 * 255).astype(np.uint8), 3, axis=2)
    np.testing.assert_array_equal(model.predict(folder / "00.color.png"), model.predict(by_hand))
    np.testing.assert_array_equal(load_recipe(recipe, [*roots, *levels]).data.train[0].source[0].image, by_hand)

"""What an export accepts besides its image is compared, and a difference is refused by what it is at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.export.onnx_variants import Variants
from finetune.export.options import ExportOptions
from finetune.export.test_image import draw_dead_leaves
from finetune.export.validation_frames import read_validation_frames
from finetune.inference.predictor import Predictor, load_model
from finetune.recipe.load import load_recipe
from finetune.utils.errors import ResultError
from tests.small_models import write_model

IMAGE = draw_dead_leaves(40, 60)
FRAMES = [draw_dead_leaves(40, 60, seed) for seed in (5, 6)]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "m.safetensors"))


def make_variants(
    predictor: Predictor, options: ExportOptions, change: Callable[[np.ndarray], np.ndarray] = np.copy
) -> tuple[Variants, list[tuple[int, ...]]]:
    """Variants of an export that predicts as the model, but for a change; and the shapes that it is asked for."""
    asked: list[tuple[int, ...]] = []

    def run(inputs: Mapping[str, Any]) -> np.ndarray:
        asked.append(inputs["image"].shape)
        return change(predictor(torch.from_numpy(inputs["image"])).numpy())

    return Variants(predictor=predictor, run=run, options=options, allowed=1e-3, name="m.onnx"), asked


def test_three_sizes_are_compared_with_one_image_and_with_three(predictor: Predictor) -> None:
    options = ExportOptions(image_size=(40, 60), dynamic=True, batch="any")
    variants, asked = make_variants(predictor, options)
    said = variants.compare(IMAGE)
    sizes = ((112, 112), (84, 210), (182, 126))
    assert asked == [(count, 3, *size) for size in sizes for count in (1, 3)]
    assert said[0].startswith(
        "m.onnx: accepts all multiples of 14; largest difference, as a share of the spread: 112x112 "
    )
    assert "any number of images at a time" in said[1]


def test_images_that_are_mixed_up_are_refused(predictor: Predictor) -> None:
    variants, _ = make_variants(predictor, ExportOptions(image_size=(40, 60), batch=3), lambda found: found[::-1])
    with pytest.raises(ResultError, match=r"m.onnx: at 28x42 with 3 images at a time it is .* without --batch"):
        variants.compare(IMAGE)


def test_another_size_that_differs_is_refused(predictor: Predictor) -> None:
    variants, _ = make_variants(
        predictor,
        ExportOptions(image_size=(40, 60), dynamic=True),
        lambda found: found * (1 + (found.shape[-1] == 210)),
    )
    with pytest.raises(ResultError, match=r"m.onnx: at 84x210 it is .* without --dynamic"):
        variants.compare(IMAGE)


def test_float16_may_cost_3_thousandths_of_depth_at_999_of_1000_pixels(predictor: Predictor) -> None:
    options = ExportOptions(image_size=(40, 60), precision="mixed", frames=FRAMES)

    def off(share: float, pixels: int) -> Callable[[np.ndarray], np.ndarray]:
        def change(found: np.ndarray) -> np.ndarray:
            found = found.copy()
            found.reshape(-1)[:pixels] *= 1 + share
            return found

        return change

    (said,) = make_variants(predictor, options, off(0.0029, 1176))[0].compare_frames(IMAGE, "a caution")
    assert said == (
        "m.onnx: on 2 frames 99.9 % of pixels are at most 0.29% of their depth off (0.3% allowed); a caution"
    )
    with pytest.raises(ResultError, match=r"are at most 0\.31% .* --precision float32\."):
        make_variants(predictor, options, off(0.0031, 1176))[0].compare_frames(IMAGE, "a caution")
    # One of the 1176 pixels of each frame is less than 1 of 1000, two are more.
    make_variants(predictor, options, off(0.5, 1))[0].compare_frames(IMAGE, "a caution")
    with pytest.raises(ResultError):
        make_variants(predictor, options, off(0.5, 2))[0].compare_frames(IMAGE, "a caution")


@pytest.mark.parametrize("kind", ["metric", "relative"])
def test_without_frames_the_images_of_the_pack_are_held_to_it(kind: str, predictor: Predictor, tmp_path: Path) -> None:
    options = ExportOptions(image_size=(40, 60), precision="float16")
    model = predictor if kind == "metric" else load_model(write_model(tmp_path / "r.safetensors", None))
    of_what = "their depth" if kind == "metric" else "the spread"

    def off(share: float) -> Callable[[np.ndarray], np.ndarray]:
        # Of depth, or of the spread, which is what inverse depth has instead of a scale.
        return lambda found: found + share * (found if kind == "metric" else np.ptp(found))

    (said,) = make_variants(model, options, off(0.0029))[0].compare_frames(IMAGE, "a caution")
    assert f"on 3 images 99.9 % of pixels are at most 0.29% of {of_what} off (0.3% allowed); a caution" in said
    with pytest.raises(ResultError, match=rf"0\.31% of {of_what} .* --precision mixed or float32\."):
        make_variants(model, options, off(0.0031))[0].compare_frames(IMAGE, "a caution")


def test_frames_are_evenly_spread_over_the_validation_data() -> None:
    recipe = load_recipe("recipes/room_tiny.yaml")
    frames = read_validation_frames(recipe, None, 3)
    reader = recipe.data.val[0].source
    assert len(frames) == 3
    assert {frame.shape for frame in frames} == {(240, 320, 3)}
    np.testing.assert_array_equal(frames[0], reader[0].image)
    assert not np.array_equal(frames[0], frames[1])
    assert len(read_validation_frames(recipe, None, 1000)) == len(reader)

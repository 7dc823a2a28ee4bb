"""Batches give what their images give alone; what is in memory is bounded; a fault is one of its image alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune.inference.network_batches import (
    BatchPredictor,
    NetworkInput,
    Plan,
    limit_threads,
    make_plan,
    predict_in_order,
    require_prediction,
)
from finetune.inference.predictor import Predictor, load_model
from finetune.utils.errors import DataError, ResultError
from tests.small_models import write_model

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "m.safetensors"))


def ready(predictor: Predictor, number: int, size: tuple[int, int] = (56, 84)) -> NetworkInput:
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    pixels = torch.from_numpy(predictor.preprocessing(image))
    return NetworkInput(path=Path(f"{number}.png"), image=image, pixels=pixels, focal_px=None)


@pytest.mark.parametrize("flip", [False, True])
def test_a_batch_of_several_sizes_predicts_what_its_images_do(predictor: Predictor, flip: bool) -> None:
    sizes = [(56, 84), (84, 56), (56, 84), (50, 80)]
    inputs = [ready(predictor, number, size) for number, size in enumerate(sizes)]
    for batch_size in (1, 3):
        found = BatchPredictor(predictor, batch_size=batch_size, flip=flip).predict(inputs)
        for given, size, depth_m in zip(inputs, sizes, found, strict=True):
            alone = predictor.predict_at(given.image, None, flip=flip)
            assert require_prediction(depth_m).shape == size
            if batch_size == 1:
                np.testing.assert_array_equal(depth_m, alone)
            else:
                np.testing.assert_allclose(require_prediction(depth_m), alone, rtol=1e-5, atol=0)


def short_of_memory(fits: int, asked: list[int]) -> Any:
    def predict_batch(batch: torch.Tensor, sizes: Sequence[Any], focals_px: object, *, flip: bool) -> list[np.ndarray]:
        asked.append(len(batch))
        if len(batch) > fits:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return [np.full(size, float(pixels[0, 0, 0]), np.float32) for size, pixels in zip(sizes, batch, strict=True)]

    return SimpleNamespace(predict_batch=predict_batch)


def numbered(number: int) -> NetworkInput:
    pixels = torch.full((3, 14, 14), float(number))
    return NetworkInput(path=Path(f"{number}.png"), image=np.zeros((2, 2, 3), np.uint8), pixels=pixels, focal_px=None)


def test_a_batch_that_does_not_fit_is_halved_once_for_all() -> None:
    asked: list[int] = []
    network = BatchPredictor(short_of_memory(3, asked), batch_size=8, flip=False)
    for first in (0, 8):
        found = network.predict([numbered(first + i) for i in range(8)])
        assert [require_prediction(depth)[0, 0] for depth in found] == [first + i for i in range(8)]
    assert asked == [8, 4, *[2] * 4, *[2] * 4]


def test_an_image_that_does_not_fit_alone_is_a_fault_of_its_own() -> None:
    (found,) = BatchPredictor(short_of_memory(0, []), batch_size=4, flip=False).predict([numbered(3)])
    assert str(found) == "3.png: memory ran out at 14x14. Crop it to a less elongated image."
    with pytest.raises(ResultError, match="memory ran out"):
        require_prediction(found)


def test_another_error_of_the_network_is_not_taken_for_memory() -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("expected scalar type Half")

    broken: Any = SimpleNamespace(predict_batch=fail)
    with pytest.raises(RuntimeError, match="scalar type"):
        BatchPredictor(broken, batch_size=2, flip=False).predict([numbered(0)])


def test_order_stays_faults_stay_with_their_image_and_memory_is_bounded() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    def prepare(number: int) -> NetworkInput:
        if number % 7 == 3:
            raise DataError(f"{number}.png", "is damaged", "Write it again")
        return numbered(number)

    plan = Plan(batch_size=3, at_once=2, file_threads=2)
    network = BatchPredictor(short_of_memory(3, []), batch_size=3, flip=False)
    seen: list[int] = []
    for number, found in predict_in_order(items(), prepare, network, plan):
        assert len(taken) - len(seen) <= (plan.at_once + 2) * plan.batch_size
        seen.append(number)
        if number % 7 == 3:
            assert found.image is None
            assert str(found.prediction).startswith(f"{number}.png: is damaged")
        else:
            assert require_prediction(found.prediction)[0, 0] == number
    assert seen == list(range(40))


def test_what_cannot_be_explained_ends_the_loop() -> None:
    def prepare(number: int) -> NetworkInput:
        raise KeyError(number)

    with pytest.raises(KeyError):
        list(
            predict_in_order(
                [1, 2], prepare, BatchPredictor(short_of_memory(1, []), batch_size=1, flip=False), Plan(batch_size=1)
            )
        )


@pytest.mark.parametrize(
    ("device", "batch_size", "images", "cores", "compiled", "expected"),
    [
        (CPU, None, 200, 2, False, Plan(batch_size=1, at_once=2, threads=1)),
        (CPU, None, 1, 2, False, Plan(batch_size=1, at_once=1, threads=2)),
        (CPU, None, 200, 1, False, Plan(batch_size=1, at_once=1, threads=1)),
        (CPU, None, 200, 64, False, Plan(batch_size=1, at_once=8, threads=8)),
        (CPU, 4, 6, 2, False, Plan(batch_size=4, at_once=1, threads=2)),
        (CPU, None, 200, 2, True, Plan(batch_size=1, at_once=1, threads=2)),
        (GPU, None, 200, 16, False, Plan(batch_size=8, at_once=1, threads=16, file_threads=8)),
        (GPU, 32, 200, 2, False, Plan(batch_size=32, at_once=1, threads=2, file_threads=2)),
    ],
)
def test_how_much_is_done_at_once(
    device: torch.device, batch_size: int | None, images: int, cores: int, compiled: bool, expected: Plan
) -> None:
    assert make_plan(device, batch_size, images=images, cores=cores, compiled=compiled) == expected


def test_threads_are_limited_while_it_lasts() -> None:
    before = torch.get_num_threads()
    with limit_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before

"""What only a GPU can show to be right: its numbers are the CPU's, bf16 is finite, and a step waits for it once."""

import json
import math
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from finetune.commands import evaluate, predict
from finetune.inference.predictor import load_model
from finetune.recipe.load import load_recipe
from finetune.recipe.run_dir import RunFolder
from finetune.training.build import make_run
from finetune.training.environment import make_accelerator
from finetune.training.startup import prepare_startup
from tests.runs import launch, rows
from tests.small_models import INPUT_SIZE, write_model

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch reaches through CUDA"),
]


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_predictions_are_those_of_the_cpu(tmp_path: Path, max_depth_m: float | None) -> None:
    path = write_model(tmp_path / "model.safetensors", max_depth_m)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    on_cpu, on_gpu = (load_model(path, device).predict(image) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-4, atol=1e-5)


def test_a_batch_predicts_what_its_images_do(tmp_path: Path) -> None:
    predictor = load_model(write_model(tmp_path / "model.safetensors"), "cuda")
    images = torch.rand((3, 3, *INPUT_SIZE), generator=torch.Generator().manual_seed(0))
    together, alone = predictor(images), torch.cat([predictor(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_the_command_predicts_in_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str], precision: str) -> None:
    model, folder = write_model(tmp_path / "model.safetensors"), tmp_path / "in"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        assert cv2.imwrite(str(folder / f"{number}.png"), generator.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    call = [str(model), str(folder), "--output"]
    assert predict.main([*call, str(tmp_path / "cpu"), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert predict.main([*call, str(tmp_path / "gpu"), "--batch-size", "4", "--precision", precision]) == 0
    reduced = "differs from float32 by" in capsys.readouterr().out
    assert reduced == (precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False))
    for number in range(5):
        on_cpu, on_gpu = (np.load(tmp_path / device / f"{number}.npy") for device in ("cpu", "gpu"))
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=0.05 if reduced else 1e-4)


def test_an_evaluation_is_that_of_the_cpu(recipe: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.safetensors")
    tables = []
    for device in ("cpu", "cuda"):
        path = tmp_path / f"{device}.json"
        call = [str(model), "--recipe", str(recipe), "--device", device, "--json", str(path)]
        assert evaluate.main(call) == 0
        tables.append(json.loads(path.read_text())[0]["rows"])
    on_cpu, on_gpu = tables
    assert on_gpu.keys() == on_cpu.keys()
    for name, scores in on_cpu.items():
        assert list_numbers(on_gpu[name]) == pytest.approx(list_numbers(scores), rel=1e-4), name


def list_numbers(value: object) -> list[float]:
    """All numbers of a part of a JSON file, in the order of the names of its keys."""
    if isinstance(value, dict):
        return [number for key in sorted(value) for number in list_numbers(value[key])]
    if isinstance(value, list):
        return [number for part in value for number in list_numbers(part)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_steps_of_16_bits_are_finite(recipe: Path, precision: str) -> None:
    assert launch(recipe, f"run.precision={precision}", "run.log_every_steps=1", "export=[]") == 0
    logged = rows(recipe.parent / "runs" / "small")
    assert all(math.isfinite(float(row["loss"])) for row in logged if row["loss"])


def test_a_step_waits_for_the_gpu_once(recipe: Path) -> None:
    loaded = load_recipe(str(recipe), [])
    accelerator, _ = make_accelerator(loaded)
    trainer = make_run(prepare_startup(loaded, accelerator), RunFolder(recipe.parent / "unused"), log=False).trainer
    trainer.take_step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.take_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in caught if "synchroniz" in str(warning.message)]
    assert len(waits) == 1, waits

"""A step waits for the device once, for the numbers that it logs; and the lines that can wait are in one list."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from finetune.recipe.load import load_recipe
from finetune.recipe.run_dir import RunFolder
from finetune.training.build import make_run
from finetune.training.environment import make_accelerator
from finetune.training.startup import prepare_startup
from finetune.training.trainer import Trainer
from tests.test_layout import PACKAGE

# Operations whose result, or the size of it, the host has to know.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2")
# Methods that copy to the host, without an operation where the tensor is there already.
COPYING = (Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.__array__)


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        # A mask as an index is a nonzero in disguise.
        masked = name in ("index", "index_put_", "index_put") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITING or masked:
            self._found.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in COPYING:
            self._found.append(func.__name__)
        return func(*args, **(kwargs or {}))


def count_syncs(trainer: Trainer) -> list[str]:
    """What of a step, on the CPU, would wait for a GPU."""
    found: list[str] = []
    of_run = trainer.batches
    # What reads and collates samples is on the host anyway.
    trainer.batches = iter([next(of_run) for _ in range(trainer.recipe.run.accumulate)])
    with _Methods(found), _Operations(found):
        trainer.take_step()
    trainer.batches = of_run
    return found


def make_trainer(recipe: Path, *overrides: str) -> Trainer:
    loaded = load_recipe(str(recipe), list(overrides))
    accelerator, _ = make_accelerator(loaded)
    return make_run(prepare_startup(loaded, accelerator), RunFolder(recipe.parent / "unused"), log=False).trainer


ALL_LOSSES = "loss=[{kind: silog}, {kind: l1, reduction: pixel}, {kind: l2}, {kind: log_l1}, {kind: berhu}]"


@pytest.mark.parametrize(
    "overrides",
    [(), (ALL_LOSSES, "run.accumulate=2", "run.batch_size=1"), ("model.train=lora", "optim.ema_decay=0.9")],
    ids=["usual", "all losses", "adapters and average"],
)
def test_a_step_waits_for_the_device_once(recipe: Path, overrides: tuple[str, ...]) -> None:
    assert count_syncs(make_trainer(recipe, *overrides)) == ["tolist"]


def test_another_wait_is_counted(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Callable[[Tensor], object]] = [
        lambda image: image.sum().item(),
        lambda image: bool(image.any()),
        lambda image: image.cpu(),
        lambda image: image[image > 0],
    ]
    trainer = make_trainer(recipe)
    normalize = Trainer.normalize
    for wait in waits:

        def waiting(self: Trainer, image: Tensor, wait: Callable[[Tensor], object] = wait) -> Tensor:
            wait(image)
            return normalize(self, image)

        monkeypatch.setattr(Trainer, "normalize", waiting)
        assert len(count_syncs(trainer)) == 2


# Rooms whose code a step runs, what else of training does, and what an evaluation or a prediction runs for each image.
HOT = [*PACKAGE.glob("losses/*.py"), *PACKAGE.glob("models/*.py")]
HOT += [PACKAGE / "training" / f"{name}.py" for name in ("trainer", "ema", "optimizer", "bad_samples")]
HOT += [PACKAGE / "inference" / f"{name}.py" for name in ("predictor", "network_batches", "batch")]
HOT += [PACKAGE / "evaluation" / f"{name}.py" for name in ("evaluator", "metrics", "alignment", "protocols")]
HOT += [PACKAGE / "data" / f"{name}.py" for name in ("dataloader", "preprocessing", "augmentation")]
# Where they may read a number on the host: file and function -> why.
ALLOWED = {
    ("models/depth_model.py", "_load_from_state_dict"): "loading, and an error",
    ("models/dropout.py", "_kept"): "a NumPy number",
    ("models/resizing.py", "resize_prediction"): "the prediction, at its end",
    ("training/bad_samples.py", "require_few"): "on_bad_sample: skip in several processes: one number",
    ("training/trainer.py", "_require_finite"): "the one of a step",
    ("training/trainer.py", "give_memory_back"): "training is over",
}


def find_reads(file: Path) -> set[tuple[str, str]]:
    """File and function of each ``.item()``, ``.tolist()``, ``.cpu()`` and ``.numpy()``."""
    relative = file.relative_to(PACKAGE).as_posix()
    return {
        (relative, function.name)
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("item", "tolist", "cpu", "numpy")
    }


def test_lines_that_read_numbers_on_the_host_are_those_of_the_list() -> None:
    assert {place for file in HOT for place in find_reads(file)} == set(ALLOWED)

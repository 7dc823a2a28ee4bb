"""A run says what it costs before its first step, and ends bit for bit as one that does not."""

import random
import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from finetune.data.dataloader import Batch
from finetune.recipe.load import load_recipe
from finetune.recipe.run_dir import RunFolder
from finetune.training import rehearsal
from finetune.training.build import make_batches, make_run
from finetune.training.environment import make_accelerator
from finetune.training.rehearsal import Cost, rehearse
from finetune.training.startup import Startup, prepare_startup
from finetune.training.trainer import Trainer
from finetune.utils.errors import DataError
from tests.runs import launch, require_same

# What draws, averages and adds up over micro-batches.
ADAPTERS = ("model.train=lora", "model.lora.rank=4", "model.lora.dropout=0.2", "optim.ema_decay=0.9")
MICRO_BATCHES = ("run.accumulate=2", "run.batch_size=2", "data.workers=1")
LINE = re.compile(r"^takes   about \d+ seconds? for 6 steps, evaluation extra; peak memory \d+\.\d GB$", re.MULTILINE)


@pytest.fixture
def of_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearse a run of six steps too, three of them."""
    monkeypatch.setattr(rehearsal, "STEPS_FOR_ONE", 2)


def prepare(recipe: Path, *overrides: str) -> tuple[Startup, Trainer]:
    loaded = load_recipe(str(recipe), list(overrides))
    accelerator, _ = make_accelerator(loaded)
    startup = prepare_startup(loaded, accelerator)
    return startup, make_run(startup, RunFolder(recipe.parent / "unused"), log=False).trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [(*ADAPTERS, *MICRO_BATCHES), ("run.precision=bf16",), ()],
    ids=["lora", "bf16", "all"],
)
def test_a_run_ends_bit_for_bit_as_without_a_rehearsal(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
) -> None:
    assert launch(recipe, *overrides, "export=[]") == 0
    assert "takes" not in capsys.readouterr().out
    without = tmp_path / "runs" / "without"
    (tmp_path / "runs" / "small").rename(without)
    monkeypatch.setattr(rehearsal, "STEPS_FOR_ONE", 2)
    assert launch(recipe, *overrides, "export=[]") == 0
    printed = capsys.readouterr().out
    assert LINE.search(printed)
    assert printed.index("takes ") < printed.index("step 0  AbsRel")
    run = tmp_path / "runs" / "small"
    require_same(run, without)
    # And where it goes on from the middle.
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    monkeypatch.setattr(rehearsal, "STEPS_FOR_ONE", 1)
    assert launch(run / "recipe.yaml", "--resume") == 0
    assert " for 3 steps, evaluation extra" in capsys.readouterr().out
    require_same(run, without)


def test_a_rehearsal_changes_nothing(recipe: Path, of_few_steps: None) -> None:
    startup, trainer = prepare(recipe)
    weights = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    batches, states = trainer.batches, (torch.get_rng_state(), random.getstate())
    found = rehearse(trainer, make_batches(startup, 0))
    assert isinstance(found, Cost) and found.seconds_a_step > 0
    assert trainer.batches is batches and trainer.step == 0
    assert all(torch.equal(tensor, weights[name]) for name, tensor in trainer.network.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.network.parameters())
    assert not trainer.optimizer.state
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_the_memory_of_the_optimizer_is_counted_before_it_has_any(
    recipe: Path, of_few_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "peak_memory_bytes", lambda _: 1000)
    startup, trainer = prepare(recipe)
    before = rehearse(trainer, make_batches(startup, 0))
    trainer.take_step()
    kept = [value for state in trainer.optimizer.state.values() for value in state.values()]
    # Besides the means, AdamW keeps one number for each tensor: its steps.
    counters = sum(value.nbytes for value in kept if value.ndim == 0)
    assert before is not None and before.peak_bytes == 1000 + sum(value.nbytes for value in kept) - counters
    after = rehearse(trainer, make_batches(startup, 1))
    assert after is not None and after.peak_bytes == 1000


def test_a_short_run_has_no_rehearsal(recipe: Path) -> None:
    startup, trainer = prepare(recipe, f"run.steps={2 * rehearsal.STEPS_FOR_ONE - 1}")
    batches = make_batches(startup, 0)
    assert rehearse(trainer, batches) is None
    assert next(batches, None) is None  # closed


def test_a_sample_that_cannot_be_read_ends_the_rehearsal_and_not_the_run(recipe: Path, of_few_steps: None) -> None:
    startup, trainer = prepare(recipe)

    def fail_at_the_second() -> Generator[Batch, None, None]:
        with_batches = make_batches(startup, 0)
        yield next(with_batches)
        with_batches.close()
        raise DataError("frame.png", "is damaged", "Copy it again")

    assert rehearse(trainer, fail_at_the_second()) is None
    assert trainer.take_step().grad_norm > 0

"""Runs on a few repeated batches: they overfit them, or say why not."""

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from finetune.commands import train
from finetune.data.samplers import DistributedBatchSampler, WeightedMixSampler
from tests.conftest import write_frame
from tests.runs import rows

# Without augmentation, or the flipped twin of a frame is to be learned as well; no evaluation but the first and last.
SHORT = ("run.evaluate_every_steps=160", "run.save_every_steps=160", "export=[]", "augment={flip: 0.0, color: 0.0}")


def test_the_same_samples_come_again() -> None:
    batches = DistributedBatchSampler(first_step=0, batch_size=2, accumulate=2, rank=1, world_size=2, repeated_steps=2)
    # Rank 1 of 2: micro-batch m takes samples (2 m + 1) * 2 and the next; two steps are micro-batches 0 to 3.
    assert list(islice(batches, 6)) == [[2, 3], [6, 7], [10, 11], [14, 15], [2, 3], [6, 7]]
    later = DistributedBatchSampler(first_step=3, batch_size=2, accumulate=2, rank=1, world_size=2, repeated_steps=2)
    assert list(islice(later, 2)) == [[10, 11], [14, 15]]


@pytest.mark.slow
def test_a_sound_run_overfits_its_batch(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("run.overfit_batches=1", "run.steps=160", "optim.lr=3e-4", "optim.lr_decoder=1e-3", *SHORT)
    assert train.main([str(recipe), *arguments]) == 0
    said = capsys.readouterr().out
    assert "run.overfit_batches 1: AbsRel 0.0" in said
    assert "on the 4 repeated samples after 160 steps, at most 0.05" in said
    assert float(rows(tmp_path / "runs" / "small")[-1]["loss"]) < 0.1


@pytest.mark.slow
def test_a_loss_that_forgives_scale_cannot_and_the_worst_frames_are_named(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # With lam 1 nothing teaches scale, and a drawn decoder starts at half of max depth.
    arguments = ("loss=[{kind: silog, lam: 1.0}]", "model.decoder_init=scratch", "run.steps=20")
    assert train.main([str(recipe), "run.overfit_batches=1", *arguments, *SHORT]) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("finetune stopped: run.overfit_batches 1: AbsRel ")
    assert "on the 4 repeated samples after 20 steps, more than 0.05; largest on " in said
    assert said.count(".png ") >= 1


def test_frames_without_a_scored_pixel_are_named_as_such(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(frames, tmp_path / "copy")
    _, first = WeightedMixSampler(sizes=(10,), weights=(1.0,), seed=0)(0)
    write_frame(folder, f"{first:02}", np.zeros((48, 64)))
    arguments = (f"data.train.0.root={folder}", "run.overfit_batches=1", "run.batch_size=1", "run.steps=2", *SHORT)
    assert train.main([str(recipe), *arguments]) == 1
    assert "none of the repeated frames has a pixel that is scored" in capsys.readouterr().err

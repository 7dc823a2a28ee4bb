"""Whole runs through ``main(argv)``: what they leave behind, what stops them, what repeats them."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch._dynamo.exc import TorchDynamoException

from finetune.commands import evaluate
from finetune.losses.silog import SiLog
from finetune.training.checkpointing import ResumePoints
from finetune.training.head_init import LOADED
from finetune.training.run_log import MetricsLog
from finetune.training.trainer import StepValues, Trainer
from finetune.utils.errors import ProcessError, ResultError
from tests.conftest import CHECKPOINT, write_frame
from tests.runs import launch, rows


def test_what_a_run_leaves_behind(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(recipe) == 0
    finished = tmp_path / "runs" / "small"
    names = {path.name for path in finished.iterdir()}
    assert {"recipe.yaml", "environment.json", "metrics.csv", "evaluation.json", "checkpoints", "tensorboard"} <= names
    assert {"best", "last", "export"} <= names
    assert [row["step"] for row in rows(finished)] == ["0", "2", "3", "4", "6"]
    assert float(rows(finished)[0]["val_abs_rel"]) > 0
    (table,) = json.loads((finished / "evaluation.json").read_text())
    free = ["constant_median", "best_constant", "base_fitted_scale", "calibrated_start"]
    assert list(table["rows"]) == [*free, "finetuned", "last"]
    # Before step 1, though the network was trained since; in training its memory is laid out in another way.
    before, start = rows(finished)[0], table["rows"]["calibrated_start"]
    assert start == pytest.approx({name: float(before[f"val_{name}"]) for name in start}, rel=1e-5)
    assert start["abs_rel"] != pytest.approx(table["rows"]["finetuned"]["abs_rel"], rel=1e-2)
    assert (table["images_used"], table["images_skipped"]) == (3, 0)
    assert table["pixels_used"] == 3 * (48 * 64 - 15)
    assert table["protocol"]["name"] == "plain"
    printed = capsys.readouterr().out
    assert printed.startswith("trains  small: every weight (")
    events = EventAccumulator(str(finished / "tensorboard" / "base_fitted_scale"))
    levels = events.Reload().Scalars("validation/abs_rel")
    assert [event.step for event in levels] == [0, 6]
    assert levels[0].value == pytest.approx(table["rows"]["base_fitted_scale"]["abs_rel"], rel=1e-5)
    assert table["verdicts"][0].startswith("verdict: finetuned ") and table["verdicts"][0] in printed
    assert (table["chosen"]["evaluations"], table["chosen"]["on"]) == (3, "data.val")
    assert "the best of 3 evaluations on the very frames of this table" in printed
    assert "AbsRel by measured distance, over the pixels of all images\n" in printed
    assert " 1-2 m " in printed and " 0-1 m " not in printed  # no pixel is nearer than 1 m
    assert "protocol plain" in printed
    record = json.loads((finished / "environment.json").read_text())
    assert (record["processes"], record["precision"], record["frames"]["data.train.0"]["count"]) == (1, "fp32", 10)
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["step_00000003", "step_00000006"]


@pytest.mark.slow
def test_an_entry_that_chooses_is_not_scored(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = f"reader: pairs, root: {frames}, meters_per_unit: 0.001"
    entries = f"data.val=[{{{entry}, list: train.txt}}, {{{entry}, list: val.txt}}]"
    asked = (entries, "evaluation.choose_on=data.val.0", "data.val_may_repeat_train=true")
    assert launch(recipe, *asked, "run.evaluate_every_steps=6", "export=[]") == 0
    run = tmp_path / "runs" / "small"
    (table,) = json.loads((run / "evaluation.json").read_text())
    assert table["images_used"] == 3
    assert (table["chosen"]["on"], table["chosen"]["shown"]) == ("data.val.0", False)
    assert "evaluations on data.val.0, whose frames are not in this table" in capsys.readouterr().out
    # What chose is of other frames.
    chose = [float(row["val_abs_rel"]) for row in rows(run) if row["val_abs_rel"]]
    assert min(abs(one - table["rows"]["finetuned"]["abs_rel"]) for one in chose) > 1e-4
    again = tmp_path / "again.json"
    assert evaluate.main([str(run), "--recipe", str(run / "recipe.yaml"), "--json", str(again)]) == 0
    assert json.loads(again.read_text())[0].items() <= table.items()


@pytest.mark.slow
def test_the_resolved_recipe_repeats_the_run_to_the_last_digit(finished: Path) -> None:
    assert launch(finished / "recipe.yaml", "name=again") == 0
    again = finished.parent / "again"
    assert (again / "evaluation.json").read_text() == (finished / "evaluation.json").read_text()
    assert rows(again) == rows(finished)


def test_a_full_disk_elsewhere_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(MetricsLog, "write", full)
    assert launch(recipe) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("finetune stopped: The disk is full") and "--resume" in said


@pytest.mark.slow
def test_evaluation_while_training_in_bf16_is_that_of_the_table(recipe: Path, tmp_path: Path) -> None:
    assert launch(recipe, "run.precision=bf16", "run.steps=2") == 0
    run = tmp_path / "runs" / "small"
    (table,) = json.loads((run / "evaluation.json").read_text())
    scores = [float(row["val_abs_rel"]) for row in rows(run) if row["val_abs_rel"]]
    assert table["rows"]["finetuned"]["abs_rel"] == min(scores)


@pytest.mark.slow
def test_with_an_average_it_is_what_is_evaluated_and_saved(recipe: Path, tmp_path: Path) -> None:
    # In bf16, where Accelerate wraps the forward of the network that is trained.
    overrides = ["run.precision=bf16", "run.steps=4", "run.evaluate_every_steps=4", "export=[]"]
    assert launch(recipe, *overrides) == 0
    assert launch(recipe, *overrides, "name=averaged", "optim.ema_decay=0.9") == 0
    plain, averaged = tmp_path / "runs" / "small", tmp_path / "runs" / "averaged"
    last = f"checkpoints/{max(path.name for path in (averaged / 'checkpoints').iterdir())}"
    trained = [load_file(run / last / "model.safetensors") for run in (plain, averaged)]
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
    average, saved = load_file(averaged / last / "average.safetensors"), load_file(averaged / "last/model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in average.items())
    assert any(not torch.equal(tensor, trained[1][name]) for name, tensor in average.items())
    assert rows(plain)[0] == rows(averaged)[0]  # before the first step they are one
    assert rows(plain)[-1]["val_abs_rel"] != rows(averaged)[-1]["val_abs_rel"]
    assert rows(plain)[-1]["loss"] == rows(averaged)[-1]["loss"]
    (table,) = json.loads((averaged / "evaluation.json").read_text())
    scores = [float(row["val_abs_rel"]) for row in rows(averaged) if row["val_abs_rel"]]
    assert table["rows"]["finetuned"]["abs_rel"] == min(scores)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_broken_frame_that_no_sample_showed_is_named_by_any_worker(
    recipe: Path,
    frames: Path,
    tmp_path: Path,
    part: str,
    workers: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(frames, folder)
    broken = folder / ("01.jpg" if part == "train" else "11.jpg")
    broken.write_bytes(broken.read_bytes()[:100])
    # The pre-flight and the baselines look at a few frames; here, at the first and the last.
    monkeypatch.setattr("finetune.training.preflight.SAMPLES", 2)
    monkeypatch.setattr("finetune.training.startup.MAX_IMAGES", 2)
    roots = (f"data.train.0.root={folder}", f"data.val.0.root={folder}", f"data.workers={workers}")
    assert launch(recipe, *roots) == 1
    stopped = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune stopped: ")]
    assert len(stopped) == 1
    assert broken.name in stopped[0]


def test_millimeters_taken_for_meters_stop_before_anything_is_written(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(recipe, "data.train.0.meters_per_unit=1.0") == 1
    said = capsys.readouterr().err
    assert "looks like millimeters" in said
    assert "data.train.0.meters_per_unit: 0.001" in said
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right, seen, unchanged = SiLog.per_image, [], []

    def wrong(self: SiLog, *tensors: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return right(self, *tensors) * (float("nan") if len(seen) == 5 else 1.0)

    def watched(self: Trainer, take_step: Callable[[Trainer], StepValues] = Trainer.take_step) -> StepValues:
        try:
            return take_step(self)
        except ResultError:
            saved = load_file(tmp_path / "runs" / "small" / "checkpoints" / "step_00000004" / "model.safetensors")
            state = self.network.state_dict()
            unchanged.append(all(torch.equal(tensor, saved[name]) for name, tensor in state.items()))
            raise

    monkeypatch.setattr(SiLog, "per_image", wrong)
    monkeypatch.setattr(Trainer, "take_step", watched)
    assert launch(recipe, "run.save_every_steps=2") == 1
    said = capsys.readouterr().err
    assert "finetune stopped: step 4: silog is nan, l1 is" not in said
    assert said.startswith("finetune stopped: step 4: silog is nan")
    assert "the step was not taken" in said
    assert said.count(".png") == 4  # the samples of the batch
    assert unchanged == [True]


def test_memory_that_runs_out_names_the_next_steps_to_try(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(SiLog, "per_image", too_much)
    assert launch(recipe) == 1
    said = capsys.readouterr().err
    assert "finetune stopped: Memory ran out" in said
    assert all(way in said for way in ("gradient_checkpointing", "run.accumulate", "model.train=decoder"))


def test_what_cannot_be_compiled_is_one_sentence(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise TorchDynamoException("graph break\nof a kind")

    monkeypatch.setattr("finetune.training.run_training.try_compiler", lambda device: None)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: None)  # a minute; what it raises is what counts
    monkeypatch.setattr(SiLog, "per_image", cannot)
    assert launch(recipe, "run.compile=true") == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.endswith("run.compile: the network could not be compiled (graph break). Set run.compile: false.")


@pytest.mark.slow
def test_compiled_it_trains_to_the_same_losses_and_its_weights_bear_their_own_names(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run.steps=3", "run.log_every_steps=1", "run.save_every_steps=1", "export=[]"]
    assert launch(recipe, *arguments) == 0
    assert launch(recipe, *arguments, "name=compiled", "run.compile=true") == 0
    plain, compiled = (tmp_path / "runs" / name for name in ("small", "compiled"))
    losses = [[float(row["loss"]) for row in rows(run) if row["loss"]] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    weights = [load_file(run / "last" / "model.safetensors") for run in (plain, compiled)]
    assert weights[0].keys() == weights[1].keys()
    # Another order of additions, which Adam's first steps make as large as the rate.
    assert max((weights[0][name] - weights[1][name]).abs().max() for name in weights[0]) <= 3e-3
    shutil.rmtree(compiled / "checkpoints" / "step_00000003")
    before = load_file(compiled / "last" / "model.safetensors")
    assert launch(compiled / "recipe.yaml", "--resume") == 0
    after = load_file(compiled / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.slow
def test_gradient_checkpointing_changes_memory_and_not_the_weights(recipe: Path, tmp_path: Path) -> None:
    assert launch(recipe, "run.steps=2", "export=[]") == 0
    assert launch(recipe, "run.steps=2", "export=[]", "name=again", "run.gradient_checkpointing=true") == 0
    one, two = (load_file(tmp_path / "runs" / name / "last" / "model.safetensors") for name in ("small", "again"))
    assert max((one[name] - two[name]).abs().max() for name in one) <= 1e-6


def test_the_same_total_batch_by_accumulation_gives_the_same_weights(finished: Path, recipe: Path) -> None:
    assert launch(recipe, "name=parts", "run.batch_size=2", "run.accumulate=2", "export=[]") == 0
    runs = (finished, finished.parent / "parts")
    whole, parts = (load_file(run / "last" / "model.safetensors") for run in runs)
    largest = max(tensor.abs().max() for tensor in whole.values())
    assert max((whole[name] - parts[name]).abs().max() for name in whole) <= 1e-4 * largest


def test_training_the_decoder_leaves_the_encoder_alone(recipe: Path, tmp_path: Path) -> None:
    assert launch(recipe, "model.train=decoder") == 0
    base = load_file(CHECKPOINT)
    trained = load_file(tmp_path / "runs" / "small" / "last" / "model.safetensors")
    same = {name: torch.equal(tensor, base[name].float()) for name, tensor in trained.items()}
    assert all(value for name, value in same.items() if name.startswith("encoder."))
    changed = {name for name, value in same.items() if not value}
    assert {"decoder.project.0.weight", "decoder.fuse.0.unit.conv1.weight", "head.last.weight"} <= changed


@pytest.mark.slow
def test_each_start_runs_and_only_calibrated_starts_in_meters(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = {}
    for decoder_init in ("scratch", "pretrained", "calibrated"):
        arguments = (f"model.decoder_init={decoder_init}", f"name={decoder_init}", "run.steps=2", "export=[]")
        assert launch(recipe, *arguments, "model.max_depth_m=60.0") == 0
        assert LOADED[decoder_init] in capsys.readouterr().out
        start[decoder_init] = float(rows(tmp_path / "runs" / decoder_init)[0]["val_abs_rel"])
    # A new last layer answers about half of max depth, 30 m; the frames are at 1 to 8 m.
    assert start["scratch"] > 3.0
    assert start["pretrained"] > 3.0
    assert start["calibrated"] < 0.5


def test_every_trained_parameter_gets_a_gradient(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: list[str] = []

    def look(self: Trainer) -> None:
        missing.extend(n for n, p in self.network.named_parameters() if p.requires_grad and p.grad is None)

    monkeypatch.setattr(Trainer, "_set_learning_rates", look)
    assert launch(recipe, "run.steps=2") == 0
    assert not missing


@pytest.mark.slow
def test_epochs_count_what_a_step_shows(recipe: Path, tmp_path: Path) -> None:
    assert launch(recipe, "run.steps=null", "run.epochs=1", "optim.warmup_steps=0") == 0
    assert rows(tmp_path / "runs" / "small")[-1]["step"] == "3"  # 10 frames, 4 a step


@pytest.mark.slow
def test_frames_without_any_measured_pixel_neither_stop_nor_spoil_a_run(
    recipe: Path, frames: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sparse"
    shutil.copytree(frames, folder)
    for name in ("00", "01", "10"):
        write_frame(folder, name, np.zeros((48, 64)))
    assert launch(recipe, f"data.train.0.root={folder}", f"data.val.0.root={folder}") == 0
    (table,) = json.loads((tmp_path / "runs" / "small" / "evaluation.json").read_text())
    assert (table["images_used"], table["images_skipped"]) == (2, 1)
    assert all(np.isfinite(list(row.values())).all() for row in table["rows"].values())


def test_only_a_file_that_cannot_be_written_is_called_one(tmp_path: Path) -> None:
    def stand_in(fault: Exception, points: Sequence[Path] = ()) -> Any:
        def write(state: object) -> None:
            raise fault

        folder = SimpleNamespace(
            drop_unfinished=lambda: None, checkpoint=lambda step: tmp_path / str(step), newest_first=lambda: points
        )
        accelerator = SimpleNamespace(is_main_process=True)
        return SimpleNamespace(_write=write, folder=folder, accelerator=accelerator)

    state: Any = SimpleNamespace(step=3)
    for fault in (RuntimeError("PytorchStreamWriter failed writing file"), OSError(28, "No space left on device")):
        full = r"3: cannot be written \(No space left on device\)\. Free space"
        with pytest.raises(ProcessError, match=full + ".*there is no earlier resume point, so that the run"):
            ResumePoints.save(stand_in(fault), state)
        with pytest.raises(ProcessError, match=full + ".*the earlier resume points are whole"):
            ResumePoints.save(stand_in(fault, [tmp_path / "2"]), state)
    gone = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer")
    killed = RuntimeError("DataLoader worker (pid 7) is killed")
    for other in (torch.OutOfMemoryError("CUDA out of memory"), killed, gone):
        with pytest.raises(type(other), match=re.escape(str(other))):
            ResumePoints.save(stand_in(other), state)

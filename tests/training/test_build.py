"""Whole runs of what ``test_training`` has not: relative heads, and weights drawn from the seed."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from finetune.inference.predictor import load_model
from finetune.losses.l1 import L1
from finetune.losses.ssi import Ssi
from finetune.models.checkpoints.dinov2 import DinoV2
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.recipe.load import load_recipe
from finetune.training.startup import warn_without_unit
from finetune.utils import registry
from tests.runs import launch
from tests.small_models import small_model, write_model

RELATIVE = """\
name: relative
output: {output}
model: {{checkpoint: null, encoder: tiny, head: relative}}
data:
  input_size: [56, 70]
  train: [{{reader: skies, out_of_range: ceiling}}]
  val: [{{reader: skies}}]
  val_may_repeat_train: true
  accept: [depth_is]  # the depth of the planes is what is linear in pixels, so that its mean is known
  workers: 0
loss: [{{kind: ssi}}, {{kind: gradient, of: aligned, weight: 2.0}}]
optim: {{lr: 3.0e-4, lr_decoder: 3.0e-3, warmup_steps: 1, schedule: constant}}
run: {{steps: 4, batch_size: 2, log_every_steps: 2, evaluate_every_steps: 2, save_every_steps: 2, threads: 1}}
evaluation: {{max_depth_m: 10.0}}
"""
ALIGNED = "plain+align=scale_shift_inverse"


@pytest.fixture
def relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A relative recipe of 4 steps on planes below sky, from nothing."""
    monkeypatch.setitem(registry.READERS, "skies", "tests.synthetic:Skies")
    path = tmp_path / "relative.yaml"
    path.write_text(RELATIVE.format(output=tmp_path / "runs"))
    return path


def table_of(run: Path) -> dict[str, dict[str, float]]:
    (table,) = json.loads((run / "evaluation.json").read_text())
    assert (table["images_used"], table["images_skipped"]) == (3, 1)  # the fourth is all sky
    rows: dict[str, dict[str, float]] = table["rows"]
    assert all(np.isfinite(list(row.values())).all() for row in rows.values())
    return rows


@pytest.mark.slow
def test_a_relative_run_from_nothing(relative: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(relative) == 0
    run = tmp_path / "runs" / "relative"
    rows = table_of(run)
    assert list(rows) == ["constant_median", "finetuned", "last"]
    printed = capsys.readouterr().out
    assert "every weight drawn from seed 0" in printed
    assert f"protocol {ALIGNED}" in printed
    written = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (written["evaluation"]["protocols"], written["model"]["decoder_init"]) == ([ALIGNED], "scratch")
    with (run / "metrics.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    assert {"loss_ssi", "loss_gradient"} <= logged[-1].keys()
    scores = [float(row["val_abs_rel"]) for row in logged if row["val_abs_rel"]]
    assert min(scores) == rows["finetuned"]["abs_rel"]
    record = json.loads((run / "environment.json").read_text())
    assert record["base_sha256"] is None


def test_what_a_relative_run_ends_in_is_a_relative_model(relative: Path, tmp_path: Path) -> None:
    assert launch(relative, "run.steps=2", "run.precision=bf16") == 0
    run = tmp_path / "runs" / "relative"
    model = load_model(run)
    assert (model.kind, model.max_depth_m) == ("relative", None)
    assert model.base == {"source": None, "sha256": None, "license": None}
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    exported = load_model(run / "export" / "relative.pth")
    assert exported.kind == "relative"
    assert exported.predict(image) == pytest.approx(model.predict(image), abs=1e-5)


def test_scores_of_labels_without_a_unit_are_said_to_be_no_meters(relative: Path, tmp_path: Path) -> None:
    for name, made in (("image.png", np.zeros((6, 8, 3), np.uint8)), ("depth.png", np.full((6, 8), 7, np.uint16))):
        assert cv2.imwrite(str(tmp_path / name), made)
    (tmp_path / "list.txt").write_text("image.png depth.png\n")
    entry = f"{{reader: pairs, root: {tmp_path}, list: list.txt, depth_is: affine_inverse}}"
    assert warn_without_unit(load_recipe(relative, [])) == ()
    (note,) = warn_without_unit(load_recipe(relative, [f"data.val=[{{reader: skies}}, {entry}]"]))
    assert note.startswith("data.val.1: labels of unknown scale and shift") and note.endswith("are no meters")


@pytest.mark.slow
def test_a_relative_run_learns_the_shape(relative: Path, tmp_path: Path) -> None:
    arguments = ("data.train.0.count=16", "run.steps=12", "run.evaluate_every_steps=3", "export=[]")
    assert launch(relative, *arguments) == 0
    rows = table_of(tmp_path / "runs" / "relative")
    assert rows["finetuned"]["abs_rel"] < 0.7 * rows["constant_median"]["abs_rel"]


@pytest.mark.slow
def test_a_resumed_relative_run_equals_one_that_never_stopped(relative: Path, tmp_path: Path) -> None:
    assert launch(relative) == 0
    run = tmp_path / "runs" / "relative"
    weights, table = load_file(run / "last" / "model.safetensors"), (run / "evaluation.json").read_text()
    shutil.rmtree(run / "checkpoints" / "step_00000004")
    shutil.rmtree(run / "last")
    assert launch(run / "recipe.yaml", "--resume") == 0
    after = load_file(run / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights.items())
    assert (run / "evaluation.json").read_text() == table


def test_a_relative_run_from_a_relative_checkpoint_stands_beside_it(
    relative: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_model(tmp_path / "base.safetensors", max_depth_m=None)
    arguments = (f"model.checkpoint={base}", "model.encoder=auto", "optim.lr=1e-9", "optim.lr_decoder=1e-9")
    assert launch(relative, *arguments, "run.steps=2", "export=[]") == 0
    run = tmp_path / "runs" / "relative"
    rows = table_of(run)
    assert list(rows) == ["constant_median", "base_fitted_scale", "finetuned", "last"]
    # Hardly a step was taken, so both are the same model.
    assert rows["finetuned"]["abs_rel"] == pytest.approx(rows["base_fitted_scale"]["abs_rel"], rel=1e-3)
    assert not (run / "export").exists()
    assert "\n        loaded: every weight\n" in capsys.readouterr().out
    assert read_checkpoint(str(run)).metadata["base"]["sha256"] is not None


@pytest.mark.parametrize("format_name", ["native", "official"])
def test_only_a_file_that_cannot_say_its_kind_is_held_against_pixels(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    base = write_model(tmp_path / "base.safetensors", max_depth_m=None)
    if format_name == "official":
        base = tmp_path / "base.pth"
        torch.save(Official.from_ours(small_model(None).state_dict()), base)
    held: list[str] = []
    monkeypatch.setattr("finetune.training.startup.require_kind", lambda pixels, kind, *_: held.append(kind))
    assert launch(relative, f"model.checkpoint={base}", "model.encoder=auto", "run.steps=2", "export=[]") == 0
    assert held == (["relative"] if format_name == "official" else [])


def test_a_relative_run_from_a_metric_checkpoint_is_refused(
    relative: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric = write_model(tmp_path / "metric.safetensors")
    assert launch(relative, f"model.checkpoint={metric}", "model.encoder=auto") == 2
    said = capsys.readouterr().err
    assert "it predicts meters" in said
    assert f"set model.head: metric ({relative}:3)" in said


def test_training_that_does_not_beat_a_constant_is_said(relative: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What counts is 1 m and a bit, which a constant fits to within 2 %.
    narrow = (
        "evaluation.max_depth_m=1.05",
        "optim.lr=1e-9",
        "optim.lr_decoder=1e-9",
        "export=[]",
        "data.accept=[depth_is, max_depth]",
    )
    assert launch(relative, *narrow, "evaluation.best=delta1", "model.max_depth_m=4.0") == 0
    assert "finetuned does not beat constant_median (delta1 1.0000 against 1.0000)" in capsys.readouterr().out


@pytest.mark.parametrize("out_of_range", ["ignore", "ceiling"])
@pytest.mark.parametrize("max_depth_m", ["null", "2.0"])
def test_what_a_relative_loss_sees_of_sky(
    relative: Path, monkeypatch: pytest.MonkeyPatch, out_of_range: str, max_depth_m: str
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    right = Ssi.per_image

    def look(self: Ssi, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        seen.append((target, valid))
        return right(self, pred, target, valid)

    monkeypatch.setattr(Ssi, "per_image", look)
    arguments = (f"data.train.0.out_of_range={out_of_range}", f"model.max_depth_m={max_depth_m}", "run.steps=2")
    assert launch(relative, *arguments, "export=[]") == 0
    target, valid = (torch.cat(parts) for parts in zip(*seen, strict=True))
    farthest_m = 2.0 if max_depth_m == "2.0" else 3.0  # from 4 m on the plane is hidden by sky
    measured = target[valid & (target > 0)]
    assert measured.min().item() == pytest.approx(1 / farthest_m, rel=0.05)
    assert measured.max().item() == pytest.approx(1.0, rel=0.02)
    assert valid.all().item() is (out_of_range == "ceiling")
    assert (target[valid] == 0).any().item() is (out_of_range == "ceiling")


@pytest.mark.parametrize("out_of_range", ["ignore", "ceiling"])
def test_what_a_metric_loss_sees_of_sky(
    relative: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out_of_range: str
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    right = L1.per_image

    def look(self: L1, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        seen.append((target, valid))
        return right(self, pred, target, valid)

    monkeypatch.setattr(L1, "per_image", look)
    arguments = ("model.head=metric", "model.max_depth_m=2.5", "loss=[{kind: l1}]", "run.steps=2", "export=[]")
    assert launch(relative, *arguments, f"data.train.0.out_of_range={out_of_range}") == 0
    target, valid = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert target[valid].max().item() == pytest.approx(2.5, rel=0.05)
    assert valid.all().item() is (out_of_range == "ceiling")
    assert ((target == 2.5) & valid).float().mean().item() == pytest.approx(
        0.0 if out_of_range == "ignore" else 0.6, abs=0.25
    )
    rows = table_of(tmp_path / "runs" / "relative")
    assert list(rows) == ["constant_median", "best_constant", "finetuned", "last"]  # drawn weights have no base


def test_panels_of_a_relative_run_are_in_meters_and_an_image_of_sky_has_none(
    relative: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray, float]] = []

    def panel(
        image: np.ndarray, target_m: np.ndarray, valid: np.ndarray, pred_m: np.ndarray, max_depth_m: float
    ) -> np.ndarray:
        drawn.append((valid, pred_m, max_depth_m))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr("finetune.training.run_log.make_panel", panel)
    assert launch(relative, "run.steps=2", "run.evaluate_every_steps=2", "export=[]") == 0
    assert len(drawn) == 4  # three frames are picked, the last of them sky; at steps 0 and 2
    for valid, pred_m, max_depth_m in drawn:
        assert not valid[:16].any()
        assert valid[16:].all()
        assert 0.5 < np.median(pred_m[16:]) < 5.0
        assert max_depth_m == 10.0


@pytest.mark.slow
def test_a_run_from_an_encoder_alone_stands_beside_the_constant(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(DinoV2.from_ours(small_model(None).state_dict()), base)
    arguments = (f"model.checkpoint={base}", "run.steps=2", "export=[]")
    assert launch(recipe, *arguments, "model.decoder_init=calibrated") == 2
    assert "is an encoder without a decoder, and model.decoder_init is calibrated" in capsys.readouterr().err
    assert launch(recipe, *arguments) == 0
    printed = capsys.readouterr().out
    assert f"\nfrom    {base} (encoder, tiny, license Apache-2.0)\n" in printed
    assert "\n        loaded: the whole encoder; the decoder is drawn anew\n" in printed
    run = tmp_path / "runs" / "small"
    (table,) = json.loads((run / "evaluation.json").read_text())
    assert list(table["rows"]) == ["constant_median", "best_constant", "finetuned", "last"]
    written = yaml.safe_load((run / "recipe.yaml").read_text())["model"]
    assert (written["checkpoint_kind"], written["checkpoint_version"]) == ("auto", "v2")
    # What it ran as can be launched again.
    assert launch(run / "recipe.yaml", "name=again") == 0


@pytest.mark.slow
def test_a_run_from_v1_and_another_max_depth_says_and_keeps_both(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "mine.pth"
    torch.save(Official.from_ours(small_model(5.0).state_dict()), base)
    stated = ("model.checkpoint_kind=metric", "model.checkpoint_max_depth_m=5.0", "model.checkpoint_version=v1")
    size = "model.checkpoint_input_size=[84, 112]"
    arguments = (f"model.checkpoint={base}", *stated, size, "run.steps=2", "optim.lr=1e-9", "optim.lr_decoder=1e-9")
    assert launch(recipe, *arguments) == 2
    assert "model.on_max_depth: rescale to have them scaled" in capsys.readouterr().err
    assert launch(recipe, *arguments, "model.on_max_depth=rescale") == 0
    printed = capsys.readouterr().out
    assert "max depth 5 m becomes 10 m, so every prediction starts 2 times as far" in printed
    assert "was trained at 84x112 (height x width), data.input_size is 56x70: its predictions change with" in printed
    run = tmp_path / "runs" / "small"
    metadata = read_checkpoint(str(run)).metadata
    assert (metadata["checkpoint_version"], metadata["max_depth_m"]) == ("v1", 10.0)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    before = load_model(base, kind="metric", max_depth_m=5.0, version="v1", input_size=(56, 70))
    before = replace(before, preprocessing=load_model(run).preprocessing)
    assert load_model(run).predict(image) == pytest.approx(2 * before.predict(image), rel=1e-4)
    exported = load_model(run / "export" / "small.pth")
    assert (exported.network.version, exported.notes) == ("v1", ())


def test_another_library_by_the_name_of_albumentations_is_one_sentence(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(*_: object, **options: object) -> None:
        raise TypeError("KeypointParams.__init__() got an unexpected keyword argument 'format'")

    monkeypatch.setattr("albumentations.KeypointParams", other)
    assert launch(recipe) == 2
    said = capsys.readouterr().err
    assert "augment: the albumentations that is installed here is not the one that is meant (KeypointParams" in said
    assert "pip uninstall albumentationsx" in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()

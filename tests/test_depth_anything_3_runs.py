"""Depth Anything 3 through the commands, with a tiny network of its form."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import check, evaluate, export, label, predict
from finetune.data.readers.files import read_image
from finetune.inference.predictor import load_model
from tests.conftest import ended_run, write_recipe
from tests.runs import launch, rows
from tests.small_da3 import write_da3
from tests.small_models import write_model

ON_MONO = ("model.head=metric", "model.max_depth_m=10", "optim.lr=1e-4", "optim.lr_decoder=1e-3")


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_da3(tmp_path_factory.mktemp("mono") / "DA3MONO-LARGE.safetensors")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_da3(tmp_path_factory.mktemp("metric") / "DA3METRIC-LARGE.safetensors")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a.png"
    y, x = np.mgrid[0:60, 0:80]
    cv2.imwrite(str(path), np.stack([x * 3, y * 4, x + y], axis=-1).astype(np.uint8))
    return path


def test_mono_predicts_depth_without_a_unit(
    mono: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(mono), str(image), "--output", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_preview.png", "a_relative.npy"]
    assert "relative depth without a unit" in capsys.readouterr().out
    model = load_model(mono)
    assert (model.kind, model.max_depth_m, model.range_m) == ("relative_depth", None, None)
    np.testing.assert_array_equal(np.load(tmp_path / "a_relative.npy"), model.predict(read_image(image)))
    assert predict.main([str(mono), str(image), "--output", str(tmp_path), "--range", "0,5"]) == 2
    assert predict.main([str(mono), str(image), "--output", str(tmp_path), "--points", "--hfov", "60"]) == 2
    assert "is relative: it knows no meters, so no points" in capsys.readouterr().err


def test_metric_asks_for_the_focal_length_and_predicts_in_proportion_to_it(
    metric: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict.main([str(metric), str(image), "--output", str(tmp_path)]) == 2
    assert "predicts meters only with the camera of the image" in capsys.readouterr().err
    call = [str(metric), str(image), "--output", str(tmp_path), "--intrinsics", "100,100,40,30"]
    assert predict.main(call) == 0
    found = np.load(tmp_path / "a.npy")
    model = load_model(metric)
    # 80x60 becomes 504x378, so 100 px become 630, and 630 / 300 is 2.1.
    assert found == pytest.approx(2.1 * model.predict_at(read_image(image), 300.0), rel=1e-5)
    assert (model.kind, model.range_m) == ("metric", None)
    # No end is known, so the preview goes over the prediction.
    assert (tmp_path / "a_preview.png").is_file()


def test_mono_is_no_teacher(mono: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label.main([str(mono), str(image), "--output", str(tmp_path / "labels")]) == 2
    assert "predicts relative depth without a unit, and labels are meters or inverse" in capsys.readouterr().err
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(("head", "align"), [("relative", "scale_shift_inverse"), ("relative_depth", "scale_shift")])
def test_a_head_of_the_other_direction_is_refused(
    mono: Path, frames: Path, tmp_path: Path, head: str, align: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = mono if head == "relative" else write_model(tmp_path / "v2.safetensors", None)
    options = (f"model.head={head}", "loss=[{kind: ssi}]", f"evaluation.protocols=[plain+align={align}]", "export=[]")
    assert launch(write_recipe(tmp_path, frames), f"model.checkpoint={weights}", *options) == 2
    assert f"and model.head is {head}, for which its last layer was not trained" in capsys.readouterr().err


def test_what_cannot_hold_an_exponential_says_so(
    mono: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exponential = write_model(tmp_path / "exp.safetensors", 10.0, activation="exp")
    for to, name in (("official", "m.pth"), ("huggingface", "m")):
        for weights in (mono, exponential):
            assert export.main([str(weights), "--to", to, "--output", str(tmp_path / name)]) == 2
            assert f"format {to}: its network ends in a sigmoid or a ReLU" in capsys.readouterr().err
            assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_onnx_holds_an_exponential(tmp_path: Path, image: Path) -> None:
    from finetune.runtime import load

    exponential = write_model(tmp_path / "exp.safetensors", 10.0, activation="exp")
    relative = write_model(tmp_path / "relative_depth.safetensors", None, activation="exp")
    for weights, kind, end_m in ((exponential, "metric", None), (relative, "relative_depth", None)):
        output = tmp_path / f"{kind}.onnx"
        assert export.main([str(weights), "--to", "onnx", "--output", str(output), "--image", str(image)]) == 0
        exported, model = load(output), load_model(weights)
        assert (exported.kind, exported.network.end_m, exported.max_depth_m) == (kind, end_m, model.max_depth_m)
        assert exported.metadata["activation"] == "exp"
        own = model.predict(read_image(image))
        assert np.abs(exported.predict(read_image(image)) - own).max() <= 1e-3 * np.ptp(own)


@pytest.mark.slow
def test_a_run_on_mono_of_relative_depth(mono: Path, frames: Path, tmp_path: Path) -> None:
    run = (
        ended_run(
            tmp_path,
            frames,
            f"model.checkpoint={mono}",
            "model.head=relative_depth",
            "loss=[{kind: ssi}, {kind: gradient, of: aligned, weight: 2}]",
            "evaluation.protocols=[plain+align=scale_shift]",
            "export=[]",
        )
        / "small"
    )
    found = load_model(run)
    assert (found.kind, found.network.activation) == ("relative_depth", "exp")
    (table,) = json.loads((run / "evaluation.json").read_text())
    assert table["protocol"]["answers"] == "relative depth"
    assert rows(run)[-1]["val_abs_rel"]


@pytest.mark.slow
def test_twenty_steps_on_mono_end_in_files_of_others(
    mono: Path, frames: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, frames)
    assert check.main([str(recipe), f"model.checkpoint={mono}", *ON_MONO]) == 0
    options = (f"model.checkpoint={mono}", *ON_MONO, "run.steps=20", "export=[official, huggingface, onnx]")
    run = ended_run(tmp_path, frames, *options) / "small"
    table = json.loads((run / "evaluation.json").read_text())[0]["rows"]
    assert {"base_fitted_scale", "calibrated_start", "finetuned"} <= table.keys()
    model, pixels = load_model(run), read_image(image)
    assert (model.kind, model.max_depth_m, model.base["license"]) == ("metric", 10.0, "Apache-2.0")
    own = model.predict(pixels)
    for name in ("small.pth", "huggingface"):
        found = load_model(run / "export" / name).predict(pixels)
        assert np.abs(found - own).max() <= 1e-3 * np.ptp(own)
    assert evaluate.main([str(run), "--recipe", str(run / "recipe.yaml")]) == 0
    assert (
        "license Apache-2.0" in (run / "export" / "small.json").read_text()
        or "Apache-2.0" in (run / "export" / "small.json").read_text()
    )


@pytest.mark.slow
def test_a_run_on_metric_needs_no_intrinsics_where_its_last_layer_is_solved_for(
    metric: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ended_run(tmp_path, frames, f"model.checkpoint={metric}", "export=[official]") / "small"
    rows_of = json.loads((run / "evaluation.json").read_text())[0]["rows"]
    assert {"base", "base_fitted_scale", "calibrated_start", "finetuned"} <= rows_of.keys()
    assert load_model(run).canonical is None
    assert (run / "export" / "small.pth").is_file()


@pytest.mark.slow
def test_a_run_keeps_the_exponential_of_metric(metric: Path, frames: Path, tmp_path: Path) -> None:
    (frames / "intrinsics.json").write_text(
        json.dumps({"width": 64, "height": 48, "fx": 60, "fy": 60, "cx": 32, "cy": 24})
    )
    options = [f"data.{part}.0.intrinsics={frames / 'intrinsics.json'}" for part in ("train", "val")]
    canonical = (*options, "data.camera.mode=canonical", "model.activation=exp", "export=[onnx]")
    run = ended_run(tmp_path, frames, f"model.checkpoint={metric}", *canonical) / "small"
    model = load_model(run)
    assert model.canonical is not None and model.canonical.focal_px == 300.0
    assert model.network.activation == "exp"
    assert "decoder_init: keep" in (run / "recipe.yaml").read_text()

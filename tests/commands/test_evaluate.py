"""The same weights give the same table, from the run and from the command, whatever form they are in."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from finetune.commands import evaluate, export, predict
from finetune.inference.predictor import Predictor
from finetune.models.arithmetic import allow_tf32
from finetune.models.depth_model import DepthModel
from tests.browser import require_valid
from tests.conftest import CHECKPOINT, ROOT, ended_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, frames: Path) -> Path:
    return ended_run(tmp_path_factory.mktemp("evaluate"), frames, "run.steps=3") / "small"


def table(path: Path) -> dict[str, dict[str, float]]:
    (found,) = json.loads(path.read_text())
    rows: dict[str, dict[str, float]] = found["rows"]
    return rows


@pytest.mark.parametrize("model", ["", "best/model.safetensors", "export/small.pth"])
def test_the_table_is_that_of_the_run(run: Path, model: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "table.json"
    assert evaluate.main([str(run / model), "--recipe", str(run / "recipe.yaml"), "--json", str(out)]) == 0
    expected = table(run / "evaluation.json")
    if model:
        del expected["last"]  # the file alone does not know of the run's last weights
    assert table(out) == expected
    of_run, found = (json.loads(path.read_text())[0] for path in (run / "evaluation.json", out))
    assert found["protocol"] == of_run["protocol"]
    assert (found["images_used"], found["pixels_used"]) == (of_run["images_used"], of_run["pixels_used"])


def test_batches_and_another_precision_change_little_and_that_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, before = tmp_path / "table.json", table(run / "evaluation.json")
    call = [str(run), "--recipe", str(run / "recipe.yaml"), "data.workers=0", "--json", str(out)]
    assert evaluate.main([*call, "--batch-size", "3", "--precision", "bf16"]) == 0
    found = table(out)
    assert found["finetuned"] != pytest.approx(before["finetuned"], rel=1e-6)
    assert found["finetuned"] == pytest.approx(before["finetuned"], rel=0.05)
    # The baselines stay in float32; they too are predicted three at once.
    assert found["base_fitted_scale"] == pytest.approx(before["base_fitted_scale"], rel=1e-5)
    assert "bf16 differs from float32 by" in capsys.readouterr().out


def test_on_a_gpu_the_rounding_that_is_said_is_the_one_of_the_evaluation(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Predictor, "device", torch.device("cuda"))  # what it says of a GPU; it computes on the CPU
    used = []
    forward = DepthModel.forward

    def watched_forward(*given: Any, **named: Any) -> torch.Tensor:
        used.append(torch.backends.cudnn.allow_tf32)
        return forward(*given, **named)

    monkeypatch.setattr(DepthModel, "forward", watched_forward)
    try:
        call = [str(run), "--recipe", str(run / "recipe.yaml"), "data.workers=0", "run.tf32=true"]
        assert evaluate.main(call) == 0
    finally:
        allow_tf32(False)
    assert "fp32, with TF32," in capsys.readouterr().err
    assert set(used) == {True}


def test_images_by_themselves_add_up_to_the_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "images.csv"
    assert evaluate.main([str(run), "--recipe", str(run / "recipe.yaml"), "--csv", str(out)]) == 0
    assert "protocol plain: depth 0.001 to 10 m" in capsys.readouterr().out
    with out.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 6  # images, rows
    assert {Path(line["source"]).name for line in lines} == {"10.png", "11.png", "12.png"}
    for row, scores in table(run / "evaluation.json").items():
        of_row = [line for line in lines if line["row"] == row]
        assert sum(int(line["pixels"]) for line in of_row) == 3 * (48 * 64 - 15)
        for name, value in scores.items():
            assert np.mean([float(line[name]) for line in of_row]) == pytest.approx(value, rel=1e-12)


def test_other_data_is_named_on_the_command_line(run: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [str(run), "--recipe", str(run / "recipe.yaml"), "data.val.0.list=train.txt", "data.workers=1"]
    assert evaluate.main(call) == 0
    assert "10 images used, 0 skipped" in capsys.readouterr().out


def test_a_page_has_the_table_and_the_curves_of_the_run(run: Path, tmp_path: Path) -> None:
    out, scores_file = tmp_path / "new" / "page.html", tmp_path / "table.json"
    call = [str(run), "--recipe", str(run / "recipe.yaml"), "data.workers=0", "--html", str(out)]
    assert evaluate.main([*call, "--confidence", "--json", str(scores_file)]) == 0
    page = out.read_text(encoding="utf-8")
    require_valid(page)
    assert all(f"{scores['abs_rel']:.4f}" in page for scores in table(run / "evaluation.json").values())
    assert "training loss" in page
    confidence = json.loads(scores_file.read_text())[0]["confidence"]
    # With all pixels kept it is the table's AbsRel, whatever the order; no order is better than that of the errors.
    expected = table(run / "evaluation.json")["finetuned"]["abs_rel"]
    assert [confidence[order][0] for order in ("risk", "oracle", "random")] == pytest.approx([expected] * 3, rel=1e-9)
    pairs = zip(confidence["risk"], confidence["oracle"], strict=True)
    assert all(risk >= best - 1e-12 for risk, best in pairs)  # where all pixels are kept, they differ by rounding
    assert f"{confidence['ause']:.4f}, at random {confidence['ause_random']:.4f}" in page
    assert f"finetune evaluate {run} --recipe {run / 'recipe.yaml'} data.workers=0" in page


def test_a_model_of_the_other_kind_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(CHECKPOINT), "--recipe", str(run / "recipe.yaml")]) == 2
    said = capsys.readouterr().err
    assert "is relative, the recipe's model.head is metric" in said
    assert "Name a recipe with model.head: relative." in said


def test_a_file_that_cannot_be_written_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "recipe.yaml" / "table.json"
    assert evaluate.main([str(run), "--recipe", str(run / "recipe.yaml"), "--json", str(path)]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_run_as_a_file_it_hides_no_library() -> None:
    command = [sys.executable, str(ROOT / "finetune" / "predict.py"), "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "--points" in ended.stdout


def test_what_predict_wrote_gives_the_table_of_its_model(run: Path, frames: Path, tmp_path: Path) -> None:
    folder = tmp_path / "depth"
    files, of_model, rounded = (tmp_path / f"{name}.json" for name in ("files", "model", "rounded"))
    images = [str(path) for path in sorted(frames.glob("1[0-2].jpg"))]
    assert predict.main([str(run), *images, "--output", str(folder)]) == 0
    call = ["--recipe", str(run / "recipe.yaml"), "data.workers=0"]
    page = tmp_path / "page.html"
    assert evaluate.main(["--predictions", str(folder), *call, "--json", str(files), "--html", str(page)]) == 0
    assert "load_model" not in page.read_text(encoding="utf-8")
    # One image at a time, as predict asks.
    assert evaluate.main([str(run), *call, "run.batch_size=1", "--json", str(of_model)]) == 0
    assert table(files)["predictions"] == table(of_model)["finetuned"]
    assert table(files)["constant_median"] == table(of_model)["constant_median"] == constant(run)
    # A batch rounds sums of the network in another order.
    for name, value in table(run / "evaluation.json")["finetuned"].items():
        assert table(files)["predictions"][name] == pytest.approx(value, rel=5e-6), name
    # Millimeters are rounded.
    call += ["--predictions", str(folder), "--meters-per-unit", "0.001"]
    assert evaluate.main([*call, "--json", str(rounded)]) == 0
    assert table(rounded)["predictions"]["abs_rel"] == pytest.approx(table(files)["predictions"]["abs_rel"], abs=1e-3)
    assert table(rounded) != table(files)


def constant(run: Path) -> dict[str, float]:
    return table(run / "evaluation.json")["constant_median"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "does not exist. Write a file for each frame"),
        (lambda path: np.save(path, np.full((48, 64), np.nan)), "11.npy: holds no finite number"),
        (
            lambda path: np.save(path, np.full((48, 64), [2.0] * 63 + [np.inf])),
            "11.png: predictions predicts NaN or inf",
        ),
        (lambda path: np.save(path, np.arange(48 * 64 * 3.0).reshape(48, 64, 3)), "3 channels of floats"),
        (lambda path: path.write_text("no array"), "11.npy"),
    ],
)
def test_a_prediction_that_is_none_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], said: str
) -> None:
    for stem in (10, 11, 12):
        np.save(tmp_path / f"{stem}.npy", np.full((48, 64), 2.0))
    spoil(tmp_path / "11.npy")
    call = ["--predictions", str(tmp_path), "--recipe", str(run / "recipe.yaml"), "data.workers=0"]
    assert evaluate.main(call) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert "finetune stopped:" in printed


def test_inverse_depth_is_scored_only_if_it_is_accepted(
    run: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for stem in (10, 11, 12):
        depth_mm = np.asarray(cv2.imread(str(frames / f"{stem}.png"), cv2.IMREAD_UNCHANGED), np.float32)
        np.save(tmp_path / f"{stem}.npy", 1000 / np.maximum(depth_mm, 100))
    call = ["--predictions", str(tmp_path), "--recipe", str(run / "recipe.yaml"), "data.workers=0"]
    assert evaluate.main(call) == 1
    said = capsys.readouterr().err
    assert "fall where the measured depth grows (rank correlation -1.00 in the median of 3 frames)" in said
    assert evaluate.main([*call, "data.accept=[depth_is]"]) == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["--predictions", "nowhere"], "nowhere: no such folder"),
        (["--predictions", ".", "--protocol", "plain+flip=true"], "asks for mirrored images"),
        (["--predictions", ".", "--confidence"], "name a MODEL instead of --predictions"),
        (["--predictions", ".", "model.pth"], "not both"),
        ([], "name a MODEL"),
        (["model.pth", "--meters-per-unit", "0.001"], "--meters-per-unit needs --predictions; a model predicts meters"),
        (["--predictions", ".", "--protocol", "plane"], "perhaps plain"),
        (["--predictions", ".", "--precision", "bf16"], "--precision and --compile are of a network: name a MODEL"),
    ],
)
def test_calls_that_say_two_things(run: Path, capsys: pytest.CaptureFixture[str], call: list[str], said: str) -> None:
    try:
        status = evaluate.main([*call, "--recipe", str(run / "recipe.yaml")])
    except SystemExit as left:
        status = int(left.code or 0)
    assert status == 2
    assert said in capsys.readouterr().err


def test_several_protocols_are_several_tables(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, images = tmp_path / "tables.json", tmp_path / "images.csv"
    call = [
        "--protocol",
        "plain",
        "plain+align=median",
        str(run),
        "data.workers=0",
        "--recipe",
        str(run / "recipe.yaml"),
    ]
    assert evaluate.main([*call, "--json", str(out), "--csv", str(images)]) == 0
    plain, aligned = json.loads(out.read_text())
    assert plain["rows"] == table(run / "evaluation.json")
    assert aligned["protocol"]["name"] == "plain+align=median"
    assert aligned["rows"]["finetuned_unaligned"] == plain["rows"]["finetuned"]
    printed = capsys.readouterr().out
    assert "protocol plain+align=median: depth 0.001 to 10 m" in printed
    with images.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["protocol"] for line in lines} == {"plain", "plain+align=median"}
    assert {line["protocol_crop"] for line in lines} == {"none"}


@pytest.mark.parametrize(
    ("words", "protocols"),
    [
        (["--protocol", "plain", "--protocol", "nyu_eigen"], ["plain", "nyu_eigen"]),
        (["--protocol", "plain", "nyu_eigen", "plain+flip=true"], ["plain", "nyu_eigen", "plain+flip=true"]),
        (["--protocol=plain", "kitti_eigen", "x=1"], ["plain", "kitti_eigen"]),
        (["--protocol", "nyu_eigen", "--csv", "plain"], ["nyu_eigen"]),
    ],
)
def test_names_after_a_protocol_are_protocols(words: list[str], protocols: list[str]) -> None:
    found = evaluate._repeat_protocol(["model", *words, "a.b=c"])
    assert [
        word.partition("=")[2] if word.startswith("--protocol=") else found[place + 1]
        for place, word in enumerate(found)
        if word.startswith("--protocol")
    ] == protocols
    assert (found[0], found[-1]) == ("model", "a.b=c")


def test_a_folder_for_transformers_gives_the_table_of_the_run(run: Path, frames: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "hf", tmp_path / "table.json"
    call = [str(run), "--to", "huggingface", "--output", str(folder), "--image", str(frames / "10.jpg")]
    assert export.main(call) == 0
    assert evaluate.main([str(folder), "--recipe", str(run / "recipe.yaml"), "--json", str(out)]) == 0
    # It samples positions in a way of its own, and was refitted for frames of this size.
    for name, value in table(run / "evaluation.json")["finetuned"].items():
        assert table(out)["finetuned"][name] == pytest.approx(value, rel=1e-3), name


def test_a_metric_base_stands_in_the_table_as_it_is(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    base = f"model.checkpoint={run / 'best' / 'model.safetensors'}"
    call = [str(run), "--recipe", str(run / "recipe.yaml"), base, "model.decoder_init=keep", "--json", str(out)]
    assert evaluate.main([*call, "model.checkpoint_kind=metric"]) == 0
    rows = table(out)
    assert list(rows) == ["constant_median", "best_constant", "base", "base_fitted_scale", "finetuned", "last"]
    assert rows["base"] == rows["finetuned"]
    assert rows["base_fitted_scale"] != rows["base"]

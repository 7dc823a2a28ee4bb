"""Runs with ``train: lora``: what they leave behind, what loads it, and that they can be killed."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune.commands import evaluate, export, train
from finetune.inference.predictor import load_model
from tests.conftest import CHECKPOINT, ended_run, moved_run
from tests.runs import rows

LORA = (
    "model.train=lora",
    "model.lora.rank=4",
    "model.lora.dropout=0.2",
    "optim.lr=1e-3",
    "optim.ema_decay=0.9",
    "export=[]",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, frames: Path) -> Path:
    return ended_run(tmp_path_factory.mktemp("lora"), frames, *LORA) / "small"


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)


def test_counts_are_told_and_the_base_of_the_encoder_stays(finished: Path, tmp_path: Path) -> None:
    saved, base = load_file(finished / "last" / "model.safetensors"), load_file(CHECKPOINT)
    assert saved.keys() == {name for name in saved if ".lora_" not in name}
    changed = {name for name in saved if not torch.equal(saved[name], base[name].float())}
    assert any(name.endswith("attn.qkv.weight") for name in changed)
    assert not any(name.startswith("encoder.") and not name.endswith("weight") for name in changed)
    assert "encoder.pos_embed" not in changed and "encoder.patch_embed.proj.weight" not in changed
    assert {"decoder.project.0.weight", "head.last.weight"} <= changed
    assert rows(finished)[-1]["val_abs_rel"]


def test_the_adapter_beside_the_weights_is_the_same_model(finished: Path) -> None:
    folder = finished / "best" / "adapter"
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(CHECKPOINT)
    assert (config["r"], config["modules_to_save"]) == (4, ["decoder", "head"])
    merged, adapter = load_model(str(finished)), load_model(str(folder))
    assert (adapter.kind, adapter.max_depth_m, adapter.preprocessing) == ("metric", 10.0, merged.preprocessing)
    ours, theirs = merged.predict(image()), adapter.predict(image())
    assert np.abs(ours - theirs).max() <= 1e-5 * np.ptp(ours)
    paths = (folder / "adapter_model.safetensors", finished / "best" / "model.safetensors")
    sizes = [path.stat().st_size for path in paths]
    assert sizes[0] < 0.8 * sizes[1]


@pytest.mark.slow
def test_the_adapter_gives_the_table_of_the_run(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"
    call = [str(finished / "best" / "adapter"), "--recipe", str(finished / "recipe.yaml"), "--json", str(out)]
    assert evaluate.main(call) == 0
    found, of_run = (json.loads(path.read_text())[0]["rows"] for path in (out, finished / "evaluation.json"))
    for name, value in of_run["finetuned"].items():
        assert found["finetuned"][name] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_resumed_it_ends_in_the_same_bits(finished: Path, tmp_path: Path) -> None:
    folder = moved_run(finished.parent, tmp_path / "runs")
    before = load_file(folder / "last" / "model.safetensors")
    shutil.rmtree(folder / "checkpoints" / "step_00000006")
    shutil.rmtree(folder / "last")
    assert train.main([str(folder / "recipe.yaml"), "--resume"]) == 0
    after = load_file(folder / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    adapters = [run / "last" / "adapter" / "adapter_model.safetensors" for run in (finished, folder)]
    # The folder's own path is part of the recipe, and the recipe's digest of the metadata.
    first, second = (load_file(path) for path in adapters)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.slow
def test_launched_again_it_ends_in_the_same_bits(finished: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)  # whatever was drawn before in this process
    recipe = finished / "recipe.yaml"
    assert train.main([str(recipe), f"output={tmp_path}", "name=again"]) == 0
    for name in ("last/model.safetensors", "best/model.safetensors"):
        first, second = (load_file(run / name) for run in (finished, tmp_path / "again"))
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_exported_it_is_a_folder_that_stands_alone_and_other_models_have_none(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "adapter"
    assert export.main([str(finished), "--to", "adapter", "--output", str(target)]) == 0
    assert "adapter, reloaded: identical on an image" in capsys.readouterr().out
    again = tmp_path / "again"
    assert export.main([str(target), "--to", "adapter", "--output", str(again)]) == 0
    assert (again / "adapter_model.safetensors").read_bytes() == (target / "adapter_model.safetensors").read_bytes()
    official = tmp_path / "merged.pth"
    assert export.main([str(target), "--to", "official", "--output", str(official)]) == 0
    capsys.readouterr()
    assert export.main([str(official), "--to", "adapter", "--output", str(tmp_path / "none")]) == 2
    assert "adapters cannot be recovered from merged weights" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("missing", "base /nowhere.pth not found (no such file)"),
        ("another", "was trained on another file than its base"),
        ("no config", "is missing or does not say base_model_name_or_path, r and lora_alpha"),
    ],
)
def test_a_base_that_is_not_the_one_is_one_sentence(
    finished: Path, tmp_path: Path, what: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished / "best" / "adapter", tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    other = "/nowhere.pth" if what == "missing" else str(finished / "last" / "model.safetensors")
    config["base_model_name_or_path"] = other
    (folder / "adapter_config.json").write_text("{}" if what == "no config" else json.dumps(config))
    assert export.main([str(folder), "--to", "official", "--output", str(tmp_path / "out.pth")]) == 2
    assert found in capsys.readouterr().err


def test_more_blocks_than_there_are_and_drawn_weights_are_refused(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(recipe), *LORA, "model.lora.last_blocks=13"]) == 2
    assert "model.lora.last_blocks is 13, but encoder tiny has" in capsys.readouterr().err
    drawn = ("model.checkpoint=null", "model.encoder=tiny", "model.decoder_init=scratch")
    assert train.main([str(recipe), *LORA, *drawn]) == 2
    assert "model.train is 'lora' and model.checkpoint is null" in capsys.readouterr().err


@pytest.mark.parametrize(
    "mode", [pytest.param("all", marks=pytest.mark.slow), pytest.param("decoder", marks=pytest.mark.slow), "lora"]
)
def test_every_mode_tells_what_it_trains(recipe: Path, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(recipe), f"model.train={mode}", "run.steps=2", "export=[]", "--verbose"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"model.train {mode}: "))
    counts = [int(number.replace(",", "")) for number in re.findall(r"(?:encoder|decoder|head) ([\d,]+) of", line)]
    wholes = [int(number.replace(",", "")) for number in re.findall(r"of ([\d,]*\d)", line)]
    assert (counts[0] == 0) == (mode == "decoder")
    assert (counts[0] < wholes[0] / 4) == (mode != "all")
    assert counts[2] == wholes[2] > 0

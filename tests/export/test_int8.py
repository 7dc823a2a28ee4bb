"""INT8: accepted by what it costs on validation frames, else nothing is left and the layers to blame are named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from finetune import runtime
from finetune.commands import export
from finetune.data.preprocessing import Preprocessing
from finetune.export.int8 import _find_nodes, name_layer
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import FinetuneError
from tests.conftest import ROOT
from tests.small_models import BASE, small_model, write_model

ROOM = ROOT / "recipes" / "room_tiny.yaml"


def test_a_layer_is_a_block_s_half_or_a_module() -> None:
    assert name_layer("network.encoder.blocks.3.mlp.fc2") == "encoder.blocks.3.mlp"
    assert name_layer("network.encoder.blocks.11.attn.qkv") == "encoder.blocks.11.attn"
    assert name_layer("network.encoder.patch_embed.proj") == "encoder.patch_embed.proj"
    assert name_layer("network.decoder.fuse.3.unit.conv1") == "decoder.fuse.3"
    assert name_layer("network.head.last") == "head.last"


def test_layers_are_found_by_how_they_start() -> None:
    layers = {"encoder.blocks.1.attn": ["a"], "encoder.blocks.1.mlp": ["b", "c"], "encoder.blocks.10.mlp": ["d"]}
    assert _find_nodes(layers, ["encoder.blocks.1"]) == ["a", "b", "c"]
    assert _find_nodes(layers, ["encoder.blocks.10.mlp", "encoder.blocks.1.attn"]) == ["d", "a"]
    with pytest.raises(FinetuneError, match=r"--float-layers encoder.blocks.2: no such layer. Name some of: encoder"):
        _find_nodes(layers, ["encoder.blocks.2"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--precision", "int8"], "--precision int8 needs --calibration RECIPE"),
        (["--calibration", str(ROOM)], "--calibration is for --precision int8 of onnx and openvino"),
        (["--tolerance", "0.1"], "--tolerance is for --precision int8"),
        (["--float-layers", "head"], "--float-layers is for --precision int8"),
        (["--precision", "int8", "--calibration", str(ROOM), "--tolerance", "-1"], "a number, 0 or more"),
    ],
)
def test_options_that_do_not_belong_together(
    options: Sequence[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        export.main(["m.safetensors", "--to", "onnx", "--output", "m.onnx", *options])
    assert sentence in capsys.readouterr().err


def test_a_recipe_that_does_not_fit_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = str(write_model(tmp_path / "m.safetensors", None))
    call = [weights, "--to", "onnx", "--output", str(tmp_path / "m.onnx"), "--precision", "int8", "--calibration"]
    assert export.main([*call, str(ROOM)]) == 2
    assert "m.safetensors is relative, the recipe's model.head is metric" in capsys.readouterr().err
    assert export.main([*call, str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml: no such file" in capsys.readouterr().err
    text = ROOM.read_text()
    (tmp_path / "empty.yaml").write_text(text.replace("list: train.txt", f"list: {tmp_path / 'empty.txt'}"))
    (tmp_path / "empty.txt").write_text("")
    assert export.main([*call, str(tmp_path / "empty.yaml")]) == 2
    assert "empty.txt" in capsys.readouterr().err
    call[2:5] = ["official", "--output", str(tmp_path / "m.pth")]
    assert export.main([*call, str(ROOM)]) == 2
    assert "format official is written in float32 or float16, not in int8" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "empty.yaml", "m.safetensors"]


RELATIVE = """\
name: relative
model: {{checkpoint: data/tiny_relative.safetensors, head: relative, decoder_init: keep}}
data:
  input_size: [126, 168]
  train: [{{reader: pairs, root: data/room, list: {folder}/train.txt, meters_per_unit: 0.001, invalid: [0]}}]
  val: [{{reader: pairs, root: data/room, list: {folder}/val.txt, meters_per_unit: 0.001, invalid: [0]}}]
loss: [{{kind: ssi, weight: 1.0}}]
evaluation: {{max_depth_m: 10.0}}
"""


def write_relative_recipe(folder: Path) -> Path:
    """For the relative checkpoint of ``data/``: 8 training images and 3 validation frames of ``data/room``."""
    for name, count in (("train", 8), ("val", 3)):
        lines = (ROOT / "data" / "room" / f"{name}.txt").read_text().splitlines()
        (folder / f"{name}.txt").write_text("\n".join(lines[:count]) + "\n")
    (folder / "relative.yaml").write_text(RELATIVE.format(folder=folder))
    return folder / "relative.yaml"


def write_uneven_model(path: Path) -> Path:
    """The relative checkpoint; one channel between two of its convolutions is a thousand times as large as it was."""
    model = load_model(ROOT / "data" / "tiny_relative.safetensors")
    state = model.network.state_dict()
    with torch.no_grad():
        # Both are linear, so in float32 the prediction stays.
        for part in ("weight", "bias"):
            state[f"decoder.project.3.{part}"][0] *= 1000
        state["decoder.resize.3.weight"][:, 0] /= 1000
    save_native(path, model.network, {"preprocessing": model.preprocessing.to_mapping(), "base": BASE})
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("to", "name"), [("onnx", "m.onnx"), ("openvino", "m")])
def test_a_layer_that_int8_breaks_is_named_and_can_be_kept(
    to: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe, weights = write_relative_recipe(tmp_path), write_uneven_model(tmp_path / "w.safetensors")
    output, before = tmp_path / "out" / name, sorted(tmp_path.iterdir())
    call = [str(weights), "--to", to, "--output", str(output), "--precision", "int8", "--calibration", str(recipe)]
    assert export.main(call) == 1
    refused = capsys.readouterr().err
    assert "AbsRel on 3 validation frames of" in refused
    first, *_ = refused.split("Those that cost most: ")[1].split(" ")
    # The channel is rounded where one gives it to the other.
    assert first in ("decoder.project.3", "decoder.resize.3")
    assert sorted(tmp_path.iterdir()) == before
    assert export.main([*call, "--float-layers", "decoder.project.3,decoder.resize.3"]) == 0
    said = capsys.readouterr().out
    assert "quantized by 8 training images; AbsRel on 3 validation frames" in said
    assert "in float32 stay decoder.project.3, decoder.resize.3" in said
    # TensorRT takes no zero points, which onnxruntime's rounding has.
    pack = sorted(path.name for path in (output.parent / "m.check").iterdir())
    assert pack == ["check.npz", "check_engine.py"]
    assert ("there is no build_engine.sh: TensorRT takes INT8 with zero points of 0 alone" in said) == (to == "onnx")
    ours, theirs = (one.predict("data/room/color/0000.jpg") for one in (load_model(weights), runtime.load(output)))
    # Rounded, and no more than that; a broken channel costs several times as much.
    assert 1e-4 < float(np.abs(theirs - ours).mean() / ours.mean()) < 0.05
    size = sum(path.stat().st_size for path in ([output] if to == "onnx" else output.iterdir()))
    assert size < 0.4 * weights.stat().st_size


CANONICAL = """\
name: canonical
model: {{checkpoint: data/tiny_relative.safetensors, max_depth_m: 10.0}}
data:
  input_size: [126, 168]
  camera: {{mode: canonical}}
  train: [{{reader: pairs, root: data/room, list: {folder}/train.txt, meters_per_unit: 0.001, intrinsics: {camera}}}]
  val: [{{reader: pairs, root: data/room, list: {folder}/val.txt, meters_per_unit: 0.001, intrinsics: {camera}}}]
loss: [{{kind: silog, weight: 1.0}}]
evaluation: {{max_depth_m: 10.0}}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("to", "name"), [("onnx", "m.onnx"), ("openvino", "m")])
def test_a_canonical_model_is_quantized_with_the_cameras_of_the_frames(
    to: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    write_relative_recipe(tmp_path)
    network = small_model(10.0)
    network.camera = TrainingCamera(mode="canonical", focal_px=150.0, seen_px=(100.0, 200.0), max_depth_m=10.0)
    preprocessing = Preprocessing(input_size=(126, 168)).to_mapping()
    weights, output = tmp_path / "w.safetensors", tmp_path / name
    save_native(weights, network, {"preprocessing": preprocessing, "base": BASE})
    call = [str(weights), "--to", to, "--output", str(output), "--precision", "int8", "--calibration"]
    (tmp_path / "blind.yaml").write_text(CANONICAL.format(folder=tmp_path, camera="null"))
    assert export.main([*call, str(tmp_path / "blind.yaml")]) != 0
    assert "has no camera, and the model predicts meters only with one" in capsys.readouterr().err
    (tmp_path / "canonical.yaml").write_text(CANONICAL.format(folder=tmp_path, camera="intrinsics.json"))
    assert export.main([*call, str(tmp_path / "canonical.yaml"), "--tolerance", "0.05"]) == 0
    assert "quantized by 8 training images; AbsRel on 3 validation frames" in capsys.readouterr().out
    ours, theirs = load_model(weights), runtime.load(output)
    camera = (288.0, 288.0, 161.25, 118.5)
    own, found = (model.predict("data/room/color/0000.jpg", camera=camera) for model in (ours, theirs))
    assert 0 < float(np.abs(found - own).mean() / own.mean()) < 0.05

"""The file by itself: what it says, which sizes it takes, and that onnxruntime predicts as we do."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from finetune.commands import export
from finetune.export.onnx import OnnxPredictor
from finetune.inference.predictor import load_model
from finetune.utils.errors import FinetuneError
from tests.small_models import write_model


def image(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 5, y * 6, x + y], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("onnx") / "m.safetensors")


@pytest.mark.slow
def test_a_file_of_one_size_says_what_it_takes_and_gives(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert export.main([str(weights), "--to", "onnx", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    number = r"[0-9.e-]+"
    differs = (
        rf"differs by at most {number} mm, by {number} mm on average \(near half {number} mm, far half {number} mm\)"
    )
    line = (
        rf"{re.escape(str(out))}: onnx, reloaded: ({differs}|identical) on an image of 240x320 \({number} mm allowed\)"
    )
    assert re.fullmatch(line, said.splitlines()[0])
    assert "accepts normalized images of 28x42 (height x width) only" in said
    session = onnxruntime.InferenceSession(str(out))
    assert [(tensor.name, tensor.shape) for tensor in session.get_inputs()] == [("image", [1, 3, 28, 42])]
    assert [(tensor.name, tensor.shape) for tensor in session.get_outputs()] == [("depth_m", [1, 1, 28, 42])]
    assert sorted(path.name for path in (tmp_path / "m.check").iterdir()) == ["check.npz", "check_engine.py"]
    exported = OnnxPredictor(out)
    assert exported.metadata["max_depth_m"] == 10.0
    assert (exported.metadata["kind"], exported.metadata["opset"], exported.metadata["input_size"]) == (
        "metric",
        18,
        [28, 42],
    )
    assert exported.metadata["license"] == "Apache-2.0"
    with pytest.raises(FinetuneError, match=r"accepts 28x42 \(height x width\) only, and the image becomes 28x84"):
        exported(image(40, 120))


@pytest.mark.slow
def test_a_file_of_any_size_is_compared_at_three_more(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert export.main([str(weights), "--to", "onnx", "--output", str(out), "--dynamic"]) == 0
    said = capsys.readouterr().out
    assert all(size in said for size in ("as a share of the spread: 112x112", "84x210", "182x126"))
    model, exported = load_model(weights), OnnxPredictor(out)
    for shape in ((40, 60), (120, 40), (50, 50)):
        ours, theirs = model.predict(image(*shape)), exported(image(*shape))
        assert np.abs(ours - theirs).max() <= 1e-3 * np.ptp(ours)


def test_what_it_cannot_is_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = [str(weights), "--to", "onnx", "--output", str(tmp_path / "m.onnx")]
    assert export.main([*call, "--half"]) == 2
    assert "format onnx is written in float32, not in float16" in capsys.readouterr().err
    assert export.main([str(weights), "--to", "official", "--output", str(tmp_path / "m.pth"), "--dynamic"]) == 2
    assert "--dynamic is not for format official, but for onnx" in capsys.readouterr().err
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "onnxruntime", None)
        absent.setattr("finetune.export.onnx.find_spec", lambda name: None if name == "onnxruntime" else name)
        assert export.main(call) == 2
    assert "format onnx needs onnxruntime. Install them: pip install -e '.[onnx]'" in capsys.readouterr().err
    monkeypatch.setattr("finetune.export.onnx._MAX_BYTES", 1000)
    assert export.main(call) == 2
    assert "do not fit into one .onnx file" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()

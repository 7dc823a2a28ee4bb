"""The folder by itself: what it says, in which precision it computes, and that OpenVINO predicts as we do."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from finetune import runtime
from finetune.commands import export
from finetune.data.preprocessing import Preprocessing
from finetune.export.check_pack import SCRIPT_FILE
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.models.training_camera import TrainingCamera
from tests.small_models import BASE, INPUT_SIZE, write_model

CAMERA = (100.0, 100.0, 29.5, 19.5)


def image(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 6, x + y], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model that needs the focal length of an image."""
    camera = TrainingCamera(mode="canonical", focal_px=40.0, seen_px=(30.0, 80.0), max_depth_m=10.0)
    network = DepthModel("tiny", 10.0, camera=camera)
    network.initialise(0)
    path = tmp_path_factory.mktemp("weights") / "m.safetensors"

    save_native(
        path, network.eval(), {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "base": BASE}
    )
    return path


def run_check_pack(output: Path) -> int:
    """The exit status of the script of the check pack, as a device runs it."""
    script = output.with_name(f"{output.name}.check") / SCRIPT_FILE
    spec = importlib.util.spec_from_file_location("check_engine_of_openvino", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.main([str(output / "model.xml")]))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_predicts_the_meters_of_each_camera(
    canonical: Path, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "m"
    call = [str(canonical), "--to", "openvino", "--output", str(output), "--precision", precision]
    assert export.main(call) == 0
    said = capsys.readouterr().out
    times = re.search(r"PyTorch ([0-9.e+]+) ms, onnxruntime ([0-9.e+]+) ms, OpenVINO \w+ ([0-9.e+]+) ms", said)
    assert times and all(float(time) > 0 for time in times.groups())
    assert "the input focal_px is (fx + fy) / 2" in said
    caution = "of their depth off (0.3% allowed); OpenVINO's CPU computed in float32; a GPU computes in float16"
    assert (caution in said) == ("less than a quarter of what float16 holds" in said) == (precision == "float16")
    exported, model = runtime.load(output), load_model(canonical)
    assert "INFERENCE_PRECISION_HINT f32" in repr(exported)
    ours, theirs = (one.predict(image(), camera=CAMERA) for one in (model, exported))
    # Half of the weights' bits cost more than what the runtimes differ by, and not much more.
    off = float(np.abs(ours - theirs).max() / np.ptp(ours))
    assert off <= 1e-4 if precision == "float32" else 1e-5 < off <= 0.02
    # Twice the focal length is twice as far.
    far = exported.predict(image(), camera=(200.0, 200.0, 29.5, 19.5))
    np.testing.assert_allclose(far, 2 * theirs, rtol=1e-5)
    per_weight = (output / "model.bin").stat().st_size / sum(p.numel() for p in model.network.parameters())
    assert per_weight == pytest.approx(4.0 if precision == "float32" else 2.0, rel=0.1)
    assert run_check_pack(output) == 0


def test_what_it_cannot_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_model(tmp_path / "m.safetensors")
    call = [str(weights), "--to", "openvino", "--output", str(tmp_path / "m")]
    with monkeypatch.context() as absent:
        absent.setattr("finetune.export.openvino.find_spec", lambda name: None if name == "openvino" else name)
        assert export.main(call) == 2
    assert "format openvino needs openvino. Install them: pip install -e '.[openvino]'" in capsys.readouterr().err
    with monkeypatch.context() as absent:
        absent.setattr("finetune.export.openvino.find_spec", lambda name: None if name == "nncf" else name)
        assert export.main([*call, "--precision", "int8", "--calibration", "recipes/room_tiny.yaml"]) == 2
    assert "format openvino needs nncf." in capsys.readouterr().err
    assert export.main([*call, "--precision", "mixed"]) == 2
    assert "format openvino is written in float32 or float16 or int8, not in mixed" in capsys.readouterr().err
    (tmp_path / "m").mkdir()
    assert export.main(call) == 2
    assert "already there" in capsys.readouterr().err

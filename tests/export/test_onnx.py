"""The file by itself: what it says, which sizes it takes, and that onnxruntime predicts as we do."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from finetune import runtime
from finetune.commands import export
from finetune.data.preprocessing import Preprocessing
from finetune.export.onnx import describe_rounding
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import FinetuneError
from tests.small_models import BASE, INPUT_SIZE, small_model, write_model


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
    assert "half of a level" not in said
    pack = sorted(path.name for path in (tmp_path / "m.check").iterdir())
    assert pack == ["build_engine.sh", "check.npz", "check_engine.py"]
    exported = runtime.load(out)
    assert exported.metadata["max_depth_m"] == 10.0
    assert (exported.metadata["kind"], exported.metadata["opset"], exported.metadata["input_size"]) == (
        "metric",
        18,
        [28, 42],
    )
    assert exported.metadata["license"] == "Apache-2.0"
    with pytest.raises(FinetuneError, match=r"accepts 28x42 \(height x width\) only, and the image becomes 28x84"):
        exported.predict(image(40, 120))


@pytest.mark.slow
def test_a_file_of_any_size_is_compared_at_three_more(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert export.main([str(weights), "--to", "onnx", "--output", str(out), "--dynamic"]) == 0
    said = capsys.readouterr().out
    assert all(size in said for size in ("as a share of the spread: 112x112", "84x210", "182x126"))
    model, exported = load_model(weights), runtime.load(out)
    for shape in ((40, 60), (120, 40), (50, 50)):
        ours, theirs = model.predict(image(*shape)), exported.predict(image(*shape))
        assert np.abs(ours - theirs).max() <= 1e-3 * np.ptp(ours)


def test_what_it_cannot_is_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = [str(weights), "--to", "onnx", "--output", str(tmp_path / "m.onnx")]
    official = [str(weights), "--to", "official", "--output", str(tmp_path / "m.pth")]
    assert export.main([*official, "--precision", "mixed"]) == 2
    assert "format official is written in float32 or float16, not in mixed" in capsys.readouterr().err
    for options, sentence in {
        ("--batch", "3"): "--batch is not for format official, but for onnx and openvino. Leave it out",
        ("--input", "uint8"): "--input is not for format official, but for onnx",
        ("--input", "uint8", "--resize"): "is not for format official, but for onnx",
        # What the option would need is not said first.
        ("--resize",): "--resize is not for format official, but for onnx and openvino",
        ("--precision", "int8"): "format official is written in float32 or float16, not in int8",
        ("--precision", "int8", "--batch", "2"): "format official is written in float32 or float16, not in int8",
    }.items():
        assert export.main([*official, *options]) == 2
        assert sentence in capsys.readouterr().err
    for options, sentence in {
        ("--batch", "0"): "'0' is neither a number from 1 to 1024 nor any",
        ("--batch", "many"): "'many' is neither a number from 1 to 1024 nor any",
        ("--resize",): "--resize is for images as they are: give --input uint8 as well",
        ("--input", "uint8", "--resize", "--dynamic"): "--resize is for images of one size, that of --image: leave out",
        ("--half", "--precision", "mixed"): "--half is --precision float16, and --precision is mixed: give one of them",
        ("--recipe", "r.yaml"): "--recipe is for --precision float16 and mixed",
        ("--precision", "int8", "--calibration", "r.yaml", "--batch", "2"): "leave out --batch and --input",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            export.main([*call, *options])
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err
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


def run_true(file: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """As a device computes, each node in the type that the graph says, where onnxruntime's CPU takes float32."""
    (found,) = ReferenceEvaluator(str(file)).run(None, inputs)
    return np.asarray(found)


@pytest.mark.slow
def test_mixed_of_any_size_and_batch_is_right_in_true_float16(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    call = [str(weights), "--to", "onnx", "--output", str(out), "--precision", "mixed", "--dynamic", "--batch", "any"]
    assert export.main(call) == 0
    said = capsys.readouterr().out
    assert "stored as mixed" in said
    assert re.search(
        r"on 3 images 99\.9 % of pixels are at most 0\.[0-9]+% of their depth off .* float16 in float32", said
    )
    assert re.search(r"the largest value over 3 images is [0-9]+ in \S+ of network\.", said)
    assert "takes any number of images at a time" in said
    graph = onnx.load(str(out)).graph
    stored = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert TensorProto.FLOAT16 in stored
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert TensorProto.DOUBLE not in types.values()  # unknown to TensorRT
    assert [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)] == [TensorProto.FLOAT] * 2
    model = load_model(weights)
    pixels = np.stack([model.preprocessing(image(28, 42)), model.preprocessing(image(28, 42)[::-1])])
    own = model(torch.from_numpy(pixels)).numpy()
    true = run_true(out, {"image": pixels})
    assert np.percentile(np.abs(true - own) / own, 99.9) <= 0.003
    script = (tmp_path / "m.check" / "build_engine.sh").read_text()
    shapes = "--minShapes=image:1x3x112x112 --optShapes=image:1x3x28x42 --maxShapes=image:4x3x182x182"
    assert f'shapes="{shapes}"' in script


@pytest.mark.slow
def test_weights_with_large_features_are_refused_in_float16_and_right_in_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = small_model(10.0)
    with torch.no_grad():
        # Powers of two: the prediction stays what it is, bit for bit.
        for name, factor in (("reduce.weight", 2.0**20), ("reduce.bias", 2.0**20), ("refine.weight", 2.0**-20)):
            network.state_dict()[f"head.{name}"].mul_(factor)
    path = tmp_path / "large.safetensors"
    save_native(path, network, {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "base": BASE})
    out = tmp_path / "m.onnx"
    call = [str(path), "--to", "onnx", "--output", str(out), "--precision"]
    assert export.main([*call, "float16"]) == 1
    said = capsys.readouterr().err
    assert re.search(r"float16 ends at 65,504, and values over 3 images are as large as [0-9,]{7,} in \S+", said)
    assert "network.head.reduce" in said
    assert not out.exists()
    assert export.main([*call, "mixed"]) == 0
    assert re.search(r"; [0-9]+ nodes beyond that in float32\)", capsys.readouterr().out)
    model = load_model(path)
    pixels = model.preprocessing(image(28, 42))[None]
    own = model(torch.from_numpy(pixels)).numpy()
    assert np.percentile(np.abs(run_true(out, {"image": pixels}) - own) / own, 99.9) <= 0.003


@pytest.mark.slow
def test_frames_as_they_are_go_in_and_depth_of_their_size_comes_out(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, frame = tmp_path / "m.onnx", tmp_path / "frame.png"
    cv2.imwrite(str(frame), image(60, 90)[..., ::-1])
    call = [str(weights), "--to", "onnx", "--output", str(out), "--image", str(frame), "--input", "uint8", "--resize"]
    assert export.main([*call, "--batch", "2"]) == 0
    said = capsys.readouterr().out
    assert "accepts RGB images, 0 to 255, of 60x90 (height x width) only, resizes them to 28x42" in said
    session = onnxruntime.InferenceSession(str(out))
    (given,) = session.get_inputs()
    assert (given.shape, given.type) == ([2, 60, 90, 3], "tensor(uint8)")
    # The pack must know what goes in, to name exchanged channels.
    with np.load(tmp_path / "m.check" / "check.npz") as pack:
        assert json.loads(str(pack["about"]))["input"] == "uint8"
    model = load_model(weights)
    images = [image(60, 90), image(60, 90)[::-1].copy()]
    (found,) = session.run(None, {"image": np.stack(images)})
    for one, depth in zip(images, found, strict=True):
        own = model.predict(one)
        assert np.abs(depth[0] - own).max() <= 1e-3 * np.ptp(own)
    exported = runtime.load(out)
    own = model.predict(images[0])
    assert np.abs(exported.predict(images[0]) - own).max() <= 1e-3 * np.ptp(own)
    flipped = model.predict(images[0], flip=True)
    assert np.abs(exported.predict(images[0], flip=True) - flipped).max() <= 1e-3 * np.ptp(own)
    with pytest.raises(FinetuneError, match=r"accepts 60x90 \(height x width\) only, and the image is 40x60"):
        exported.predict(image(40, 60))


def differs_mm(said: str) -> tuple[float, float]:
    """The largest and the mean difference that rounding to 8 bits makes, as the export says it."""
    found = re.search(r"on 3 images of \d+x\d+ predictions are at most (\S+) mm, (\S+) mm on average, from", said)
    assert found, said
    return float(found[1]), float(found[2])


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model that needs the focal length of an image."""
    network = small_model(10.0)
    network.camera = TrainingCamera(mode="canonical", focal_px=40.0, seen_px=(30.0, 80.0), max_depth_m=10.0)
    path = tmp_path_factory.mktemp("canonical") / "m.safetensors"
    save_native(path, network, {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "base": BASE})
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        (["--precision", "mixed", "--dynamic", "--batch", "any", "--input", "uint8"], 0.02),
        (["--input", "uint8", "--resize", "--batch", "2"], 1e-3),
        (["--input", "uint8", "--resize", "--precision", "mixed", "--for-camera", "100"], 0.02),
        (["--to", "openvino", "--input", "uint8", "--batch", "3"], 0.02),
    ],
    ids=lambda value: "_".join(value).replace("--", "") if isinstance(value, list) else "",
)
def test_options_go_together_for_a_model_that_needs_the_camera(
    canonical: Path, options: list[str], allowed: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, out = tmp_path / "frame.png", tmp_path / ("m" if "openvino" in options else "m.onnx")
    cv2.imwrite(str(frame), image(60, 90)[..., ::-1])
    assert export.main([str(canonical), "--to", "onnx", "--output", str(out), "--image", str(frame), *options]) == 0
    said = capsys.readouterr().out
    exported, model = runtime.load(out), load_model(canonical)
    one_camera = "--for-camera" in options
    for focal_px in (100.0,) if one_camera else (100.0, 150.0):
        camera = (focal_px, focal_px, 44.5, 29.5)
        own = model.predict(image(60, 90), camera=camera)
        found = exported.predict(image(60, 90), camera=None if one_camera else camera)
        assert np.abs(found - own).max() <= allowed * np.ptp(own)
    if "--resize" in options:
        assert "half of a level" not in said
        return
    # The image is one of the three that the export predicted, at the canonical focal length: 40 px at 28x42.
    at_canonical = (40.0 / (28 / 60 + 42 / 90) * 2,) * 2
    camera = (*at_canonical, 44.5, 29.5)
    off_mm = 1000 * np.abs(exported.predict(image(60, 90), camera=camera) - model.predict(image(60, 90), camera=camera))
    largest_mm, mean_mm = differs_mm(said)
    assert 0 < off_mm.max() <= 1.05 * largest_mm
    assert mean_mm <= largest_mm


def test_what_rounding_costs_is_said_in_the_unit_of_the_model() -> None:
    frame = image(60, 90)

    def ramp(picture: np.ndarray, focal_px: float | None) -> np.ndarray:
        return np.linspace(1.0, 5.0, 60 * 90, dtype=np.float32).reshape(60, 90)

    def off(picture: np.ndarray, focal_px: float | None) -> np.ndarray:
        found = ramp(picture, focal_px) + np.float32(0.002)
        found[0, 0] += np.float32(0.018)
        return found

    model: Any = SimpleNamespace(
        kind="metric", canonical=None, preprocessing=Preprocessing(input_size=INPUT_SIZE), predict_at=ramp
    )
    exported: Any = SimpleNamespace(predict_at=off)
    said = describe_rounding(model, exported, frame)
    assert "on 3 images of 60x90 predictions are at most 20 mm, 2 mm on average, from the model's own" in said
    model.kind = "relative"
    # 0.02 and 0.002 of a spread of 4.
    said = describe_rounding(model, exported, frame)
    assert "at most 0.005 of the spread, 0.0005 on average" in said
    # The network's own size is not resized.
    said = describe_rounding(model, exported, image(28, 42))
    assert said.endswith("; one of 28x42 is not") and "predictions" not in said

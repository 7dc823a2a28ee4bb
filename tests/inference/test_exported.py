"""Exported files without torch: by hand on a drawn graph, without what a device lacks, and as the model predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

import finetune
from finetune import runtime
from finetune.commands import export
from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.inference.exported import resize_bilinear
from finetune.models.checkpoints.save import save_native
from finetune.models.resizing import resize_prediction
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import CheckpointError, FinetuneError
from tests.small_models import BASE, INPUT_SIZE, small_model

CANONICAL = TrainingCamera(mode="canonical", focal_px=40.0, seen_px=(30.0, 60.0), max_depth_m=10.0)
# Per channel, so that swapped channels and a missing normalization give other numbers.
PREPROCESSING = Preprocessing(input_size=INPUT_SIZE, mean=(0.0, 0.2, 0.4), std=(0.5, 0.25, 0.2))
WEIGHTS = (1.0, 10.0, 100.0)


def write_graph(path: Path, *, canonical: bool = False, changed: Mapping[str, object] | None = None) -> Path:
    """A file as ours whose output is 1 red + 10 green + 100 blue, of normalized values, times f / f_c if canonical."""
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    shape = [1, 3, *INPUT_SIZE]
    inputs = [helper.make_tensor_value_info("image", number, shape)]
    nodes = [helper.make_node("Conv", ["image", "weights"], ["sum"])]
    constants = [helper.make_tensor("weights", number, [1, 3, 1, 1], WEIGHTS)]
    if canonical:
        inputs.append(helper.make_tensor_value_info("focal_px", number, [1]))
        constants.append(helper.make_tensor("canonical_px", number, [1], [CANONICAL.focal_px]))
        nodes.append(helper.make_node("Div", ["focal_px", "canonical_px"], ["ratio"]))
        nodes.append(helper.make_node("Mul", ["sum", "ratio"], ["depth_m"]))
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["depth_m"]))
    outputs = [helper.make_tensor_value_info("depth_m", number, [1, 1, *INPUT_SIZE])]
    model = helper.make_model(
        helper.make_graph(nodes, "drawn", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    metadata = {
        "kind": "metric",
        "max_depth_m": 10.0,
        "input_size": list(INPUT_SIZE),
        "preprocessing": PREPROCESSING.to_mapping(),
        **({"camera": CANONICAL.to_mapping()} if canonical else {}),
        **(changed or {}),
    }
    helper.set_model_props(model, {name: json.dumps(value) for name, value in metadata.items()})
    onnx.save(model, str(path))
    return path


def color_image(height: int = 56, width: int = 84) -> np.ndarray:
    """One color: 51, 102, 153 are 0.2, 0.4 and 0.6 of 255."""
    return np.full((height, width, 3), (51, 102, 153), np.uint8)


def test_by_hand(tmp_path: Path) -> None:
    model = runtime.load(write_graph(tmp_path / "m.onnx"))
    # Normalized: (0.2 - 0) / 0.5 = 0.4, (0.4 - 0.2) / 0.25 = 0.8, (0.6 - 0.4) / 0.2 = 1.0; 0.4 + 8 + 100 = 108.4.
    depth_m = model.predict(color_image())
    assert (depth_m.shape, depth_m.dtype) == ((56, 84), np.float32)
    np.testing.assert_allclose(depth_m, 108.4, rtol=1e-5)
    assert (model.kind, model.max_depth_m, model.canonical) == ("metric", 10.0, None)
    # A file is read as RGB; OpenCV writes BGR.
    cv2.imwrite(str(tmp_path / "image.png"), color_image()[..., ::-1])
    np.testing.assert_allclose(model.predict(tmp_path / "image.png"), 108.4, rtol=1e-5)
    # Red rises to the right; the mean with the mirrored prediction is the prediction, since each pixel is on its own.
    ramp = color_image(28, 42)
    ramp[..., 0] = np.arange(42) * 6
    np.testing.assert_allclose(model.predict(ramp, flip=True), model.predict(ramp), rtol=1e-6)


def test_a_canonical_file_takes_the_camera(tmp_path: Path) -> None:
    model = runtime.load(write_graph(tmp_path / "m.onnx", canonical=True))
    image = color_image()
    # The network sees half the size: 120 px become 60, 60 / 40 is 1.5 times as far.
    np.testing.assert_allclose(model.predict(image, camera=(120.0, 120.0, 41.5, 27.5)), 1.5 * 108.4, rtol=1e-5)
    camera = Camera(fx_px=100.0, fy_px=140.0, cx_px=41.5, cy_px=27.5)
    np.testing.assert_allclose(model.predict(image, camera=camera), 1.5 * 108.4, rtol=1e-5)
    with pytest.warns(UserWarning, match="the camera of the training is assumed, 40 px"):
        np.testing.assert_allclose(model.predict(image, camera="training"), 108.4, rtol=1e-5)
    with pytest.warns(UserWarning, match="more than 25 % outside of the 30 to 60 px"):
        model.predict(image, camera=(200.0, 200.0, 41.5, 27.5))
    with pytest.raises(ValueError, match=r"m\.onnx predicts meters only with the camera of the image"):
        model.predict(image)


def test_images_that_the_file_does_not_take_are_one_sentence(tmp_path: Path) -> None:
    model = runtime.load(write_graph(tmp_path / "m.onnx"))
    pixels = PREPROCESSING(color_image())[None]
    np.testing.assert_allclose(model.run(pixels), 108.4, rtol=1e-5)
    with pytest.raises(
        FinetuneError, match=r"m\.onnx takes 1 image at a time, and was given 2\. Give it as many, or one"
    ):
        model.run(np.repeat(pixels, 2, axis=0))
    with pytest.raises(FinetuneError, match=r"m\.onnx takes \(B, 3, H, W\) floating, normalized, and was given"):
        model.run(color_image()[None])


def test_a_folder_of_openvino_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(write_graph(tmp_path / "m.onnx", canonical=True))
    for name, value in runtime.load(tmp_path / "m.onnx").metadata.items():
        model.set_rt_info(json.dumps(value), ["finetune", name])
    openvino.save_model(model, tmp_path / "m" / "model.xml", compress_to_fp16=False)
    loaded = runtime.load(tmp_path / "m")
    depth_m = loaded.predict(color_image(), camera=(120.0, 120.0, 41.5, 27.5))
    np.testing.assert_allclose(depth_m, 1.5 * 108.4, rtol=1e-5)
    assert repr(loaded).endswith("metric, max_depth_m=10, input_size=28x42, openvino, INFERENCE_PRECISION_HINT f32)")
    # A file of another program has no metadata of ours; a damaged one is named.
    openvino.save_model(core.read_model(tmp_path / "m.onnx"), tmp_path / "other.xml")
    with pytest.raises(CheckpointError, match=r"other\.xml: does not say how images are prepared"):
        runtime.load(tmp_path / "other.xml")
    (tmp_path / "other.xml").write_text("<net")
    with pytest.raises(CheckpointError, match=r"other\.xml: OpenVINO cannot load it"):
        runtime.load(tmp_path / "other.xml")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FinetuneError, match="openvino is not installed"):
        runtime.load(tmp_path / "m")


def test_what_a_file_cannot_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write_graph(tmp_path / "m.onnx")
    with pytest.raises(FinetuneError, match=r"m\.onnx accepts 28x42 \(height x width\) only, and the image becomes"):
        runtime.load(good).predict(color_image(40, 120))
    with pytest.raises(CheckpointError, match=r"none\.onnx: no such file"):
        runtime.load(tmp_path / "none.onnx")
    with pytest.raises(CheckpointError, match=r"is no \.onnx file and no folder with model\.xml"):
        runtime.load(tmp_path)
    (tmp_path / "cut.onnx").write_bytes(good.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"cut\.onnx: onnxruntime cannot load it"):
        runtime.load(tmp_path / "cut.onnx")
    changes: dict[str, tuple[object, ...]] = {
        "preprocessing": ({}, {**PREPROCESSING.to_mapping(), "std": [0, 0, 0]}),
        "kind": ("depth",),
        "input_size": ([28], None),
        "max_depth_m": (None,),
        "camera": ({},),
    }
    for name, value in ((name, value) for name, values in changes.items() for value in values):
        with pytest.raises(CheckpointError, match=r"does not say how images are prepared for it .*\. Export it again"):
            runtime.load(write_graph(tmp_path / "other.onnx", changed={name: value}))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(FinetuneError, match="onnxruntime is not installed"):
        runtime.load(good)


def test_it_needs_no_torch(tmp_path: Path) -> None:
    write_graph(tmp_path / "m.onnx")
    lacking = ("torch", "torchvision", "PIL", "pydantic", "scipy", "yaml", "safetensors", "timm", "accelerate", "onnx")
    script = (
        f"import sys\nfor name in {lacking}: sys.modules[name] = None\n"
        "from finetune import runtime\nimport numpy as np\n"
        "model = runtime.load(sys.argv[1])\n"
        "print(model.predict(np.full((56, 84, 3), (51, 102, 153), np.uint8)).mean())"
    )
    call = [sys.executable, "-c", script, str(tmp_path / "m.onnx")]
    ran = subprocess.run(call, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) == pytest.approx(108.4, rel=1e-5)


@pytest.mark.parametrize("size", [(240, 320), (28, 42), (1, 1), (7, 1000), (1080, 1919)])
def test_the_resize_is_the_original_one(size: tuple[int, int]) -> None:
    prediction = np.random.default_rng(0).random((28, 42), dtype=np.float32) * 10
    expected = resize_prediction(torch.from_numpy(prediction)[None, None], size)
    np.testing.assert_allclose(resize_bilinear(prediction, size), expected, atol=5e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["metric", "relative", "canonical"])
def test_it_predicts_as_the_model(tmp_path: Path, kind: str) -> None:
    network = small_model(None if kind == "relative" else 10.0)
    network.camera = CANONICAL if kind == "canonical" else None
    metadata = {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "base": BASE}
    save_native(tmp_path / "m.safetensors", network, metadata)
    call = [str(tmp_path / "m.safetensors"), "--to", "onnx", "--output", str(tmp_path / "m.onnx"), "--dynamic"]
    assert export.main(call) == 0
    ours, theirs = finetune.load_model(tmp_path / "m.safetensors"), runtime.load(tmp_path / "m.onnx")
    assert (theirs.kind, theirs.max_depth_m, theirs.canonical) == (ours.kind, ours.max_depth_m, ours.canonical)
    y, x = np.mgrid[0:50, 0:70]
    image = np.stack([x * 3, y * 5, x + y], axis=-1).astype(np.uint8)
    camera = (75.0, 75.0, 34.5, 24.5) if kind == "canonical" else None
    for flip in (False, True):
        expected = ours.predict(image, camera=camera, flip=flip)
        difference = np.abs(theirs.predict(image, camera=camera, flip=flip) - expected).max()
        assert difference <= 1e-3 * np.ptp(expected)

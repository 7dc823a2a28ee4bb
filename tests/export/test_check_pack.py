"""The check pack: its script finds what goes wrong on devices, in every runtime, and says right of what is right."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from finetune.data.preprocessing import Preprocessing
from finetune.export.check_pack import (
    CheckCase,
    check_folder,
    make_check_cases,
    read_check_inputs,
    require_right,
    write_check_pack,
)
from finetune.export.options import ExportOptions
from finetune.export.test_image import draw_dead_leaves
from finetune.inference.predictor import Predictor, load_model
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import ResultError
from tests.conftest import ROOT
from tests.small_models import BASE, small_model, write_model

SIZE = (28, 42)
SCRIPT = ROOT / "finetune" / "export"
MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)
RUNTIMES = ["onnxruntime", "openvino", "tensorrt"]
# One row for the network: depth 10 * sigmoid(w . pixel), so that red, green and blue count differently.
WEIGHTS = np.array([0.7, 0.2, -0.4], np.float32).reshape(1, 3, 1, 1)


def write_engine(path: Path, before: list[Any] = [], after: list[Any] = [], size: tuple[int, int] = SIZE) -> Path:  # noqa: B006
    """The file of a network with nodes before it, from x to y, and after it, from y to z; constants by their value."""
    constants: dict[str, Any] = {"w": WEIGHTS, "top": np.float32(10.0)}
    last = "image"
    nodes = []
    for i, (kind, *values) in enumerate([*before, ("Conv", "w"), ("Sigmoid",), ("Mul", "top"), *after]):
        names = []
        for j, value in enumerate(values):
            names.append(value if isinstance(value, str) else f"c{i}_{j}")
            constants[names[-1]] = constants[value] if isinstance(value, str) else value
        nodes.append(helper.make_node(kind, [last, *names], [f"t{i}"], **({"axis": 1} if kind == "Gather" else {})))
        last = f"t{i}"
    nodes.append(helper.make_node("Identity", [last], ["depth_m"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info("depth_m", TensorProto.FLOAT, [1, 1, *size])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def predict(pixels: np.ndarray) -> np.ndarray:
    """What the network of ``write_engine`` predicts."""
    return 10 / (1 + np.exp(-(WEIGHTS * pixels).sum(1, keepdims=True)))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "m.safetensors"))


@pytest.fixture(scope="module")
def pack(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack for the network of ``write_engine``."""
    folder = tmp_path_factory.mktemp("pack") / "m.check"
    prepare = Preprocessing(input_size=SIZE)
    images = [prepare(draw_dead_leaves(*SIZE, seed))[None] for seed in range(3)]
    cases = [CheckCase({"image": pixels}, predict(pixels)) for pixels in images]
    write_check_pack(folder, cases, predictor, model="m.onnx", precision="float32", input_type="float32")
    return folder


def load_script(folder: Path) -> ModuleType:
    """``check_engine.py`` of a pack, as a module."""
    spec = importlib.util.spec_from_file_location("check_engine_of_pack", folder / "check_engine.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class StubTensorRT(ModuleType):
    """A ``tensorrt`` whose engines are .onnx files, run in onnxruntime at the addresses that it is told."""

    __version__ = "10.14.1"
    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    Logger = type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None})
    Runtime = type("Runtime", (), {
        "__init__": lambda self, logger: None,
        "deserialize_cuda_engine": lambda self, content: StubEngine(content) if content else None,
    })  # fmt: skip

    @staticmethod
    def nptype(dtype: str) -> type:
        return {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[dtype]


class StubEngine:
    def __init__(self, content: bytes) -> None:
        self.session = onnxruntime.InferenceSession(content)
        self.inputs = {tensor.name: tensor for tensor in self.session.get_inputs()}
        self.all = [*self.session.get_outputs(), *self.inputs.values()]  # the output first, as it may be
        self.num_io_tensors = len(self.all)
        self.addresses: dict[str, int] = {}

    def get_tensor_name(self, i: int) -> str:
        return self.all[i].name

    def _find(self, name: str) -> Any:
        return next(tensor for tensor in self.all if tensor.name == name)

    def get_tensor_dtype(self, name: str) -> str:
        return self._find(name).type

    def create_execution_context(self) -> StubEngine:
        return self

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return list(shape) == self.inputs[name].shape

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._find(name).shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def _array(self, name: str) -> np.ndarray:
        shape, dtype = self._find(name).shape, np.dtype(StubTensorRT.nptype(self._find(name).type))
        memory: Any = (ctypes.c_byte * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        (answer,) = self.session.run(None, {name: self._array(name) for name in self.inputs})
        self._array(self.all[0].name)[...] = answer
        return True


@pytest.fixture
def check(
    pack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs the script of a pack on an engine in a runtime: exit status, and all that it printed."""
    held = []

    def call_gpu(name: str, *arguments: Any) -> None:
        assert name in ("cuMemAllocManaged", "cuCtxSynchronize")
        if name == "cuMemAllocManaged":
            address, size, attached = arguments
            held.append(np.zeros(size.value, np.uint8))
            address._obj.value = held[-1].ctypes.data
            assert attached == 1

    def run(engine: Path, runtime: str, folder: Path = pack) -> tuple[int, str]:
        script = load_script(folder)
        if runtime == "tensorrt":
            monkeypatch.setitem(__import__("sys").modules, "tensorrt", StubTensorRT("tensorrt"))
            monkeypatch.setattr(script, "call_gpu", call_gpu)
            engine = engine.rename(engine.with_suffix(".engine"))
        elif runtime == "openvino":
            pytest.importorskip("openvino")
        try:
            status = script.main([str(engine), *(["--runtime", runtime] if runtime == "openvino" else [])])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    yield run


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_sound_one_is_right(runtime: str, check: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    status, said = check(write_engine(tmp_path / "m.onnx"), runtime)
    lines = said.splitlines()
    assert (status, lines[-1]) == (0, "right"), said
    assert re.match(rf".*: {runtime} [0-9.]+.*; expected is m.onnx, float32$", lines[0])
    number = r"[0-9.e+-]+"
    for i, line in enumerate(lines[1:4]):
        pattern = f"image {i + 1}: largest N, median N, near and far half N, N m; N ms; right".replace("N", number)
        assert re.fullmatch(pattern, line), line
    assert runtime != "openvino" or "precision f32" in lines[0]


DENORMALIZED = [("Mul", STD[None]), ("Add", MEAN[None])]
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "swapped channels": ({"before": [("Gather", np.array([2, 1, 0]))]}, "in the median: red and blue are swapped"),
    "no normalization": ({"before": DENORMALIZED}, "normalization is missing: it sees values of 0 to 1"),
    "0 to 255": (
        {"before": [*DENORMALIZED, ("Mul", np.float32(255))]},
        "normalization is missing: it sees values of 0 to 255|saturated",
    ),
    "normalized twice": ({"before": [("Sub", MEAN[None]), ("Div", STD[None])]}, "it normalizes once more"),
    "another size": ({"size": (28, 28)}, r"it does not run on \(1, 3, 28, 42\): .*\b28\b"),
    "another max depth": ({"after": [("Mul", np.float32(8))]}, "8 times what is expected: is its max depth another"),
    "inverse depth": ({"after": [("Pow", np.float32(-1))]}, "inverse depth was taken for depth"),
    "infinite": ({"after": [("Div", np.float32(0))]}, "100.00% is infinite or NaN, as overflow in float16 gives"),
    "not a number": ({"after": [("Mul", np.float32(0)), ("Div", np.float32(0))]}, "100.00% is infinite or NaN"),
    "saturated": ({"after": [("Mul", np.float32(0)), ("Add", np.float32(10))]}, "it is 10 at every pixel"),
    "half saturated": (
        {"after": [("Sub", np.float32(4)), ("Mul", np.float32(9e4)), ("Max", np.float32(0)), ("Min", np.float32(10))]},
        "% of it is at the max depth or beyond: it is saturated",
    ),
    "zeros": ({"after": [("Mul", np.float32(0))]}, "it is 0 at every pixel"),
    "a little off": ({"after": [("Pow", np.float32(1.1))]}, "or more than a tenth of that in the median"),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(
    fault: str, runtime: str, check: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    changes, sentence = FAULTS[fault]
    status, said = check(write_engine(tmp_path / "m.onnx", **changes), runtime)
    assert status == 1, said
    assert len(said.splitlines()) == 5
    assert re.search(f"^wrong: .*({sentence})", said.splitlines()[-1]), said


def test_versions_known_to_be_wrong_are_named(
    check: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, named in (
        ("8.6.1", False),
        ("10.3.0", True),
        ("10.13.3.9", True),
        ("10.14.1", False),
        ("11.4", False),
    ):
        monkeypatch.setattr(StubTensorRT, "__version__", version)
        _, said = check(write_engine(tmp_path / "m.onnx"), "tensorrt")
        assert ("WARNING: 10.3 (JetPack 6.2) is known to answer wrong" in said) == named, version


def test_what_cannot_run_is_one_sentence(
    check: Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(tmp_path / "no.onnx", "onnxruntime")[0] == 2
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    for runtime in ("onnxruntime", "openvino"):
        status, said = check(broken, runtime)
        assert (status, said.count("\n")) == (2, 1)
        assert f"{broken} cannot be loaded by {runtime}: " in said
    (tmp_path / "empty.onnx").touch()
    status, said = check(tmp_path / "empty.onnx", "tensorrt")
    assert (status, said.count("\n")) == (2, 1) and "engines alone that its own version built" in said
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    engine = write_engine(tmp_path / "m.onnx")
    assert check(engine, "onnxruntime") == (2, f"{engine} needs the package onnxruntime, which is not installed here\n")


def test_a_device_that_is_not_used_is_an_error(pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    engine = str(write_engine(tmp_path / "m.onnx"))
    for arguments, sentence in (
        # onnxruntime takes the CPU instead, and says nothing.
        (["--device", "XExecutionProvider"], "--device XExecutionProvider does not work here; onnxruntime knows "),
        (["--device", "cpu"], "--device cpu does not work here; onnxruntime knows "),
        (["--runtime", "openvino", "--device", "X"], "cannot be loaded by openvino: "),
        (["--runtime", "tensorrt", "--device", "1"], "it has no --device 1; choose the GPU by CUDA_VISIBLE_DEVICES"),
    ):
        with pytest.raises(SystemExit) as stopped:
            load_script(pack).main([engine, *arguments])
        said = capsys.readouterr().err
        assert (stopped.value.code, said.count("\n")) == (2, 1)
        assert sentence in said
    assert load_script(pack).main([engine, "--device", "CPUExecutionProvider"]) == 0
    assert load_script(pack).main([engine, "--runtime", "openvino", "--device", "AUTO"]) == 0
    # The device that it runs on, and not the one that was asked for.
    assert re.search(r": openvino [^,]+, \(?CPU\)?, precision \w+; expected is", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("kind", "scaled", "inverted"),
    [
        ("metric", "is its max depth another one?", "inverse depth was taken for depth"),
        ("canonical", "is its max depth another one, or focal_px not used?", "inverse depth was taken for depth"),
        ("relative", "is it another model?", "depth was taken for inverse depth"),
    ],
)
def test_each_kind_of_model_has_hints_of_its_own(kind: str, scaled: str, inverted: str, tmp_path: Path) -> None:
    network = small_model(None if kind == "relative" else 10.0)
    if kind == "canonical":
        network.camera = TrainingCamera(mode="canonical", focal_px=40.0, seen_px=(30.0, 60.0), max_depth_m=10.0)
    metadata = {"preprocessing": Preprocessing(input_size=SIZE).to_mapping(), "base": BASE}
    save_native(tmp_path / "m.safetensors", network, metadata)
    expected = predict(Preprocessing(input_size=SIZE)(draw_dead_leaves(*SIZE))[None])
    cases = [CheckCase({"image": np.zeros((1, 3, *SIZE), np.float32)}, expected)]
    folder, model = tmp_path / "m.check", load_model(tmp_path / "m.safetensors")
    write_check_pack(folder, cases, model, model="m", precision="float32", input_type="float32")
    with np.load(folder / "check.npz") as written:
        about = json.loads(str(written["about"]))
    script = load_script(folder)
    words, fault = script.judge_answer(8 * expected, expected, about)
    assert fault == f"all of it is 8 times what is expected: {scaled}"
    assert words.endswith(" of inverse depth" if kind == "relative" else " m")
    assert script.judge_answer(5 / expected, expected, about)[1] == f"what is near is far in it: {inverted}"
    assert script.judge_answer(expected, expected, about)[1] == ""


def test_the_script_is_short_and_needs_only_numpy(pack: Path) -> None:
    script = (pack / "check_engine.py").read_text()
    assert len(script.splitlines()) < 150
    imported = set(re.findall(r"^ *(?:import|from) (\w+)", script, re.MULTILINE))
    assert imported == {"argparse", "ctypes", "importlib", "json", "os", "timeit", "pathlib", "typing", "numpy"}


def test_the_pack_says_what_it_holds(predictor: Predictor, tmp_path: Path) -> None:
    options = ExportOptions(image_size=(40, 60), batch=2)
    cases = make_check_cases(predictor, draw_dead_leaves(40, 60), options)
    write_check_pack(
        tmp_path / "m.check", cases, predictor, model="m", precision="float16", input_type="float32", tolerance=0.01
    )
    with np.load(tmp_path / "m.check" / "check.npz") as pack:
        about = json.loads(str(pack["about"]))
        assert about["sizes"] == [[2, 3, 28, 42]] * 3
        assert (about["max_depth_m"], about["tolerance"], about["images"], about["unit"]) == (10.0, 0.01, 3, "m")
        expected = [pack[f"expected_{i}"] for i in range(3)]
    own = predictor.predict(draw_dead_leaves(40, 60))
    assert np.ptp(expected[0][0]) > 0.5 * np.ptp(own)
    # The second of the first batch is the first of the second, so that an export that mixes them up is found.
    np.testing.assert_allclose(expected[0][1], expected[1][0], atol=1e-5)
    assert np.abs(expected[0][0] - expected[0][1]).max() > 0.1 * np.ptp(own)


def test_uint8_and_other_sizes_are_prepared_as_the_network_needs(predictor: Predictor) -> None:
    image = draw_dead_leaves(56, 84)
    dynamic = make_check_cases(predictor, image, ExportOptions(image_size=(56, 84), dynamic=True))
    assert [case.inputs["image"].shape for case in dynamic] == [(1, 3, 28, 42), (1, 3, 112, 112), (1, 3, 182, 126)]
    raw = make_check_cases(predictor, image, ExportOptions(image_size=(56, 84), input_type="uint8"))[0]
    assert (raw.inputs["image"].shape, raw.inputs["image"].dtype) == ((1, 28, 42, 3), np.uint8)
    np.testing.assert_allclose(predictor.predict(raw.inputs["image"][0]), raw.expected[0, 0], atol=1e-5)
    whole = make_check_cases(predictor, image, ExportOptions(image_size=(56, 84), input_type="uint8", resize=True))[0]
    np.testing.assert_array_equal(whole.inputs["image"][0], image)
    np.testing.assert_array_equal(whole.expected[0, 0], predictor.predict(image))


def test_an_export_that_its_own_pack_calls_wrong_is_refused(pack: Path, tmp_path: Path) -> None:
    answers = [predict(inputs["image"]) for inputs in read_check_inputs(pack)]
    require_right(pack, answers, tmp_path / "m.onnx")
    wrong = [answers[0], 8 * answers[1], answers[2]]
    for precision, fix in (("float32", "report it with this line"), ("float16", "export it with --precision mixed")):
        with pytest.raises(ResultError, match=rf"on image 2 of its check pack it is wrong: all of it is 8 .*; {fix}\."):
            require_right(pack, wrong, tmp_path / "m.onnx", precision)


def test_the_pack_is_next_to_its_export(tmp_path: Path) -> None:
    assert check_folder(tmp_path / "room.v2.onnx", ".onnx") == tmp_path / "room.v2.check"
    assert check_folder(tmp_path / "room.v2", "") == tmp_path / "room.v2.check"


def test_channels_of_raw_images_are_told_too() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3)).astype(np.uint8)
    expected = (1.0 + frame[..., 2] / 100.0)[:, None].astype(np.float32)
    about = {"input": "uint8", "unit": "m", "tolerance": 1e-3, "max_depth_m": 10.0}
    about |= {"mean": MEAN.ravel().tolist(), "std": STD.ravel().tolist()}
    script = load_script(SCRIPT)

    def swapped(given: dict[str, np.ndarray]) -> np.ndarray:
        return (1.0 + given["image"][..., 0] / 100.0)[:, None].astype(np.float32)

    assert script.judge_answer(swapped({"image": frame}), expected, about)[1].startswith("more than")
    assert script.find_cause(swapped, {"image": frame}, expected, about) == ": red and blue are swapped"


def test_without_its_numbers_the_script_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = write_engine(tmp_path / "m.onnx")
    (tmp_path / "alone").mkdir()
    shutil.copy(SCRIPT / "check_engine.py", tmp_path / "alone")
    with pytest.raises(SystemExit) as stop:
        load_script(tmp_path / "alone").main([str(engine)])
    assert stop.value.code == 2
    assert "check.npz" in capsys.readouterr().err

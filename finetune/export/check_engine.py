"""Check, on the device, that an engine predicts what the exported model did: python check_engine.py ENGINE

ENGINE is a TensorRT engine (.engine, .plan, .trt), an .onnx file (onnxruntime, or --runtime openvino), or an .xml file
of OpenVINO. This needs numpy, that runtime, and check.npz next to it. Exit status: 0 right, 1 wrong, 2 it did not run.
"""

import argparse
import ctypes
import importlib
import json
import os
import timeit
from pathlib import Path
from typing import Any

try:
    import numpy as np
except ImportError:
    raise SystemExit("check_engine.py needs the package numpy, which is not installed here") from None

RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino", ".engine": "tensorrt", ".plan": "tensorrt", ".trt": "tensorrt"}
DOUBTFUL = "10.3 (JetPack 6.2) is known to answer wrong for this network, 10.14 to answer right"


def call_gpu(name: str, *arguments: Any) -> None:  # of its driver: no package for CUDA is needed
    if code := getattr(ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1"), name)(*arguments):
        raise RuntimeError(f"{name} of the GPU's driver failed with code {code}")


def open_tensorrt(path: Path) -> Any:
    trt = importlib.import_module("tensorrt")
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RuntimeError("it takes engines alone that its own version built on such a GPU")
    context, arrays = engine.create_execution_context(), {}
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]

    def run(inputs: Any) -> Any:
        for name in sorted(names, key=lambda name: name not in inputs):  # their shapes decide that of the output
            if name in inputs and not context.set_input_shape(name, inputs[name].shape):
                raise RuntimeError(f"the engine was not built for {name} of shape {inputs[name].shape}")
            key = (name, tuple(context.get_tensor_shape(name)), trt.nptype(engine.get_tensor_dtype(name)))
            if key not in arrays:  # in memory that the processor and the GPU share
                address, size = ctypes.c_uint64(), int(np.prod(key[1])) * np.dtype(key[2]).itemsize
                call_gpu("cuMemAllocManaged", ctypes.byref(address), ctypes.c_size_t(size), 1)
                arrays[key] = np.frombuffer((ctypes.c_byte * size).from_address(address.value), key[2]).reshape(key[1])
            arrays[key][...] = inputs.get(name, 0)
            context.set_tensor_address(name, arrays[key].ctypes.data)
        if not context.execute_async_v3(0):
            raise RuntimeError("it did not run; its messages are above")
        call_gpu("cuCtxSynchronize")
        return arrays[key].copy()

    doubtful = (10, 3) <= tuple(int(part) for part in trt.__version__.split(".")[:2]) < (10, 14)
    return f"tensorrt {trt.__version__}{' (WARNING: ' + DOUBTFUL + ')' if doubtful else ''}", run


def open_engine(runtime: str, path: Path, device: str) -> Any:
    """Runtime and version in words, and what turns inputs by name into the answer."""
    if runtime == "tensorrt" and device == "auto":
        return open_tensorrt(path)
    if runtime == "tensorrt":
        raise RuntimeError(f"it has no --device {device}; choose the GPU by CUDA_VISIBLE_DEVICES")
    if runtime == "onnxruntime":
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import
        ort = importlib.import_module("onnxruntime")
        known, wanted = ort.get_available_providers(), [device, "CUDAExecutionProvider", "CPUExecutionProvider"]
        session = ort.InferenceSession(str(path), providers=[i for i in dict.fromkeys(wanted) if i in known])
        if device not in ("auto", session.get_providers()[0]):  # it takes the next one and says nothing
            raise RuntimeError(f"--device {device} does not work here; onnxruntime knows {', '.join(known)}")
        return f"onnxruntime {ort.__version__}, {session.get_providers()[0]}", lambda given: session.run(None, given)[0]
    openvino, hint = importlib.import_module("openvino"), "INFERENCE_PRECISION_HINT"  # else bfloat16, in silence
    model = openvino.Core().compile_model(str(path), "CPU" if device == "auto" else device, {hint: "f32"})
    name = ", ".join((f"openvino {openvino.__version__}", *model.get_property("EXECUTION_DEVICES")))
    said = model.get_property(hint).to_string() if hint in model.get_property("SUPPORTED_PROPERTIES") else "unknown"
    return f"{name}, precision {said}", lambda given: model(given)[model.output(0)]


def judge_answer(answer: Any, expected: Any, about: Any) -> Any:
    """The differences in words, and what is wrong with the answer; "" if it is right."""
    if answer.shape != expected.shape:
        return "no difference", f"its shape is {answer.shape}, expected is {expected.shape}"
    answer, expected, unit = answer.astype(np.float64), expected.astype(np.float64), about["unit"]
    if not np.isfinite(answer).all():
        return "no difference", f"{np.mean(~np.isfinite(answer)):.2%} is infinite or NaN, as overflow in float16 gives"
    difference, near = np.abs(answer - expected), (expected <= np.median(expected)) == (unit == "m")
    halves = ", ".join(f"{difference[half].mean():.4g}" for half in (near, ~near) if half.any())
    words = f"largest {difference.max():.4g}, median {np.median(difference):.4g}, near and far half {halves} {unit}"
    allowed, top = about["tolerance"] * np.ptp(expected), 0.999 * (about["max_depth_m"] or np.inf)
    if np.ptp(answer) == 0:
        return words, f"it is {answer.flat[0]:g} at every pixel"
    if difference.max() <= allowed and np.median(difference) <= allowed / 10:
        return words, ""
    ratio = answer / np.where(expected > 0, expected, 1)
    if np.percentile(np.abs(ratio / (np.median(ratio) or 1) - 1), 95) <= 0.01:
        return words, f"all of it is {np.median(ratio):.4g} times what is expected: {about['if_scaled']}"
    if np.mean(answer >= top) > np.mean(expected >= top) + 0.2:
        return words, f"{np.mean(answer >= top):.0%} of it is at the max depth or beyond: it is saturated"
    if np.corrcoef(answer.ravel(), expected.ravel())[0, 1] < -0.3:
        return words, f"what is near is far in it: {about['if_inverted']}"
    return words, f"more than {allowed:.4g} {unit} off, or more than a tenth of that in the median"


def find_cause(run: Any, inputs: Any, expected: Any, about: Any) -> str:
    """The mistake in preparing images that explains a wrong answer: made up for, the answer is right."""
    image, mean, std = inputs["image"], *(np.float32(about[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    changed = {"red and blue are swapped": image[..., ::-1] if about["input"] == "uint8" else image[:, ::-1]}
    if about["input"] != "uint8":
        changed["it normalizes once more"] = image * std + mean
        changed["normalization is missing: it sees values of 0 to 1"] = (image - mean) / std
        changed["normalization is missing: it sees values of 0 to 255"] = (image / 255 - mean) / std
    runs = ((cause, run({**inputs, "image": np.ascontiguousarray(i, image.dtype)})) for cause, i in changed.items())
    return next((f": {cause}" for cause, answer in runs if not judge_answer(answer, expected, about)[1]), "")


def main(argv: Any = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", type=Path)
    parser.add_argument("--runtime", choices=sorted(set(RUNTIMES.values())))
    parser.add_argument("--device", default="auto", help="a provider of onnxruntime, or a device of OpenVINO")
    asked = parser.parse_args(argv)
    runtime = asked.runtime or RUNTIMES.get(asked.engine.suffix, "openvino")
    try:
        asked.engine.stat()  # a missing file is told by its name
        pack, faults = np.load(Path(__file__).with_name("check.npz")), []
        about = json.loads(str(pack["about"]))
        name, run = open_engine(runtime, asked.engine, asked.device)
    except Exception as error:  # noqa: BLE001
        absent = isinstance(error, ImportError) and f"needs the package {error.name}, which is not installed here"
        reason = absent or f"cannot be loaded by {runtime}: {error}"
        parser.exit(2, " ".join(f"{asked.engine} {reason}".split()) + "\n")
    print(f"{asked.engine}: {name}; expected is {about['model']}, {about['precision']}")
    for i in range(about["images"]):
        inputs, expected, took_s = {name: pack[f"{name}_{i}"] for name in about["inputs"]}, pack[f"expected_{i}"], [0.0]
        try:
            words, fault = judge_answer(run(inputs), expected, about)
            fault += find_cause(run, inputs, expected, about) if fault.startswith("more") else ""
            took_s = timeit.repeat("run(inputs)", globals={"run": run, "inputs": inputs}, number=1, repeat=5)
        except Exception as error:  # noqa: BLE001
            words, fault = "no answer", f"it does not run on {inputs['image'].shape}: {' '.join(str(error).split())}"
        faults += [fault] if fault else []
        print(f"image {i + 1}: {words}; {1e3 * np.median(took_s):.1f} ms; {'wrong: ' + fault if fault else 'right'}")
    print(f"wrong: {faults[0]}" if faults else "right")
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())

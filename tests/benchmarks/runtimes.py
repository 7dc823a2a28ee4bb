"""What a runtime takes and costs: time, size, and on ``data/room`` the difference in meters and AbsRel.

    python -m finetune train recipes/room_tiny.yaml
    python -m tests.benchmarks.runtimes [--model runs/room_tiny] [--rounds 5] [--threads 2] [--keep FOLDER]

**Time and size**: vits at 518x686, batch 1, two threads, with drawn weights, which take as long as trained ones. One
image in turn through each, the fastest of ``--rounds``, relative to PyTorch; the largest ratio of two rounds says how
busy the machine was. INT8 is quantized by two drawn images, as ranges change no time. **Meters**: the model of
``--model``, exported by the same code, on the validation frames of ``recipes/room_tiny.yaml``: the largest and the mean
difference from PyTorch in float32, and AbsRel. Prints the table as Markdown. What is finished in the folder ``--keep``
is not measured again.

Exits 1 where OpenVINO in float32 is slower than onnxruntime in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.commands.runner import configure_threading

ROOT = Path(__file__).resolve().parents[2]
SIZE = (518, 686)
PYTORCH, ONNX, ONNX_INT8 = "PyTorch float32", "onnxruntime float32", "onnxruntime int8"
OPENVINO, OPENVINO_BF16, OPENVINO_INT8 = "OpenVINO float32", "OpenVINO bfloat16", "OpenVINO int8"
# Name of the row -> name of the number -> the number.
Table = dict[str, dict[str, float]]
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Runtime:
    """How one row predicts, (1, 3, H, W) -> (1, 1, H, W), and how large its files are."""

    run: Run
    megabytes: float


def write_runtimes(
    predictor: Any, folder: Path, images: Sequence[NDArray[np.float32]], threads: int
) -> dict[str, Runtime]:
    """
    Args:
        predictor: the model.
        folder: for the files, empty.
        images: normalized, of one size, that the ranges of INT8 are taken from.
        threads: of every runtime.

    Returns:
        Name of the row -> the runtime; without bfloat16 where the processor has none.
    """
    import torch

    from finetune.export.int8_onnx import OnnxQuantizer, read_modules
    from finetune.export.int8_openvino import OpenVinoQuantizer
    from finetune.export.onnx import Onnx
    from finetune.export.options import ExportOptions
    from finetune.inference.exported import IMAGE, OPENVINO_FILE, OnnxEngine, import_openvino

    folder.mkdir(parents=True)
    exporter = Onnx(ExportOptions(image_size=(images[0].shape[2], images[0].shape[3])))
    exporter.write_graph(predictor, folder / "float32.onnx")
    inputs = [{IMAGE: image} for image in images]
    quantizer = OnnxQuantizer(folder / "float32.onnx", folder / "int8.onnx")
    quantizer.quantize(inputs, ())
    openvino = import_openvino()
    core = openvino.Core()
    graph = core.read_model(folder / "float32.onnx")
    of_int8 = OpenVinoQuantizer(graph, read_modules(folder / "float32.onnx"))
    of_int8.quantize(inputs, ())
    graphs = {"float32": graph, "int8": of_int8.model}
    for name, model in graphs.items():
        openvino.save_model(model, folder / name / OPENVINO_FILE, compress_to_fp16=False)

    def by_onnx(name: str) -> Runtime:
        engine = OnnxEngine(folder / name, threads)
        return Runtime(lambda pixels: engine.run({IMAGE: pixels}), _megabytes(folder / name))

    def by_openvino(name: str, precision: str) -> Runtime:
        wanted = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = core.compile_model(folder / name / OPENVINO_FILE, "CPU", wanted)
        return Runtime(lambda pixels: np.array(compiled({IMAGE: pixels})[0]), _megabytes(folder / name))

    weights = sum(tensor.nbytes for tensor in predictor.network.state_dict().values()) / 1e6
    found = {
        PYTORCH: Runtime(lambda pixels: np.asarray(predictor(torch.from_numpy(pixels))), weights),
        ONNX: by_onnx("float32.onnx"),
        ONNX_INT8: by_onnx("int8.onnx"),
        OPENVINO: by_openvino("float32", "f32"),
    }
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        found[OPENVINO_BF16] = by_openvino("float32", "bf16")
    return {**found, OPENVINO_INT8: by_openvino("int8", "f32")}


def _megabytes(path: Path) -> float:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6


def time_vits(folder: Path, rounds: int, threads: int) -> Table:
    """Of each row: ``ms`` and ``megabytes``."""
    from finetune.data.preprocessing import Preprocessing
    from finetune.export.speed import time_in_turn
    from finetune.inference.predictor import Predictor
    from tests.drawn_weights import drawn_image, drawn_model

    network = drawn_model("vits", max_depth_m=10.0)
    predictor = Predictor(
        network=network,
        preprocessing=Preprocessing(input_size=SIZE),
        source="vits with drawn weights",
        base={"source": None, "sha256": None, "license": None},
        metadata={},
        notes=(),
    )
    pixels = drawn_image(*SIZE).numpy()
    runtimes = write_runtimes(predictor, folder, [pixels, pixels[..., ::-1].copy()], threads)
    times_ms = time_in_turn({name: _call(runtime, pixels) for name, runtime in runtimes.items()}, rounds)
    return {name: {"ms": times_ms[name], "megabytes": runtime.megabytes} for name, runtime in runtimes.items()}


def _call(runtime: Runtime, pixels: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: runtime.run(pixels)


def compare_meters(model: str, folder: Path, threads: int) -> Table:
    """Of each row, on the frames of ``data/room``: ``largest`` and ``mean`` difference, meters, and ``abs_rel``."""
    import torch
    from accelerate import Accelerator

    from finetune.evaluation.evaluator import PredictionRequest, evaluate
    from finetune.inference.predictor import load_model
    from finetune.models.resizing import resize_prediction
    from finetune.recipe.load import load_recipe
    from finetune.training.int8_data import read_int8_data

    os.chdir(ROOT)
    predictor = load_model(model)
    data = read_int8_data(load_recipe("recipes/room_tiny.yaml"), "room_tiny", predictor, 0.0, ())
    images = [predictor.preprocessing(reader[i].image)[None] for reader in data.train for i in range(len(reader))]
    runtimes = write_runtimes(predictor, folder, images, threads)
    frames = [data.val[i] for i in range(len(data.val))]
    expected = [runtimes[PYTORCH].run(frame.image.numpy()) for frame in frames]

    def predict_by(run: Run) -> Callable[[Sequence[PredictionRequest]], list[NDArray[np.floating]]]:
        return lambda requests: [
            resize_prediction(torch.from_numpy(run(request.image.numpy())), request.size) for request in requests
        ]

    rows = {name: predict_by(runtime.run) for name, runtime in runtimes.items()}
    (scores,) = evaluate(Accelerator(cpu=True), data.val, rows, [data.protocol], workers=0)
    found = {}
    for name, runtime in runtimes.items():
        off = [np.abs(runtime.run(frame.image.numpy()) - own) for frame, own in zip(frames, expected, strict=True)]
        largest, mean = max(float(one.max()) for one in off), float(np.mean([one.mean() for one in off]))
        found[name] = {"largest": largest, "mean": mean, "abs_rel": scores.rows[name]["abs_rel"]}
    return found


def recall(path: Path, measure: Callable[[], Table]) -> Table:
    """What is in a file, or what is measured now and written to it."""
    if not path.exists():
        path.write_text(json.dumps(measure()))
    found: Table = json.loads(path.read_text())
    return found


def format_table(vits: Table, meters: Table) -> str:
    """Markdown."""
    lines = [
        "| runtime | time | MB | largest difference, mm | mean, mm | AbsRel |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in vits.items():
        off = meters[name]
        slower = " (slower than onnxruntime)" if name == OPENVINO and row["ms"] > vits[ONNX]["ms"] else ""
        lines.append(
            f"| {name}{slower} | {row['ms'] / vits[PYTORCH]['ms']:.2f} | {row['megabytes']:.0f} | "
            f"{1000 * off['largest']:.3g} | {1000 * off['mean']:.2g} | {off['abs_rel']:.4f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 1 where OpenVINO is the slower one in float32."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/room_tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    configure_threading()
    import torch

    torch.set_num_threads(arguments.threads)
    model = str(Path(arguments.model).resolve()) if Path(arguments.model).exists() else arguments.model
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(arguments.keep or folder)
        kept.mkdir(parents=True, exist_ok=True)
        meters = recall(kept / "meters.json", lambda: compare_meters(model, Path(folder, "room"), arguments.threads))
        vits = recall(kept / "vits.json", lambda: time_vits(Path(folder, "vits"), arguments.rounds, arguments.threads))
    times_ms = {name: row["ms"] for name, row in vits.items()}
    print(f"PyTorch took {times_ms[PYTORCH]:.0f} ms for vits at {SIZE[0]}x{SIZE[1]}, {arguments.threads} threads\n")
    print(format_table(vits, meters))
    return int(times_ms[OPENVINO] > times_ms[ONNX])


if __name__ == "__main__":
    sys.exit(main())

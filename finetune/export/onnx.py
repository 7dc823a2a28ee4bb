"""Write an ``.onnx`` file, for runtimes without PyTorch: for one input size, or for all multiples of 14."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.base import Exporter, PredictImage
from finetune.export.check_pack import (
    CheckCase,
    check_folder,
    make_check_cases,
    read_check_inputs,
    require_right,
    write_check_pack,
)
from finetune.export.comparison import Comparison
from finetune.export.folding import FOR_CAMERA
from finetune.export.options import Precision
from finetune.inference.exported import Engine, OnnxEngine, import_onnxruntime
from finetune.models.encoder_specs import PATCH
from finetune.utils.errors import FinetuneError, ResultError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.export.int8 import Quantizer
    from finetune.inference.predictor import Predictor

OPSET = 18
INPUT, FOCAL = "image", "focal_px"
# At a focal length so many times that of the canonical camera a canonical file is compared as well.
_OTHER_LENS = 1.5
# Sizes in patches at which a file for any size is compared as well as at that of the image.
_SIZES = ((8, 8), (6, 15), (13, 9))
_MAX_BYTES = 2_000_000_000  # protobuf, the format of the file, counts in 31 bits


class Onnx(Exporter):
    """Input ``image``, (1, 3, H, W), normalized; output ``depth_m`` or ``inverse_depth``.

    A canonical model has a second input ``focal_px``, (1,): (fx + fy) / 2 of the camera at H x W, pixels.

    Metadata, each as JSON: ``kind``, ``max_depth_m``, ``input_size`` (height and width, or ``any`` for all multiples of
    14), ``mean``, ``std``, ``opset``, ``encoder``, ``license``,
    and of a canonical model ``camera``.
    """

    suffix = ".onnx"
    limit = 1e-3
    holds_camera = True
    precisions: tuple[Precision, ...] = ("float32", "int8")
    takes = frozenset({"dynamic"})
    _judged: Sequence[str] = ()

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """
        Raises:
            FinetuneError: the libraries that write and run such a file are not installed.
        """
        missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
        if missing:
            raise FinetuneError(f"format onnx needs {', '.join(missing)}. Install them: pip install -e '.[onnx]'.")

    def targets(self, output: Path) -> list[Path]:
        """The check pack, and the file."""
        return [check_folder(output, self.suffix), output]

    def write(self, predictor: Predictor, output: Path) -> None:
        """The file by PyTorch's exporter, and its check pack."""
        self.write_graph(predictor, output)
        if self.options.precision == "int8":
            self._quantize_file(predictor, output)
        self.write_check(predictor, output)

    def make_check(self, predictor: Predictor) -> list[CheckCase]:
        """The cases of the check pack."""
        assert self.image is not None
        return make_check_cases(predictor, self.image, self.options)

    def write_check(self, predictor: Predictor, output: Path) -> None:
        """The check pack of what is written at ``output``. INT8, which was accepted, is checked against itself."""
        cases = self.make_check(predictor)
        if self.options.precision == "int8":
            own = self.open(output)
            cases = [CheckCase(case.inputs, own.run_inputs(case.inputs)) for case in cases]
        folder = check_folder(output, self.suffix)
        write_check_pack(folder, cases, predictor, model=output.name, precision=self.options.precision)

    def judge(self, quantizer: Quantizer, predictor: Predictor) -> None:
        """
        Raises:
            ResultError: what the quantizer makes costs more than is allowed.
        """
        from finetune.export.int8 import quantize_and_judge

        assert self.options.int8 is not None
        size = None if self.options.dynamic else self._network_size(predictor)
        self._judged = quantize_and_judge(quantizer, predictor, self.options.int8, size)

    def _quantize_file(self, predictor: Predictor, output: Path) -> None:
        """Replace a float32 file by an INT8 file that was accepted."""
        from finetune.export.int8_onnx import OnnxQuantizer

        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".float32-") as folder:
            source = Path(folder, "model.onnx")
            output.replace(source)
            self.judge(OnnxQuantizer(source, output), predictor)

    def write_graph(self, predictor: Predictor, output: Path) -> None:
        """The position embedding is a constant or, for any size, computed in the graph."""
        import onnx
        import torch

        import_onnxruntime()  # without telemetry, before torch's exporter imports it

        from finetune.models.onnx_graph import TracedNetwork

        network = predictor.network
        size = sum(tensor.nbytes for tensor in network.state_dict().values())
        if size > _MAX_BYTES:
            raise FinetuneError(
                f"{predictor.source}: {size / 1e9:.1f} GB of weights do not fit into one .onnx file. Export a smaller "
                "encoder, or to official."
            )
        height, width = self._network_size(predictor)
        canonical = predictor.canonical
        traced = TracedNetwork(network, None if self.options.dynamic else (height, width)).eval()
        given = (torch.zeros(1, 3, height, width), *([torch.tensor([canonical.focal_px])] if canonical else []))
        shapes: dict[str, dict[int, object] | None] | None = None
        if self.options.dynamic:
            rows, columns = (torch.export.Dim(name, min=2, max=300) for name in ("rows", "columns"))
            shapes = {"image": {2: PATCH * rows, 3: PATCH * columns}, **({FOCAL: None} if canonical else {})}
        with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "torch.export"):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                traced,
                given,
                str(output),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT, FOCAL][: len(given)],
                output_names=[output_name(predictor.kind)],
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
        model = onnx.load(str(output))
        onnx.checker.check_model(model)
        onnx.helper.set_model_props(
            model, {name: json.dumps(value) for name, value in self._make_metadata(predictor).items()}
        )
        onnx.save(model, str(output))

    def read(self, output: Path, device: str) -> PredictImage:
        """Run the file alone in onnxruntime, on the CPU."""
        return self.open(output)

    def open(self, output: Path) -> OnnxPredictor:
        """What is written at ``output``, as its users load it."""
        return OnnxPredictor(output)

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """For a file that accepts any size, compare three more sizes on the same image."""
        prediction = self.open(output)
        folder = check_folder(output, self.suffix)
        answers = [prediction.run_inputs(inputs) for inputs in read_check_inputs(folder)]
        require_right(folder, answers, comparison.output)
        judged = [f"{comparison.output}: {sentence}" for sentence in self._judged]
        of_lens = self._compare_lens(predictor, prediction, image, comparison)
        if not self.options.dynamic:
            height, width = self._network_size(predictor)
            only = f"{comparison.output}: accepts normalized images of {height}x{width} (height x width) only"
            return [only, *of_lens, *judged]
        found = []
        focal_px = predictor.canonical.focal_px if predictor.canonical else None
        for rows, columns in _SIZES:
            pixels = prediction.normalize(image, (rows * PATCH, columns * PATCH))
            ours = predictor(_to_tensor(pixels), focal_px).numpy()
            share = float(np.abs(prediction.run(pixels, focal_px) - ours).max() / max(float(np.ptp(ours)), 1e-12))
            if not share <= self.allowed:
                raise ResultError(
                    f"{comparison.output}: at {rows * PATCH}x{columns * PATCH} it is {share:.2g} of the spread off, "
                    f"more than {self.allowed:g}. It was not kept; export it for one size, without --dynamic."
                )
            found.append(f"{rows * PATCH}x{columns * PATCH} {share:.1g}")
        differences = ", ".join(found)
        return [
            f"{comparison.output}: accepts all multiples of {PATCH}; largest difference, as a share of the spread: "
            f"{differences}",
            *of_lens,
            *judged,
        ]

    def _compare_lens(
        self, predictor: Predictor, prediction: OnnxPredictor, image: NDArray[np.uint8], comparison: Comparison
    ) -> list[str]:
        """
        A sentence about the input ``focal_px``; none where there is no such input.

        Raises:
            ResultError: with another focal length the file is more than the limit off.
        """
        if predictor.canonical is None:
            return []
        pixels = prediction.normalize(image, self._network_size(predictor))
        focal_px = _OTHER_LENS * predictor.canonical.focal_px
        ours = predictor(_to_tensor(pixels), focal_px).numpy()
        share = float(np.abs(prediction.run(pixels, focal_px) - ours).max() / max(float(np.ptp(ours)), 1e-12))
        if not share <= self.allowed:
            raise ResultError(
                f"{comparison.output}: with focal_px {focal_px:.0f} it is {share:.2g} of the spread off, more than "
                f"{self.allowed:g}. It was not kept; export it for one camera, with --for-camera."
            )
        return [
            f"{comparison.output}: the input {FOCAL} is (fx + fy) / 2 of the camera at the size of the input {INPUT}, "
            f"in pixels; with {focal_px:.0f} px the largest difference is {share:.1g} of the spread"
        ]

    def _network_size(self, predictor: Predictor) -> tuple[int, int]:
        return predictor.preprocessing.network_size(*self.options.image_size)

    def _make_metadata(self, predictor: Predictor) -> dict[str, object]:
        preprocessing = predictor.preprocessing
        return {
            "kind": predictor.kind,
            "max_depth_m": predictor.max_depth_m,
            "input_size": "any" if self.options.dynamic else list(self._network_size(predictor)),
            "preprocessing": preprocessing.to_mapping(),
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "opset": OPSET,
            "encoder": predictor.network.encoder_name,
            "license": predictor.base.get("license"),
            **({"camera": predictor.canonical.to_mapping()} if predictor.canonical else {}),
            **({FOR_CAMERA: predictor.metadata[FOR_CAMERA]} if FOR_CAMERA in predictor.metadata else {}),
        }


def output_name(kind: Kind) -> str:
    """The name of the output, which says its unit."""
    return "depth_m" if kind == "metric" else "inverse_depth"


class OnnxPredictor:
    """An exported graph in its runtime. It is called with an image, and predicts as ``Predictor.predict`` does."""

    def __init__(self, path: Path, open_engine: Callable[[Path], Engine] = OnnxEngine) -> None:
        from finetune.data.preprocessing import Preprocessing

        self._engine = open_engine(path)
        self.metadata = self._engine.metadata
        self._preprocessing = Preprocessing.from_mapping(self.metadata["preprocessing"])

    def __call__(self, image: NDArray[np.uint8], focal_px: float | None = None) -> NDArray[np.float32]:
        """(H, W, 3) uint8 RGB -> (H, W) float32; ``focal_px`` as for ``run``, None for that of the canonical camera."""
        from finetune.models.resizing import resize_prediction

        height, width = image.shape[:2]
        if focal_px is None and "camera" in self.metadata:
            focal_px = self.metadata["camera"]["focal_px"]
        prediction = self.run(self._preprocessing(image)[None], focal_px)
        return np.asarray(resize_prediction(_to_tensor(prediction), (height, width)), dtype=np.float32)

    def normalize(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
        """(1, 3, *size): the image resized to ``size`` and normalized."""
        import cv2

        from finetune.data.preprocessing import Preprocessing

        pixels = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        prepared = Preprocessing(input_size=size, mean=self._preprocessing.mean, std=self._preprocessing.std)(
            np.asarray(pixels, dtype=np.uint8)
        )
        return prepared[None]

    def run(self, pixels: NDArray[np.float32], focal_px: float | None = None) -> NDArray[np.float32]:
        """
        Args:
            pixels: (1, 3, H, W), normalized.
            focal_px: (fx + fy) / 2 at H x W, pixels; for a file of a canonical model.

        Raises:
            FinetuneError: the file is for another input size.
        """
        expected = self.metadata["input_size"]
        if expected != "any" and list(pixels.shape[2:]) != expected:
            raise FinetuneError(
                f"this file accepts {expected[0]}x{expected[1]} (height x width) only, and the image becomes "
                f"{pixels.shape[2]}x{pixels.shape[3]}. Export it with --image of that shape, or with --dynamic."
            )
        given = {INPUT: pixels}
        if "camera" in self.metadata:
            given[FOCAL] = np.array([focal_px], dtype=np.float32)
        return self.run_inputs(given)

    def run_inputs(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The prediction for inputs as the file takes them, by their names."""
        return self._engine.run(inputs)


def _to_tensor(array: NDArray[np.float32]) -> Tensor:
    import torch

    return torch.from_numpy(array)


class quiet:
    """Hides what libraries log about their own work."""

    def __init__(self, *names: str) -> None:
        self._loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self._levels = [logger.level for logger in self._loggers]
        for logger in self._loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self._loggers, self._levels, strict=True):
            logger.setLevel(level)

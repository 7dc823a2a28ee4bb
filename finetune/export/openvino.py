"""Write OpenVINO's format, for Intel processors and others: a folder with ``model.xml`` and ``model.bin``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.comparison import Comparison
from finetune.export.onnx import Onnx
from finetune.export.speed import ROUNDS, time_in_turn
from finetune.inference.exported import (
    OPENVINO_FILE,
    OPENVINO_SECTION,
    import_openvino,
    load,
)
from finetune.utils.errors import FinetuneError

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor


class OpenVino(Onnx):
    """The graph, the inputs, the output and the metadata of ``Onnx``, in a folder that OpenVINO loads.

    Metadata is in ``model.xml``, in the section ``finetune`` of its runtime information.
    """

    suffix = ""
    precisions = ("float32", "float16", "int8")
    types_graph = False
    caution = "OpenVINO's CPU computed in float32; a GPU computes in float16, where it rounds more and may overflow"

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """
        Raises:
            FinetuneError: a library that writes, runs or quantizes such a file is not installed.
        """
        quantizers = ["nncf"] if self.options.precision == "int8" else []
        missing = [
            name for name in ("openvino", "onnx", "onnxscript", "onnxruntime", *quantizers) if find_spec(name) is None
        ]
        if missing:
            raise FinetuneError(
                f"format openvino needs {', '.join(missing)}. Install them: pip install -e '.[openvino]'."
            )

    def write(self, predictor: Predictor, output: Path) -> None:
        """Write an ONNX file, convert it by OpenVINO's reader, quantize it if that is asked for, and the check pack."""
        openvino = import_openvino()
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".onnx-") as folder:
            path = Path(folder, "model.onnx")
            self.write_graph(predictor, path)
            model = openvino.Core().read_model(path)
            if self.options.precision == "int8":
                model = self._quantize(predictor, path, model)
            for name, value in self._make_metadata(predictor).items():
                model.set_rt_info(json.dumps(value), [OPENVINO_SECTION, name])
            output.mkdir()
            openvino.save_model(model, output / OPENVINO_FILE, compress_to_fp16=self.options.half)
            self._times_ms = self._time_runtimes(predictor, path, output)
        self.write_check(predictor, output)

    def _quantize(self, predictor: Predictor, path: Path, model: Any) -> Any:
        """The graph in INT8, which was accepted; ``path`` is the ONNX file that it was read from."""
        from finetune.export.int8_onnx import read_modules
        from finetune.export.int8_openvino import OpenVinoQuantizer

        quantizer = OpenVinoQuantizer(model, read_modules(path))
        self.judge(quantizer, predictor)
        return quantizer.model

    def _time_runtimes(self, predictor: Predictor, path: Path, output: Path) -> dict[str, float]:
        """Milliseconds of one prediction for the same image: PyTorch, the ONNX file, and what was written."""
        import torch

        inputs = self.make_check(predictor)[0].inputs
        assert self.image is not None
        pixels = torch.from_numpy(predictor.preprocessing(self.image))[None]
        focal_px = predictor.canonical.focal_px if predictor.canonical else None
        by_onnx, own = load(path).engine, self.open(output).engine
        return time_in_turn(
            {
                "PyTorch": lambda: predictor(pixels, focal_px),
                "onnxruntime": lambda: by_onnx.run(inputs),
                f"OpenVINO {self.options.precision}": lambda: own.run(inputs),
            }
        )

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """As for an ONNX file; and how long a prediction takes."""
        times = ", ".join(f"{name} {time_ms:.3g} ms" for name, time_ms in self._times_ms.items())
        height, width = self._network_size(predictor)
        return [
            *super().conclude(predictor, output, image, comparison),
            f"{comparison.output}: one prediction at {height}x{width} on this processor: {times} (fastest of "
            f"{ROUNDS}; OpenVINO computes in float32 where INFERENCE_PRECISION_HINT is f32, and rounds to bfloat16 by "
            "default where the processor can)",
        ]

"""A graph of OpenVINO in eight bits, by NNCF, with its setting for transformers."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.int8 import Inputs, Run, make_inputs, name_layer
from finetune.export.int8_onnx import LAST_LAYER
from finetune.export.onnx_tracing import quiet
from finetune.inference.exported import PRECISION_HINT, import_openvino, without_telemetry

_TYPES = ("Convolution", "ConvolutionBackpropData", "MatMul")
_SMOOTHING = (
    "nncf_smooth_quant"  # in the name of the node by which NNCF moves range from a layer's input to its weights
)


class OpenVinoQuantizer:
    """A graph in float32, and the INT8 graph that is made of it.

    Attributes:
        layers: as ``int8.Quantizer`` has them.
        model: the INT8 graph, once it is made.
    """

    def __init__(self, model: Any, modules: Mapping[str, str]) -> None:
        """
        Args:
            model: an ``openvino.Model`` read from an ONNX file.
            modules: of that file, as ``int8_onnx.read_modules`` gives them.
        """
        self._source = model
        self.model: Any = None
        self.layers: dict[str, list[str]] = {}
        self._never: list[str] = []
        for operation in model.get_ordered_ops():
            if operation.get_type_name() not in _TYPES:
                continue
            module = _find_module(operation, modules)
            # What no module computes is the position embedding of a graph for any size.
            if module is None or name_layer(module) == LAST_LAYER:
                self._never.append(operation.get_friendly_name())
            else:
                self.layers.setdefault(name_layer(module), []).append(operation.get_friendly_name())

    def quantize(self, inputs: Inputs, float_nodes: Sequence[str]) -> Run:
        """By NNCF; its progress goes to standard error."""
        with without_telemetry(), warnings.catch_warnings(), quiet("torch.utils.cpp_extension"):
            warnings.simplefilter("ignore")
            import nncf
        nncf.set_log_level(40)  # errors
        kept = nncf.IgnoredScope(names=[*self._never, *float_nodes])
        with redirect_stdout(sys.stderr), warnings.catch_warnings(), quiet("torch.utils.cpp_extension"):
            warnings.simplefilter("ignore")
            self.model = nncf.quantize(
                self._source,
                nncf.Dataset(inputs),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(inputs),
                ignored_scope=kept,
            )
        return _run_graph(self.model)

    def restore(self, nodes: Sequence[str]) -> Run:
        """The INT8 graph with these nodes as they are in the float32 graph."""
        openvino = import_openvino()
        changed = self.model.clone()
        before = {operation.get_friendly_name(): operation for operation in self._source.get_ops()}
        for operation in changed.get_ordered_ops():
            if operation.get_friendly_name() not in nodes:
                continue
            for i, given in enumerate(operation.inputs()):
                stored = before[operation.get_friendly_name()].input_value(i).get_node()
                if stored.get_type_name() == "Constant":
                    weights = openvino.op.Constant(np.array(stored.get_data(), dtype=np.float32))
                    given.replace_source_output(weights.output(0))
                else:
                    given.replace_source_output(_skip_rounding(given.get_source_output()))
        return _run_graph(changed)


def _find_module(operation: Any, modules: Mapping[str, str]) -> str | None:
    """The module that a convolution or product of the graph belongs to; None if it belongs to none."""
    weights = str(operation.input_value(1).get_node().get_friendly_name())
    if weights.startswith("network."):
        return weights.removesuffix(".weight")
    return modules.get(operation.get_friendly_name())


def _skip_rounding(output: Any) -> Any:
    """The value that was rounded to eight bits, and before it the one that was smoothed."""
    node = output.get_node()
    if node.get_type_name() == "FakeQuantize" or _SMOOTHING in node.get_friendly_name():
        return _skip_rounding(node.input_value(0))
    return output


def _run_graph(model: Any) -> Run:
    compiled = import_openvino().Core().compile_model(model, "CPU", {PRECISION_HINT: "f32"})

    def run(pixels: NDArray[np.float32], focal_px: float | None) -> NDArray[np.float32]:
        return np.array(compiled(make_inputs(pixels, focal_px))[0], dtype=np.float32)

    return run

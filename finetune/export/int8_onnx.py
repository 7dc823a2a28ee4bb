"""An ONNX file in eight bits, by onnxruntime's static quantization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.int8 import Inputs, Run, make_inputs, name_layer
from finetune.inference.exported import import_onnxruntime

# Products of two activations, in attention, stay in float32: their ranges vary too much from image to image.
_TYPES = ("Conv", "MatMul")
# The last layer has 32 weights, and every error of its output is an error of depth.
LAST_LAYER = "head.last"


def read_modules(path: Path) -> dict[str, str]:
    """Convolution or matrix product -> module of the network that computes it, for a file that ``Onnx`` wrote."""
    import onnx

    found = {}
    for node in onnx.load(str(path)).graph.node:
        if node.op_type not in (*_TYPES, "ConvTranspose"):
            continue
        scopes = next((entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "")
        modules = [name for name in scopes.strip("[]").replace("'", "").split(", ") if name.startswith("network.")]
        # Of a module that convolves without a module for it, the name of the weights says more than its scope.
        if node.input[1].startswith("network."):
            modules.append(node.input[1].removesuffix(".weight"))
        if modules:
            found[node.name] = modules[-1]
    return found


class OnnxQuantizer:
    """A float32 file, and the INT8 file that is made of it."""

    def __init__(self, source: Path, target: Path) -> None:
        """
        Args:
            source: the float32 file.
            target: the INT8 file, which ``quantize`` writes with the metadata of the other.
        """
        import onnx

        self._source, self._target = source, target
        self._model = onnx.load(str(source))
        weights = {tensor.name for tensor in self._model.graph.initializer}
        by_weights = {
            node.name for node in self._model.graph.node if node.op_type in _TYPES and node.input[1] in weights
        }
        self.layers: dict[str, list[str]] = {}
        for node, module in read_modules(source).items():
            if node in by_weights and name_layer(module) != LAST_LAYER:
                self.layers.setdefault(name_layer(module), []).append(node)

    def quantize(self, inputs: Inputs, float_nodes: Sequence[str]) -> Run:
        """Weights by channel, inputs of layers by the range that the given inputs of the graph show."""
        import onnx

        import_onnxruntime()  # without telemetry, before its parts are imported
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._rest = iter(inputs)

            def get_next(self) -> dict[str, NDArray[Any]] | None:
                return next(self._rest, None)

        prepared = self._source.with_name("prepared.onnx")
        quant_pre_process(str(self._source), str(prepared), skip_optimization=True, skip_symbolic_shape=True)
        kept = set(float_nodes)
        quantize_static(
            prepared,
            self._target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_TYPES),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node for nodes in self.layers.values() for node in nodes if node not in kept],
            extra_options={
                # What follows a matrix product is a sum with features of a wider range, in float32.
                "OpTypesToExcludeOutputQuantization": ["MatMul"],
                # Else a ReLU becomes part of a rounding, and no layer after it could return to float32.
                "QDQKeepRemovableActivations": True,
            },
        )
        quantized = onnx.load(str(self._target))
        onnx.helper.set_model_props(quantized, {entry.key: entry.value for entry in self._model.metadata_props})
        onnx.save(quantized, str(self._target))
        return _run_bytes(self._target.read_bytes())

    def restore(self, nodes: Sequence[str]) -> Run:
        """The INT8 file with these nodes as they are in the float32 file; what they give is not rounded either."""
        import onnx

        quantized = onnx.load(str(self._target))
        before = {node.name: node for node in self._model.graph.node}
        weights = {tensor.name: tensor for tensor in self._model.graph.initializer}
        restored = [node for node in quantized.graph.node if node.name in nodes]
        for node in restored:
            for i, name in enumerate(before[node.name].input):
                node.input[i] = name
                if name in weights:
                    # Under a new name: the old one may be that of what is rounded.
                    node.input[i] = f"{node.name}.{i}"
                    tensor = quantized.graph.initializer.add()
                    tensor.CopyFrom(weights[name])
                    tensor.name = node.input[i]
        outputs = [node.output[0] for node in restored]
        rounded: dict[str, str] = {}
        for step in ("QuantizeLinear", "DequantizeLinear"):
            pairs = [(node.input[0], node.output[0]) for node in quantized.graph.node if node.op_type == step]
            sources = {**rounded, **dict(zip(outputs, outputs, strict=True))}
            rounded = {output: sources[name] for name, output in pairs if name in sources}
        for node in quantized.graph.node:
            node.input[:] = [rounded.get(name, name) for name in node.input]
        return _run_bytes(quantized.SerializeToString())


def _run_bytes(model: bytes) -> Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of every constant it folds
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.float32], focal_px: float | None) -> NDArray[np.float32]:
        (prediction,) = session.run(None, make_inputs(pixels, focal_px))
        return np.asarray(prediction, dtype=np.float32)

    return run

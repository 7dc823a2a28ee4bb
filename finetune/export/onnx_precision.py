"""float16 in an ONNX graph: what range its values need, and the graph with its types written out.

onnxruntime computes float16 on the CPU in float32, so that a comparison there never shows overflow: ranges are measured
instead. TensorRT 11 has no switch for precision: it finds every type in the file.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.export.options import Precision
from finetune.utils.errors import ResultError
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

LARGEST = 65504.0  # of float16
# What validation images reach may be a quarter of that: other images reach more.
RANGE_LIMIT = LARGEST / 4
# Parts that are float32 in every file, by their names in ``TracedNetwork``: whole numbers above 2048, pixels that are
# normalized, meters that are multiplied.
ALWAYS_WIDE = ("sampler", "pixels", "meters")
# The variance of a layer norm is a sum of squares: 300 * 300 is infinite in float16. ONNX says of it, by its
# ``stash_type``, that it is computed in float32, but not every runtime does.
ALWAYS_WIDE_OPS = ("LayerNormalization",)
# Parts that ``mixed`` keeps in float32 too: the last layer, its activation, and the product with the max depth. For
# room_tiny in true float16 (onnx.reference) the difference, at the 99.9th percentile of pixels, is 0.205 % of depth
# without these and 0.107 % with them; 0.062 % with all of the head, whose other layers are costly; and 0.207 % with all
# of the encoder in float32 instead.
MIXED_WIDE = ("network.head", "network.head.last")
_SCOPES = "pkg.torch.onnx.name_scopes"
# Inputs that have a type of their own.
_KEEPS_TYPE = {"Resize": (1, 2), "Shape": (0,), "Cast": (0,)}


@dataclass(frozen=True)
class NodeRange:
    """The largest absolute value that a node reads or gives."""

    node: str
    layer: str
    largest: float

    def __str__(self) -> str:
        return f"{self.largest:,.0f} in {self.node}" + (f" of {self.layer}" if self.layer else "")


def layer_of(node: NodeProto) -> str:
    """The module of ``TracedNetwork`` that a node comes from, such as ``network.encoder.blocks.3.mlp``; "" for none."""
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "[]")
    names = [str(name) for name in ast.literal_eval(scopes)]
    return names[-2] if len(names) > 1 else ""


def measure_ranges(model: ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, float]:
    """
    Args:
        model: in float32.
        inputs: of the graph, by their names.

    Returns:
        The largest absolute value of every float32 tensor, weights too, by its name; NaN where one was not a number.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from finetune.inference.exported import import_onnxruntime

    graph = model.graph
    ranges = {
        weight.name: float(np.abs(numpy_helper.to_array(weight)).max(initial=0.0))
        for weight in graph.initializer
        if weight.data_type == TensorProto.FLOAT
    }
    types = find_types(graph)
    names = [name for node in graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    for i, name in enumerate(names):
        watched.graph.node.append(helper.make_node("Abs", [name], [f"range_abs_{i}"]))
        watched.graph.node.append(helper.make_node("ReduceMax", [f"range_abs_{i}"], [f"range_{i}"], keepdims=0))
        watched.graph.output.append(helper.make_tensor_value_info(f"range_{i}", TensorProto.FLOAT, []))
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; it warns of every constant it folds
    session = runtime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for given in inputs:
        found = session.run(None, dict(given))
        for name, value in zip(names, found, strict=True):
            ranges[name] = float(np.maximum(ranges.get(name, 0.0), value))  # NaN wins
    return ranges


def find_types(graph: GraphProto) -> dict[str, int]:
    """The element type of every tensor of a graph that says it."""
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {weight.name: weight.data_type for weight in graph.initializer}


def range_nodes(graph: GraphProto, ranges: Mapping[str, float]) -> list[NodeRange]:
    """For each node that reads or gives float32 the largest absolute value; in the order of the graph."""
    found = []
    for node in graph.node:
        values = [ranges[name] for name in (*node.input, *node.output) if name in ranges]
        if values:
            found.append(NodeRange(node.name, layer_of(node), float(np.max(values))))
    return found


def choose_wide_nodes(
    graph: GraphProto, precision: Precision, ranges: Mapping[str, float]
) -> tuple[list[str], NodeRange, list[NodeRange]]:
    """
    Returns:
        Names of the nodes that stay in float32; of the others the one with the largest values; and nodes that are
        beyond ``RANGE_LIMIT``, which ``mixed`` keeps in float32, and because of which ``float16`` cannot be.
    """
    layers = (*ALWAYS_WIDE, *(MIXED_WIDE if precision == "mixed" else ()))
    wide = {
        node.name
        for node in graph.node
        if node.op_type in ALWAYS_WIDE_OPS or layer_of(node) in layers or layer_of(node).split(".")[0] in ALWAYS_WIDE
    }
    others = [found for found in range_nodes(graph, ranges) if found.node not in wide]
    # NaN is beyond every limit.
    beyond = [found for found in others if not found.largest <= RANGE_LIMIT]
    wide |= {found.node for found in beyond}
    within = [found for found in others if found.node not in wide]
    largest = max(within, key=lambda found: found.largest)
    return [node.name for node in graph.node if node.name in wide], largest, beyond


def narrow(
    model: ModelProto, precision: Precision, inputs: Iterable[Mapping[str, NDArray[Any]]], name: str
) -> tuple[ModelProto, list[str], str]:
    """
    Args:
        model: in float32.
        precision: ``float16`` or ``mixed``.
        inputs: over which ranges are measured.
        name: of the export, for sentences.

    Returns:
        The graph in that precision, the names of its nodes in float32, and a sentence about the ranges.

    Raises:
        ResultError: float16 could overflow; names the node.
    """
    given = list(inputs)
    ranges = measure_ranges(model, given)
    wide, largest, beyond = choose_wide_nodes(model.graph, precision, ranges)
    images = f"over {count_noun(len(given), 'image')}"
    if beyond and precision == "float16":
        worst = max(beyond, key=lambda found: (found.largest != found.largest, found.largest))
        raise ResultError(
            f"{name}: float16 ends at {LARGEST:,.0f}, and values {images} are as large as {worst}, more than a quarter "
            "of that: on a device it could overflow. Export it with --precision mixed, which keeps such nodes in "
            "float32."
        )
    kept = f"; {count_noun(len(beyond), 'node')} beyond that in float32" if beyond else ""
    said = f"the largest value {images} is {largest} ({RANGE_LIMIT:,.0f} allowed in float16{kept})"
    return to_float16(model, wide), wide, said


def describe_largest(model: ModelProto, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> str:
    """
    Args:
        model: in float32.
        inputs: over which ranges are measured.

    Returns:
        A sentence for a runtime that chooses types itself: how near values come to the end of float16.
    """
    given = list(inputs)
    found = range_nodes(model.graph, measure_ranges(model, given))
    largest = max(found, key=lambda found: (found.largest != found.largest, found.largest))
    said = f"the largest value over {count_noun(len(given), 'image')} is {largest}"
    if largest.largest <= RANGE_LIMIT:
        return f"{said}, less than a quarter of what float16 holds"
    return f"{said}, more than a quarter of what float16 holds: compute it in float32 (INFERENCE_PRECISION_HINT f32)"


def to_float16(model: ModelProto, wide: Collection[str]) -> ModelProto:
    """
    Args:
        model: in float32, whose graph says the type of every tensor.
        wide: names of nodes that stay in float32.

    Returns:
        The same graph with float16 in all other nodes, and a Cast wherever the type changes. Inputs and outputs of the
        graph keep their types.
    """
    import onnx

    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _Converter(converted.graph, frozenset(wide)).convert()
    onnx.checker.check_model(converted, full_check=True)
    return converted


class _Converter:
    """Rewrites a graph in place. onnxruntime's own converter casts around each node alone and leaves nodes unsorted."""

    def __init__(self, graph: GraphProto, wide: frozenset[str]) -> None:
        from onnx import TensorProto

        self.float32, self.float16 = TensorProto.FLOAT, TensorProto.FLOAT16
        self.graph = graph
        self.wide = wide
        self.types = find_types(graph)
        self.weights = {weight.name: weight for weight in graph.initializer}
        self.copies: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []

    def convert(self) -> None:
        outputs = {value.name for value in self.graph.output if self.types[value.name] == self.float32}
        original = dict(self.types)
        for node in list(self.graph.node):
            kind = self.float32 if node.name in self.wide else self.float16
            for i, name in enumerate(node.input):
                if original.get(name) == self.float32 and i not in _KEEPS_TYPE.get(node.op_type, ()):
                    node.input[i] = self._as_type(name, kind)
            given = [name for name in node.output if original.get(name) == self.float32]
            if kind == self.float16 and given:
                self._retype(node)
                for i, name in enumerate(node.output):
                    if name in given:
                        self.types[name] = kind
                        if name in outputs:
                            node.output[i] = f"{name}_float16"
                            self.types[node.output[i]] = kind
            self.nodes.append(node)
        for name in sorted(outputs):
            if self.types[name] == self.float16:
                self._add_cast(f"{name}_float16", name, self.float32)
        self._replace_content()

    def _as_type(self, name: str, kind: int) -> str:
        """The name of a tensor in a type: its own, or that of a copy."""
        if self.types[name] == kind:
            return name
        if (name, kind) not in self.copies:
            copy = f"{name}_{'float16' if kind == self.float16 else 'float32'}"
            self.copies[name, kind] = copy
            if name in self.weights:
                self._copy_weight(name, copy)
            else:
                self._add_cast(name, copy, kind)
        return self.copies[name, kind]

    def _copy_weight(self, name: str, copy: str) -> None:
        from onnx import numpy_helper

        values = numpy_helper.to_array(self.weights[name]).astype(np.float16)
        self.graph.initializer.append(numpy_helper.from_array(values, copy))

    def _add_cast(self, source: str, target: str, kind: int) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind))

    def _retype(self, node: NodeProto) -> None:
        """Change what a node says itself about the type that it gives."""
        from onnx import numpy_helper

        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == self.float32:
                attribute.i = self.float16
            if attribute.name == "value" and attribute.t.data_type == self.float32:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))

    def _replace_content(self) -> None:
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in node.input}
        weights = [weight for weight in self.graph.initializer if weight.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(weights)
        for value in self.graph.value_info:
            value.type.tensor_type.elem_type = self.types.get(value.name, value.type.tensor_type.elem_type)

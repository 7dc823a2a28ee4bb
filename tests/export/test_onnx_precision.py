"""float16 in a graph: ranges are measured, what would overflow is refused or kept in float32, types are written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from finetune.export.onnx_precision import (
    RANGE_LIMIT,
    choose_wide_nodes,
    describe_largest,
    find_types,
    layer_of,
    measure_ranges,
    narrow,
    to_float16,
)
from finetune.utils.errors import ResultError

SCOPES = "pkg.torch.onnx.name_scopes"


def make_graph(factor: float = 300.0) -> onnx.ModelProto:
    """depth = (factor * x)^2 / factor^2, then doubled: 300 * 300 is infinite in float16, and finite in onnxruntime."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["scaled"], name="scale"),
        helper.make_node("Mul", ["scaled", "scaled"], ["squared"], name="square"),
        helper.make_node("Mul", ["squared", "inverse"], ["shrunk"], name="shrink"),
        helper.make_node("Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Mul", ["shrunk", "two"], ["depth"], name="double"),
    ]
    layers = {"scale": "network.encoder", "square": "network.encoder.blocks.3", "double": "network.head"}
    for node in nodes:
        if node.name in layers:
            entry = node.metadata_props.add()
            entry.key, entry.value = SCOPES, f"['', '{layers[node.name]}', 'mul']"
    weights = {"factor": np.float32(factor), "inverse": np.float32(factor**-2)}
    vector = [4]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, vector)],
        [helper.make_tensor_value_info("depth", TensorProto.FLOAT, vector)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        value_info=[
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in {"scaled": vector, "squared": vector, "shrunk": vector, "two": []}.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


X = np.array([0.5, -1.0, 0.25, 0.125], np.float32)
DEPTH = 2 * X**2


def run_true(model: onnx.ModelProto) -> np.ndarray:
    """As a device computes: each node in the type that the graph says."""
    with np.errstate(over="ignore"):
        (found,) = ReferenceEvaluator(model).run(None, {"x": X})
    return np.asarray(found)


def test_ranges_are_those_of_every_tensor_over_all_inputs() -> None:
    ranges = measure_ranges(make_graph(), [{"x": X}, {"x": 2 * X}])
    assert ranges["scaled"] == 600.0  # 300 * 2 * 1
    assert ranges["squared"] == 360_000.0
    assert ranges["shrunk"] == pytest.approx(4.0, rel=1e-6)
    assert (ranges["factor"], ranges["two"]) == (300.0, 2.0)
    assert np.isnan(measure_ranges(make_graph(), [{"x": X * np.float32(np.nan)}, {"x": X}])["scaled"])


def test_onnxruntime_hides_the_overflow_that_the_reference_shows() -> None:
    careless = to_float16(make_graph(), wide=[])
    session = onnxruntime.InferenceSession(careless.SerializeToString(), providers=["CPUExecutionProvider"])
    assert np.isfinite(session.run(None, {"x": X})[0]).all()
    assert np.isinf(run_true(careless)).any()


def test_float16_is_refused_and_the_node_named_where_it_could_overflow() -> None:
    with pytest.raises(ResultError) as refused:
        narrow(make_graph(), "float16", [{"x": X}], "m.onnx")
    assert str(refused.value).startswith(
        "m.onnx: float16 ends at 65,504, and values over 1 image are as large as 90,000 in square of "
        "network.encoder.blocks.3, more than a quarter of that"
    )
    assert "--precision mixed" in str(refused.value)
    # 127.9^2 is 16,358, just below a quarter of 65,504; 128.1^2 is above.
    narrow(make_graph(127.9), "float16", [{"x": X}], "m.onnx")
    with pytest.raises(ResultError):
        narrow(make_graph(128.1), "float16", [{"x": X}], "m.onnx")
    with pytest.raises(ResultError):
        narrow(make_graph(1.0), "float16", [{"x": X * np.float32(np.nan)}], "m.onnx")


def test_mixed_keeps_what_would_overflow_and_the_last_layers_in_float32() -> None:
    model, wide, said = narrow(make_graph(), "mixed", [{"x": X}], "m.onnx")
    # The node that squares reads and gives large values, the next one reads them; the head is float32 anyway.
    assert wide == ["square", "shrink", "double"]
    assert said == (
        "the largest value over 1 image is 300 in scale of network.encoder (16,376 allowed in float16; 2 nodes beyond "
        "that in float32)"
    )
    types = find_types(model.graph)
    assert (types["scaled"], types["squared"], types["shrunk"]) == (
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    )
    np.testing.assert_allclose(run_true(model), DEPTH, rtol=2e-3)


def test_a_graph_says_every_type_and_keeps_those_of_its_inputs_and_outputs() -> None:
    model, wide, _ = narrow(make_graph(100.0), "float16", [{"x": X}], "m.onnx")
    assert wide == []
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT,
    ]
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    types = find_types(inferred.graph)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.output[0]) for node in casts] == [("x", "x_float16"), ("depth_float16", "depth")]
    for node in model.graph.node:
        if node.op_type == "Mul":
            assert {types[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name
    np.testing.assert_allclose(run_true(model), DEPTH, rtol=3e-3)


def test_layer_norms_and_named_parts_are_float32_in_every_precision() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["normal"], name="norm"),
        helper.make_node("Mul", ["normal", "scale"], ["y"], name="mul"),
        helper.make_node("Add", ["y", "scale"], ["z"], name="add"),
    ]
    for node, layer in zip(nodes, ("network.encoder.norm", "sampler.inner", "network.decoder"), strict=True):
        entry = node.metadata_props.add()
        entry.key, entry.value = SCOPES, f"['', '{layer}', 'op']"
    weights = [numpy_helper.from_array(np.ones(4, np.float32), "scale")]
    graph = helper.make_graph(nodes, "n", [x], [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 4])], weights)
    wide, largest, beyond = choose_wide_nodes(graph, "float16", {"x": 300.0, "normal": 2.0, "y": 2.0, "z": 3.0})
    assert (wide, largest.node, largest.layer, beyond) == (["norm", "mul"], "add", "network.decoder", [])
    assert RANGE_LIMIT == 16376


def test_shape_and_scales_keep_their_types() -> None:
    sizes: list[Any] = [1, 1, 2, 2]
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Resize", ["x", "", "scales"], ["big"], name="resize", mode="nearest"),
        helper.make_node("Cast", ["shape"], ["sides"], name="sides", to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["sides"], ["most"], name="most", keepdims=0),
        helper.make_node("Mul", ["big", "most"], ["y"], name="mul"),
    ]
    graph = helper.make_graph(
        nodes,
        "n",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 4, 4])],
        [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    converted = to_float16(onnx.shape_inference.infer_shapes(model), wide=[])
    (found,) = ReferenceEvaluator(converted).run(None, {"x": np.arange(4, dtype=np.float32).reshape(sizes)})
    assert (found.dtype, found[0, 0].tolist()) == (
        np.float32,
        [[0, 0, 2, 2], [0, 0, 2, 2], [4, 4, 6, 6], [4, 4, 6, 6]],
    )


def test_where_the_runtime_chooses_the_type_the_largest_value_is_said() -> None:
    # 300 * 1 squared.
    assert describe_largest(make_graph(), [{"x": X}]) == (
        "the largest value over 1 image is 90,000 in square of network.encoder.blocks.3, more than a quarter of what "
        "float16 holds: compute it in float32 (INFERENCE_PRECISION_HINT f32)"
    )
    assert describe_largest(make_graph(100.0), [{"x": X}, {"x": X}]) == (
        "the largest value over 2 images is 10,000 in square of network.encoder.blocks.3, less than a quarter of what "
        "float16 holds"
    )
    assert "is nan in" in describe_largest(make_graph(1.0), [{"x": X * np.float32(np.nan)}])


def test_a_node_without_scopes_has_no_layer(tmp_path: Path) -> None:
    assert layer_of(helper.make_node("Mul", ["a", "b"], ["c"])) == ""

"""INT8: a graph in eight bits, kept only if that costs little on the validation frames of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.export.options import DEFAULT_TOLERANCE
from finetune.inference.exported import FOCAL, IMAGE
from finetune.utils.errors import DataError, FinetuneError, ResultError
from finetune.utils.indices import evenly_spread
from finetune.utils.text import count_noun

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.data.reader import Reader
    from finetune.data.validation_dataset import ValidationSamples
    from finetune.evaluation.evaluator import PredictFunction, PredictionRequest
    from finetune.evaluation.protocols import Protocol as EvaluationProtocol
    from finetune.inference.predictor import Predictor

MAX_IMAGES = 300
# Frames on which layers are compared, and how many of the layers are named.
_FRAMES, _NAMED = 4, 3
# (1, 3, H, W) normalized, and focal length in pixels for a canonical model -> (1, 1, H, W).
Run = Callable[[NDArray[np.float32], float | None], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Int8Data:
    """What an INT8 export is made and judged with.

    Attributes:
        name: of the recipe, for sentences.
        train: readers of its training entries; their images give the range of every layer's input.
        val: its validation frames, as the model sees them.
        protocol: how AbsRel is computed on them.
        tolerance: by how much AbsRel may rise.
        float_layers: layers that stay in float32, by the names that a refusal gives them.
    """

    name: str
    train: Sequence[Reader]
    val: ValidationSamples
    protocol: EvaluationProtocol
    tolerance: float = DEFAULT_TOLERANCE
    float_layers: tuple[str, ...] = ()


class Inputs(Protocol):
    """Inputs of a graph by name, one image after the other, as often as they are asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]: ...


class Quantizer(Protocol):
    """A graph of one runtime that can be put into eight bits.

    Attributes:
        layers: name of each layer -> the nodes of the graph that compute its products.
    """

    layers: dict[str, list[str]]

    def quantize(self, inputs: Inputs, float_nodes: Sequence[str]) -> Run:
        """Quantize by these inputs of the graph, but for some nodes; returns what the result predicts."""
        ...

    def restore(self, nodes: Sequence[str]) -> Run:
        """What the result predicts if these nodes compute in float32 after all."""
        ...


def name_layer(scope: str) -> str:
    """
    The layer that a module belongs to: attention or MLP of one block, or one module of the decoder or of the head.

    >>> name_layer("network.encoder.blocks.3.mlp.fc2")
    'encoder.blocks.3.mlp'
    >>> name_layer("network.decoder.fuse.3.unit.conv1")
    'decoder.fuse.3'
    """
    parts = scope.removeprefix("network.").split(".")
    return ".".join(parts[: 4 if parts[:2] == ["encoder", "blocks"] else 3])


def quantize_and_judge(
    quantizer: Quantizer, predictor: Predictor, data: Int8Data, size: tuple[int, int] | None
) -> list[str]:
    """
    Quantize a graph by training images, and compare AbsRel on the validation frames with that of the model.

    Args:
        quantizer: of the graph.
        predictor: the model that the graph was made from.
        data: images, frames and the tolerance.
        size: height and width of the only input that the graph takes, pixels; None for any.

    Returns:
        Sentences about the result.

    Raises:
        ResultError: AbsRel rises by more than the tolerance; names the layers that cost most.
        FinetuneError: a layer that shall stay in float32 does not exist, or a frame has no camera that is needed.
    """
    float_nodes = _find_nodes(quantizer.layers, data.float_layers)
    inputs = CalibrationInputs(predictor, data, size)
    run = quantizer.quantize(inputs, float_nodes)
    before, after, frames = _measure_abs_rel(predictor, run, data, size)
    judged = (
        f"AbsRel on {count_noun(frames, 'validation frame')} of {data.name} is {after:.4f} in int8 and {before:.4f} in "
        f"float32 ({after - before:+.4f}, {data.tolerance:g} allowed)"
    )
    if not after - before <= data.tolerance:
        costs = _rank_layers(quantizer, predictor, run, data, size, set(float_nodes))
        named = ", ".join(f"{cost.layer} ({cost.without:.2%})" for cost in costs)
        keep = ",".join([*data.float_layers, *(cost.layer for cost in costs)])
        raise ResultError(
            f"{predictor.source}: {judged}. It was not kept. It differs from float32 by {costs[0].all_int8:.2%} of the "
            f"mean, and by less with one layer back in float32. Those that cost most: {named}. Keep them in float32 "
            f"with --float-layers {keep}, or allow more with --tolerance."
        )
    kept = [f"in float32 stay {', '.join(data.float_layers)}"] if data.float_layers else []
    return [f"quantized by {count_noun(len(inputs), 'training image')}; {judged}", *kept]


def _find_nodes(layers: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> list[str]:
    """
    The nodes of layers; ``encoder.blocks.3`` stands for all that start with it.

    Raises:
        FinetuneError: there is no such layer.
    """
    found: list[str] = []
    for name in wanted:
        nodes = [node for layer, own in layers.items() if f"{layer}.".startswith(f"{name}.") for node in own]
        if not nodes:
            raise FinetuneError(f"--float-layers {name}: no such layer. Name some of: {', '.join(layers)}.")
        found += nodes
    return found


@dataclass(frozen=True)
class CalibrationInputs:
    """
    Inputs of the graph for at most ``MAX_IMAGES`` training images, evenly spread over the entries. They are read as
    they are asked for, each time anew: all of them at once may be gigabytes.
    """

    predictor: Predictor
    data: Int8Data
    size: tuple[int, int] | None

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        import torch

        prepare = self.predictor.preprocessing
        for reader, frame in self._frames:
            sample = reader[frame]
            focal_px = None
            if self.predictor.canonical:
                if sample.camera is None:
                    raise _no_camera(sample.source)
                focal_px = prepare.focal_px(sample.camera, *sample.depth_m.shape)
            pixels, focal_px = _fit(
                torch.from_numpy(prepare(sample.image, size=sample.valid.shape))[None], focal_px, self.size
            )
            yield make_inputs(pixels.numpy(), focal_px)

    @cached_property
    def _frames(self) -> list[tuple[Reader, int]]:
        share = max(1, MAX_IMAGES // len(self.data.train))
        readers = [reader.decoded_for(self.predictor.preprocessing) for reader in self.data.train]
        return [(reader, frame) for reader in readers for frame in evenly_spread(len(reader), share)]


def make_inputs(pixels: NDArray[np.float32], focal_px: float | None) -> dict[str, NDArray[Any]]:
    """Inputs of a graph by name; ``focal_px`` is None for a model that needs none."""
    given: dict[str, NDArray[Any]] = {IMAGE: pixels}
    if focal_px is not None:
        given[FOCAL] = np.array([focal_px], dtype=np.float32)
    return given


def _no_camera(source: str) -> DataError:
    fix = "Give its entry intrinsics, or export for one camera with --for-camera FX"
    return DataError(source, "has no camera, and the model predicts meters only with one", fix)


def _measure_abs_rel(
    predictor: Predictor, run: Run, data: Int8Data, size: tuple[int, int] | None
) -> tuple[float, float, int]:
    """AbsRel of the model and of the graph, and the number of frames."""
    from finetune.evaluation.evaluator import evaluate

    rows = {
        "float32": _predict_by(_run_model(predictor), predictor, size),
        "int8": _predict_by(run, predictor, size),
    }
    with _one_process() as accelerator:
        (found,) = evaluate(accelerator, data.val, rows, [data.protocol], workers=0)
    return found.rows["float32"]["abs_rel"], found.rows["int8"]["abs_rel"], found.images_used


@contextmanager
def _one_process() -> Iterator[Any]:
    """An accelerator of this process alone, on the CPU."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    try:
        yield Accelerator(cpu=True)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def _run_model(predictor: Predictor) -> Run:
    import torch

    def run(pixels: NDArray[np.float32], focal_px: float | None) -> NDArray[np.float32]:
        return np.asarray(predictor(torch.from_numpy(pixels), focal_px).cpu())

    return run


def _predict_by(run: Run, predictor: Predictor, size: tuple[int, int] | None) -> PredictFunction:
    """What the evaluator asks, answered one image at a time by a graph, at its size if it takes one alone."""
    from finetune.models.resizing import resize_prediction

    def predict(requests: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        import torch

        found: list[NDArray[np.floating]] = []
        for request in requests:
            image, focal_px = _fit(request.image, request.focal_px, size)
            if predictor.canonical and focal_px is None:
                raise _no_camera(f"frame {request.number} of data.val")
            prediction = run(image.numpy(), focal_px if predictor.canonical else None)
            found.append(
                resize_prediction(torch.from_numpy(prediction), request.size, align_corners=request.align_corners)
            )
        return found

    return predict


def _fit(image: Tensor, focal_px: float | None, size: tuple[int, int] | None) -> tuple[Tensor, float | None]:
    """The network's input at the size that the graph takes, as a device would resize it, and its focal length."""
    import torch

    given = (image.shape[-2], image.shape[-1])
    if size is None or given == size:
        return image, focal_px
    resized = torch.nn.functional.interpolate(image, size, mode="bicubic", antialias=True)
    scale = (size[0] / given[0] + size[1] / given[1]) / 2
    return resized, None if focal_px is None else focal_px * scale


class LayerCost(NamedTuple):
    """Mean difference from float32, as a share of the mean: with all layers in int8, and with this one in float32."""

    layer: str
    all_int8: float
    without: float


def _rank_layers(
    quantizer: Quantizer,
    predictor: Predictor,
    run: Run,
    data: Int8Data,
    size: tuple[int, int] | None,
    float_nodes: set[str],
) -> list[LayerCost]:
    """The layers whose return to float32 takes away most of the difference, the first costs most."""
    model = _run_model(predictor)
    given: list[tuple[NDArray[np.float32], float | None]] = []
    for number in evenly_spread(len(data.val), _FRAMES):
        frame = data.val[number]
        image, focal_px = _fit(frame.image, frame.focal_px, size)
        given.append((image.numpy(), focal_px if predictor.canonical else None))
    expected = [model(*inputs) for inputs in given]

    def difference(other: Run) -> float:
        # Of the mean: inverse depth is 0 where the sky is.
        shares = [
            float(np.abs(other(*inputs) - own).mean() / max(own.mean(), 1e-12))
            for inputs, own in zip(given, expected, strict=True)
        ]
        return float(np.mean(shares))

    all_int8 = difference(run)
    costs = [
        LayerCost(layer, all_int8, difference(quantizer.restore(nodes)))
        for layer, nodes in quantizer.layers.items()
        if not float_nodes.issuperset(nodes)
    ]
    return sorted(costs, key=lambda cost: cost.without)[:_NAMED]

"""From our network to a graph: PyTorch's exporter, for the sizes, the batch and the input that were asked for."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.export.options import ANY_BATCH, MAX_BATCH, ExportOptions
from finetune.inference.exported import FOCAL, IMAGE
from finetune.models.encoder_specs import PATCH

if TYPE_CHECKING:
    from torch import Tensor

    from finetune.inference.predictor import Predictor

OPSET = 18


def trace_network(predictor: Predictor, options: ExportOptions, output_name: str, output: Path) -> None:
    """Write the graph in float32. The position embedding is a constant or, for any size, computed in the graph."""
    import torch

    from finetune.models.onnx_graph import TracedNetwork

    preprocessing, canonical = predictor.preprocessing, predictor.canonical
    size = preprocessing.network_size(*options.image_size)
    traced = TracedNetwork(
        predictor.network,
        None if options.dynamic else size,
        colors=(preprocessing.mean, preprocessing.std) if options.input_type == "uint8" else None,
        frame_size=options.image_size if options.resize else None,
    ).eval()
    image = _make_image(options, size)
    given = (image, *([torch.full((len(image),), canonical.focal_px)] if canonical else []))
    with warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "torch.export"):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced,
            given,
            str(output),
            dynamo=True,
            opset_version=OPSET,
            input_names=[IMAGE, FOCAL][: len(given)],
            output_names=[output_name],
            dynamic_shapes=_find_dynamic_shapes(options, has_focal=canonical is not None),
            external_data=False,
            verbose=False,
        )


def _make_image(options: ExportOptions, size: tuple[int, int]) -> Tensor:
    import torch

    # A batch of 1 would be taken for a constant.
    count = 2 if options.batch == ANY_BATCH else options.batch
    if options.input_type == "float32":
        return torch.zeros(count, 3, *size)
    return torch.zeros(count, *(options.image_size if options.resize else size), 3, dtype=torch.uint8)


def _find_dynamic_shapes(options: ExportOptions, *, has_focal: bool) -> dict[str, dict[int, object] | None] | None:
    """Which sides of the inputs may vary, as PyTorch's exporter asks for them; None: none."""
    import torch

    image: dict[int, object] = {}
    if options.batch == ANY_BATCH:
        image[0] = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    focal = {0: image[0]} if image else None
    if options.dynamic:
        rows, columns = (torch.export.Dim(name, min=2, max=300) for name in ("rows", "columns"))
        first = 1 if options.input_type == "uint8" else 2
        image |= {first: PATCH * rows, first + 1: PATCH * columns}
    return {"image": image, **({"focal_px": focal} if has_focal else {})} if image else None


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

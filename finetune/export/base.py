"""The interface of every exporter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.export.comparison import Comparison
from finetune.export.options import DEFAULTS, HALF_LIMIT, ExportOptions, Precision
from finetune.utils.errors import FinetuneError
from finetune.utils.kinds import Activation

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# Predicts one photo, which it preprocesses itself: (H, W, 3) uint8 RGB -> (H, W) float32, in the unit of the model.
# Evaluation predicts many normalized images at once, by ``evaluation.evaluator.PredictFunction``.
PredictImage = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Exporter(Protocol):
    """A format that other programs load: one file in this folder, one line in ``registry.EXPORTERS``, one test.

    Its module must not import torch before ``write`` or ``read``, so that a wrong call fails at once.
    ``finetune.export.export`` decides when and where to write, and whether the result is kept.

    Attributes:
        suffix: the end of the output's name, such as ``.pth``; "" for a folder.
        limit: the largest difference allowed from our own prediction, as a share of its spread (max - min).
        holds_exponential: whether the format can hold a head whose last activation is an exponential.
        holds_camera: whether whoever loads the export can say the camera of an image, as a canonical model needs.
        precisions: those that it can be written in.
        takes: names of the other fields of ``ExportOptions`` that mean something to this format.
        options: what was asked for.
        image: (H, W, 3) uint8 RGB of ``options.image_size``, on which the export is compared; None before it is read.
    """

    suffix: str
    limit: float
    holds_camera: bool = False
    holds_exponential: bool = False
    precisions: tuple[Precision, ...] = ("float32", "float16")
    takes: frozenset[str] = frozenset()
    options: ExportOptions
    image: NDArray[np.uint8] | None

    def __init__(self, options: ExportOptions = DEFAULTS, image: NDArray[np.uint8] | None = None) -> None:
        self.options = options
        self.image = image

    @property
    def allowed(self) -> float:
        """The largest difference allowed in the precision of the export, as a share of the prediction's spread."""
        # What INT8 costs is judged in AbsRel.
        by_precision = {"float32": self.limit, "int8": math.inf}
        return by_precision.get(self.options.precision, max(self.limit, HALF_LIMIT))

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """
        Args:
            max_depth_m: of the model, meters; None for a relative one.
            adapters: whether there are adapters next to its weights; None if that is not known yet.

        Raises:
            FinetuneError: the format cannot hold such a model, or a library that writes it is not installed.
        """
        return

    def require_activation(self, name: str, activation: Activation) -> None:
        """
        Args:
            name: of the format.
            activation: of the model's head.

        Raises:
            FinetuneError: the format cannot hold such a head.
        """
        if activation == "exp" and not self.holds_exponential:
            raise FinetuneError(
                f"format {name}: its network ends in a sigmoid or a ReLU, and this model in an exponential. Export to "
                "onnx or openvino, or train with model.head: metric and model.activation: sigmoid."
            )

    def require_positions(self, source: str, position_offset: float, network_size: tuple[int, int]) -> None:
        """
        Args:
            source: the name of the model in errors.
            position_offset: the offset with which it samples its position embedding.
            network_size: height and width of the network's input, pixels.

        Raises:
            FinetuneError: in this format the model cannot make the same predictions at that size.
        """
        return

    def targets(self, output: Path) -> list[Path]:
        """All files and folders that ``write`` makes in the folder of ``output``, with ``output`` itself last."""
        ...

    def write(self, predictor: Predictor, output: Path) -> None:
        """Write the ``targets``, and nothing else; the folder of ``output`` is temporary and empty."""
        ...

    def choose_compared(self, predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image that is compared: ``image``, or what becomes of it before it reaches the export."""
        return image

    def read(self, output: Path, device: str) -> PredictImage:
        """Load the written files as a user of the format would; returns the function that predicts with them."""
        ...

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """
        Complete what is written at ``output``. This is called after the comparison on ``image`` passed.

        Returns:
            Sentences to print.
        """
        return ()

"""What every exporter provides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.export.comparison import Comparison

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# Predicts one photo, which it preprocesses itself: (H, W, 3) uint8 RGB -> (H, W) float32, in the unit of the model.
# Evaluation predicts many normalized images at once, by ``evaluation.evaluator.PredictFunction``.
PredictImage = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Exporter(Protocol):
    """A format that other programs load: one file in this folder, one line in ``registry.EXPORTERS``, one test.

    Its module imports no torch before ``write`` or ``read``, so that a wrong call is answered at once. When and where
    to write, and whether the result may stay, is ``finetune.export.export``'s.

    Attributes:
        suffix: how the output's name ends, such as ``.pth``; "" for a folder.
        limit: the largest difference from our own answer that is acceptable, as a share of its spread (max - min).
        image_size: height and width in pixels of the images that it is made for, where a format is made for some.
        half: whether the weights are stored as float16.
        dynamic: whether inputs of any size are taken; of a format that is made for one size otherwise.
    """

    suffix: str
    limit: float
    image_size: tuple[int, int]
    half: bool
    dynamic: bool

    def __init__(self, *, image_size: tuple[int, int] = (480, 640), half: bool = False, dynamic: bool = False) -> None:
        self.image_size = image_size
        self.half = half
        self.dynamic = dynamic

    def require_writable(self, max_depth_m: float | None, *, adapters: bool | None = None) -> None:
        """
        Args:
            max_depth_m: of the model, meters; None for a relative one.
            adapters: whether adapters stand beside its weights; None where that is not known yet.

        Raises:
            FinetuneError: the format cannot hold such a model, or what writes it is not installed.
        """
        return

    def require_positions(self, source: str, position_offset: float, network_size: tuple[int, int]) -> None:
        """
        Args:
            source: names the model in errors.
            position_offset: with which it samples its position embedding.
            network_size: height and width that the network sees, pixels.

        Raises:
            FinetuneError: in this format it cannot give the same answers at that size.
        """
        return

    def targets(self, output: Path) -> list[Path]:
        """All files and folders that ``write`` makes, in the folder of ``output``; ``output`` itself last."""
        ...

    def write(self, predictor: Predictor, output: Path) -> None:
        """Write the ``targets``, and nothing else; the folder of ``output`` is temporary and empty."""
        ...

    def read(self, output: Path, device: str) -> PredictImage:
        """The answer that the written files give by themselves, loaded as a user of the format would load them."""
        ...

    def conclude(
        self, predictor: Predictor, output: Path, image: NDArray[np.uint8], comparison: Comparison
    ) -> Sequence[str]:
        """
        Called once the comparison on ``image`` is within the limit, to complete what is written at ``output``.

        Returns:
            Sentences to print.
        """
        return ()

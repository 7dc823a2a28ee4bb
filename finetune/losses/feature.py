"""Features that stay near those of the encoder that a run started from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.base import LossOfImages
from finetune.utils.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Feature(LossOfImages):
    """Mean over all positions of 1 - cosine between the features of the encoder and of its frozen start, without unit.

    A position whose cosine is above ``tolerance`` counts as 0: it is near enough. Features are the encoder's last map,
    one vector for each patch of 14x14 pixels. The frozen encoder sees the same image, which costs a second forward of
    the encoder. An image without a valid pixel counts as 0, as in other losses.

    Source: Yang et al. 2024 (Depth Anything), arXiv:2401.10891, section 3.4, where each position is left out by itself.
    """

    head: ClassVar[None] = None  # either
    of_features: ClassVar[bool] = True

    tolerance: float = 0.85  # cosine above which a position is left out

    def __post_init__(self) -> None:
        if not -1.0 <= self.tolerance <= 1.0:
            raise RecipeError("tolerance", self.tolerance, "a cosine from -1 to 1; start with 0.85")

    def require_shapes(self, pred: Tensor, target: Tensor, valid: Tensor) -> None:
        """
        Raises:
            ValueError: the features differ in shape, or belong to other images than ``valid``.
        """
        if pred.ndim != 4 or pred.shape != target.shape or valid.ndim != 4 or len(valid) != len(pred):
            shapes = [tuple(tensor.shape) for tensor in (pred, target, valid)]
            raise ValueError(f"shapes must be (B, C, h, w) twice, and (B, 1, H, W): {shapes}")

    def per_image(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, C, h, w) features, of the encoder and of the frozen one, float32 -> (B,), 0 to 2."""
        # The slope of sqrt is infinite at 0.
        norms = [features.square().sum(1).clamp_min(1e-12).sqrt() for features in (pred, target)]
        cosine = (pred * target).sum(1) / (norms[0] * norms[1])
        return (1.0 - cosine).where(cosine <= self.tolerance, 0.0).flatten(1).mean(1)

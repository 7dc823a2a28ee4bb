"""Absolute error in meters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.shapes import mean_over_images, require_same_shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class L1:
    """Mean absolute error over valid pixels, in meters: it teaches metric scale, and far pixels as near ones."""

    head: ClassVar[str] = "metric"

    def __call__(self, pred_m: Tensor, target_m: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            pred_m: predicted depth, meters, (B, 1, H, W).
            target_m: measured depth, meters, (B, 1, H, W); anything where ``valid`` is False.
            valid: True where depth was measured, (B, 1, H, W).

        Returns:
            Scalar, meters: mean over the images that have a valid pixel; 0 with zero gradient when none has.

        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(pred_m=pred_m, target_m=target_m, valid=valid)
        error_m = (pred_m.where(valid, 0.0) - target_m.where(valid, 0.0)).abs()
        count = valid.flatten(1).sum(1)
        return mean_over_images(error_m.flatten(1).sum(1) / count.clamp_min(1), count)

"""Absolute error for small errors, squared error for large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.base import LossOfImages, mean_over_valid
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class BerHu(LossOfImages):
    """Mean reverse Huber error over valid pixels, in meters: |e| up to c, (e^2 + c^2) / (2 c) beyond it.

    c is a fifth of the largest error of the image, and not of the batch, so that the loss of a frame does not depend on
    the other frames of its batch or on the number of processes. Backward treats c as a constant: it only decides where
    the two pieces meet, and they meet with one value and one slope for any c.

    Source: Laina et al. 2016, arXiv:1606.00373, equation 1, which takes c over the batch.
    """

    head: ClassVar[Kind] = "metric"
    weighs_pixels: ClassVar[bool] = True

    def per_image(self, pred_m: Tensor, target_m: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) meters -> (B,), meters."""
        error_m = (pred_m - target_m).where(valid, 0.0).abs()
        # A perfect prediction has c = 0; its errors are 0 too, and take the first piece.
        c = (error_m.detach().amax((1, 2, 3), keepdim=True) / 5).clamp_min(1e-6)
        return mean_over_valid(error_m.where(error_m <= c, (error_m.square() + c.square()) / (2 * c)), valid, weight)

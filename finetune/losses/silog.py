"""Scale-invariant log error."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.base import LossOfImages, mean_over_valid, measure_log_ratio
from finetune.utils.errors import RecipeError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SiLog(LossOfImages):
    """Root of the scale-invariant log error, over valid pixels, in natural-log units.

    Source: Eigen et al. 2014, arXiv:1406.2283, equation 4; the square root is ours, so that terms compare by size.
    """

    head: ClassVar[Kind] = "metric"
    weighs_pixels: ClassVar[bool] = True

    lam: float = 0.5  # share of the mean log ratio that is forgiven; at 1.0 nothing teaches metric scale

    def __post_init__(self) -> None:
        if not 0.0 <= self.lam <= 1.0:
            raise RecipeError("lam", self.lam, "a number from 0 to 1; start with 0.5")

    def per_image(self, pred_m: Tensor, target_m: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) meters -> (B,), without unit."""
        log_ratio = measure_log_ratio(pred_m, target_m, valid)
        mean_of_squares = mean_over_valid(log_ratio.square(), valid, weight)
        square_of_mean = mean_over_valid(log_ratio, valid, weight).square()
        # The slope of sqrt is infinite at 0; the floor keeps a perfect prediction from giving NaN gradients.
        return (mean_of_squares - self.lam * square_of_mean).clamp_min(1e-12).sqrt()

"""Absolute error of log depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.base import LossOfImages, mean_over_valid, measure_log_ratio
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LogL1(LossOfImages):
    """Mean absolute difference of natural logarithms over valid pixels, without unit: relative error, near as far.

    10 % too far costs ln 1.1 at 1 m and at 50 m. Unlike ``silog`` it forgives no common factor.
    """

    head: ClassVar[Kind] = "metric"
    weighs_pixels: ClassVar[bool] = True

    def per_image(self, pred_m: Tensor, target_m: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) meters -> (B,), without unit."""
        return mean_over_valid(measure_log_ratio(pred_m, target_m, valid).abs(), valid, weight)

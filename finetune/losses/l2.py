"""Squared error in meters."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.base import LossOfImages, mean_over_valid
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class L2(LossOfImages):
    """Mean squared error over valid pixels, in square meters: a pixel that is 2 m off counts as four that are 1 m off.

    It is what pulls hardest at large errors, outliers of the sensor included; ``berhu`` is gentler with those.
    """

    head: ClassVar[Kind] = "metric"
    weighs_pixels: ClassVar[bool] = True

    def per_image(self, pred_m: Tensor, target_m: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
        """(B, 1, H, W) meters -> (B,), square meters."""
        return mean_over_valid((pred_m - target_m).where(valid, 0.0).square(), valid, weight)

"""Scale-invariant log error."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.losses.shapes import mean_over_images, require_same_shape

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SiLog:
    """Root of the scale-invariant log error, over valid pixels, in natural-log units.

    Source: Eigen et al. 2014, arXiv:1406.2283, equation 4; the square root is ours, so that terms compare by size.
    """

    head: ClassVar[str] = "metric"

    lam: float = 0.5  # share of the mean log ratio that is forgiven; at 1.0 nothing teaches metric scale

    def __post_init__(self) -> None:
        if not 0.0 <= self.lam <= 1.0:
            raise RecipeError("lam", self.lam, "a number from 0 to 1; start with 0.5")

    def __call__(self, pred_m: Tensor, target_m: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            pred_m: predicted depth, meters, > 0, (B, 1, H, W).
            target_m: measured depth, meters, (B, 1, H, W); anything where ``valid`` is False.
            valid: True where depth was measured, (B, 1, H, W).

        Returns:
            Scalar: mean over the images that have a valid pixel; 0 with zero gradient when none has.

        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(pred_m=pred_m, target_m=target_m, valid=valid)
        # Mask before the log: a mask after it lets the NaN of an invalid pixel through in backward.
        log_ratio = pred_m.where(valid, 1.0).clamp_min(1e-6).log() - target_m.where(valid, 1.0).clamp_min(1e-6).log()
        count = valid.flatten(1).sum(1)
        mean_of_squares = log_ratio.square().flatten(1).sum(1) / count.clamp_min(1)
        square_of_mean = (log_ratio.flatten(1).sum(1) / count.clamp_min(1)).square()
        # The slope of sqrt is infinite at 0; the floor keeps a perfect prediction from giving NaN gradients.
        per_image = (mean_of_squares - self.lam * square_of_mean).clamp_min(1e-12).sqrt()
        return mean_over_images(per_image, count)

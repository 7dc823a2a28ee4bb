"""Multi-scale gradient matching: sharp edges where the measured depth has them, smooth surfaces elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.affine_invariant import aligned_residual
from finetune.losses.base import LossOfImages, count_valid, measure_log_ratio
from finetune.utils.errors import RecipeError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Gradient(LossOfImages):
    """Mean absolute x and y difference of the error, summed over scales, without unit.

    A difference counts only where both of its pixels are valid. An image whose valid pixels never touch counts as 0.
    The error is that of log depth, in natural-log units, for a metric model: the log makes it blind to a global scale,
    so that it adds shape to ``silog`` without pulling at the meters. For a relative model it is the one of ``ssi``.

    Source: the gradient matching term of MiDaS, Ranftl et al. 2020, arXiv:1907.01341, equation 11, by striding
    1, 2, 4, 8; taken of log depth as in Li and Snavely 2018, arXiv:1804.00607, equation 4, and divided by the number
    of valid differences of each scale.
    """

    of: Literal["log", "aligned"] = "log"  # log: of depth, for head metric; aligned: as ssi does, for the others
    scales: int = 4  # strides 1, 2, 4, ...

    def __post_init__(self) -> None:
        if not 1 <= self.scales <= 8:
            raise RecipeError("scales", self.scales, "a whole number from 1 to 8; start with 4")

    @property
    def head(self) -> Kind:
        """Which head it can train; ``relative`` is that of relative depth too."""
        return "metric" if self.of == "log" else "relative"

    def per_image(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """(B, 1, H, W) depth, meters, or inverse or relative depth where it is ``aligned`` -> (B,), without unit."""
        if self.of == "log":
            error = measure_log_ratio(pred, target, valid)
        else:
            error = aligned_residual(pred, target, valid).view(valid.shape)
        per_image = error.new_zeros(len(error))
        for stride in (2**scale for scale in range(self.scales)):
            per_image = per_image + _mean_difference(error[..., ::stride, ::stride], valid[..., ::stride, ::stride])
        return per_image


def _mean_difference(error: Tensor, valid: Tensor) -> Tensor:
    """(B,): mean absolute difference between neighbours, right and below, over pairs of valid pixels."""
    pair_x = valid[..., :, 1:] & valid[..., :, :-1]
    pair_y = valid[..., 1:, :] & valid[..., :-1, :]
    total = ((error[..., :, 1:] - error[..., :, :-1]).abs() * pair_x).flatten(1).sum(1) + (
        (error[..., 1:, :] - error[..., :-1, :]).abs() * pair_y
    ).flatten(1).sum(1)
    return total / (count_valid(pair_x) + count_valid(pair_y)).clamp_min(1)

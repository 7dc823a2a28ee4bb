"""Scale-and-shift-invariant error in inverse depth, or in depth for relative depth: the loss of relative models."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.losses.affine_invariant import aligned_residual
from finetune.losses.base import LossOfImages, count_valid
from finetune.utils.errors import RecipeError
from finetune.utils.kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Ssi(LossOfImages):
    """Mean absolute difference of inverse depths, each moved by its median and divided by its spread, without unit.

    For a head of relative depth both are depth. A prediction that is the target times a positive number plus any number
    has error 0. Weigh it 1 to 2 against ``gradient`` with ``of: aligned``, as Depth Anything V2 does.

    Source: Ranftl et al. 2020 (MiDaS), arXiv:1907.01341, equations 5 to 8, without the factor 1/2 and, where it is
    trimmed, as the mean over what is kept, so that ``trim`` leaves the size of the loss alone.
    """

    head: ClassVar[Kind] = "relative"

    trim: float = 0.0  # share of the valid pixels of each image, those of the largest error, that are dropped

    def __post_init__(self) -> None:
        if not 0.0 <= self.trim <= 0.5:
            raise RecipeError("trim", self.trim, "a share from 0 to 0.5; MiDaS drops 0.2, Depth Anything V2 0.1")

    def per_image(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """
        (B, 1, H, W) inverse depth, or depth for relative depth, ``target`` >= 0 -> (B,), without unit.

        An image whose target is one number counts as 0; one whose prediction is, as 1 without gradient.
        """
        error = aligned_residual(pred, target, valid).abs()
        count = count_valid(valid)
        kept = count - (count * self.trim).floor().long()
        if self.trim:
            error = _smallest(error, valid.flatten(1), kept)
        return error.sum(1) / kept.clamp_min(1)


def _smallest(error: Tensor, inside: Tensor, kept: Tensor) -> Tensor:
    """(B, N) -> (B, N) in rising order: the ``kept`` (B,) smallest valid errors of each row, then zeros."""
    rising = error.where(inside, float("inf")).sort(1).values
    rank = inside.new_ones(inside.shape[1]).cumsum(0)  # 1, 2, ...
    return rising.where(rank <= kept[:, None], 0.0)

"""Comparison of inverse or relative depths without scale and shift: each map is normalized by its median and spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.losses.base import count_valid

if TYPE_CHECKING:
    from torch import Tensor

MIN_SPREAD = 1e-6  # a map that varies less than this, in its own unit, is taken for one number


def aligned_residual(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """
    Difference of both maps after each was moved by its median and divided by its mean absolute deviation from it.

    Source: Ranftl et al. 2020 (MiDaS), arXiv:1907.01341, equations 6 and 7. Median and deviation are taken over the
    valid pixels alone; of an even count the median is the lower of the two in the middle, PyTorch's.

    Args:
        pred: predicted inverse depth, or depth, of any unit, (B, 1, H, W).
        target: measured inverse depth, 1/m, or depth, meters, (B, 1, H, W); anything where ``valid`` is False.
        valid: True where depth was measured, (B, 1, H, W).

    Returns:
        (B, H * W) float32, no unit. 0 with zero gradient where ``valid`` is False, and all over an image whose target
        is one number: scale and shift make that of any prediction, so it teaches nothing.
    """
    inside = valid.flatten(1)
    pred, _ = _normalized(pred, inside)
    target, flat = _normalized(target, inside)
    return (pred - target).where(inside & ~flat, 0.0)


def _normalized(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1, H, W) -> (B, H * W) with median 0 and spread 1, all 0 for a flat map; and (B, 1), True for flat maps."""
    values = values.float().flatten(1)
    # Invalid pixels are replaced before any arithmetic: NaN times a gradient of 0 is NaN in backward.
    median = values.where(inside, float("nan")).nanmedian(1, keepdim=True).values
    median = median.where(inside.any(1, keepdim=True), 0.0)
    centered = (values.where(inside, 0.0) - median).where(inside, 0.0)
    spread = centered.abs().sum(1, keepdim=True) / count_valid(inside)[:, None].clamp_min(1)
    flat = spread <= MIN_SPREAD  # NaN compares False, so it stays visible and is not taken for flat
    # Divided by the floor, a map of one number would get a gradient of a million.
    return (centered / spread.clamp_min(MIN_SPREAD)).where(~flat, 0.0), flat

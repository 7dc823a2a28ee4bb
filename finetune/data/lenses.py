"""Focal lengths at the network's size, sorted into lenses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Two lenses are this many times apart; a factor in the focal length is about the same factor in every prediction.
APART = 1.05
# One lens: focal lengths that are no farther apart than this. Mixed without canonical labels, more teach a compromise.
MIXED = 1.1
# Where focal lengths spread more than that without a gap, they are cut at equal ratios into so many groups.
_CUTS = 4


@dataclass(frozen=True, kw_only=True)
class Lens:
    """Focal lengths that count as one.

    Attributes:
        least_px, most_px: at the network's size, pixels; both belong to it.
    """

    least_px: float
    most_px: float

    def __str__(self) -> str:
        least, most = f"{self.least_px:.0f}", f"{self.most_px:.0f}"
        return f"{least} px" if least == most else f"{least} to {most} px"

    def holds(self, focal_px: float) -> bool:
        """Whether a focal length is one of them."""
        return self.least_px <= focal_px <= self.most_px


def group_focal_lengths(focals_px: Sequence[float]) -> list[Lens]:
    """
    Lenses, shortest first, of which each holds at least one of the focal lengths and no two hold the same.

    Args:
        focals_px: one a frame, in any order.
    """
    ordered = sorted(focals_px)
    if not ordered:
        return []
    starts = [0, *(i + 1 for i, (one, next_one) in enumerate(pairwise(ordered)) if next_one > APART * one)]
    groups = [ordered[start:end] for start, end in zip(starts, [*starts[1:], len(ordered)], strict=True)]
    if any(group[-1] > MIXED * group[0] for group in groups):
        ratio = (ordered[-1] / ordered[0]) ** (1 / _CUTS)
        ends = [ordered[0] * ratio**cut for cut in range(1, _CUTS)]
        groups = [[focal for focal in ordered if sum(focal > end for end in ends) == cut] for cut in range(_CUTS)]
    return [Lens(least_px=group[0], most_px=group[-1]) for group in groups if group]

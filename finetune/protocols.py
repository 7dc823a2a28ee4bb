"""Named protocols: everything that decides a metric besides the weights, so that a number can be repeated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.alignment import fit_inverse_least_squares
from finetune.metrics import METRICS

# Name of a protocol -> what is fitted between answer and measured depth, for each image.
ALIGNMENTS = {
    "plain": "none",
    "plain+align=scale_shift_inverse": "scale >= 0 and shift, least squares in inverse depth over the compared pixels",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a prediction is compared with measured depth.

    ``plain``, for one's own data: each image at the resolution of its measured depth, the prediction resized to it
    bilinearly (align_corners true, as the original model does), clamped to the range, compared where measured depth
    lies in the range, averaged over images; no crop, no alignment, no flip averaging.

    ``plain+align=scale_shift_inverse``, for a relative model: the same, after a scale and a shift were fitted to each
    image in inverse depth. It says how right the shape is and nothing about meters.
    """

    name: str = "plain"
    min_depth_m: float
    max_depth_m: float
    valid_depth: str = field(default="min_depth_m <= depth <= max_depth_m", init=False)
    clamp: str = field(default="prediction to [min_depth_m, max_depth_m]", init=False)
    crop: str = field(default="none", init=False)
    resolution: str = field(default="measured depth; prediction resized bilinearly, align_corners true", init=False)
    alignment: str = field(init=False)
    averaging: str = field(default="image", init=False)
    flip: bool = field(default=False, init=False)
    silog: str = field(default="100 sqrt(mean(e^2) - mean(e)^2)", init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "alignment", ALIGNMENTS[self.name])

    @property
    def aligns(self) -> bool:
        """Whether answers are inverse depth of unknown scale and shift; else they are meters."""
        return self.alignment != "none"

    def to_mapping(self) -> dict[str, Any]:
        """All settings, as they stand in every table."""
        return asdict(self)

    def usable(self, target_m: NDArray[np.float32], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(H, W): the pixels that count, of measured depth in meters and where it was measured."""
        return valid & (target_m >= self.min_depth_m) & (target_m <= self.max_depth_m)

    def depth_m(
        self, answer: NDArray[np.floating], target_m: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> NDArray[np.floating]:
        """
        Args:
            answer: (H, W), what a model answers: meters, or inverse depth where the protocol aligns.
            target_m: (H, W), meters.
            usable: (H, W), what ``usable`` answered; at least one pixel.

        Returns:
            (H, W), the answer in meters.
        """
        if not self.aligns:
            return answer
        fit = fit_inverse_least_squares(answer[usable], target_m[usable])
        return fit.depth_m(answer, self.min_depth_m, self.max_depth_m)

    def score(
        self, pred_m: NDArray[np.floating], target_m: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> dict[str, float]:
        """
        Args:
            pred_m: (H, W), what ``depth_m`` answered.
            target_m: (H, W), meters.
            usable: (H, W), what ``usable`` answered; at least one pixel.

        Returns:
            Every metric of this image.
        """
        pred = np.clip(pred_m[usable].astype(np.float64), self.min_depth_m, self.max_depth_m)
        target = target_m[usable].astype(np.float64)
        return {name: metric(pred, target) for name, metric in METRICS.items()}

"""Fits between a prediction and measured depth: what baselines, protocols and calibration share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class InverseFit:
    """1 / depth = scale * relative + shift.

    Attributes:
        scale: 1 / m for one unit of the relative answer.
        shift: 1 / m.
    """

    scale: float
    shift: float

    def depth_m(self, relative: NDArray[np.floating], min_depth_m: float, max_depth_m: float) -> NDArray[np.float64]:
        """
        Args:
            relative: inverse depth of unknown scale and shift, any shape.
            min_depth_m, max_depth_m: range the answer is clamped to; an inverse depth of 0 or less is the far end.

        Returns:
            Depth in meters, same shape.
        """
        inverse = self.scale * relative.astype(np.float64) + self.shift
        return 1.0 / np.clip(inverse, 1.0 / max_depth_m, 1.0 / min_depth_m)


def fit_inverse_least_squares(relative: NDArray[np.floating], target_m: NDArray[np.floating]) -> InverseFit:
    """
    The scale, not below 0, and the shift that minimize the summed squared error in inverse depth.

    A scale below 0 would turn near and far around and score an answer that knows nothing, or the wrong way; the best
    scale that is left is then 0, a constant.

    Source: Ranftl et al. 2020 (MiDaS), arXiv:1907.01341, equation 4.

    Args:
        relative: (N,) inverse depth of unknown scale and shift.
        target_m: (N,) measured depth, meters, > 0.

    Raises:
        ValueError: there is no pixel.
    """
    scale, shift = _line(relative.astype(np.float64), 1.0 / target_m.astype(np.float64))
    return InverseFit(scale=scale, shift=shift)


def fit_inverse_robust(relative: NDArray[np.floating], target_m: NDArray[np.floating]) -> InverseFit:
    """
    The scale and shift that minimize the summed absolute error in inverse depth.

    Least absolute deviations by iteratively reweighted least squares (Schlossmacher 1973,
    doi:10.1080/01621459.1973.10481416), so that a share of wrong pixels does not tilt the line.

    Args:
        relative: (N,) inverse depth of unknown scale and shift.
        target_m: (N,) measured depth, meters, > 0.

    Raises:
        ValueError: fewer than two pixels.
    """
    if relative.size < 2:
        raise ValueError("a line needs two points")
    x, y = relative.astype(np.float64), 1.0 / target_m.astype(np.float64)
    if _is_constant(x):
        return InverseFit(scale=0.0, shift=float(np.median(y)))
    floor = 1e-6 * float(np.mean(np.abs(y)))
    weight = np.ones_like(x)
    scale = shift = 0.0
    for _ in range(50):
        total = weight.sum()
        x_mean, y_mean = (weight @ x) / total, (weight @ y) / total
        spread = weight @ np.square(x - x_mean)
        new_scale = float((weight @ ((x - x_mean) * (y - y_mean))) / spread)
        new_shift = float(y_mean - new_scale * x_mean)
        settled = abs(new_scale - scale) <= 1e-9 * abs(new_scale) and abs(new_shift - shift) <= 1e-9 * abs(y_mean)
        scale, shift = new_scale, new_shift
        if settled:
            break
        weight = 1.0 / np.maximum(np.abs(scale * x + shift - y), floor)
    return InverseFit(scale=scale, shift=shift)


def fit_scale_of_medians(pred_m: NDArray[np.floating], target_m: NDArray[np.floating]) -> float:
    """
    Median of target over median of pred, (N,) meters each; 1 where the prediction has a median of 0.

    Source: Zhou et al. 2017 (SfMLearner), arXiv:1704.07813, section 4.
    """
    middle = float(np.median(pred_m.astype(np.float64)))
    return float(np.median(target_m.astype(np.float64))) / middle if middle > 0 else 1.0


def fit_scale_least_squares(pred_m: NDArray[np.floating], target_m: NDArray[np.floating]) -> float:
    """The scale s, not below 0, that minimizes the sum of (s pred - target)^2 over (N,) pixels, meters both."""
    pred, target = pred_m.astype(np.float64), target_m.astype(np.float64)
    energy = float(pred @ pred)
    return max(0.0, float(pred @ target) / energy) if energy > 0 else 1.0


def fit_depth_least_squares(pred_m: NDArray[np.floating], target_m: NDArray[np.floating]) -> tuple[float, float]:
    """
    The scale s, not below 0, and the shift t, meters, that minimize the sum of (s pred + t - target)^2.

    Args:
        pred_m, target_m: (N,) meters.

    Raises:
        ValueError: there is no pixel.
    """
    return _line(pred_m.astype(np.float64), target_m.astype(np.float64))


def fit_log_scale(pred_m: NDArray[np.floating], target_m: NDArray[np.floating]) -> float:
    """The scale that minimizes the summed |ln(scale pred) - ln target| over (N,) pixels, meters both, > 0: the median
    of their ratio in logarithms, which a minority of wrong pixels does not move."""
    return float(np.exp(np.median(np.log(target_m.astype(np.float64)) - np.log(pred_m.astype(np.float64)))))


def fit_scale_median(pred_m: NDArray[np.floating], target_m: NDArray[np.floating]) -> float:
    """The median of target / pred over (N,) pixels, meters both: one scale in depth that outliers do not move."""
    return float(np.median(target_m.astype(np.float64) / pred_m.astype(np.float64)))


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two (N,) arrays, -1 to 1; 0 where one of them is constant."""
    ranks = [np.unique(values, return_inverse=True)[1].astype(np.float64) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope, not below 0, and intercept of the line of least squares through (N,) points."""
    if not x.size:
        raise ValueError("a fit needs a pixel")
    if _is_constant(x):
        return 0.0, float(y.mean())
    slope = max(0.0, float(np.mean((x - x.mean()) * (y - y.mean())) / x.var()))
    return slope, float(y.mean() - slope * x.mean())


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Whether the values differ by rounding at most, so that a slope over them says nothing."""
    return bool(np.ptp(values) <= 1e-9 * max(1.0, np.abs(values).max()))

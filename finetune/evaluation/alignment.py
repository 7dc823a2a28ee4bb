"""Fits of a prediction to measured depth, shared by baselines, protocols and calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import scipy.optimize
import scipy.stats
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class InverseFit:
    """1 / depth = scale * relative + shift.

    Attributes:
        scale: 1 / m for one unit of the relative prediction.
        shift: 1 / m.
    """

    scale: float
    shift: float

    def depth_m(self, relative: NDArray[np.floating], min_depth_m: float, max_depth_m: float) -> NDArray[np.float64]:
        """
        Args:
            relative: inverse depth of unknown scale and shift, any shape.
            min_depth_m, max_depth_m: range the depth is clamped to; an inverse depth of 0 or less is the far end.

        Returns:
            Depth in meters, same shape.
        """
        inverse = self.scale * relative.astype(np.float64) + self.shift
        return 1.0 / np.clip(inverse, 1.0 / max_depth_m, 1.0 / min_depth_m)


@dataclass(frozen=True, kw_only=True)
class DepthFit:
    """depth = scale * relative depth + shift.

    Attributes:
        scale: meters for one unit of the relative prediction.
        shift: meters.
    """

    scale: float
    shift: float

    def depth_m(self, relative: NDArray[np.floating], min_depth_m: float, max_depth_m: float) -> NDArray[np.float64]:
        """
        Args:
            relative: depth of unknown scale and shift, any shape.
            min_depth_m, max_depth_m: range the depth is clamped to.

        Returns:
            Depth in meters, same shape.
        """
        return np.clip(self.scale * relative.astype(np.float64) + self.shift, min_depth_m, max_depth_m)


def fit_inverse_least_squares(relative: NDArray[np.floating], target_m: NDArray[np.floating]) -> InverseFit:
    """
    The scale, not below 0, and the shift that minimize the summed squared error in inverse depth.

    A scale below 0 would swap near and far, and so reward a prediction that knows nothing or is the wrong way round.
    Where the best scale would be below 0 it is 0, a constant depth.

    Source: Ranftl et al. 2020 (MiDaS), arXiv:1907.01341, equation 4.

    Args:
        relative: (N,) inverse depth of unknown scale and shift.
        target_m: (N,) measured depth, meters, > 0.

    Raises:
        ValueError: there is no pixel.
    """
    scale, shift = _line(relative.astype(np.float64), 1.0 / target_m.astype(np.float64))
    return InverseFit(scale=scale, shift=shift)


def fit_inverse_abs_rel(
    relative: NDArray[np.floating],
    target_m: NDArray[np.floating],
    weight: NDArray[np.floating],
    *,
    min_depth_m: float,
    max_depth_m: float,
) -> InverseFit:
    """
    The scale, not below 0, and the shift whose depth, clamped to the range, has the least weighted mean of
    |pred - target| / target.

    Args:
        relative: (N,) inverse depth of unknown scale and shift.
        target_m: (N,) measured depth, meters, > 0.
        weight: (N,) share of each pixel in the mean, >= 0.
        min_depth_m, max_depth_m: the range that predictions are clamped to, meters.

    Raises:
        ValueError: there is no pixel.
    """
    search = _LineSearch(InverseFit, relative, target_m, weight, min_depth_m, max_depth_m)
    return search.find(1.0 / fit_constant_abs_rel(target_m, weight), 1.0 / target_m.astype(np.float64))


def fit_depth_abs_rel(
    relative: NDArray[np.floating],
    target_m: NDArray[np.floating],
    weight: NDArray[np.floating],
    *,
    min_depth_m: float,
    max_depth_m: float,
) -> DepthFit:
    """As ``fit_inverse_abs_rel``, of depth of unknown scale and shift."""
    search = _LineSearch(DepthFit, relative, target_m, weight, min_depth_m, max_depth_m)
    return search.find(fit_constant_abs_rel(target_m, weight), target_m.astype(np.float64))


_Fit = TypeVar("_Fit", InverseFit, DepthFit)


class _LineSearch(Generic[_Fit]):
    """
    The line, not falling, whose depth has the least error.

    The error has kinks and can have several valleys, so the search uses no slopes (Nelder and Mead 1965,
    doi:10.1093/comjnl/7.4.308) and starts from several lines. It varies the values of the line at two points rather
    than its coefficients, and starts again from its end until it gains nothing more.
    """

    def __init__(
        self,
        fit: type[_Fit],
        relative: NDArray[np.floating],
        target_m: NDArray[np.floating],
        weight: NDArray[np.floating],
        min_depth_m: float,
        max_depth_m: float,
    ) -> None:
        self._fit: type[_Fit] = fit
        self._x, self._target = relative.astype(np.float64), target_m.astype(np.float64)
        self._share = weight / self._target
        self._range_m = (min_depth_m, max_depth_m)

    def find(self, constant: float, y: NDArray[np.float64]) -> _Fit:
        """
        Args:
            constant: the best line without a slope.
            y: (N,), what the line is to give.
        """
        x = self._x
        if _is_constant(x):
            return self._fit(scale=0.0, shift=constant)
        low, high = (float(end) for end in np.percentile(x, (10, 90)))
        if high - low <= 1e-9 * max(1.0, abs(high)):
            low, high = float(x.min()), float(x.max())

        def fit_of(ends: NDArray[np.float64]) -> _Fit:
            scale = max(0.0, float(ends[1] - ends[0]) / (high - low))
            return self._fit(scale=scale * constant, shift=float(ends[0] - scale * low) * constant)

        def error_of_every(nth: int) -> Callable[[NDArray[np.float64]], float]:
            some_x, some_target, share = x[::nth], self._target[::nth], self._share[::nth]

            def error(ends: NDArray[np.float64]) -> float:
                return _abs_rel(fit_of(ends).depth_m(some_x, *self._range_m), some_target, share)

            return error

        # Values of the line at the two points, as multiples of the best constant.
        slope, intercept = _line(x, y)
        starts = [np.array([slope * end + intercept for end in (low, high)]) / constant]
        starts += [np.array(ends) for ends in ((1.0, 1.0), (0.5, 1.5), (0.8, 3.0))]
        coarse = error_of_every(max(1, x.size // _COARSE_PIXELS))
        ends = min((_search_minimum(coarse, start, width=0.3, gain=1e-3) for start in starts), key=coarse)
        return fit_of(_search_minimum(error_of_every(1), ends, width=0.03, gain=1e-8))


# Each start is searched over about this many of the pixels, and the best of them over all pixels.
_COARSE_PIXELS = 5_000
# A gain is a share of the error, but of no error below this: the search for an exact line would never end.
_MIN_ERROR = 1e-3


def _search_minimum(
    error: Callable[[NDArray[np.float64]], float], start: NDArray[np.float64], *, width: float, gain: float
) -> NDArray[np.float64]:
    """The point near a start with the least error: one search in steps of ``width`` and less after the other, each from
    the end of the one before, until a search gains less than the share ``gain`` of the error."""
    least = error(start)
    for _ in range(20):
        around = start + width * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        options = {"initial_simplex": around, "xatol": gain, "fatol": gain * max(least, _MIN_ERROR), "maxiter": 1000}
        found = scipy.optimize.minimize(error, start, method="Nelder-Mead", options=options)
        if least - found.fun <= gain * max(least, _MIN_ERROR):
            return start if least <= found.fun else found.x
        start, least = found.x, found.fun
    return start


def fit_scale_abs_rel(
    pred_m: NDArray[np.floating],
    target_m: NDArray[np.floating],
    weight: NDArray[np.floating],
    *,
    min_depth_m: float,
    max_depth_m: float,
) -> float:
    """
    The one scale in depth that gives the least weighted mean of |pred - target| / target, pred clamped to the range.

    Args:
        pred_m: (N,) meters, > 0.
        target_m: (N,) measured depth, meters, > 0.
        weight: (N,) share of each pixel in the mean, >= 0.
        min_depth_m, max_depth_m: the range that predictions are clamped to, meters.

    Raises:
        ValueError: there is no pixel.
    """
    pred, target = pred_m.astype(np.float64), target_m.astype(np.float64)
    ratios = target / pred
    share = weight / target
    # Without the clamp it is the median of the ratios, each weighted by how much the scale changes its error.
    unclamped = _weighted_median(ratios, weight / ratios)

    def error(log_scale: float) -> float:
        return _abs_rel(np.clip(np.exp(log_scale) * pred, min_depth_m, max_depth_m), target, share)

    starts = np.log(np.unique([unclamped, *np.quantile(ratios, np.linspace(0.0, 1.0, 21))]))
    best = int(np.argmin([error(start) for start in starts]))
    ends = (float(starts[max(0, best - 1)]), float(starts[min(len(starts) - 1, best + 1)]))
    found = scipy.optimize.minimize_scalar(error, bounds=ends, method="bounded", options={"xatol": 1e-12})
    return float(np.exp(min((float(found.x), float(starts[best])), key=error)))


def fit_constant_abs_rel(target_m: NDArray[np.floating], weight: NDArray[np.floating]) -> float:
    """
    The one depth with the least weighted mean of |constant - target| / target: the median of the targets, each weighted
    by the share that its error is divided by.

    Args:
        target_m: (N,) measured depth, meters, > 0.
        weight: (N,) share of each pixel in the mean, >= 0.

    Raises:
        ValueError: there is no pixel.
    """
    target = target_m.astype(np.float64)
    return _weighted_median(target, weight / target)


def _abs_rel(pred_m: NDArray[np.float64], target_m: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    """The weighted mean of |pred - target| / target; ``share`` is the weight of each pixel over its target."""
    return float(share @ np.abs(pred_m - target_m))


def _weighted_median(values: NDArray[np.float64], weight: NDArray[np.floating]) -> float:
    """The value with at most half of the weight below it, and at most half above it."""
    if not values.size:
        raise ValueError("a fit needs a pixel")
    order = np.argsort(values, kind="stable")
    until = np.cumsum(weight[order].astype(np.float64))
    return float(values[order[np.searchsorted(until, until[-1] / 2)]])


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
    of their ratio in logarithms, which a minority of wrong pixels cannot change."""
    return float(np.exp(np.median(np.log(target_m.astype(np.float64)) - np.log(pred_m.astype(np.float64)))))


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Spearman's rank correlation of two (N,) arrays, -1 to 1; equal values share the mean of their ranks. It is 0
    where one of the arrays is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(scipy.stats.spearmanr(first, second).statistic)


def _line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope, not below 0, and intercept of the line of least squares through (N,) points."""
    if not x.size:
        raise ValueError("a fit needs a pixel")
    if _is_constant(x):
        return 0.0, float(y.mean())
    slope = max(0.0, float(np.mean((x - x.mean()) * (y - y.mean())) / x.var()))
    return slope, float(y.mean() - slope * x.mean())


def _is_constant(values: NDArray[np.float64]) -> bool:
    """Whether the values differ by rounding at most, so that no slope can be fitted to them."""
    return bool(np.ptp(values) <= 1e-9 * max(1.0, np.abs(values).max()))

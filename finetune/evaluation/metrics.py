"""The field's depth metrics, each over the valid pixels of one image, in float64.

Every function takes ``pred_m`` and ``target_m``: (N,) float64 meters, both > 0, N > 0; and returns one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def abs_rel(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Mean of \\|pred - target\\| / target, no unit; lower is better."""
    return float(np.mean(np.abs(pred_m - target_m) / target_m))


def sq_rel(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Mean of (pred - target)^2 / target, meters; lower is better."""
    return float(np.mean(np.square(pred_m - target_m) / target_m))


def rmse(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Root of the mean squared error, meters; lower is better."""
    return float(np.sqrt(np.mean(np.square(pred_m - target_m))))


def rmse_log(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Root of the mean squared difference of natural logarithms, no unit; lower is better."""
    return float(np.sqrt(np.mean(np.square(np.log(pred_m) - np.log(target_m)))))


def log10(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Mean absolute difference of decimal logarithms, no unit; lower is better."""
    return float(np.mean(np.abs(np.log10(pred_m) - np.log10(target_m))))


def silog(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """100 sqrt(mean(e^2) - mean(e)^2) with e = ln pred - ln target, no unit; lower is better."""
    error = np.log(pred_m) - np.log(target_m)
    # Rounding can make the variance of equal numbers slightly negative.
    return float(100.0 * np.sqrt(max(0.0, np.mean(np.square(error)) - np.square(np.mean(error)))))


def reference_silog(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """sqrt(mean(e^2) - mean(e)^2 / 2) with e = ln pred - ln target: what the training script of Depth Anything V2 calls
    silog; lower is better."""
    error = np.log(pred_m) - np.log(target_m)
    return float(np.sqrt(max(0.0, np.mean(np.square(error)) - 0.5 * np.square(np.mean(error)))))


def delta1(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Share of pixels with max(pred / target, target / pred) strictly below 1.25; higher is better."""
    return _share_within(pred_m, target_m, 1.25)


def delta2(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Share of pixels with max(pred / target, target / pred) strictly below 1.25^2; higher is better."""
    return _share_within(pred_m, target_m, 1.25**2)


def delta3(pred_m: NDArray[np.float64], target_m: NDArray[np.float64]) -> float:
    """Share of pixels with max(pred / target, target / pred) strictly below 1.25^3; higher is better."""
    return _share_within(pred_m, target_m, 1.25**3)


METRICS: dict[str, Metric] = {
    metric.__name__: metric for metric in (abs_rel, sq_rel, rmse, rmse_log, log10, silog, delta1, delta2, delta3)
}
# As people write them. Files and recipes use the names above.
TITLES = {
    **{name: name for name in METRICS},
    "abs_rel": "AbsRel",
    "sq_rel": "SqRel",
    "rmse": "RMSE",
    "rmse_log": "RMSElog",
    "silog": "SILog",
}
# What a metric is measured in; the others have no unit.
UNITS = {"sq_rel": "m", "rmse": "m"}
HIGHER_IS_BETTER = frozenset({"delta1", "delta2", "delta3"})


def is_better(name: str, value: float, than: float | None) -> bool:
    """Whether a value of the metric is strictly better than another, or the first there is."""
    if than is None:
        return True
    return value > than if name in HIGHER_IS_BETTER else value < than


class TargetDepth:
    """Measured depth of one image, and what every row of a table needs of it, computed once.

    Attributes:
        depth_m: (N,) float64 meters, > 0, N > 0.
        ln, log10: its logarithms.
    """

    def __init__(self, depth_m: NDArray[np.float64]) -> None:
        self.depth_m = depth_m
        self.ln = np.log(depth_m)
        self.log10 = np.log10(depth_m)


class Compared:
    """
    All metrics of one row, bit-equal to the functions above; what several of them need is computed once.

    Attributes:
        error_m: (N,) absolute error, meters.
        relative: (N,) the same over target.
        scores: metric -> value.
        reference_silog: as the function.
        mean_log: mean of ln pred - ln target.
    """

    def __init__(self, pred_m: NDArray[np.float64], target: TargetDepth) -> None:
        """
        Args:
            pred_m: (N,) float64 meters, > 0.
            target: as many.
        """
        target_m = target.depth_m
        self.error_m = np.abs(pred_m - target_m)
        self.relative = self.error_m / target_m
        squares = np.square(self.error_m)
        log_error = np.log(pred_m) - target.ln
        mean_square, self.mean_log = np.mean(np.square(log_error)), float(np.mean(log_error))
        square_of_mean = np.square(np.mean(log_error))
        ratio = np.maximum(pred_m / target_m, target_m / pred_m)
        self.scores = {
            "abs_rel": float(np.mean(self.relative)),
            "sq_rel": float(np.mean(squares / target_m)),
            "rmse": float(np.sqrt(np.mean(squares))),
            "rmse_log": float(np.sqrt(mean_square)),
            "log10": float(np.mean(np.abs(np.log10(pred_m) - target.log10))),
            "silog": float(100.0 * np.sqrt(max(0.0, mean_square - square_of_mean))),
            "delta1": float(np.mean(ratio < 1.25)),
            "delta2": float(np.mean(ratio < 1.25**2)),
            "delta3": float(np.mean(ratio < 1.25**3)),
        }
        self.reference_silog = float(np.sqrt(max(0.0, mean_square - 0.5 * square_of_mean)))


def pooled(
    scores: Sequence[Mapping[str, float]], pixels: Sequence[int], mean_logs: Sequence[float], *, by: str, silog: str
) -> dict[str, float]:
    """
    Args:
        scores: every metric of each image, one or more.
        pixels: how many each was over.
        mean_logs: mean of ln pred - ln target of each.
        by: ``image``, each counts once; or ``pixel``, as if all pixels were of one image.
        silog: ``standard`` or ``reference``, which of the two definitions the scores hold.

    Returns:
        Every metric over all images, summed in float64 without rounding in between: the order does not matter.
    """
    if by == "image":
        return {name: math.fsum(of_image[name] for of_image in scores) / len(scores) for name in METRICS}
    total = sum(pixels)

    def mean(values: Iterable[float]) -> float:
        return math.fsum(value * count for value, count in zip(values, pixels, strict=True)) / total

    found = {name: mean(of_image[name] for of_image in scores) for name in METRICS}
    for name in ("rmse", "rmse_log"):
        found[name] = math.sqrt(mean(of_image[name] ** 2 for of_image in scores))
    forgiven, factor = (1.0, 100.0) if silog == "standard" else (0.5, 1.0)
    found["silog"] = factor * math.sqrt(max(0.0, found["rmse_log"] ** 2 - forgiven * mean(mean_logs) ** 2))
    return found


def _share_within(pred_m: NDArray[np.float64], target_m: NDArray[np.float64], bound: float) -> float:
    return float(np.mean(np.maximum(pred_m / target_m, target_m / pred_m) < bound))

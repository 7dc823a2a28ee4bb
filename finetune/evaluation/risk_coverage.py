"""Whether an uncertainty can be trusted: the error of what is kept when the least certain pixels are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

# Shares of the pixels that are kept: all of them first, then less and less.
COVERAGES = tuple(round(1 - i / 20, 2) for i in range(20))


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Risk-coverage curves, each the mean over images of their mean relative error.

    Source: Ilg et al. 2018, arXiv:1802.07095: sparsification, and the area between it and the oracle (AUSE).

    Attributes:
        coverages: shares of an image's pixels that are kept.
        risk: AbsRel of the kept pixels if the least certain are left out.
        oracle: the same if those with the largest errors are left out: no uncertainty can be better.
        random: the same if pixels are left out at random, which is the AbsRel of all.
        images: how many there are.
    """

    coverages: tuple[float, ...]
    risk: tuple[float, ...]
    oracle: tuple[float, ...]
    random: tuple[float, ...]
    images: int

    @property
    def ause(self) -> float:
        """Area between the curve and the oracle's; 0 for an uncertainty that orders pixels as their errors do."""
        return self._area(self.risk) - self._area(self.oracle)

    @property
    def ause_random(self) -> float:
        """The same area for a random order; an uncertainty with a larger one is worse than none."""
        return self._area(self.random) - self._area(self.oracle)

    def _area(self, risks: Sequence[float]) -> float:
        """By the trapezoidal rule, over the range of coverages."""
        return float(np.trapezoid(risks[::-1], self.coverages[::-1]))

    def to_mapping(self) -> dict[str, object]:
        """Plain values, for JSON."""
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**found, "ause": self.ause, "ause_random": self.ause_random}


def kept_errors(
    errors: NDArray[np.floating], uncertainty: NDArray[np.floating], coverages: Sequence[float] = COVERAGES
) -> NDArray[np.float64]:
    """
    Args:
        errors: (N,) of the pixels of an image, N > 0.
        uncertainty: (N,); a larger one is left out earlier. Pixels of one uncertainty count by their mean error, so
            that their order in the image does not matter.
        coverages: shares that are kept; at least one pixel is.

    Returns:
        Mean error of the kept pixels at each coverage.
    """
    _, group, counts = np.unique(uncertainty, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=errors.astype(np.float64)) / counts
    sums = np.concatenate([[0.0], np.cumsum(np.repeat(means, counts))])
    kept = np.maximum(np.rint(np.asarray(coverages) * len(errors)).astype(np.intp), 1)
    return np.asarray(sums[kept] / kept)


def average_curves(images: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> RiskCoverage:
    """
    Args:
        images: error and uncertainty of the pixels that count, of one image or more.
    """
    risk = np.mean([kept_errors(errors, uncertainty) for errors, uncertainty in images], axis=0)
    oracle = np.mean([kept_errors(errors, errors) for errors, _ in images], axis=0)
    whole = float(np.mean([errors.mean(dtype=np.float64) for errors, _ in images]))
    return RiskCoverage(
        coverages=COVERAGES,
        risk=tuple(risk.tolist()),
        oracle=tuple(oracle.tolist()),
        random=(whole,) * len(COVERAGES),
        images=len(images),
    )

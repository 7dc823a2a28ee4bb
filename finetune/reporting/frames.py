"""Validation frames with what the rows of a table answer, for pages: made one at a time, kept small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import Row, compare_predictions
from finetune.evaluation.protocols import Protocol

_FINE_BINS = 400  # of the histograms, up to the protocol's max depth; a page shows them by fewer


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownFrame:
    """A frame as a protocol compares it.

    Attributes:
        source: a name a person can find it by.
        image: (H, W, 3) uint8, RGB.
        target_m, measured: (H, W), meters, and where depth was measured at all.
        usable: (H, W), the pixels that the protocol counts.
        predictions: row of the table -> (H, W), meters, aligned as the protocol does, within its range.
    """

    source: str
    image: NDArray[np.uint8]
    target_m: NDArray[np.float32]
    measured: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    predictions: Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class ShownFrames:
    """The frames of ``data.val``, each made when it is asked for.

    Attributes:
        samples: validation data.
        rows: row of the table -> what answers.
        protocol: how answers are compared.
    """

    samples: ValidationSamples
    rows: Mapping[str, Row]
    protocol: Protocol

    def __getitem__(self, number: int) -> ShownFrame:
        one = self.samples[number]
        _, sample = one.views[self.protocol.settings.image_crop]
        usable = self.protocol.usable(sample.depth_m, sample.valid, sample.source)
        low_m, high_m = self.protocol.min_depth_m, self.protocol.max_depth_m
        predictions = {
            name: np.clip(self.protocol.depth_m(prediction, sample.depth_m, usable), low_m, high_m)
            for name, prediction in compare_predictions(one, self.rows, self.protocol).items()
        }
        measured = sample.valid & np.isfinite(sample.depth_m)  # sky has no error in meters
        return ShownFrame(
            source=sample.source,
            image=sample.image,
            target_m=np.where(measured, sample.depth_m, np.float32(0.0)),
            measured=measured,
            usable=usable,
            predictions=predictions,
        )


def reduced(frame: ShownFrame, width: int) -> tuple[ShownFrame, dict[str, NDArray[np.float32]]]:
    """
    Args:
        frame: at its own size.
        width: pixels of the smaller one; a frame that is not wider stays.

    Returns:
        The frame at that width, and the absolute error of each row in meters, 0 where it does not count: both from the
        full size, measured values and errors picked, image and answers averaged.
    """
    height = max(1, round(frame.target_m.shape[0] * width / frame.target_m.shape[1]))
    size = (width, height) if frame.target_m.shape[1] > width else frame.target_m.shape[1::-1]

    # Measured values have no mean with what was not measured, so they are picked; answers are smooth.
    def picked(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)

    def mask(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.resize(values.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)

    smaller = ShownFrame(
        source=frame.source,
        image=np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        target_m=picked(frame.target_m),
        measured=mask(frame.measured),
        usable=mask(frame.usable),
        predictions={
            name: np.asarray(cv2.resize(pred_m.astype(np.float32), size, interpolation=cv2.INTER_AREA))
            for name, pred_m in frame.predictions.items()
        },
    )
    errors_m = {
        name: picked(np.where(frame.usable, np.abs(pred_m - frame.target_m), 0.0).astype(np.float32))
        for name, pred_m in frame.predictions.items()
    }
    return smaller, errors_m


@dataclass(kw_only=True)
class DepthCounts:
    """Measured and predicted depth over frames, in a size that does not grow with them.

    Attributes:
        max_depth_m: end of the range, meters.
        frames: how many were added.
        measured: pixels that count, by measured depth, in bins of equal width up to ``max_depth_m``.
        predicted: row -> the same pixels by predicted depth.
    """

    max_depth_m: float
    frames: int = 0
    measured: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_FINE_BINS))
    predicted: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, frame: ShownFrame) -> None:
        """Count the pixels of a frame."""
        self.frames += 1
        self.measured += self._histogram(frame.target_m[frame.usable].astype(np.float64))
        for row, prediction in frame.predictions.items():
            found = self._histogram(prediction[frame.usable].astype(np.float64))
            self.predicted[row] = self.predicted.get(row, np.zeros(_FINE_BINS)) + found

    def shares(self, bins: int) -> tuple[list[float], list[float], dict[str, list[float]]]:
        """
        Args:
            bins: at most so many.

        Returns:
            Edges in meters up to the farthest that was measured or predicted, the share of measured pixels in each
            bin, and for each row that of its predicted ones.
        """
        whole = np.stack([self.measured, *self.predicted.values()])
        last = int(np.flatnonzero(whole.any(axis=0)).max()) + 1
        width = -(-last // bins)
        ends = np.arange(0, last, width)
        grouped = np.add.reduceat(whole[:, : ends[-1] + width], ends, axis=1) / whole.sum(axis=1, keepdims=True)
        edges = [*ends.tolist(), int(ends[-1]) + width]
        measured, *predicted = grouped.tolist()
        of_rows = dict(zip(self.predicted, predicted, strict=True))
        return [edge * self.max_depth_m / _FINE_BINS for edge in edges], measured, of_rows

    def _histogram(self, depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
        counts, _ = np.histogram(depth_m, bins=_FINE_BINS, range=(0.0, self.max_depth_m))
        return counts.astype(np.float64)


def worst_and_best(
    scores: Sequence[tuple[int, float]], count: int, *, higher_is_better: bool
) -> tuple[list[int], list[int]]:
    """
    Args:
        scores: number and score of each frame.
        count: how many of each, at most.
        higher_is_better: of the score.

    Returns:
        Numbers of the worst frames, the worst first, and of the best, the best first.
    """
    sign = 1 if higher_is_better else -1
    worst_first = [number for number, _ in sorted(scores, key=lambda one: (sign * one[1], one[0]))]
    return worst_first[:count], worst_first[::-1][:count]

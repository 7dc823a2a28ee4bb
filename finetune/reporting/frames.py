"""Validation frames with the predictions of each row of a table: made one at a time, kept small for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import Row, compare_predictions
from finetune.evaluation.protocols import Protocol

_FINE_BINS = 400  # bins up to the protocol's max depth; a page groups them into fewer


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownFrame:
    """A frame as a protocol compares it.

    Attributes:
        source: a name by which a person can find the frame.
        image: (H, W, 3) uint8, RGB.
        target_m, measured: (H, W), depth in meters, and where there is a measurement at all.
        usable: (H, W), the pixels that the protocol counts.
        predictions: row of the table -> (H, W), meters, aligned by the protocol and clipped to its range.
    """

    source: str
    image: NDArray[np.uint8]
    target_m: NDArray[np.float32]
    measured: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    predictions: Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class ShownFrames:
    """The frames of ``data.val``; each is made when it is asked for.

    Attributes:
        samples: validation data.
        rows: row of the table -> what predicts it.
        protocol: how predictions are compared.
    """

    samples: ValidationSamples
    rows: Mapping[str, Row]
    protocol: Protocol

    def __getitem__(self, number: int) -> ShownFrame:
        drawn = self.samples[number]
        _, sample = drawn.views[self.protocol.settings.image_crop]
        usable = self.protocol.usable(sample.depth_m, sample.valid, sample.source)
        low_m, high_m = self.protocol.min_depth_m, self.protocol.max_depth_m
        predictions = {
            name: np.clip(self.protocol.depth_m(prediction, sample.depth_m, usable), low_m, high_m)
            for name, prediction in compare_predictions(drawn, self.rows, self.protocol).items()
        }
        measured = sample.valid & np.isfinite(sample.depth_m)  # sky has no error in meters
        return ShownFrame(
            source=sample.source,
            image=sample.full_image(),
            target_m=np.where(measured, sample.depth_m, np.float32(0.0)),
            measured=measured,
            usable=usable,
            predictions=predictions,
        )


def shrink_frame(frame: ShownFrame, width: int) -> tuple[ShownFrame, dict[str, NDArray[np.float32]]]:
    """
    Args:
        frame: at its original size.
        width: in pixels; a frame that is not wider keeps its size.

    Returns:
        The frame at that width, and the absolute error of each row in meters, 0 where it does not count. Errors are
        computed at the original size. Measured values and errors are picked, image and predictions are averaged.
    """
    height = max(1, round(frame.target_m.shape[0] * width / frame.target_m.shape[1]))
    size = (width, height) if frame.target_m.shape[1] > width else frame.target_m.shape[1::-1]

    # Averaging would mix measured with unmeasured pixels, so those values are picked; predictions are smooth.
    def pick(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)

    def pick_mask(values: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(cv2.resize(values.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)

    smaller = ShownFrame(
        source=frame.source,
        image=np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8),
        target_m=pick(frame.target_m),
        measured=pick_mask(frame.measured),
        usable=pick_mask(frame.usable),
        predictions={
            name: np.asarray(cv2.resize(pred_m.astype(np.float32), size, interpolation=cv2.INTER_AREA))
            for name, pred_m in frame.predictions.items()
        },
    )
    errors_m = {
        name: pick(np.where(frame.usable, np.abs(pred_m - frame.target_m), 0.0).astype(np.float32))
        for name, pred_m in frame.predictions.items()
    }
    return smaller, errors_m


@dataclass(kw_only=True)
class DepthCounts:
    """Histograms of measured and predicted depth, whose size does not grow with the number of frames.

    Attributes:
        max_depth_m: end of the range, meters.
        frames: how many have been added.
        measured: how many pixels have a measured depth in each of the bins of equal width up to ``max_depth_m``.
        predicted: row -> the same for predicted depth, over the same pixels.
    """

    max_depth_m: float
    frames: int = 0
    measured: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_FINE_BINS))
    predicted: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def add(self, frame: ShownFrame) -> None:
        """Count the pixels of a frame."""
        self.frames += 1
        self.measured += self._count(frame.target_m[frame.usable].astype(np.float64))
        for row, prediction in frame.predictions.items():
            counts = self._count(prediction[frame.usable].astype(np.float64))
            self.predicted[row] = self.predicted.get(row, np.zeros(_FINE_BINS)) + counts

    def shares(self, bins: int) -> tuple[list[float], list[float], dict[str, list[float]]]:
        """
        Args:
            bins: the largest number of bins.

        Returns:
            Edges in meters up to the farthest measured or predicted depth, the share of pixels in each bin by measured
            depth, and for each row the share by predicted depth.
        """
        whole = np.stack([self.measured, *self.predicted.values()])
        last = int(np.flatnonzero(whole.any(axis=0)).max()) + 1
        width = -(-last // bins)
        ends = np.arange(0, last, width)
        grouped = np.add.reduceat(whole[:, : ends[-1] + width], ends, axis=1) / whole.sum(axis=1, keepdims=True)
        edges = [*ends.tolist(), int(ends[-1]) + width]
        measured, *predicted = grouped.tolist()
        shares = dict(zip(self.predicted, predicted, strict=True))
        return [edge * self.max_depth_m / _FINE_BINS for edge in edges], measured, shares

    def _count(self, depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
        counts, _ = np.histogram(depth_m, bins=_FINE_BINS, range=(0.0, self.max_depth_m))
        return counts.astype(np.float64)


def choose_worst_and_best(
    scores: Sequence[tuple[int, float]], count: int, *, higher_is_better: bool
) -> tuple[list[int], list[int]]:
    """
    Args:
        scores: number and score of each frame.
        count: the largest number of each.
        higher_is_better: whether a higher score is better.

    Returns:
        Numbers of the worst frames, worst first, and of the best frames, best first.
    """
    sign = 1 if higher_is_better else -1
    worst_first = [number for number, _ in sorted(scores, key=lambda score: (sign * score[1], score[0]))]
    return worst_first[:count], worst_first[::-1][:count]

"""Frames of another source whose sparse depth is filled with what a relative model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from multiprocessing import parent_process

import numpy as np
from numpy.typing import NDArray

from finetune.inference.anchoring import AnchoredDepth, AnchoringOptions, AnchoringRefused, anchor_depth
from finetune.inference.predictor import Predictor, build_predictor, select_device
from finetune.models.checkpoints.identity import ArgumentNames
from finetune.models.checkpoints.load import read_checkpoint
from finetune.prepare.recipe_text import MEASURED
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.utils.errors import FinetuneError
from finetune.utils.kinds import IN_WORDS

_NAMES = ArgumentNames(
    source="name",
    kind="the kind in the .json next to it",
    max_depth_m="the max depth there",
    version="--version",
    no_max_depth="Leave the max depth out",
    input_size="--input-size",
    no_input_size="Leave --input-size out",
)
OUTCOME, FILLED = "outcome", "filled"
_NAMED = 10  # frames that a sentence names


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The relative model and where it runs; see ``load_model``."""

    source: str
    version: str = "auto"
    input_size: tuple[int, int] | None = None
    device: str = "auto"


@lru_cache(maxsize=1)
def load_relative_model(choice: ModelChoice) -> Predictor:
    """
    The model, once for each process.

    Raises:
        FinetuneError: there is no such model or device, or it is metric.
    """
    if parent_process() is not None:
        import torch

        torch.set_num_threads(1)  # one of several processes
    device = select_device(choice.device)
    checkpoint = read_checkpoint(choice.source, version=choice.version, input_size=choice.input_size, wording=_NAMES)
    predictor = build_predictor(checkpoint, device, _NAMES)
    if predictor.kind != "relative":
        raise FinetuneError(
            f"{choice.source}: predicts {IN_WORDS[predictor.kind]}. Name a relative model, which predicts inverse "
            "depth, such as the one that a metric model was fine-tuned from."
        )
    return predictor


@dataclass(frozen=True, kw_only=True)
class CompletedFrames(FrameSource):
    """The frames of another source, filled.

    Attributes:
        inner: the source.
        model: what fills.
        options: when near points agree, and when a frame is left as it is.
        lines: sentences on the model.
    """

    inner: FrameSource
    model: ModelChoice
    options: AnchoringOptions
    lines: Sequence[str] = field(default=())

    @property
    def keys(self) -> Sequence[FrameKey]:
        """Those of the source."""
        return self.inner.keys

    @property
    def notes(self) -> Sequence[str]:
        """Those of the source, and what fills."""
        return [*self.inner.notes, *self.lines]

    def describe_counts(self, totals: Mapping[str, int]) -> Sequence[str]:
        """Those of the source."""
        return self.inner.describe_counts(totals)

    def describe_facts(self, facts: Mapping[str, Mapping[str, str | int | float]]) -> Sequence[str]:
        """How many frames were filled, and which were left as they are, by reason."""
        reasons: dict[str, list[str]] = {}
        for source, of_frame in facts.items():
            if of_frame[OUTCOME] != FILLED:
                reasons.setdefault(str(of_frame[OUTCOME]), []).append(source)
        left = sum(map(len, reasons.values()))
        lines = [f"{len(facts) - left} of {len(facts)} frames are filled; scale, shift and more of each: frames.csv"]
        if left:
            names = [f"{source} ({reason})" for reason, sources in reasons.items() for source in sources]
            more = f", and {left - _NAMED} more" if left > _NAMED else ""
            lines.append(f"{left} of {len(facts)} frames are left as they are: {', '.join(names[:_NAMED])}{more}")
        return lines

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        """That of the source."""
        return self.inner.camera_pose(index)

    @property
    def recipe_options(self) -> dict[str, object]:
        """Those of the source."""
        return self.inner.recipe_options

    def load_frame(self, index: int) -> RecordedFrame | None:
        """
        Raises:
            DataError: a file of the frame cannot be read.
        """
        frame = self.inner.load_frame(index)
        if frame is None or frame.confidence is not None:
            return frame
        relative = predict_relative(load_relative_model(self.model), frame.image, frame.depth_m.shape)
        return complete_frame(frame, relative, self.options)


def predict_relative(predictor: Predictor, image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(h, w) inverse depth of unknown scale and shift, at the size of a depth map, which may be below the image's."""
    import cv2

    if shape != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return predictor.predict(image)


def complete_frame(frame: RecordedFrame, relative: NDArray[np.float32], options: AnchoringOptions) -> RecordedFrame:
    """
    Args:
        frame: with sparse depth.
        relative: (h, w) inverse depth of unknown scale and shift, at the size of the depth.
        options: see there.

    Returns:
        The frame with depth where the confidence is above 0, and what is to be known of it. Where the points cannot
        anchor the map, its depth is the measured one.
    """
    measured = np.isfinite(frame.depth_m) & (frame.depth_m > 0)
    rows, columns = np.nonzero(measured)
    points_m = frame.depth_m[rows, columns]
    try:
        anchored = anchor_depth(relative, rows, columns, points_m, options, with_guesses=False)
    except AnchoringRefused as refused:
        confidence = np.where(measured, np.uint8(MEASURED), np.uint8(0))
        return replace(frame, confidence=confidence, facts={OUTCOME: str(refused), "points": len(points_m)})
    # 255 is kept for what was measured.
    confidence = np.ceil(anchored.confidence * (MEASURED - 1)).astype(np.uint8)
    depth_m = np.where(confidence > 0, anchored.depth_m, np.float32(0))
    kept = anchored.kept
    confidence[rows[kept], columns[kept]] = MEASURED
    depth_m[rows[kept], columns[kept]] = points_m[kept]
    return replace(frame, depth_m=depth_m, confidence=confidence, facts=_list_facts(anchored, depth_m))


def _list_facts(anchored: AnchoredDepth, depth_m: NDArray[np.float32]) -> dict[str, str | int | float]:
    """What ``frames.csv`` says of a frame that is filled."""
    return {
        OUTCOME: FILLED,
        "points": len(anchored.kept),
        "dropped_points": int(np.count_nonzero(~anchored.kept)),
        "filled_share": float(f"{np.mean(depth_m > 0):.4g}"),
        "scale_per_m": float(f"{anchored.fit.scale:.6g}"),
        "shift_per_m": float(f"{anchored.fit.shift:.6g}"),
        "relief": float(f"{anchored.relief:.4g}"),
        "inlier_share": float(f"{anchored.inlier_share:.4g}"),
        "residual": float(f"{anchored.residual:.4g}"),
    }

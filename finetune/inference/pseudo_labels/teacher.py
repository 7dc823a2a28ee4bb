"""What a teacher sees in an image, with how sure it is, as the files of a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import CameraOptions
from finetune.evaluation.alignment import InverseFit
from finetune.inference.anchoring import AnchoringRefused
from finetune.inference.confidence import measure_disagreement
from finetune.inference.input_cameras import find_input_focal_px
from finetune.inference.inputs import Input
from finetune.inference.network_batches import check_finite, require_prediction
from finetune.inference.outputs import MAX_COUNTS
from finetune.inference.predictor import Predictor
from finetune.utils.errors import DataError


class Anchor(Protocol):
    """What labels are brought to meters by."""

    def anchor(self, given: Input, image: NDArray[np.uint8], inverse: NDArray[np.float64]) -> Anchored:
        """
        Args:
            given: the image, or the video that it is a frame of.
            image: (H, W, 3) uint8, RGB; upright.
            inverse: (H, W) the teacher's inverse depth, of any scale and shift; larger is nearer.

        Raises:
            AnchoringRefused: there is too little to anchor to, or it contradicts the teacher.
            FileFault, ResultError: what it is anchored to cannot be read or predicted.
        """
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Anchored:
    """A teacher's inverse depth in meters.

    Attributes:
        depth_m: (H, W) float64, meters; anything where ``valid`` is False.
        valid: (H, W) bool, where what it was anchored to supports it.
        doubt: (H, W) float32, natural logarithm: how much what it was anchored to contradicts itself there; 0: it does
            not.
        fit: from the teacher's inverse depth to 1 / meters, for the whole frame.
        inlier_share: share of what it was anchored to that agrees, 0 to 1.
        residual: median of |ln(anchored depth / depth it was anchored to)|.
    """

    depth_m: NDArray[np.float64]
    valid: NDArray[np.bool_]
    doubt: NDArray[np.float32]
    fit: InverseFit
    inlier_share: float
    residual: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """The label of an image.

    Attributes:
        values: (H, W) float64, > 0: meters, or inverse depth of unknown scale and shift.
        valid: (H, W) bool, where there is a label.
        disagreement: (H, W) float32, as ``measure_disagreement``; of the depths, where values are meters, or what it
            was anchored to, if that is more.
        anchored: how it was brought to meters; None where it was not.
    """

    values: NDArray[np.float64]
    valid: NDArray[np.bool_]
    disagreement: NDArray[np.float32]
    anchored: Anchored | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A model that labels.

    Attributes:
        predictor: the model.
        digest: of its weights file.
        cameras: of images for which no list gives intrinsics.
        assume_training: take every image for one of the training camera.
        anchor: what its labels are brought to meters by; None: they stay as they are.
    """

    predictor: Predictor
    digest: str
    cameras: CameraOptions
    assume_training: bool = False
    anchor: Anchor | None = None

    def predict(self, given: Input, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Args:
            given: the image, or the video that it is a frame of.
            image: (H, W, 3) uint8, RGB; upright.

        Returns:
            (H, W): meters, or inverse depth >= 0.

        Raises:
            ResultError: the camera cannot be that of the image, or the prediction is not a number everywhere.
        """
        focal_px = None
        if self.predictor.canonical:
            height, width = image.shape[:2]
            focal_px = find_input_focal_px(
                self.predictor, given, height, width, self.cameras, assume_training=self.assume_training
            )
        return require_prediction(check_finite(given.path, self.predictor.predict_at(image, focal_px)))

    def predict_both(self, given: Input, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The prediction for an image, and that for its mirror image, mirrored back; see ``predict``."""
        mirrored = self.predict(given, np.ascontiguousarray(image[:, ::-1]))
        return self.predict(given, image), np.ascontiguousarray(mirrored[:, ::-1])


def label_as_predicted(path: Path, prediction: NDArray[np.float32], mirrored: NDArray[np.float32]) -> Label:
    """
    The label that is the prediction itself.

    Args:
        path: of the image, for the error.
        prediction, mirrored: (H, W), as ``Teacher.predict_both`` gives them.

    Raises:
        DataError: the teacher sees nothing in the image.
    """
    if not prediction.max() > 0:
        raise DataError(path, "is infinitely far everywhere to the teacher", "Look at the image, or leave it out")
    return Label(
        values=prediction.astype(np.float64),
        valid=np.ones(prediction.shape, dtype=np.bool_),
        disagreement=measure_disagreement(prediction, mirrored),
    )


def label_anchored(
    given: Input,
    image: NDArray[np.uint8],
    predictions: tuple[NDArray[np.float32], NDArray[np.float32]],
    anchor: Anchor,
    *,
    is_metric: bool,
) -> Label:
    """
    The label that is the prediction brought to meters, in inverse depth, also where it was in meters before.

    Args:
        given, image: as for ``Teacher.predict``.
        predictions: as ``Teacher.predict_both`` gives them.
        anchor: what to bring it to meters by.
        is_metric: the predictions are meters; else inverse depth.

    Raises:
        DataError: nothing supports a label, in any pixel.
        FileFault, ResultError: see ``Anchor``.
    """
    inverse, mirrored = (
        _invert(prediction) if is_metric else prediction.astype(np.float64) for prediction in predictions
    )
    fix = "Leave it out, or look at the image and at what it is anchored to"
    try:
        anchored = anchor.anchor(given, image, inverse)
    except AnchoringRefused as refused:
        raise DataError(given.path, f"cannot be anchored: {refused}", fix) from None
    if not anchored.valid.any():
        raise DataError(given.path, "cannot be anchored: nothing supports a depth, in any pixel", fix)
    fit = anchored.fit
    # The shift changes the logarithm, so the mirrored prediction gets it too.
    disagreement = measure_disagreement(fit.scale * inverse + fit.shift, fit.scale * mirrored + fit.shift)
    return Label(
        values=anchored.depth_m,
        valid=anchored.valid,
        disagreement=np.maximum(disagreement, anchored.doubt),
        anchored=anchored,
    )


def _invert(depth_m: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(1.0 / np.maximum(depth_m.astype(np.float64), np.finfo(np.float32).tiny))


def count_label(values: NDArray[np.floating], valid: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], float]:
    """
    Args:
        values: (H, W) float32 or float64, >= 0, and somewhere above it.
        valid: (H, W) where there is a label.

    Returns:
        (H, W) numbers of 16 bits, 0 where there is no label, and what they are multiplied by. The largest label is the
        largest number, so that a near scene keeps its resolution. A label below half a unit, such as the inverse depth
        of sky, is 1, since 0 means something else.
    """
    unit = float(values[valid].max()) / MAX_COUNTS
    # float32 holds the quotient to 1/256 of a unit alone, so that some numbers would be those of their neighbors.
    numbers = np.clip(np.rint(np.where(valid, values.astype(np.float64), unit) / unit), 1, MAX_COUNTS)
    return np.where(valid, numbers, 0).astype(np.uint16), unit

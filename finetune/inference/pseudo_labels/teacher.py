"""What a teacher sees in an image, with how sure it is, as the files of a label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import CameraOptions
from finetune.inference.confidence import measure_disagreement
from finetune.inference.input_cameras import find_input_focal_px
from finetune.inference.inputs import Input
from finetune.inference.network_batches import check_finite, require_prediction
from finetune.inference.outputs import MAX_COUNTS
from finetune.inference.predictor import Predictor
from finetune.utils.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Label:
    """The label of an image.

    Attributes:
        values: (H, W) float64, > 0: meters, or inverse depth of unknown scale and shift.
        valid: (H, W) bool, where there is a label.
        disagreement: (H, W) float32, as ``measure_disagreement``.
    """

    values: NDArray[np.float64]
    valid: NDArray[np.bool_]
    disagreement: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A model that labels.

    Attributes:
        predictor: the model.
        digest: of its weights file.
        cameras: of images for which no list gives intrinsics.
        assume_training: take every image for one of the training camera.
    """

    predictor: Predictor
    digest: str
    cameras: CameraOptions
    assume_training: bool = False

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


def count_label(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> tuple[NDArray[np.uint16], float]:
    """
    Args:
        values: (H, W) >= 0, and somewhere above it.
        valid: (H, W) where there is a label.

    Returns:
        (H, W) numbers of 16 bits, 0 where there is no label, and what they are multiplied by. The largest label is the
        largest number, so that a near scene keeps its resolution. A label below half a unit, such as the inverse depth
        of sky, is 1, since 0 means something else.
    """
    unit = float(values[valid].max()) / MAX_COUNTS
    numbers = np.clip(np.rint(np.where(valid, values, unit) / unit), 1, MAX_COUNTS)
    return np.where(valid, numbers, 0).astype(np.uint16), unit

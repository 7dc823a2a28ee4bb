"""How far a model is to be trusted at a pixel: whether it sees the mirrored image in the same depth.

The network sees a thing of an image and of its mirror image at different positions, so what it only guesses tends to
come out differently. The uncertainty is the disagreement abs(ln d - ln m) of the two predictions (natural log): 0.1 is
a depth that differs by 10 %. Source: Poggi et al. 2020, arXiv:2005.06209, uncertainty by image flipping, there the
difference of inverse depths. The logarithm makes it independent of scale, and the same for depth and inverse depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from finetune.inference.predictor import Predictor

# A prediction below this share of the image's largest one counts as so much: the logarithm of 0 says nothing.
_LEAST_SHARE = 1e-3


def measure_disagreement(prediction: NDArray[np.floating], mirrored: NDArray[np.floating]) -> NDArray[np.float32]:
    """
    Args:
        prediction: (H, W), > 0 or >= 0, meters or inverse depth.
        mirrored: (H, W), for the mirrored image, mirrored back.

    Returns:
        (H, W) float32, abs(ln prediction - ln mirrored).
    """
    least = max(_LEAST_SHARE * float(max(prediction.max(), mirrored.max())), float(np.finfo(np.float32).tiny))
    logs = [np.log(np.maximum(values, least, dtype=np.float64)) for values in (prediction, mirrored)]
    return np.abs(logs[0] - logs[1]).astype(np.float32)


def predict_disagreement(
    predictor: Predictor,
    image: NDArray[np.uint8],
    focal_px: float | None,
    prediction: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """
    (H, W) disagreement of the predictions for an image and for its mirror image.

    Args:
        predictor: the model.
        image: (H, W, 3) uint8, RGB.
        focal_px: as for ``Predictor.predict_at``.
        prediction: for this image alone, not averaged with that for its mirror image; None: it is made here.
    """
    if prediction is None:
        prediction = predictor.predict_at(image, focal_px)
    mirrored = predictor.predict_at(np.ascontiguousarray(image[:, ::-1]), focal_px)
    return measure_disagreement(prediction, mirrored[:, ::-1])

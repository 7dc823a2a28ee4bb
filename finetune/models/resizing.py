"""Resizes a prediction from the size that the network sees to that of the image."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def resize_prediction(prediction: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> NDArray[np.float32]:
    """(1, 1, h, w) -> (height, width) array, bilinear, with align_corners as in the original's ``infer_image``."""
    resized = functional.interpolate(prediction, size, mode="bilinear", align_corners=align_corners)
    return resized[0, 0].float().cpu().numpy()


def resize_finite(
    prediction: NDArray[np.floating], size: tuple[int, int], *, align_corners: bool = True
) -> NDArray[np.float32]:
    """
    (h, w) -> (height, width) as ``resize_prediction``; NaN where a number that is not finite has a share.

    Interpolated as it is, infinity would make every pixel next to it NaN, also where its share is 0.
    """

    def resize(values: NDArray[np.floating]) -> NDArray[np.float32]:
        tensor = torch.from_numpy(values.astype(np.float64, copy=False))[None, None]
        return resize_prediction(tensor, size, align_corners=align_corners)

    finite = np.isfinite(prediction)
    if finite.all():
        return resize(prediction)
    resized = resize(np.where(finite, prediction, 0.0))
    resized[resize(finite.astype(np.float64)) < 1] = np.nan
    return resized

"""Resizes a prediction from the size that the network sees to that of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def resize_prediction(prediction: Tensor, size: tuple[int, int], *, align_corners: bool = True) -> NDArray[np.float32]:
    """(1, 1, h, w) -> (height, width) array, bilinear, with align_corners as in the original's ``infer_image``."""
    resized = functional.interpolate(prediction, size, mode="bilinear", align_corners=align_corners)
    return resized[0, 0].float().cpu().numpy()

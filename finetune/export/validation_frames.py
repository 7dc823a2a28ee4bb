"""Images over which an export in float16 is measured: the validation frames of a recipe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.data.reader import set_image_levels
from finetune.data.readers.image_levels import ImageLevels
from finetune.recipe.schema import Recipe
from finetune.utils.indices import evenly_spread

COUNT = 12


def read_validation_frames(recipe: Recipe, levels: ImageLevels | None, count: int = COUNT) -> list[NDArray[np.uint8]]:
    """
    Args:
        recipe: whose ``data.val`` is read.
        levels: black and white of images of more than 8 bits, as the model has them.
        count: at most so many, evenly spread over the entries.

    Returns:
        Images, (H, W, 3) uint8 RGB.

    Raises:
        FileFault: a frame cannot be read.
    """
    readers = [entry.source for entry in recipe.data.val]
    set_image_levels(readers, levels)
    share = max(1, count // max(1, len(readers)))
    return [reader[i].image for reader in readers for i in evenly_spread(len(reader), share)]

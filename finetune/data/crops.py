"""Crops that belong to a data set and change what the network sees of a frame."""

from __future__ import annotations

from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError

KB_HEIGHT, KB_WIDTH = 352, 1216  # pixels


def view_of(image_crop: str, sample: DepthSample) -> DepthSample:
    """
    Args:
        image_crop: ``none`` or ``kb``; of a frame that has the size of the KB crop already it changes nothing.
        sample: as on disk.

    Returns:
        What of the sample there is for network and score; its camera moved along.

    Raises:
        DataError: the frame is smaller than the crop.
    """
    if image_crop == "none":
        return sample
    height, width = sample.depth_m.shape
    if height < KB_HEIGHT or width < KB_WIDTH:
        raise DataError(
            sample.source,
            f"is {height}x{width}; the KB crop of KITTI cuts {KB_HEIGHT}x{KB_WIDTH} out of larger frames",
            "Score it by plain, or by another protocol of evaluation.protocols",
        )
    return sample.window(height - KB_HEIGHT, (width - KB_WIDTH) // 2, KB_HEIGHT, KB_WIDTH)

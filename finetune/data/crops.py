"""Crops that belong to a data set and change what the network sees of a frame."""

from __future__ import annotations

from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError

KB_HEIGHT, KB_WIDTH = 352, 1216  # pixels


def crop_for_protocol(image_crop: str, sample: DepthSample) -> DepthSample:
    """
    Args:
        image_crop: ``none`` or ``kb``; a frame that already has the size of the KB crop stays as it is.
        sample: as on disk.

    Returns:
        What network and score see of the sample; its camera moved along.

    Raises:
        DataError: the frame is smaller than the crop.
    """
    if image_crop == "none":
        return sample
    return crop_kb(sample, fix="Score it by plain, or by another protocol of evaluation.protocols")


def crop_middle(sample: DepthSample, zoom: float) -> DepthSample:
    """
    Args:
        sample: of any size.
        zoom: how many times smaller the crop is than the frame in both directions; at most 1 leaves all of it.

    Returns:
        Its middle, to whole pixels; the camera moved along.
    """
    if zoom <= 1.0:
        return sample
    height, width = sample.valid.shape
    rows, columns = max(1, round(height / zoom)), max(1, round(width / zoom))
    return sample.window((height - rows) // 2, (width - columns) // 2, rows, columns)


def crop_kb(sample: DepthSample, fix: str) -> DepthSample:
    """
    The bottom 352 rows and the 1216 columns in the middle, as the KITTI depth benchmark has them; the camera moves
    along.

    Args:
        sample: as on disk.
        fix: what to do about a frame that is too small.

    Raises:
        DataError: the frame is smaller than the crop.
    """
    corner = kb_corner(*sample.valid.shape)
    if corner is None:
        height, width = sample.valid.shape
        found = f"is {height}x{width}; the KB crop of KITTI cuts {KB_HEIGHT}x{KB_WIDTH} out of larger frames"
        raise DataError(sample.source, found, fix)
    return sample.window(*corner, KB_HEIGHT, KB_WIDTH)


def kb_corner(height: int, width: int) -> tuple[int, int] | None:
    """The first row and column of the KB crop in a frame of this size; None where the frame is smaller than it."""
    if height < KB_HEIGHT or width < KB_WIDTH:
        return None
    return height - KB_HEIGHT, (width - KB_WIDTH) // 2

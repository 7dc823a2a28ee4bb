"""What of a frame is no measurement though a number stands there: masks, and pixels that fly at the edges of depth."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.depth_edges import find_depth_edges
from finetune.data.readers.files import read_depth
from finetune.data.readers.listing import locate, same_file
from finetune.data.readers.matching import frame_key
from finetune.data.readers.orientation import Turn
from finetune.utils.errors import DataError, RecipeError
from finetune.utils.paths import if_closed, is_file

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".npy", ".npz")
# What follows the stem of an image in the name of its mask or confidence map; DIODE's is a _depth_mask.
MASK_ENDINGS = ("", "_mask", "_depth_mask", "_confidence", "_conf")
# In the name of a side file it stands for the stem of the image or depth map, or for what the two stems share.
STEM = "*"
# Between two pixels of one surface depth changes by less than this share of the nearer.
EDGE_SHARE = 0.05


def require_mask_levels(mask: str | None, at_least: float | None, at_most: float | None) -> None:
    """
    Args:
        mask: the option ``mask``.
        at_least, at_most: the options ``mask_at_least`` and ``mask_at_most``.

    Raises:
        RecipeError: a limit is no number or has no mask, or the two leave nothing between them.
    """
    for key, level in (("mask_at_least", at_least), ("mask_at_most", at_most)):
        if level is not None and (mask is None or not math.isfinite(level)):
            raise RecipeError(key, level, "a number, beside mask; or leave it out")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise RecipeError("mask_at_least", at_least, f"at most mask_at_most, {at_most:g}")


def read_mask(
    path: Path, shape: tuple[int, ...], turn: Turn, at_least: float | None = None, at_most: float | None = None
) -> NDArray[np.bool_]:
    """
    Args:
        path: gray image or array, of the size of the frame.
        shape: of the frame, height and width.
        turn: of the frame.
        at_least, at_most: limits of the values, as of confidence; None for no such limit.

    Returns:
        (H, W), True where the value is within the limits; without limits, where it is not 0. A NaN is neither.

    Raises:
        DataError: it cannot be read, or is of another size.
    """
    values = turn.like_depth(read_depth(path), shape)
    if values.shape != shape:
        sizes = f"{'x'.join(map(str, values.shape))}, its frame {shape[0]}x{shape[1]}"
        raise DataError(path, f"the mask is {sizes}", "Write masks as one gray value a pixel, at the size of the frame")
    if at_least is None and at_most is None:
        return (values != 0) & np.isfinite(values)
    kept = np.isfinite(values)
    if at_least is not None:
        kept &= values >= at_least
    if at_most is not None:
        kept &= values <= at_most
    return kept


def side_file(place: str, root: str, image: str, depth: str) -> Path:
    """
    Args:
        place: a file, which is that of every frame; a folder with a file of the stem of each image or depth map, with
            one of ``MASK_ENDINGS``; or a name with ``STEM`` in it, such as ``*_depth_mask.npy`` beside the image or the
            depth map, or ``confidence/*.png``. Below ``root`` or from the current directory.
        root: of the frames.
        image, depth: files of the frame.

    Raises:
        DataError: there is none for this frame.
    """
    stems = [Path(image).stem, Path(depth).stem, frame_key(Path(image).stem)]
    if STEM in place:
        folder, name = os.path.split(place)
        beside = [Path(image).parent, Path(depth).parent]
        folders = [Path(locate(root, folder))] if folder else beside
        names = [name.replace(STEM, stem) for stem in stems]
        fix = f"Write {place.replace(STEM, stems[0])}, or correct the key"
    else:
        path = Path(locate(root, place))
        if is_file(path):
            return path
        folders = [path]
        names = [f"{stem}{ending}{suffix}" for ending in MASK_ENDINGS for stem in stems for suffix in MASK_SUFFIXES]
        fix = f"Write {stems[0]}.png there, a name such as {STEM}_mask.png, or one file as the mask of all frames"
    for path in dict.fromkeys(folder / name for folder in folders for name in names):
        if is_file(path) and not any(same_file(path, other) for other in (image, depth)):
            return path
    closed = next(filter(None, (if_closed(folder / names[0]) for folder in folders)), "")
    raise DataError(image, f"has no mask of its stem in {' or '.join(map(str, dict.fromkeys(folders)))}{closed}", fix)


def eroded(valid: NDArray[np.bool_], depth_m: NDArray[np.float32], pixels: int) -> NDArray[np.bool_]:
    """
    Args:
        valid: (H, W), where depth was measured.
        depth_m: (H, W), meters.
        pixels: how far from an edge pixels are left out, in rows and columns.

    Returns:
        (H, W): valid, without what is at most ``pixels`` from a pixel that was not measured, or from a jump of depth by
        more than ``EDGE_SHARE`` between two that were. For dense depth: of a sparse scan nothing would be left.
    """
    jumps = find_depth_edges(depth_m, EDGE_SHARE)
    # A jump lies between two pixels, each of which is at a distance of 1 from it. One to a pixel that was not measured
    # takes what that pixel takes.
    return valid & ~_grown(~valid, pixels) & ~_grown(jumps, pixels - 1)


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask and what is at most so many rows and columns from it."""
    if pixels <= 0:
        return mask
    import cv2

    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(np.ascontiguousarray(mask).astype(np.uint8), kernel) > 0)

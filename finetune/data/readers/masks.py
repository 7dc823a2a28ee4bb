"""Which pixels of a frame are no measurement although they have a number: by masks, and at edges of depth."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.depth_edges import find_depth_edges
from finetune.data.readers.files import read_values
from finetune.data.readers.listing import locate, same_file
from finetune.data.readers.matching import frame_key
from finetune.data.readers.orientation import Turn
from finetune.utils.errors import DataError, RecipeError
from finetune.utils.paths import if_closed, is_file

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".npy", ".npz")
# What follows an image's stem in the name of its mask or confidence map; _depth_mask is DIODE's.
MASK_ENDINGS = ("", "_mask", "_depth_mask", "_confidence", "_conf")
# In the name of a mask, this is replaced by the stem of the image or depth map, or by what the two stems share.
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
            raise RecipeError(key, level, "a number, together with mask; or leave it out")
    if at_least is not None and at_most is not None and at_least > at_most:
        raise RecipeError("mask_at_least", at_least, f"at most mask_at_most, {at_most:g}")


def read_mask(
    path: Path, shape: tuple[int, ...], turn: Turn, at_least: float | None = None, at_most: float | None = None
) -> NDArray[np.bool_]:
    """
    Args:
        path: gray image or array of the frame's size; an array may be of bools.
        shape: height and width of the frame.
        turn: of the frame.
        at_least, at_most: limits of the values, such as a confidence; None for no limit.

    Returns:
        (H, W), True where the value is within the limits; without limits, where it is not 0. It is False for NaN.

    Raises:
        DataError: the mask cannot be read, or has another size.
    """
    values = turn.like_depth(read_values(path), shape)
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


def find_side_file(name: str, root: str, image: str, depth: str) -> Path:
    """
    Args:
        name: a file, used for every frame; a folder with a file for each image or depth map, named by its stem and one
            of ``MASK_ENDINGS``; or a pattern with ``STEM`` in it, such as ``*_depth_mask.npy`` next to the image or the
            depth map, or ``confidence/*.png``. Below ``root`` or from the current directory.
        root: of the frames.
        image, depth: files of the frame.

    Raises:
        DataError: this frame has no such file.
    """
    stems = [Path(image).stem, Path(depth).stem, frame_key(Path(image).stem)]
    if STEM in name:
        folder, pattern = os.path.split(name)
        folders = [Path(locate(root, folder))] if folder else [Path(image).parent, Path(depth).parent]
        names = [pattern.replace(STEM, stem) for stem in stems]
        fix = f"Write {name.replace(STEM, stems[0])}, or correct the key"
    else:
        path = Path(locate(root, name))
        if is_file(path):
            return path
        folders = [path]
        names = [f"{stem}{ending}{suffix}" for ending in MASK_ENDINGS for stem in stems for suffix in MASK_SUFFIXES]
        fix = f"Write {stems[0]}.png there, a name such as {STEM}_mask.png, or one file as the mask of all frames"
    for path in dict.fromkeys(folder / file for folder in folders for file in names):
        if is_file(path) and not any(same_file(path, other) for other in (image, depth)):
            return path
    closed = next(filter(None, (if_closed(folder / names[0]) for folder in folders)), "")
    raise DataError(image, f"has no mask of its stem in {' or '.join(map(str, dict.fromkeys(folders)))}{closed}", fix)


def erode_edges(valid: NDArray[np.bool_], depth_m: NDArray[np.float32], pixels: int) -> NDArray[np.bool_]:
    """
    Args:
        valid: (H, W), where depth was measured.
        depth_m: (H, W), meters.
        pixels: how many rows and columns around an edge are left out.

    Returns:
        (H, W): valid, without pixels at most ``pixels`` away from one that was not measured, or from a jump of depth by
        more than ``EDGE_SHARE`` between two that were. It is for dense depth; nothing is left of a sparse scan.
    """
    jumps = find_depth_edges(depth_m, EDGE_SHARE)
    # Both pixels of a jump count as 1 away from it, so their surroundings grow by one less. A jump to a pixel that was
    # not measured adds nothing to what that pixel takes away.
    return valid & ~_dilate(~valid, pixels) & ~_dilate(jumps, pixels - 1)


def _dilate(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask and all pixels at most so many rows and columns away from it."""
    if pixels <= 0:
        return mask
    import cv2

    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return np.asarray(cv2.dilate(np.ascontiguousarray(mask).astype(np.uint8), kernel) > 0)

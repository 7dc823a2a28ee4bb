"""What of a frame is no measurement though a number stands there: masks, and pixels that fly at the edges of depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError
from finetune.paths import is_file
from finetune.readers.files import read_depth

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".npy")
# Between two pixels of one surface depth changes by less than this share of the nearer.
EDGE_SHARE = 0.05


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """
    Args:
        path: gray image or array, of the size of the frame.
        shape: of the frame, height and width.

    Returns:
        (H, W), True where it is not 0.

    Raises:
        DataError: it cannot be read, or is of another size.
    """
    values = read_depth(path)
    if values.shape != shape:
        sizes = f"{'x'.join(map(str, values.shape))}, its frame {shape[0]}x{shape[1]}"
        raise DataError(path, f"the mask is {sizes}", "Write masks as one gray value a pixel, at the size of the frame")
    return np.asarray(values != 0)


def mask_of(place: Path, image: str) -> Path:
    """
    Args:
        place: a file, which is the mask of every frame, or a folder with a file of the stem of each image.
        image: file of the image.

    Raises:
        DataError: the folder holds none for this image.
    """
    if is_file(place):
        return place
    stem = Path(image).stem
    found = next((place / f"{stem}{suffix}" for suffix in MASK_SUFFIXES if is_file(place / f"{stem}{suffix}")), None)
    if found is None:
        fix = f"Write {stem}.png there, or name one file as the mask of all frames"
        raise DataError(image, f"has no mask of its stem in {place}", fix)
    return found


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
    jumps = np.zeros_like(valid)
    for axis in (0, 1):
        depth = np.moveaxis(depth_m, axis, 0)
        first, second = depth[:-1], depth[1:]
        with np.errstate(invalid="ignore"):  # infinity less infinity, of sky beside sky, is no jump
            steps = np.abs(second - first) > EDGE_SHARE * np.minimum(first, second)
        beside = np.moveaxis(jumps, axis, 0)  # a view
        beside[:-1] |= steps
        beside[1:] |= steps
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

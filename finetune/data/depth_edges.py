"""Where depth jumps from one pixel to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_depth_edges(depth_m: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """(H, W): pixels whose depth differs from the one next to them, above or below by more than a share of the smaller
    of the two."""
    edges = np.zeros(depth_m.shape, dtype=np.bool_)
    for axis in (0, 1):
        depth = np.moveaxis(depth_m, axis, 0)
        first, second = depth[:-1], depth[1:]
        with np.errstate(invalid="ignore"):  # infinity minus infinity, of sky next to sky, is no jump
            steps = np.abs(second - first) > share * np.minimum(first, second)
        view = np.moveaxis(edges, axis, 0)
        view[:-1] |= steps
        view[1:] |= steps
    return edges


def log_steps(log_depth: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.floating]:
    """
    Args:
        log_depth: (H, W), natural log of depth, or of any number that takes its place.
        known: (H, W), where it is one.

    Returns:
        (N,) by how much two neighbors differ, for each pair of which both are known: pairs above each other, then pairs
        in a row.
    """
    down = np.abs(log_depth[1:] - log_depth[:-1])[known[1:] & known[:-1]]
    across = np.abs(log_depth[:, 1:] - log_depth[:, :-1])[known[:, 1:] & known[:, :-1]]
    return np.concatenate([down, across])

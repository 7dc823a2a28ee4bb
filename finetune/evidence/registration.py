"""Whether depth lies on its image: color changes where depth does, and less where depth edges are moved to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH_PX = 320  # images are looked at this wide at most; enough for edges, and 20 ms a frame
REACH_PX = 20  # farthest shift that is tried, at that width
TOLERANCE_PX = 2  # what still counts as in place: depth edges are this wide
_RING_PX = 10  # beyond it edges meet color by chance
_FEWEST_EDGES = 50
_LEAST_JUMP = 0.1  # natural log of the ratio of neighboring depths
_WIDEST_HOLE_PX = 8  # across which two depths still are neighbors: cameras measure nothing beside an edge


class Edges(NamedTuple):
    """A frame as registration sees it.

    Attributes:
        color: (h, w) uint8, rank of the color gradient among all of the image, 0 to 255.
        rows, columns: (N,) pixels at a jump of depth.
        width: of the original image, pixels.
    """

    color: NDArray[np.uint8]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    width: int


class Fit(NamedTuple):
    """How depth edges meet color edges over several frames; shares of the ranks of color gradients, 0 to 1.

    Attributes:
        in_place: mean rank at the depth edges, within ``TOLERANCE_PX``, above what chance gives.
        best: the same at the shift that fits best.
        across_px, down_px: that shift, pixels of the original image: depth moved by it would fit.
        frames: how many frames have edges.
    """

    in_place: float
    best: float
    across_px: int
    down_px: int
    frames: int


def find_edges(image: NDArray[np.uint8], depth_m: NDArray[np.float32], valid: NDArray[np.bool_]) -> Edges | None:
    """
    Args:
        image: (H, W, 3), RGB.
        depth_m, valid: (H, W).

    Returns:
        The edges; None where depth has too few, as of a sparse scan or a wall.
    """
    width = image.shape[1]
    size = (min(WIDTH_PX, width), max(1, round(image.shape[0] * min(1.0, WIDTH_PX / width))))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 1.0).astype(np.float32)
    known = valid & np.isfinite(depth_m)
    log_depth = np.log(np.where(known, np.maximum(depth_m, 1e-6), 1.0))
    log_depth = cv2.resize(log_depth, size, interpolation=cv2.INTER_NEAREST)
    known = cv2.resize(known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    edges = _jumps(log_depth, known) | _jumps(log_depth.T, known.T).T
    edges[:REACH_PX], edges[-REACH_PX:], edges[:, :REACH_PX], edges[:, -REACH_PX:] = False, False, False, False
    rows, columns = np.nonzero(edges)
    if len(rows) < _FEWEST_EDGES:
        return None
    gradient = np.hypot(*(np.abs(np.gradient(small, axis=axis)).max(axis=2) for axis in (0, 1)))
    ranks = np.empty(gradient.size, dtype=np.float64)
    ranks[np.argsort(gradient, axis=None, kind="stable")] = np.linspace(0, 255, gradient.size)
    return Edges(ranks.reshape(gradient.shape).round().astype(np.uint8), rows, columns, width)


def _jumps(log_depth: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(h, w): along rows, the near side of each jump and the pixel beside it; holes are stepped over."""
    places = np.arange(known.shape[1])[None].repeat(known.shape[0], axis=0)
    before = np.full(known.shape, -1)
    before[:, 1:] = np.maximum.accumulate(np.where(known, places, -1), axis=1)[:, :-1]
    rows, columns = np.nonzero(known & (before >= 0) & (places - before <= _WIDEST_HOLE_PX))
    earlier = before[rows, columns]
    step = log_depth[rows, columns] - log_depth[rows, earlier]
    jump = np.abs(step) > _LEAST_JUMP
    rows, columns, earlier, nearer = rows[jump], columns[jump], earlier[jump], step[jump] < 0
    edges = np.zeros(known.shape, dtype=np.bool_)
    edges[rows, np.where(nearer, columns, earlier)] = True
    edges[rows, np.where(nearer, columns - 1, earlier + 1)] = True
    return edges


def fit(frames: Sequence[Edges], *, mirrored: bool = False) -> Fit | None:
    """
    Args:
        frames: those that have edges.
        mirrored: as if depth were mirrored left to right.

    Returns:
        The fit of the median frame; None without any frame.
    """
    if not frames:
        return None
    shifts = range(-REACH_PX, REACH_PX + 1)
    maps = []
    for color, rows, columns, _ in frames:
        places = color.shape[1] - 1 - columns if mirrored else columns
        maps.append([[color[rows + down, places + across].mean() / 255 for across in shifts] for down in shifts])
    scores = cv2.GaussianBlur(np.median(np.array(maps), axis=0), (0, 0), 0.7)
    down, across = np.meshgrid(shifts, shifts, indexing="ij")
    chance = float(np.median(scores[np.hypot(across, down) > _RING_PX]))
    near = np.maximum(np.abs(across), np.abs(down)) <= TOLERANCE_PX
    place = np.unravel_index(np.argmax(scores), scores.shape)
    zoom = float(np.median([one.width / one.color.shape[1] for one in frames]))
    return Fit(
        in_place=float(scores[near].max()) - chance,
        best=float(scores[place]) - chance,
        across_px=round(float(across[place]) * zoom),
        down_px=round(float(down[place]) * zoom),
        frames=len(frames),
    )

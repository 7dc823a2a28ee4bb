"""Whether depth is aligned with its image: color changes where depth does, and less where depth edges are moved to.

How much less is measured on the same frames, by moving the edges by all shifts up to a sixth of the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.depth_edges import log_steps
from finetune.data.sample import is_sparse

WIDTH_PX = 320  # images are looked at this wide at most; enough for edges, and 20 ms a frame
REACH = 1 / 6  # largest shift that is tried, a share of the width; at most a quarter of the height
MIN_FRAMES = 8  # with edges, for a verdict that stops a run
_FEWER_FRAMES = 4  # with edges, for a verdict where the shift is clear
_MAX_FRAMES = 48  # 25 ms each; more do not change the median
_MIN_PX = (64, 128)  # height and width below which there is no room to move edges
_TOLERANCE_PX = 2  # still counts as in place: depth edges are this wide
_RING_PX = 8  # the flanks of a peak end here; beyond, edges meet color by chance
_NEAR_PX = 6
_MIN_EDGES = 100
_MIN_JUMP = 0.1  # natural log of the ratio of neighboring depths
_MAX_HOLE_PX = 8  # across it two depths are still neighbors: cameras measure nothing next to an edge
# Depth is made of pieces where fewer pairs of neighbors differ and there are more values than a few boxes have: zones
# of a sensor enlarged, points drawn as blots, or nearest neighbors. In depth of cameras 0.39 to 1 of the pairs differ.
_PIECES, _FEW_VALUES = 0.25, 16
# Where more pairs of neighbors are a jump, it is noise. Cameras have at most 0.03 of them, drawn open ground 0.04.
_NOISE = 0.05
# Where the largest connected piece holds a smaller share of the measured pixels, depth is thick scan lines or blots.
# In depth of cameras and renderers it holds 0.36 to 1.
_LARGEST = 0.25
# Standard deviations of blurs over the map of shifts: of one shift, and of what surrounds it.
_PLACE_PX, _AROUND_PX = 0.7, 6.0


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


class Heights(NamedTuple):
    """How far a map of shifts rises above its surroundings at some shifts; shares of the ranks, 0 to 1.

    Attributes:
        in_place: the highest within 2 px of no shift.
        near: the highest within 6 px.
        elsewhere: the highest beyond 8 px of no shift: what these frames give by chance, or where depth belongs.
        best: the highest of all.
        next_best: the highest beyond 8 px of the best.
        across_px, down_px: the best shift, in pixels of the reduced image.
    """

    in_place: float
    near: float
    elsewhere: float
    best: float
    next_best: float
    across_px: int
    down_px: int

    @property
    def distance_px(self) -> int:
        """The larger of across and down of the best shift."""
        return max(abs(self.across_px), abs(self.down_px))


class Fit(NamedTuple):
    """How depth edges meet color edges over several frames, in place and at every shift.

    Attributes:
        rise: above the mean around a shift. It is broad, and a long straight edge rises all along itself.
        peak: above the mean around, and along the row and the column as well. Only the ends of a straight edge are
            left, so a peak says where, but only where there are many edges.
        zoom: pixels of the original image for each pixel of the reduced one.
        frames: how many frames have edges.
    """

    rise: Heights
    peak: Heights
    zoom: float
    frames: int

    @property
    def verdict(self) -> Literal["moved", "apart", "unknown"]:
        """
        ``moved``: depth fits clearly better elsewhere. ``apart``: it fits nowhere better than by chance.
        ``unknown``: it fits in place, or there is too little to tell.

        The limits were chosen on registered samples of eighteen cameras and on drawn rooms: cut, mirrored and repeated;
        right, moved, and paired with the depth of other frames. With eight such frames or more, right ones rise in
        place by 0.039 to 0.25, and never by less than 0.85 times as much as elsewhere, with peaks of 0.017 to 0.15.
        Wrong ones rise in place by at most 0.036, and elsewhere up to 0.094. Where the camera hardly moves, all frames
        are one frame: by chance, shifts far away rise to twice what rises in place, and two fifths of the peak are in
        place.

        What is missed has too few frames with edges. Of 204 shifts of drawn groups of eight, all 96 were found where
        every frame has edges, and 86 of 108 where five to seven have; the others are a plain wall, or open ground.
        """
        rise, peak = self.rise, self.peak
        if self.frames >= _FEWER_FRAMES and peak.distance_px > _TOLERANCE_PX + 1:
            most = 0.85 if self.frames >= MIN_FRAMES else 0.5
            left = (
                # The flank of a peak only a few pixels away reaches to no shift.
                rise.in_place <= most * rise.best and peak.in_place <= 0.9 * peak.best
                if peak.distance_px <= _RING_PX
                else peak.in_place <= 0.25 * peak.best
            )
            if left and peak.best >= 0.045 and peak.best >= 1.2 * peak.next_best:
                return "moved"
        if self.frames < MIN_FRAMES:
            return "unknown"
        lost = rise.in_place < 0.02 or (rise.in_place < 0.037 and peak.in_place < 0.8 * peak.elsewhere)
        # Depth that fits nowhere stops the run anyway, so less evidence is enough to say that it was moved.
        least = 0.078 if lost and rise.best >= 1.2 * rise.next_best else 0.085
        left = rise.in_place <= (0.6 if rise.distance_px <= _RING_PX else 0.35) * rise.best
        if left and rise.distance_px > _TOLERANCE_PX + 1 and rise.best >= least:
            return "moved"
        # A broad rise near no shift is depth whose edges are not sharp, unless there is no peak at all.
        return "apart" if lost and (rise.near < 0.06 or peak.in_place < 0.01) else "unknown"

    @property
    def fits(self) -> bool:
        """Whether depth clearly is in place, which takes more than not being found elsewhere."""
        return self.rise.in_place >= 0.085 and self.rise.in_place >= 0.85 * self.rise.elsewhere

    @property
    def shift_px(self) -> tuple[int, int]:
        """Across and down, pixels of the original image; depth moved by it would fit."""
        best = self.peak if self.peak.best >= 0.045 else self.rise
        return round(best.across_px * self.zoom), round(best.down_px * self.zoom)


def find_edges(image: NDArray[np.uint8], depth_m: NDArray[np.float32], valid: NDArray[np.bool_]) -> Edges | None:
    """
    Args:
        image: (H, W, 3), RGB.
        depth_m, valid: (H, W).

    Returns:
        The edges; None where depth has too few, such as a wall, is sparse, made of pieces, or noise: between two points
        of a sparse scan, or two zones of a coarse sensor, an edge can be anywhere.
    """
    if is_sparse(valid):
        return None
    width = image.shape[1]
    size = (min(WIDTH_PX, width), max(1, round(image.shape[0] * min(1.0, WIDTH_PX / width))))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 1.0).astype(np.float32)
    known = valid & np.isfinite(depth_m)
    log_depth = np.log(np.where(known, np.maximum(depth_m, 1e-6), 1.0))
    log_depth = cv2.resize(log_depth, size, interpolation=cv2.INTER_NEAREST)
    known = cv2.resize(known.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    rows, columns = np.nonzero(_find_jumps(log_depth, known) | _find_jumps(log_depth.T, known.T).T)
    if len(rows) < _MIN_EDGES or _lacks_edges(log_depth, known):
        return None
    gradient = np.hypot(*(np.abs(np.gradient(small, axis=axis)).max(axis=2) for axis in (0, 1)))
    ranks = np.empty(gradient.size, dtype=np.float64)
    ranks[np.argsort(gradient, axis=None, kind="stable")] = np.linspace(0, 255, gradient.size)
    return Edges(ranks.reshape(gradient.shape).round().astype(np.uint8), rows, columns, width)


def _find_jumps(log_depth: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(h, w): along rows, the near side of each jump and the pixel next to it on the far side; holes are skipped."""
    places = np.arange(known.shape[1])[None].repeat(known.shape[0], axis=0)
    before = np.full(known.shape, -1)
    before[:, 1:] = np.maximum.accumulate(np.where(known, places, -1), axis=1)[:, :-1]
    rows, columns = np.nonzero(known & (before >= 0) & (places - before <= _MAX_HOLE_PX))
    earlier = before[rows, columns]
    step = log_depth[rows, columns] - log_depth[rows, earlier]
    jump = np.abs(step) > _MIN_JUMP
    rows, columns, earlier, nearer = rows[jump], columns[jump], earlier[jump], step[jump] < 0
    edges = np.zeros(known.shape, dtype=np.bool_)
    edges[rows, np.where(nearer, columns, earlier)] = True
    edges[rows, np.where(nearer, columns - 1, earlier + 1)] = True
    return edges


def _lacks_edges(log_depth: NDArray[np.floating], known: NDArray[np.bool_]) -> bool:
    """Whether jumps say nothing about the ends of surfaces: depth is islands, flat pieces, or jumps at random."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(known.astype(np.uint8), connectivity=4)
    islands = stats[1:, cv2.CC_STAT_AREA]
    if islands.max(initial=0) < _LARGEST * islands.sum():
        return True
    steps = log_steps(log_depth, known)
    if not steps.size:
        return True
    in_pieces = np.mean(steps > 0) < _PIECES and len(np.unique(log_depth[known])) > _FEW_VALUES
    return bool(in_pieces or np.mean(steps > _MIN_JUMP) > _NOISE)


def fit_edges(frames: Sequence[Edges], *, mirrored: bool = False) -> Fit | None:
    """
    Args:
        frames: those with edges; of many, some are picked evenly.
        mirrored: with depth mirrored left to right.

    Returns:
        The fit of the median frame; None where no frame is large enough to move edges in it.
    """
    large = [frame for frame in frames if frame.color.shape[0] >= _MIN_PX[0] and frame.color.shape[1] >= _MIN_PX[1]]
    if not large:
        return None
    chosen = [large[int(i)] for i in np.linspace(0, len(large) - 1, min(len(large), _MAX_FRAMES)).round()]
    down = min(_max_shift(frame.color.shape)[0] for frame in chosen)
    across = min(_max_shift(frame.color.shape)[1] for frame in chosen)
    scores = np.median([_score_shifts(frame, down, across, mirrored) for frame in chosen], axis=0).astype(np.float32)
    here, around = _blur(scores, _PLACE_PX, _PLACE_PX), _blur(scores, _AROUND_PX, _AROUND_PX)
    along = np.maximum(_blur(scores, _AROUND_PX, _PLACE_PX), _blur(scores, _PLACE_PX, _AROUND_PX))
    return Fit(
        rise=_measure_heights(here - around),
        peak=_measure_heights(here - np.maximum(around, along)),
        zoom=float(np.median([frame.width / frame.color.shape[1] for frame in chosen])),
        frames=len(large),
    )


def _max_shift(shape: tuple[int, ...]) -> tuple[int, int]:
    """Largest shift down and across, pixels."""
    across = int(shape[1] * REACH)
    return min(across, shape[0] // 4), across


def _score_shifts(frame: Edges, down: int, across: int, mirrored: bool) -> NDArray[np.float64]:
    """(2 down + 1, 2 across + 1): mean rank of color at the edges moved by each shift, of those still in the image."""
    height, width = frame.color.shape
    edges = np.zeros((height, width), dtype=np.float32)
    edges[frame.rows, width - 1 - frame.columns if mirrored else frame.columns] = 1.0
    size = (cv2.getOptimalDFTSize(height + down), cv2.getOptimalDFTSize(width + across))
    # A product of Fourier transforms is the sum over all edges, for every shift at once.
    moved = np.conj(np.fft.rfft2(edges, s=size))
    shifts = np.ix_(np.arange(-down, down + 1), np.arange(-across, across + 1))
    sums = np.fft.irfft2(np.fft.rfft2(frame.color / 255.0, s=size) * moved, s=size)[shifts]
    counts = np.fft.irfft2(_transform_ones(height, width, size) * moved, s=size)[shifts]
    return np.asarray(sums / np.maximum(counts, 1.0), dtype=np.float64)


@lru_cache(maxsize=4)
def _transform_ones(height: int, width: int, size: tuple[int, int]) -> NDArray[np.complexfloating]:
    return np.fft.rfft2(np.ones((height, width)), s=size)


def _blur(scores: NDArray[np.float32], across_px: float, down_px: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(scores, (0, 0), sigmaX=across_px, sigmaY=down_px), dtype=np.float32)


def _measure_heights(over: NDArray[np.float32]) -> Heights:
    """``over``: (2 down + 1, 2 across + 1), no shift in the middle."""
    down, across = np.indices(over.shape) - np.array(over.shape).reshape(2, 1, 1) // 2
    larger = np.maximum(np.abs(across), np.abs(down))
    best = np.unravel_index(np.argmax(over), over.shape)
    off_best = np.hypot(across - across[best], down - down[best]) > _RING_PX
    return Heights(
        in_place=float(over[larger <= _TOLERANCE_PX].max()),
        near=float(over[larger <= _NEAR_PX].max()),
        elsewhere=float(over[np.hypot(across, down) > _RING_PX].max()),
        best=float(over[best]),
        next_best=float(over[off_best].max()),
        across_px=int(across[best]),
        down_px=int(down[best]),
    )

"""Anchor a relative depth map to measured points: scale and shift, a smooth scale field, and where both can be trusted.

Everything is solved directly and nothing is drawn, so that equal inputs give equal results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.linalg
import scipy.optimize
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import Delaunay, KDTree

from finetune.evaluation.alignment import InverseFit
from finetune.utils.text import percent

# Fewer points cannot show which of them are wrong.
MIN_POINTS = 30
# Points whose depths differ by less than this, in natural logarithms, hold no scale and shift.
_MIN_SPREAD = 0.02
_FIT_POINTS = 20_000  # the scale and shift are fitted to about this many, evenly spread
# The map reaches this far, in natural logarithms, beyond the 5 % of the points that are nearest and farthest.
BEYOND_NEAREST_AND_FARTHEST = 0.3
# The scale field: nodes for each distance between points, its most nodes, how it is smoothed, where a residual begins
# to count less (natural logarithm), and the step of the relative map at which it may bend.
_NODE_SPACINGS, _MAX_NODES, _STIFFNESS, _SMALL_RESIDUAL, _STEP = 1.0, 10_000, 0.1, 0.03, 0.1
_ITERATIONS = 5
# Share of what points still differ by that is taken as shape; the rest, up to this natural logarithm, is noise. Chosen
# on drawn rooms and streets and on the raw sweeps (kitti_object, ddad_rig) of tests/benchmarks/complete_depth.py, where
# 0.6 to 0.9 were about equally good.
_TRUSTED, _NOISE = 0.75, 0.03
_NEIGHBORS, _MIN_AGREEING = 8, 2
# A guess: at these distances from a pixel, in mean distances between points and in natural logarithms of the map's
# depth, a point counts e times less, and one that was dropped by this factor. Chosen on the 31 frames of one seed of
# tests/benchmarks/student.py and, for the factor, on drawn rooms with a tenth of wrong points.
_GUESS_REACH, _GUESS_STEP, _DROPPED = 0.4, 0.1, 0.25
# A pixel is filled up to this many mean distances between points from the nearest one.
_MAX_SPACINGS = 2.0
# A correction may not lead behind the camera. Pixels this near to the side of a triangle are on it.
_MIN_INVERSE, _ON_EDGE = 1e-6, 1e-9


class AnchoringRefused(ValueError):
    """The points cannot anchor the map; the text completes "it is left as it is: "."""


@dataclass(frozen=True, kw_only=True)
class AnchoringOptions:
    """
    Attributes:
        tolerance: share by which near points may disagree about the scale.
        min_inlier_share: the least share of the points that must agree with the anchored map and with each other.
    """

    tolerance: float = 0.1
    min_inlier_share: float = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchoredDepth:
    """A relative map in meters.

    Attributes:
        depth_m: (H, W) float32, meters: the map at every pixel, corrected where near points say how.
        confidence: (H, W) float32, 0 to 1: 1 at points that agree with their neighbors, 0 where near points contradict
            each other, are too far away, or are on one side only. Depth of confidence 0 is a guess at best.
        guess_spread: (H, W) float32, natural logarithm: how much the points differ that a guess is made of, at least
            the tolerance. 0 where the confidence is above 0, inf where there is no guess: no point is near, or none was
            asked for.
        kept: (N,) bool, the points that agree with their neighbors; others are wrong or shine through.
        fit: scale and shift of the map, from relative units to 1 / meters, before the field.
        relief: share of the map's relief that the points confirm, 0 to 1; see ``measure_relief``.
        inlier_share: share of the points that are kept and within the tolerance of scale, shift and field.
        residual: median of |ln(depth of scale, shift and field / measured depth)| over the points.
    """

    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    guess_spread: NDArray[np.float32]
    kept: NDArray[np.bool_]
    fit: InverseFit
    relief: float
    inlier_share: float
    residual: float


def anchor_depth(
    relative: NDArray[np.floating],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    points_m: NDArray[np.floating],
    options: AnchoringOptions | None = None,
    *,
    with_guesses: bool = True,
) -> AnchoredDepth:
    """
    Bring inverse depth of unknown scale and shift to meters by measured points: first one scale and one shift for the
    frame, with the least mean |ln(depth / measured)|. Then a smooth field of factors on a coarse grid: the weighted
    least squares of its distance to what the points ask for, and of its second differences, which count less where the
    map has a step; points far from it count less (Huber 1964, doi:10.1214/aoms/1177703732, by reweighting). Points that
    agree with fewer than two of their eight nearest ones are dropped. As much of the map's relief is taken as the
    others confirm, and the field is solved again. What is left is interpolated over the points' Delaunay triangles,
    linearly in inverse depth, by which a plane stays a plane. Where the three points of a triangle contradict each
    other, mostly at an edge, the depth is a guess; see ``_guess``.

    Args:
        relative: (H, W), larger is nearer.
        rows, columns: (N,) pixels of the points, each at most once.
        points_m: (N,) measured depth, meters, > 0.
        options: None for the defaults.
        with_guesses: False saves time where depth of confidence 0 is not used.

    Raises:
        AnchoringRefused: the points are too few, of one depth or on one line, or contradict the map or each other.
    """
    options = options or AnchoringOptions()
    target = np.log(points_m.astype(np.float64))
    require_points(target)
    fit, log_map = _fit_map(relative, rows, columns, target)
    points = np.stack([rows, columns], axis=1).astype(np.float64)
    first = _anchor(points, target, log_map, options.tolerance)
    if np.count_nonzero(first.kept) < MIN_POINTS:
        raise AnchoringRefused(f"{np.count_nonzero(first.kept)} of its {len(target)} points agree with each other")
    relief = measure_relief(points[first.kept], log_map[rows, columns][first.kept], target[first.kept])
    log_map *= relief
    anchored = _anchor(points, target, log_map, options.tolerance)
    residual, kept = anchored.residual, anchored.kept
    inlier_share = float(np.mean(kept & (np.abs(residual) <= options.tolerance)))
    if inlier_share < options.min_inlier_share or np.count_nonzero(kept) < MIN_POINTS:
        raise AnchoringRefused(
            f"{percent(inlier_share)} of its {len(target)} points agree with the model and with each other"
        )
    if np.linalg.matrix_rank(points[kept] - points[kept][0]) < 2:
        raise AnchoringRefused("its points are on one line of the image, and hold no surface")
    smooth = log_map + anchored.field.on_pixels()
    log_depth, confidence, guess_spread = _fill(points, target, anchored, smooth, options.tolerance, with_guesses)
    return AnchoredDepth(
        depth_m=np.exp(log_depth).astype(np.float32),
        confidence=confidence,
        guess_spread=guess_spread,
        kept=kept,
        fit=fit,
        relief=relief,
        inlier_share=inlier_share,
        residual=float(np.median(np.abs(residual))),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Anchored:
    """A field, the (N,) natural logarithm that each point differs from it by, and the (N,) points that agree."""

    field: ScaleField
    residual: NDArray[np.float64]
    kept: NDArray[np.bool_]


def _anchor(
    points: NDArray[np.float64],
    target: NDArray[np.float64],
    log_map: NDArray[np.float64],
    tolerance: float,
) -> _Anchored:
    """The field that the points ask for, and which of them agree then."""
    rows, columns = points.astype(np.intp).T
    asked = target - log_map[rows, columns]
    field = ScaleField.solve(points, asked, log_map)
    residual = asked - field.at(points)
    return _Anchored(field=field, residual=residual, kept=find_agreeing(points, residual, tolerance))


def require_points(target: NDArray[np.float64]) -> None:
    """
    Raises:
        AnchoringRefused: the points hold no scale and shift.
    """
    if target.size < MIN_POINTS:
        points = f"{target.size} point{'s' * (target.size != 1)}" if target.size else "no point"
        raise AnchoringRefused(f"it has {points}, and {MIN_POINTS} are the least")
    low, high = np.percentile(target, (5, 95))
    if high - low < _MIN_SPREAD:
        raise AnchoringRefused("its points have one depth, which holds no scale and shift")


def _fit_map(
    relative: NDArray[np.floating],
    rows: NDArray[np.integer],
    columns: NDArray[np.integer],
    target: NDArray[np.float64],
) -> tuple[InverseFit, NDArray[np.float64]]:
    """
    Scale and shift, and the (H, W) log depth that they make of the map.

    Raises:
        AnchoringRefused: the points contradict the map.
    """
    low, high = (float(end) for end in np.quantile(target, (0.05, 0.95)))
    limits = low - BEYOND_NEAREST_AND_FARTHEST, high + BEYOND_NEAREST_AND_FARTHEST
    fit = fit_inverse_log(relative[rows, columns], target, limits)
    if fit.scale <= 0:
        raise AnchoringRefused("its points are not nearer where the model sees something nearer")
    return fit, np.log(fit.depth_m(relative, math.exp(limits[0]), math.exp(limits[1])))


def _limits(target: NDArray[np.float64]) -> tuple[float, float]:
    """Natural logarithms of the nearest and the farthest depth that is filled in."""
    return float(target.min()) - BEYOND_NEAREST_AND_FARTHEST, float(target.max()) + BEYOND_NEAREST_AND_FARTHEST


def fit_inverse_log(
    relative: NDArray[np.floating], log_target: NDArray[np.float64], limits: tuple[float, float]
) -> InverseFit:
    """
    The scale, not below 0, and the shift with the least mean |ln(depth / measured)|, depth clamped to the limits.

    The median of the error decides, so that a minority of wrong points does not. The search (Nelder and Mead 1965,
    doi:10.1093/comjnl/7.4.308) varies the depth at two values of the map and starts from three lines.

    Args:
        relative: (N,) inverse depth of unknown scale and shift.
        log_target: (N,) natural logarithm of measured meters.
        limits: natural logarithms of the nearest and the farthest depth.
    """
    every = max(1, len(log_target) // _FIT_POINTS)
    x, target = relative[::every].astype(np.float64), log_target[::every]
    low, high = (float(end) for end in np.percentile(x, (5, 95)))
    middle, near, far = (float(value) for value in np.percentile(target, (50, 10, 90)))
    if high - low <= 1e-9 * max(1.0, abs(high)):
        return InverseFit(scale=0.0, shift=math.exp(-middle))

    def fit_of(ends: NDArray[np.float64]) -> InverseFit:
        at_low, at_high = np.exp(-np.clip(ends, -50.0, 50.0)).tolist()
        scale = max(0.0, (at_high - at_low) / (high - low))
        return InverseFit(scale=scale, shift=at_low - scale * low)

    def error(ends: NDArray[np.float64]) -> float:
        fit = fit_of(ends)
        inverse = np.clip(fit.scale * x + fit.shift, math.exp(-limits[1]), math.exp(-limits[0]))
        return float(np.mean(np.abs(np.log(inverse) + target)))

    starts = (np.array([far, near]), np.array([middle, middle - 0.1]), np.array([far + 1.0, near]))
    settings = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 1000}
    found = [scipy.optimize.minimize(error, start, method="Nelder-Mead", options=settings) for start in starts]
    return fit_of(min(found, key=lambda result: result.fun).x)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaleField:
    """A smooth field over an image, bilinear between the nodes of a coarse grid.

    Attributes:
        values: (rows, columns) at the nodes, natural logarithms of a factor.
        spacing_px: between nodes.
        shape: height and width of the image.
    """

    values: NDArray[np.float64]
    spacing_px: float
    shape: tuple[int, int]

    @classmethod
    def solve(cls, points: NDArray[np.float64], asked: NDArray[np.float64], log_map: NDArray[np.float64]) -> ScaleField:
        """
        Args:
            points: (N, 2) row and column, pixels.
            asked: (N,) the field that each point asks for.
            log_map: (H, W) natural logarithm of depth, whose steps let the field bend.
        """
        height, width = log_map.shape
        area = height * width
        spacing = max(2.0, _NODE_SPACINGS * math.sqrt(area / len(points)), math.sqrt(area / _MAX_NODES))
        nodes = math.ceil((height - 1) / spacing) + 1, math.ceil((width - 1) / spacing) + 1
        nodes = max(3, nodes[0]), max(3, nodes[1])
        field = cls(values=np.zeros(nodes), spacing_px=spacing, shape=(height, width))
        at_nodes = np.ix_(
            *(
                np.minimum(np.rint(np.arange(n) * spacing).astype(int), side - 1)
                for n, side in zip(nodes, log_map.shape, strict=True)
            )
        )
        weights = field._weights(points)
        bending = _second_differences(nodes)
        step = bending @ log_map[at_nodes].ravel() / _STEP
        stiffness = _STIFFNESS * (bending.T @ sparse.diags(1.0 / (1.0 + step**2) + 1e-3) @ bending)
        # No point may be within reach of a node: then the field is flat there.
        stiffness += 1e-8 * sparse.identity(field.values.size)
        trust = np.ones(len(asked))
        values = field.values.ravel()
        for _ in range(_ITERATIONS):
            normal = weights.T @ sparse.diags(trust) @ weights + stiffness
            values = _solve_banded(normal, weights.T @ (trust * asked), nodes)
            trust = 1.0 / np.maximum(np.abs(weights @ values - asked) / _SMALL_RESIDUAL, 1.0)
        return cls(values=values.reshape(nodes), spacing_px=spacing, shape=(height, width))

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) row and column -> (N,) the field there."""
        return self._weights(points) @ self.values.ravel()

    def on_pixels(self) -> NDArray[np.float64]:
        """(H, W) the field at every pixel."""
        down, across = (self._weights_of_side(side) for side in (0, 1))
        return down @ (across @ self.values.T).T

    def _weights_of_side(self, side: int) -> sparse.csr_matrix:
        """(pixels, nodes) of one side."""
        return _linear_weights(np.arange(self.shape[side]) / self.spacing_px, self.values.shape[side])

    def _weights(self, points: NDArray[np.float64]) -> sparse.csr_matrix:
        """(N, nodes): the share of each node in the field at each point."""
        down, across = (_linear_weights(points[:, side] / self.spacing_px, self.values.shape[side]) for side in (0, 1))
        # Each row of the result is the outer product of two rows of two numbers.
        first, second = down.indices.reshape(-1, 2), across.indices.reshape(-1, 2)
        nodes = (first[:, :, None] * self.values.shape[1] + second[:, None, :]).ravel()
        shares = (down.data.reshape(-1, 2, 1) * across.data.reshape(-1, 1, 2)).ravel()
        starts = np.arange(0, 4 * len(points) + 1, 4)
        return sparse.csr_matrix((shares, nodes, starts), shape=(len(points), self.values.size))


def _linear_weights(places: NDArray[np.float64], nodes: int) -> sparse.csr_matrix:
    """(N, nodes): two numbers a row, the shares of the nodes on both sides of each place."""
    left = np.clip(np.floor(places).astype(int), 0, nodes - 2)
    share = places - left
    indices = np.stack([left, left + 1], axis=1).ravel()
    shares = np.stack([1.0 - share, share], axis=1).ravel()
    return sparse.csr_matrix((shares, indices, np.arange(0, 2 * len(places) + 1, 2)), shape=(len(places), nodes))


def _second_differences(nodes: tuple[int, int]) -> sparse.csr_matrix:
    """(differences, nodes): of a thin plate, down, across and mixed."""
    first = [sparse.diags([-1.0, 1.0], [0, 1], shape=(n - 1, n)) for n in nodes]
    second = [sparse.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 2, n)) for n in nodes]
    same = [sparse.identity(n) for n in nodes]
    mixed = math.sqrt(2.0) * sparse.kron(first[0], first[1])
    return sparse.vstack([sparse.kron(second[0], same[1]), sparse.kron(same[0], second[1]), mixed]).tocsr()


def _solve_banded(normal: sparse.spmatrix, right: NDArray[np.float64], nodes: tuple[int, int]) -> NDArray[np.float64]:
    """
    The solution of the normal equations of a field, by Cholesky's factors of their band: a node is coupled to nodes at
    most two lines away, so the band is narrow if nodes are counted along the shorter side.
    """
    grid = np.arange(right.size).reshape(nodes)
    order = (grid.T if nodes[0] < nodes[1] else grid).ravel()
    place = np.empty_like(order)
    place[order] = np.arange(right.size)
    entries = normal.tocoo()
    rows, columns = place[entries.row], place[entries.col]
    lower = rows >= columns
    below, columns = (rows - columns)[lower], columns[lower]
    band = np.zeros((int(below.max()) + 1, right.size))
    band[below, columns] = entries.data[lower]
    solved = scipy.linalg.solveh_banded(band, right[order], lower=True, overwrite_ab=True, check_finite=False)
    return np.asarray(solved[place])


def find_agreeing(points: NDArray[np.float64], residual: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """
    Args:
        points: (N, 2) row and column, pixels.
        residual: (N,) natural logarithm of measured over predicted depth.
        tolerance: how much two may differ and still agree.

    Returns:
        (N,) True where a point agrees with at least two of its eight nearest ones. Others are wrong, or see through
        between nearer surfaces.
    """
    count = min(_NEIGHBORS + 1, len(points))
    _, nearest = KDTree(points).query(points, k=count)
    agreeing = np.abs(residual[nearest[:, 1:]] - residual[:, None]) <= tolerance
    return np.asarray(agreeing.sum(axis=1) >= _MIN_AGREEING)


def measure_relief(points: NDArray[np.float64], log_map: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """
    The share of the map's relief that the points confirm, 0 to 1.

    Relief is what a plane through the eight nearest points does not explain; the share is the one with the least sum of
    absolute differences between the relief of the map, times it, and that of the points.

    Args:
        points: (N, 2) row and column, pixels.
        log_map, target: (N,) natural logarithms of predicted and measured depth there.
    """
    if len(points) <= _NEIGHBORS:
        return 1.0
    _, nearest = KDTree(points).query(points, k=_NEIGHBORS + 1)
    around = nearest[:, 1:]
    offsets = points[around] - points[:, None]
    scale = np.abs(offsets).max(axis=(1, 2), keepdims=True)
    plane = np.concatenate([np.ones((*around.shape, 1)), offsets / scale], axis=2)
    # Points on one line hold no slope across it; the small number keeps it at 0.
    normal = np.einsum("nki,nkj->nij", plane, plane) + 1e-6 * np.eye(3)
    values = np.stack([log_map[around], target[around]], axis=2)
    fitted = np.linalg.solve(normal, np.einsum("nki,nkv->niv", plane, values))[:, 0]
    of_map, of_points = log_map - fitted[:, 0], target - fitted[:, 1]
    uneven = np.abs(of_map) > 1e-9
    if not uneven.any():
        return 1.0
    ratios, weight = of_points[uneven] / of_map[uneven], np.abs(of_map[uneven])
    order = np.argsort(ratios, kind="stable")
    until = np.cumsum(weight[order])
    return float(np.clip(ratios[order[np.searchsorted(until, until[-1] / 2)]], 0.0, 1.0))


def _fill(
    points: NDArray[np.float64],
    target: NDArray[np.float64],
    anchored: _Anchored,
    smooth: NDArray[np.float64],
    tolerance: float,
    with_guesses: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """(H, W) natural logarithm of depth, no nearer and no farther than the points allow; confidence; and what
    ``AnchoredDepth.guess_spread`` says."""
    residual, kept = anchored.residual, anchored.kept
    log_depth, confidence = _interpolate(points[kept], target[kept], residual[kept], smooth, tolerance)
    guess_spread = np.where(confidence > 0, np.float32(0), np.float32(np.inf))
    if with_guesses:
        pixels = _find_unsure(confidence, points)
        guess, spread = _guess(pixels, points, residual, kept, smooth)
        log_depth[tuple(pixels.T)], guess_spread[tuple(pixels.T)] = guess, np.maximum(spread, tolerance)
    rows, columns = points.astype(np.intp).T
    confidence[rows, columns] = np.where(kept, 1.0, 0.0)
    guess_spread[rows, columns] = np.where(kept, 0.0, np.inf)
    return np.clip(log_depth, *_limits(target)), confidence, guess_spread


def _interpolate(
    points: NDArray[np.float64],
    target: NDArray[np.float64],
    residual: NDArray[np.float64],
    smooth: NDArray[np.float64],
    tolerance: float,
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """
    Args:
        points: (N, 2) row and column, whole numbers.
        target, residual: (N,) natural logarithms of measured depth, and of it over that of the field.
        smooth: (H, W) natural logarithm of the depth of map and field.
        tolerance: how much the points of a triangle may differ.

    Returns:
        (H, W) natural logarithm of depth, and (H, W) confidence: how well the three points around a pixel agree, times
        how near the nearest is; 0 outside of the hull of the points, where depth is ``smooth``.
    """
    triangles = Delaunay(points).simplices
    spread = np.ptp(residual[triangles], axis=1)
    # On an edge of two triangles, the one whose points agree better counts.
    order = np.argsort(-spread, kind="stable")
    triangles, spread = triangles[order], spread[order]
    found = find_triangles(points, triangles, smooth.shape)
    confidence = np.clip(1.0 - np.append(spread, np.inf)[found] / tolerance, 0.0, 1.0)
    reach = _MAX_SPACINGS * math.sqrt(smooth.size / len(points))
    distance = _measure_distance(points, smooth.shape)
    confidence *= np.where(distance <= reach, np.exp(-distance / reach), 0.0)

    believed = residual - (1.0 - _TRUSTED) * np.clip(residual, -_NOISE, _NOISE)
    predicted = np.exp(residual - target)
    correction = _on_triangles(points, triangles, predicted * np.expm1(-believed), found)
    inverse = np.exp(-smooth) + correction
    return -np.log(np.maximum(inverse, _MIN_INVERSE)), confidence.astype(np.float32)


def _measure_distance(points: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """(H, W) pixels from each pixel to the nearest of the (N, 2) points."""
    holes = np.ones(shape, dtype=np.uint8)
    holes[tuple(points.astype(np.intp).T)] = 0
    return np.asarray(cv2.distanceTransform(holes, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), dtype=np.float32)


def _find_unsure(confidence: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.intp]:
    """(M, 2) row and column of the pixels of confidence 0 that a point is near."""
    # The distances are rounded to float32.
    reach = (1.0 + 1e-6) * _MAX_SPACINGS * math.sqrt(confidence.size / len(points))
    return np.argwhere((confidence == 0) & (_measure_distance(points, confidence.shape) <= reach))


def _guess(
    pixels: NDArray[np.integer],
    points: NDArray[np.float64],
    residual: NDArray[np.float64],
    kept: NDArray[np.bool_],
    smooth: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    The weighted median of what near points differ from the map by, with the weights of a joint bilateral filter
    (Petschnigg et al. 2004, doi:10.1145/1015706.1015777), so that a pixel at an edge takes after the points of its own
    side. Points that were dropped count as well, but less, as they may be right.

    Args:
        pixels: (M, 2) row and column.
        points: (N, 2) row and column.
        residual: (N,) natural logarithm of measured depth over that of ``smooth``.
        kept: (N,) False for points that were dropped.
        smooth: (H, W) natural logarithm of the depth of map and field.

    Returns:
        (M,) natural logarithm of depth, and (M,) the mean distance of the points from it, with the same weights.
    """
    spacing = math.sqrt(smooth.size / len(points))
    distance, nearest = KDTree(points).query(pixels, k=min(_NEIGHBORS, len(points)))
    rows, columns = points.astype(np.intp).T
    here = smooth[tuple(pixels.T)]
    apart = np.abs(smooth[rows, columns][nearest] - here[:, None])
    # Relative to the nearest point, so that not all weights are 0.
    weight = np.exp((distance[:, :1] - distance) / (_GUESS_REACH * spacing) - apart / _GUESS_STEP)
    weight *= np.where(kept, 1.0, _DROPPED)[nearest]
    weight /= weight.sum(axis=1, keepdims=True)
    order = np.argsort(residual[nearest], axis=1, kind="stable")
    until = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    middle = np.argmax(until >= 0.5, axis=1)[:, None]
    median = np.take_along_axis(residual[nearest], np.take_along_axis(order, middle, axis=1), axis=1)
    spread = (weight * np.abs(residual[nearest] - median)).sum(axis=1)
    return here + median[:, 0], spread


def find_triangles(
    points: NDArray[np.float64], triangles: NDArray[np.integer], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """
    Args:
        points: (N, 2) row and column, whole numbers.
        triangles: (T, 3) points of each.
        shape: height and width.

    Returns:
        (H, W) the triangle of each pixel, -1 outside of all; where pixels are on several, the last of them. It is drawn
        line by line, as looking up every pixel in scipy's Delaunay takes ten times as long.
    """
    corners = points[triangles]
    by_row = np.argsort(corners[:, :, 0], axis=1, kind="stable")
    corners = np.take_along_axis(corners, by_row[:, :, None], axis=1)
    (top, top_x), (middle, middle_x), (bottom, bottom_x) = (corners[:, i].T for i in range(3))
    # A line for each row of each triangle, from its long side to the side above or below the corner in the middle.
    heights = (bottom - top).astype(np.intp) + 1
    of_line = np.repeat(np.arange(len(triangles)), heights)
    y = top[of_line] + _count_within(heights)
    long_side = _lerp(y, top[of_line], top_x[of_line], bottom[of_line], bottom_x[of_line])
    is_above = (y <= middle[of_line]) & (middle > top)[of_line]
    above = _lerp(y, top[of_line], top_x[of_line], middle[of_line], middle_x[of_line])
    below = _lerp(y, middle[of_line], middle_x[of_line], bottom[of_line], bottom_x[of_line])
    short_side = np.where(is_above, above, below)
    first = np.ceil(np.minimum(long_side, short_side) - _ON_EDGE).astype(np.intp)
    last = np.floor(np.maximum(long_side, short_side) + _ON_EDGE).astype(np.intp)
    widths = np.maximum(last - first + 1, 0)
    of_pixel = np.repeat(np.arange(len(of_line)), widths)
    x = first[of_pixel] + _count_within(widths)
    found = np.full(shape, -1, dtype=np.intp)
    found[y[of_pixel].astype(np.intp), x] = of_line[of_pixel]
    return found


def _count_within(sizes: NDArray[np.intp]) -> NDArray[np.intp]:
    """0, 1, ... within each of several groups, one after the other."""
    return np.asarray(np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes))


def _lerp(
    y: NDArray[np.float64],
    y0: NDArray[np.float64],
    x0: NDArray[np.float64],
    y1: NDArray[np.float64],
    x1: NDArray[np.float64],
) -> NDArray[np.float64]:
    """x on the line from (y0, x0) to (y1, x1); x0 where the line has no height."""
    return np.asarray(x0 + (x1 - x0) * (y - y0) / np.maximum(y1 - y0, 1.0))


def _on_triangles(
    points: NDArray[np.float64],
    triangles: NDArray[np.integer],
    values: NDArray[np.float64],
    found: NDArray[np.intp],
) -> NDArray[np.float64]:
    """(N,) values at points -> (H, W) the plane of the triangle that ``found`` has for a pixel; 0 where it has none."""
    corners, heights = points[triangles], values[triangles]
    (down1, across1), (down2, across2) = (corners[:, i].T - corners[:, 0].T for i in (1, 2))
    rise1, rise2 = heights[:, 1] - heights[:, 0], heights[:, 2] - heights[:, 0]
    area = down1 * across2 - across1 * down2
    area[area == 0] = np.inf  # three points on a line: its first value
    down, across = (rise1 * across2 - rise2 * across1) / area, (rise2 * down1 - rise1 * down2) / area
    origin = heights[:, 0] - down * corners[:, 0, 0] - across * corners[:, 0, 1]
    origin, down, across = (np.append(part, 0.0) for part in (origin, down, across))  # the last is that of -1
    rows, columns = np.indices(found.shape)
    return np.asarray(origin[found] + down[found] * rows + across[found] * columns)

"""Which bodies a tile of pixels can see, and which can be between it and a lamp; rays are tested against no others.

Where it is uncertain, a body is kept, so that culling does not change what is drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finetune.data.synthetic.rays import NOWHERE_M, Bodies
from finetune.data.synthetic.rng import square_root

SLACK = 1e-3  # meters, far more than float32 rounds


def seen_by_tiles(
    bodies: Bodies,
    place_m: Tensor,
    axes: tuple[Tensor, Tensor, Tensor],
    edges: tuple[Tensor, Tensor],
    margin_m: float = 0.0,
) -> Tensor:
    """
    Args:
        bodies: of B worlds.
        place_m: (B, 3) places of the cameras.
        axes: right, down and forward, (B, 3) each.
        edges: (B, columns + 1) and (B, rows + 1), where tiles begin and end, in the image plane at depth 1.
        margin_m: meters by which bodies count as larger.

    Returns:
        (B, rows * columns, N) bool: whether the body reaches into the pyramid behind the tile.
    """
    right, down, forward = axes
    columns = _reach_between(bodies, place_m, right[:, None] - edges[0][..., None] * forward[:, None], margin_m)
    rows = _reach_between(bodies, place_m, down[:, None] - edges[1][..., None] * forward[:, None], margin_m)
    middle, reach = _project_bodies(bodies, place_m, forward[:, None], margin_m)
    ahead = (middle + reach >= 0) & (bodies.center_m[:, None, :, 0] > 0.5 * NOWHERE_M)
    return ((rows & ahead)[:, :, None] & columns[:, None]).flatten(1, 2)


def _reach_between(bodies: Bodies, place_m: Tensor, normals: Tensor, margin_m: float) -> Tensor:
    """(B, E, 3) normals of planes through the camera -> (B, E - 1, N), which bodies reach between two planes."""
    middle, reach = _project_bodies(bodies, place_m, normals, margin_m)
    return ((middle + reach)[:, :-1] >= 0) & ((middle - reach)[:, 1:] <= 0)


def _project_bodies(bodies: Bodies, place_m: Tensor, normals: Tensor, margin_m: float) -> tuple[Tensor, Tensor]:
    """How far along each normal the middle of each body lies, and how far its bounding box reaches: (B, E, N)."""
    away = (bodies.center_m - place_m[:, None])[:, None]
    n = normals[:, :, None]
    middle = (away * n).sum(-1)
    cos, sin = bodies.turn[:, None].unbind(-1)
    half = bodies.half_m[:, None] + margin_m
    x, y, z = n.unbind(-1)
    reach = (cos * x + sin * y).abs() * half[..., 0] + (cos * y - sin * x).abs() * half[..., 1] + z.abs() * half[..., 2]
    return middle, reach + SLACK * (1.0 + x.abs() + y.abs() + z.abs())


def bodies_in_the_way(bodies: Bodies, frame: Tensor, lamp_m: Tensor, low_m: Tensor, high_m: Tensor) -> Tensor:
    """
    Args:
        bodies: of B worlds.
        frame: (T,) int64, the world of each tile.
        lamp_m: (B, 3) place of the lamp.
        low_m, high_m: (T, 3) bounds of what a tile shows.

    Returns:
        (T, N) bool: whether the body reaches into the hull of the lamp and the tile's bounds.
    """
    lamp, center = lamp_m[frame][:, None], bodies.center_m[frame]
    cos, sin = bodies.turn[frame].abs().unbind(-1)
    half = bodies.half_m[frame]
    width, depth, height = half.unbind(-1)
    reach = torch.stack([cos * width + sin * depth, sin * width + cos * depth, height], dim=-1) + SLACK
    low, high = torch.minimum(low_m[:, None], lamp), torch.maximum(high_m[:, None], lamp)
    meets = ((center + reach >= low) & (center - reach <= high)).all(-1)
    # Does a sphere around the body meet the cone from the lamp to a sphere around the tile?
    middle, radius = 0.5 * (low_m + high_m)[:, None], 0.5 * square_root((high_m - low_m).square().sum(-1))[:, None]
    way, away = middle - lamp, center - lamp
    share = ((away * way).sum(-1) / way.square().sum(-1).clamp_min(1e-12)).clamp(0.0, 1.0)
    apart = square_root((away - share[..., None] * way).square().sum(-1))
    meets &= apart <= square_root(half.square().sum(-1)) + radius * 1.01 + 2 * SLACK
    return meets & (center[..., 0] > 0.5 * NOWHERE_M)

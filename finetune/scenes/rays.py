"""Where rays first meet a box, a sphere or the room around them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Vector = tuple[Tensor, Tensor, Tensor]  # x, y, z apart: each tensor is contiguous, which elementwise work likes


@dataclass(frozen=True, kw_only=True)
class Solids:
    """The geometry of B rooms.

    Attributes:
        size_m: (B, 3) inner size of the room; its corner is at the origin.
        box_center_m, box_half_m: (B, K, 3).
        box_turn: (B, K, 2) cosine and sine of the turn about the vertical axis.
        sphere_center_m: (B, S, 3).
        sphere_radius_m: (B, S).

    A slot that a frame does not use lies outside the room, where no ray from inside comes first.
    """

    size_m: Tensor
    box_center_m: Tensor
    box_half_m: Tensor
    box_turn: Tensor
    sphere_center_m: Tensor
    sphere_radius_m: Tensor

    @property
    def boxes(self) -> int:
        return self.box_center_m.shape[1]

    @property
    def spheres(self) -> int:
        return self.sphere_center_m.shape[1]


FAR = 1e30  # times any miss that float32 can tell from a touch, farther than everything


def nearest(solids: Solids, origin_m: Tensor, direction: Vector) -> tuple[Tensor, Tensor]:
    """The first surface that each ray meets.

    Args:
        solids: B rooms.
        origin_m: (B, 3), inside the room and outside everything in it.
        direction: x, y, z of the rays, (B, P) each, of any length.

    Returns:
        (B, P) float32, the surface is at origin + this * direction; and (B, P) int64, what was hit: a box's slot, a
        sphere's slot + the number of boxes, or boxes + spheres for the room itself.
    """
    direction = _without_zeros(direction)
    distance = _room_exit(solids.size_m, origin_m, direction)
    hit = torch.full_like(distance, solids.boxes + solids.spheres, dtype=torch.int64)
    for k, entry in enumerate(_entries(solids, origin_m, direction)):
        hit.masked_fill_(entry < distance, k)
        distance = torch.minimum(distance, entry)
    return distance, hit


def nearest_distance(solids: Solids, origin_m: Tensor, direction: Vector) -> Tensor:
    """The first of what ``nearest`` returns, sooner, of what stands in the room: (B, P), huge where nothing does."""
    direction = _without_zeros(direction)
    distance = torch.full_like(direction[0], FAR)
    for entry in _entries(solids, origin_m, direction):
        distance = torch.minimum(distance, entry)
    return distance


def _without_zeros(direction: Vector) -> Vector:
    # A component of exactly 0 would give 0 * infinity on a face; this small it moves a point by less than 1e-8 m.
    x, y, z = (torch.where(part.abs() < 1e-10, 1e-10, part) for part in direction)
    return x, y, z


def _entries(solids: Solids, origin_m: Tensor, direction: Vector) -> Iterator[Tensor]:
    """Where the rays enter each box and then each sphere, (B, P); huge where they do not."""
    # All that is the same for every ray is worked out for all boxes at once.
    from_center = origin_m[:, None] - solids.box_center_m
    x, y = turned(from_center[..., 0], from_center[..., 1], solids.box_turn[..., 0], solids.box_turn[..., 1])
    local = torch.stack([x, y, from_center[..., 2]], dim=-1)
    low, high = -solids.box_half_m - local, solids.box_half_m - local
    inverse_z = 1.0 / direction[2]
    for k in range(solids.boxes):
        yield _box_entry(low[:, k, :, None], high[:, k, :, None], solids.box_turn[:, k, :, None], direction, inverse_z)
    length2 = _dot(direction, direction)
    for k in range(solids.spheres):
        to_center = (solids.sphere_center_m[:, k] - origin_m)[..., None]
        yield _sphere_entry(to_center, solids.sphere_radius_m[:, k, None], direction, length2)


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _room_exit(size_m: Tensor, origin_m: Tensor, direction: Vector) -> Tensor:
    x, y, z = (
        (torch.where(part > 0, size_m[:, i, None], 0.0) - origin_m[:, i, None]) / part
        for i, part in enumerate(direction)
    )
    return torch.minimum(torch.minimum(x, y), z)


def _box_entry(low: Tensor, high: Tensor, turn: Tensor, direction: Vector, inverse_z: Tensor) -> Tensor:
    """Slab test (Kay and Kajiya 1986) in the axes of a box with faces ``low`` and ``high``, seen from the origin."""
    x, y = turned(direction[0], direction[1], turn[:, 0], turn[:, 1])
    enter, leave = _slab(low[:, 2], high[:, 2], inverse_z)
    for i, inverse in enumerate((1.0 / x, 1.0 / y)):
        near, far = _slab(low[:, i], high[:, i], inverse)
        enter = torch.maximum(enter, near)
        leave = torch.minimum(leave, far)
    # Missed, or behind the origin: sent away by arithmetic, which is several times quicker here than masks.
    return enter + ((enter - leave).clamp_min_(0.0) + (-enter).clamp_min_(0.0)).mul_(FAR)


def _slab(low: Tensor, high: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    first, second = low * inverse, high * inverse
    return torch.minimum(first, second), torch.maximum(first, second)


def turned(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """World to local: the x and y of a vector in axes that are turned by (cos, sin); ``-sin`` goes the other way."""
    return cos * x + sin * y, cos * y - sin * x


def _sphere_entry(to_center: Tensor, radius: Tensor, direction: Vector, length2: Tensor) -> Tensor:
    """By the foot of the perpendicular from the center, which keeps its digits when the sphere is small and far."""
    center: Vector = (to_center[:, 0], to_center[:, 1], to_center[:, 2])
    foot = _dot(center, direction) / length2
    miss: Vector = (
        center[0] - foot * direction[0],
        center[1] - foot * direction[1],
        center[2] - foot * direction[2],
    )
    inside = radius * radius - _dot(miss, miss)
    entry = foot - (inside.clamp_min(0.0) / length2).sqrt()
    return entry + ((-inside).clamp_min_(0.0) + (-entry).clamp_min_(0.0)).mul_(FAR)

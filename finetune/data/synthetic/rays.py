"""Where rays first meet a box, a cylinder, a ball or the room around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.synthetic.rng import root

Vector = tuple[Tensor, Tensor, Tensor]  # x, y, z apart: each tensor is contiguous, which elementwise work likes
Candidates = Sequence[Tensor]  # for boxes, cylinders and balls: (T, N) bool, which bodies a row of rays may meet

NOWHERE_M = -1000.0  # x, y and z of a slot without a body: below the floor and behind every wall
FAR = 1e30  # times any miss that float32 can tell from a touch, farther than everything
SKY_M = 1e6  # what is farther away than this is the sky


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """N upright bodies of one shape in each of B worlds: boxes, elliptic cylinders or ellipsoids.

    Attributes:
        center_m, half_m: (B, N, 3) meters; half sizes along the body's own axes.
        turn: (B, N, 2) cosine and sine of the turn about the vertical axis, counterclockwise from above.

    A slot that a world does not use lies at ``NOWHERE_M``, where no ray comes first.
    """

    center_m: Tensor
    half_m: Tensor
    turn: Tensor

    def __len__(self) -> int:
        return self.center_m.shape[1]


@dataclass(frozen=True, kw_only=True)
class Solids:
    """The geometry of B worlds.

    Attributes:
        size_m: (B, 3) inner size of the room, meters; its corner is at the origin.
        outdoors: (B,) bool; there, only the floor is left of the room.
        boxes, cylinders, balls: what stands in it.
    """

    size_m: Tensor
    outdoors: Tensor
    boxes: Bodies
    cylinders: Bodies
    balls: Bodies

    @property
    def shapes(self) -> tuple[Bodies, Bodies, Bodies]:
        """The bodies by shape, in the order that hits count them."""
        return self.boxes, self.cylinders, self.balls

    def __len__(self) -> int:
        """How many slots for bodies a world has; the room itself is the one after them."""
        return sum(map(len, self.shapes))


def nearest(
    solids: Solids, frame: Tensor, origin_m: Tensor, direction: Vector, candidates: Candidates | None = None
) -> tuple[Tensor, Tensor]:
    """The first surface that each ray meets.

    Args:
        solids: B worlds.
        frame: (T,) int64, the world of each row of rays.
        origin_m: (B, 3) meters, inside the room and outside everything in it.
        direction: x, y, z of the rays, meters, (T, S) each, of any length.
        candidates: which bodies a row may meet; None for all.

    Returns:
        (T, S) float32, the surface is at origin + this * direction; ``SKY_M`` and more is the sky. And (T, S) int64,
        what was hit: number of the box, of the cylinder after all boxes, of the ball after both, ``len(solids)`` for
        the room; anything in the sky.
    """
    direction = _without_zeros(direction)
    distance = _room_exit(solids, frame, origin_m, direction)
    hit = torch.full_like(distance, len(solids), dtype=torch.int64)
    _approach(solids, frame, origin_m, direction, candidates, distance, hit)
    return distance, hit


def nearest_distance(
    solids: Solids, frame: Tensor, origin_m: Tensor, direction: Vector, candidates: Candidates | None = None
) -> Tensor:
    """The first of what ``nearest`` returns, of what stands in the room alone: (T, S); ``SKY_M`` and more is a miss."""
    direction = _without_zeros(direction)
    distance = torch.full_like(direction[0], FAR)
    _approach(solids, frame, origin_m, direction, candidates, distance, None)
    return distance


def rows_of(bodies: Bodies, frame: Tensor, candidates: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Bodies for rows of rays, one a row and turn, so that work is done for likely pairs alone.

    Args:
        bodies: N in each of B worlds.
        frame: (T,) int64, the world of each row.
        candidates: (T, N) bool, which bodies a row may meet; None for all.

    Yields:
        (n,) int64, the rows that still have a candidate, and (n,) int64, that candidate's number in the batch
        (world * N + body). Each row sees its candidates in their order, and rows with many come first.
    """
    count = len(bodies)
    if candidates is None:
        rows = torch.arange(len(frame), device=frame.device)
        for k in range(count):
            yield rows, frame * count + k
        return
    found = candidates.sum(1)
    order = found.argsort(descending=True, stable=True)
    most = int(found.max()) if len(found) and count else 0
    slots = (~candidates[order]).to(torch.uint8).argsort(dim=1, stable=True)[:, :most] + (frame[order] * count)[:, None]
    reached = (found[order][None] > torch.arange(most, device=frame.device)[:, None]).sum(1).tolist()
    for turn, rows in enumerate(reached):
        yield order[:rows], slots[:rows, turn]


def _approach(
    solids: Solids,
    frame: Tensor,
    origin_m: Tensor,
    direction: Vector,
    candidates: Candidates | None,
    distance: Tensor,
    hit: Tensor | None,
) -> None:
    """Bring ``distance`` (and ``hit``), (T, S), to the nearest body, in place."""
    entries = (_box_entry, _cylinder_entry, _ball_entry)
    for shape, (bodies, entry) in enumerate(zip(solids.shapes, entries, strict=True)):
        before = sum(map(len, solids.shapes[:shape]))
        if not len(bodies):
            continue
        table = _seen_from(bodies, origin_m).flatten(0, 1)
        turns = list(rows_of(bodies, frame, None if candidates is None else candidates[shape]))
        if not turns:
            continue
        # In the order of the first turn, which holds every row that any later one does, rows are views.
        order = turns[0][0]
        rays = [part[order] for part in direction]
        reached = distance[order]
        met = None if hit is None else hit[order]
        for rows, body in turns:
            n = len(rows)
            at = entry(table[body].unbind(1), (rays[0][:n], rays[1][:n], rays[2][:n]))
            if met is not None:
                number = before + body - frame[rows] * len(bodies)
                met[:n] = torch.where(at < reached[:n], number[:, None], met[:n])
            torch.minimum(reached[:n], at, out=reached[:n])
        distance[order] = reached
        if hit is not None and met is not None:
            hit[order] = met


def _seen_from(bodies: Bodies, origin_m: Tensor) -> Tensor:
    """(B, N, 8): the origin in each body's axes, in half sizes; cosine, sine; 1 / half size."""
    x, y, z = (origin_m[:, None] - bodies.center_m).unbind(-1)
    cos, sin = bodies.turn.unbind(-1)
    x, y = turned(x, y, cos, sin)
    inverse = 1.0 / bodies.half_m
    local = torch.stack([x, y, z], dim=-1) * inverse
    return torch.cat([local, bodies.turn, inverse], dim=-1)


def _without_zeros(direction: Vector) -> Vector:
    # A component of exactly 0 would give 0 * infinity on a face; this small it moves a point by less than 1e-8 m.
    x, y, z = (torch.where(part.abs() < 1e-10, 1e-10, part) for part in direction)
    return x, y, z


def _room_exit(solids: Solids, frame: Tensor, origin_m: Tensor, direction: Vector) -> Tensor:
    """(T, S) how far along each ray a wall, the floor or the ceiling is; in the open, the floor alone."""
    outdoors = solids.outdoors[frame][:, None]
    exits = []
    for i, part in enumerate(direction):
        far = torch.where(part > 0, solids.size_m[:, i][frame][:, None], 0.0)
        exit_m = (far - origin_m[:, i][frame][:, None]) / part
        gone = outdoors & (part > 0) if i == 2 else outdoors
        exits.append(torch.where(gone, FAR, exit_m))
    return torch.minimum(torch.minimum(exits[0], exits[1]), exits[2])


def _local(body: Sequence[Tensor], direction: Vector) -> tuple[list[Tensor], list[Tensor]]:
    """Origin (n, 1) and direction (n, S) in the body's axes and half sizes, where it is a unit body."""
    x, y, z, cos, sin, by_x, by_y, by_z = (values[:, None] for values in body)
    across, along = turned(direction[0], direction[1], cos, sin)
    return [x, y, z], [across * by_x, along * by_y, direction[2] * by_z]


def _missed(enter: Tensor, leave: Tensor) -> Tensor:
    """``enter``, (n, S), but far away where the ray leaves before it enters, or enters behind its origin."""
    # By arithmetic, which is several times quicker here than masks.
    return enter + ((enter - leave).clamp_min_(0.0) + (-enter).clamp_min_(0.0)).mul_(FAR)


def _slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """(n, S) where rays enter and leave what lies between -1 and 1 along one axis (Kay and Kajiya 1986)."""
    inverse = 1.0 / direction
    middle, half = origin * inverse, inverse.abs()
    return -middle - half, half - middle


# Of n rows one body each (the columns of ``_seen_from``): (n, S) where its rays enter, far away where they miss.


def _box_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    origin, ray = _local(body, direction)
    slabs = [_slab(o, d) for o, d in zip(origin, ray, strict=True)]
    enter = torch.maximum(torch.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = torch.minimum(torch.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return _missed(enter, leave)


def _dot(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total = total + a * b
    return total


def _round_part(origin: Sequence[Tensor], ray: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(n, S) where rays enter and leave the unit ball, or the unit disk if given two axes."""
    # By the foot of the perpendicular from the center, which keeps its digits when the body is small and far.
    length2 = _dot(ray, ray)
    foot = -_dot(origin, ray) / length2
    at_foot = [o + foot * d for o, d in zip(origin, ray, strict=True)]
    inside = 1.0 - _dot(at_foot, at_foot)
    reach = root(inside.clamp_min(0.0) / length2)
    miss = (-inside).clamp_min(0.0) * FAR
    return foot - reach + miss, foot + reach - miss


def _cylinder_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    origin, ray = _local(body, direction)
    side_in, side_out = _round_part(origin[:2], ray[:2])
    cap_in, cap_out = _slab(origin[2], ray[2])
    return _missed(torch.maximum(side_in, cap_in), torch.minimum(side_out, cap_out))


def _ball_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    return _missed(*_round_part(*_local(body, direction)))


def turned(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """World to local: the x and y of a vector in axes that are turned by (cos, sin); ``-sin`` goes the other way."""
    return cos * x + sin * y, cos * y - sin * x

"""Find where rays first meet a box, a cylinder, a ball or the room around them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.synthetic.rng import square_root

Vector = tuple[Tensor, Tensor, Tensor]  # x, y, z as separate tensors: contiguous ones are faster elementwise
Candidates = Sequence[Tensor]  # boxes, cylinders, balls: (T, N) bool, which bodies a row may meet

NOWHERE_M = -1000.0  # x, y and z of a slot without a body: below the floor and behind every wall
FAR = 1e30  # farther than everything, also after a product with the smallest miss that float32 can hold
SKY_M = 1e6  # anything farther is the sky


@dataclass(frozen=True, kw_only=True)
class Bodies:
    """N upright bodies of one shape in each of B worlds: boxes, elliptic cylinders or ellipsoids.

    Attributes:
        center_m, half_m: (B, N, 3) meters; half sizes along the body's own axes.
        turn: (B, N, 2) cosine and sine of the turn about the vertical axis, counterclockwise from above.

    A slot that a world does not use is at ``NOWHERE_M``, where other surfaces are in front of it.
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
        outdoors: (B,) bool; then only the floor is left of the room.
        boxes, cylinders, balls: what is in the room.
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
        """How many slots for bodies a world has; hits count the room as the slot after them."""
        return sum(map(len, self.shapes))


def nearest_hit(
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
        (T, S) float32: the surface is at origin + this * direction; ``SKY_M`` and more is the sky. And (T, S) int64,
        what was hit: the boxes are numbered first, then the cylinders, then the balls; ``len(solids)`` is the room; in
        the sky the number means nothing.
    """
    direction = _without_zeros(direction)
    distance = _room_exit(solids, frame, origin_m, direction)
    hit = torch.full_like(distance, len(solids), dtype=torch.int64)
    _approach_bodies(solids, frame, origin_m, direction, candidates, distance, hit)
    return distance, hit


def nearest_distance(
    solids: Solids, frame: Tensor, origin_m: Tensor, direction: Vector, candidates: Candidates | None = None
) -> Tensor:
    """(T, S): the distance of ``nearest_hit``, to bodies alone, without the room; ``SKY_M`` and more is a miss."""
    direction = _without_zeros(direction)
    distance = torch.full_like(direction[0], FAR)
    _approach_bodies(solids, frame, origin_m, direction, candidates, distance, None)
    return distance


def rows_of(bodies: Bodies, frame: Tensor, candidates: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a row of rays and a body that it may meet: in each turn, every row gets its next body.

    Args:
        bodies: N in each of B worlds.
        frame: (T,) int64, the world of each row.
        candidates: (T, N) bool, which bodies a row may meet; None for all.

    Yields:
        (n,) int64, the rows that still have a candidate, and (n,) int64, that candidate's number in the batch
        (world * N + body). The candidates of a row keep their order, and rows with more candidates come first.
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


def _approach_bodies(
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
        # The first turn has every row of the later ones; in its order, the rows of each turn are a view.
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
    """(B, N, 8): the origin in the axes and half sizes of each body; cosine and sine; 1 / half size."""
    x, y, z = (origin_m[:, None] - bodies.center_m).unbind(-1)
    cos, sin = bodies.turn.unbind(-1)
    x, y = rotate(x, y, cos, sin)
    inverse = 1.0 / bodies.half_m
    local = torch.stack([x, y, z], dim=-1) * inverse
    return torch.cat([local, bodies.turn, inverse], dim=-1)


def _without_zeros(direction: Vector) -> Vector:
    # A component of 0 would give 0 * infinity on a face; one this small moves a point by less than 1e-8 m.
    x, y, z = (torch.where(part.abs() < 1e-10, 1e-10, part) for part in direction)
    return x, y, z


def _room_exit(solids: Solids, frame: Tensor, origin_m: Tensor, direction: Vector) -> Tensor:
    """(T, S) how far along each ray a wall, the floor or the ceiling is; outdoors, the floor alone."""
    outdoors = solids.outdoors[frame][:, None]
    exits = []
    for i, part in enumerate(direction):
        far = torch.where(part > 0, solids.size_m[:, i][frame][:, None], 0.0)
        exit_m = (far - origin_m[:, i][frame][:, None]) / part
        gone = outdoors & (part > 0) if i == 2 else outdoors
        exits.append(torch.where(gone, FAR, exit_m))
    return torch.minimum(torch.minimum(exits[0], exits[1]), exits[2])


def _to_unit_body(body: Sequence[Tensor], direction: Vector) -> tuple[list[Tensor], list[Tensor]]:
    """Origin (n, 1) and direction (n, S) in the axes and half sizes of each body, which makes it a unit body."""
    x, y, z, cos, sin, by_x, by_y, by_z = (values[:, None] for values in body)
    across, along = rotate(direction[0], direction[1], cos, sin)
    return [x, y, z], [across * by_x, along * by_y, direction[2] * by_z]


def _far_if_missed(enter: Tensor, leave: Tensor) -> Tensor:
    """``enter``, (n, S), but far away where a ray leaves before it enters, or enters behind its origin."""
    # Arithmetic is several times faster here than masks.
    return enter + ((enter - leave).clamp_min_(0.0) + (-enter).clamp_min_(0.0)).mul_(FAR)


def _slab_crossings(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """(n, S) where rays enter and leave the slab from -1 to 1 along one axis (Kay and Kajiya 1986)."""
    inverse = 1.0 / direction
    middle, half = origin * inverse, inverse.abs()
    return -middle - half, half - middle


# For n rows with one body each (columns of ``_seen_from``): (n, S) where rays enter it, far away where they miss.


def _box_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    origin, ray = _to_unit_body(body, direction)
    slabs = [_slab_crossings(o, d) for o, d in zip(origin, ray, strict=True)]
    enter = torch.maximum(torch.maximum(slabs[0][0], slabs[1][0]), slabs[2][0])
    leave = torch.minimum(torch.minimum(slabs[0][1], slabs[1][1]), slabs[2][1])
    return _far_if_missed(enter, leave)


def _dot_product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    total = first[0] * second[0]
    for a, b in zip(first[1:], second[1:], strict=True):
        total = total + a * b
    return total


def _round_crossings(origin: Sequence[Tensor], ray: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(n, S) where rays enter and leave the unit ball, or the unit disk if given two axes."""
    # The foot of the perpendicular from the center stays precise for bodies that are small and far.
    length2 = _dot_product(ray, ray)
    foot = -_dot_product(origin, ray) / length2
    at_foot = [o + foot * d for o, d in zip(origin, ray, strict=True)]
    inside = 1.0 - _dot_product(at_foot, at_foot)
    reach = square_root(inside.clamp_min(0.0) / length2)
    miss = (-inside).clamp_min(0.0) * FAR
    return foot - reach + miss, foot + reach - miss


def _cylinder_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    origin, ray = _to_unit_body(body, direction)
    side_in, side_out = _round_crossings(origin[:2], ray[:2])
    cap_in, cap_out = _slab_crossings(origin[2], ray[2])
    return _far_if_missed(torch.maximum(side_in, cap_in), torch.minimum(side_out, cap_out))


def _ball_entry(body: Sequence[Tensor], direction: Vector) -> Tensor:
    return _far_if_missed(*_round_crossings(*_to_unit_body(body, direction)))


def rotate(x: Tensor, y: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of a vector, from the world to axes that are turned by (cos, sin); with ``-sin`` back to the world."""
    return cos * x + sin * y, cos * y - sin * x

"""Where walls, pieces of furniture, things on top of them, doors and pictures are, none inside another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finetune.data.synthetic.furniture import BALL, BOX, CYLINDER, PARTS, PIECES, piece_templates
from finetune.data.synthetic.rays import NOWHERE_M, Bodies
from finetune.data.synthetic.rng import Rng, cos_sin, pick_rows

WALL_ITEMS = 8
DOOR, PICTURE, WINDOW, CUPBOARD, LEDGE, NO_ITEM = range(6)
THINGS = 4  # at most, on top of a piece
INNER_WALLS = 2  # at most, in a room
BLOCK, STUB, PILLAR = range(3)
CANDIDATES = 12  # places drawn for each piece
GAP_M = 0.06  # between pieces, and between them and walls


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """O pieces in each world.

    Attributes:
        kind: (B, O) int64, position in ``PIECES``.
        there: (B, O) bool, whether the world has it.
        size_m: (B, O, 3) half width, half depth, height.
        turn: (B, O, 2) cosine and sine about the vertical axis.
        center_m: (B, O, 2) on the floor.
    """

    kind: Tensor
    there: Tensor
    size_m: Tensor
    turn: Tensor
    center_m: Tensor


@dataclass(frozen=True, kw_only=True)
class Parts:
    """K bodies of any shape in each world: (B, K, 3) center and half size, (B, K, 2) turn, the rest (B, K)."""

    center_m: Tensor
    half_m: Tensor
    turn: Tensor
    there: Tensor
    shape: Tensor
    material: Tensor


def bodies_of_shape(parts: Parts, shape: int) -> tuple[Bodies, Tensor]:
    """The bodies of one shape, in as many slots as the fullest world needs, and (B, N) numbers of their materials."""
    order, there = order_used_first(parts.there & (parts.shape == shape))
    center_m = torch.where(there[..., None], pick_rows(parts.center_m, order), NOWHERE_M)
    half_m = torch.where(there[..., None], pick_rows(parts.half_m, order), 0.1)
    turn = torch.where(there[..., None], pick_rows(parts.turn, order), torch.tensor([1.0, 0.0]))
    return Bodies(center_m=center_m, half_m=half_m, turn=turn), pick_rows(parts.material, order)


def order_used_first(there: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) int64, the slots that are ``there`` and then others, and (B, N) bool, which of them are there; N is the
    most that any world has."""
    order = torch.argsort((~there).to(torch.uint8), dim=1, stable=True)[:, : max(1, int(there.sum(1).max()))]
    return order, pick_rows(there, order)


def draw_inner_walls(rng: Rng, size_m: Tensor, outdoors: Tensor, share: float, material: int) -> Parts:
    """Cut-out corners of rooms, walls that end inside, and pillars: along the axes, and painted like the walls.

    Args:
        rng: one row per world.
        size_m: (B, 3) of the rooms.
        outdoors: (B,) bool; open ground has no walls.
        share: of rooms that have such a wall; of these, 4 in 10 have two.
        material: number of their material.
    """
    shape = (len(rng), INNER_WALLS)
    kind = rng.choice([0.4, 0.4, 0.2], INNER_WALLS)[..., None]
    level_m = size_m[:, None, :2]
    long, at_end = rng.chance(0.5, INNER_WALLS, 1), rng.chance(0.5, INNER_WALLS, 2)
    lengthwise = torch.cat([long, ~long], dim=-1)
    spread = rng.uniform(0.0, 1.0, INNER_WALLS, 2)
    block = (0.15 + 0.4 * spread) * level_m
    stub = torch.where(lengthwise, (0.2 + 0.45 * spread) * level_m, 0.1 + 0.2 * spread)
    wide = torch.where(kind == BLOCK, block, torch.where(kind == STUB, stub, 0.2 + 0.5 * spread))
    half = 0.5 * wide
    anywhere = half + (level_m - wide).clamp_min(0.0) * rng.uniform(0.1, 0.9, INNER_WALLS, 2)
    at_wall = torch.where(at_end, level_m - half, half)
    center = torch.where((kind == BLOCK) | ((kind == STUB) & lengthwise), at_wall, anywhere)
    high = size_m[:, None, 2:].expand(*shape, 1)
    low = rng.chance(0.2, INNER_WALLS, 1) & (kind == STUB)
    high = torch.where(low, torch.minimum(high, rng.uniform(0.8, 1.4, INNER_WALLS, 1)), high)
    there = rng.chance(share, 1) & (torch.arange(INNER_WALLS) < rng.choice([0.6, 0.4], 1) + 1)
    return Parts(
        center_m=torch.cat([center, 0.5 * high], dim=-1),
        half_m=torch.cat([half, 0.5 * high], dim=-1),
        turn=torch.tensor([1.0, 0.0]).expand(*shape, 2),
        there=there & ~outdoors[:, None],
        shape=torch.full(shape, BOX),
        material=torch.full(shape, material),
    )


def drop_pieces_in_walls(pieces: Pieces, walls: Parts) -> Pieces:
    """The pieces without those that overlap with walls inside the room."""
    meet = _overlap_walls(pieces.center_m, _half_extent(pieces.turn, pieces.size_m) + GAP_M, walls)
    return replace(pieces, there=pieces.there & ~meet)


def drop_parts_in_walls(parts: Parts, walls: Parts) -> Parts:
    """The parts without those that overlap with walls inside the room."""
    return replace(
        parts,
        there=parts.there & ~_overlap_walls(parts.center_m[..., :2], _half_extent(parts.turn, parts.half_m), walls),
    )


def _overlap_walls(center: Tensor, reach: Tensor, walls: Parts) -> Tensor:
    """(B, N) whether rectangles of these centers and half sizes (B, N, 2) overlap with any of the walls."""
    apart = (center[:, :, None] - walls.center_m[:, None, :, :2]).abs() - reach[:, :, None]
    return ((apart < walls.half_m[:, None, :, :2]).all(-1) & walls.there[:, None]).any(-1)


def place_pieces(rng: Rng, size_m: Tensor, outdoors: Tensor, objects: tuple[int, int]) -> Pieces:
    """
    Args:
        rng: one row per world.
        size_m: (B, 3) of the rooms, or of the plots of open ground.
        outdoors: (B,) bool.
        objects: fewest and most pieces; those that find no free place are left out.
    """
    shapes = piece_templates()
    most = objects[1]
    inside = rng.choice([piece.indoors for piece in PIECES], most)
    kind = torch.where(outdoors[:, None], rng.choice([piece.outdoors for piece in PIECES], most), inside)
    smallest, largest = shapes.smallest_m[kind], shapes.largest_m[kind]
    size = smallest + (largest - smallest) * rng.uniform(0.0, 1.0, most, 3)
    depth = torch.where(shapes.round[kind], size[..., 0], size[..., 1])
    # Pieces end at the ceiling.
    size = torch.stack([0.5 * size[..., 0], 0.5 * depth, torch.minimum(size[..., 2], size_m[:, 2:])], dim=-1)
    # A plot is far larger than a room, so it gets all pieces that fit.
    wanted = (torch.arange(most) < rng.integers(*objects)[:, None]) | outdoors[:, None]
    at_wall = (rng.uniform(0.0, 1.0, most) < shapes.walls[kind]) & ~outdoors[:, None]
    turn, center = _draw_candidates(rng, size, at_wall, size_m)
    return _first_that_fit(kind, wanted, size, turn, center, size_m)


def _draw_candidates(rng: Rng, size: Tensor, at_wall: Tensor, size_m: Tensor) -> tuple[Tensor, Tensor]:
    """(B, O, CANDIDATES, 2) turns and centers drawn for each piece."""
    most = size.shape[1]
    quarter = rng.integers(0, 3, most, CANDIDATES)
    quarters = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])[quarter]
    free = torch.stack(cos_sin(rng.uniform(0.0, 6.2831853, most, CANDIDATES)), dim=-1)
    askew = rng.chance(0.5, most, CANDIDATES) & ~at_wall[..., None]
    turn = torch.where(askew[..., None], free, quarters)
    reach = _half_extent(turn, size[:, :, None])
    # At least GAP_M away from walls, and exactly GAP_M if its back is to one.
    room = size_m[:, None, None, :2]
    span = (room - 2.0 * (reach + GAP_M)).clamp_min(0.0)
    center = reach + GAP_M + span * rng.uniform(0.0, 1.0, most, CANDIDATES, 2)
    back = -torch.stack([-turn[..., 1], turn[..., 0]], dim=-1)
    backed = torch.where(back > 0.5, room - reach - GAP_M, torch.where(back < -0.5, reach + GAP_M, center))
    return turn, torch.where(at_wall[..., None, None], backed, center)


def _half_extent(turn: Tensor, size: Tensor) -> Tensor:
    """Half size along x and y of a turned box's bounding rectangle, (..., 2)."""
    cos, sin = turn[..., 0].abs(), turn[..., 1].abs()
    width, depth = size[..., 0], size[..., 1]
    return torch.stack([cos * width + sin * depth, sin * width + cos * depth], dim=-1)


def _first_that_fit(kind: Tensor, wanted: Tensor, size: Tensor, turn: Tensor, center: Tensor, size_m: Tensor) -> Pieces:
    """Each piece at its first candidate whose bounding rectangle is inside the room and overlaps none placed before."""
    rows, most = kind.shape
    frames = torch.arange(rows)
    there = torch.zeros(rows, most, dtype=torch.bool)
    chosen_turn, chosen_center = torch.zeros(rows, most, 2), torch.zeros(rows, most, 2)
    reach = torch.zeros(rows, most, 2)
    wide = _half_extent(turn, size[:, :, None])
    fits = (2.0 * (wide + GAP_M) <= size_m[:, None, None, :2]).all(-1)
    for o in range(most):
        apart = (center[:, o, :, None] - chosen_center[:, None, :o]).abs() - (wide[:, o, :, None] + reach[:, None, :o])
        free = ((apart > GAP_M).any(-1) | ~there[:, None, :o]).all(-1) & fits[:, o]
        first = free.to(torch.uint8).argmax(1)
        there[:, o] = free.any(1) & wanted[:, o]
        chosen_turn[:, o] = turn[frames, o, first]
        chosen_center[:, o] = center[frames, o, first]
        reach[:, o] = wide[frames, o, first]
    return Pieces(kind=kind, there=there, size_m=size, turn=chosen_turn, center_m=chosen_center)


def parts_of_pieces(pieces: Pieces) -> Parts:
    """The bodies of the pieces; of O pieces, piece o has the materials o and O + o."""
    shapes = piece_templates()
    rows, most = pieces.kind.shape
    size = pieces.size_m[:, :, None]
    half = shapes.half[pieces.kind] * size + shapes.add_m[pieces.kind]
    local = shapes.at[pieces.kind] * size + shapes.shift_m[pieces.kind]
    turn = pieces.turn[:, :, None].expand(rows, most, PARTS, 2)
    return Parts(
        center_m=_to_world(local, turn, pieces.center_m[:, :, None]).flatten(1, 2),
        half_m=half.flatten(1, 2),
        turn=turn.flatten(1, 2),
        there=(shapes.used[pieces.kind] & pieces.there[..., None]).flatten(1, 2),
        shape=shapes.shape[pieces.kind].flatten(1, 2),
        material=(torch.arange(most)[None, :, None] + most * shapes.second[pieces.kind]).flatten(1, 2),
    )


def _to_world(local: Tensor, turn: Tensor, center: Tensor) -> Tensor:
    cos, sin = turn.unbind(-1)
    x, y, z = local.unbind(-1)
    return torch.stack([center[..., 0] + cos * x - sin * y, center[..., 1] + sin * x + cos * y, z], dim=-1)


def place_on_top(rng: Rng, pieces: Pieces, first_material: int) -> Parts:
    """Up to THINGS small things on each piece that carries some; their materials start at ``first_material``."""
    rows, most = pieces.kind.shape
    count = most * THINGS
    piece = torch.arange(count) // THINGS
    shape = rng.choice([0.55, 0.33, 0.12], count)
    half = rng.uniform(torch.tensor([0.03, 0.03, 0.02]), torch.tensor([0.17, 0.14, 0.17]), count, 3)
    flat = rng.chance(0.35, count) & (shape == BOX)
    half = torch.where(flat[..., None], half * torch.tensor([1.0, 1.0, 0.12]), half)
    slim = torch.stack([0.5 * half[..., 0], 0.5 * half[..., 0], half[..., 2]], dim=-1)
    half = torch.where((shape == CYLINDER)[..., None], slim, half)
    half = torch.where((shape == BALL)[..., None], half[..., :1].clamp_max(0.1), half)
    # Each thing has a quarter of the top, so that no two overlap. A thing may reach over the edge, its middle may not.
    quarter = torch.arange(count) % THINGS
    sign = torch.stack([2.0 * (quarter % 2) - 1.0, 2.0 * (quarter // 2) - 1.0], dim=-1)
    size = pieces.size_m[:, piece]
    aside = sign * (0.5 + rng.uniform(-0.3, 0.3, count, 2)) * size[..., :2]
    local = torch.cat([aside, size[..., 2:] + half[..., 2:]], dim=-1)
    low = size[..., 2] < 1.5
    carries = piece_templates().carries[pieces.kind] & pieces.there
    return Parts(
        center_m=_to_world(local, pieces.turn[:, piece], pieces.center_m[:, piece]),
        half_m=half,
        turn=torch.stack(cos_sin(rng.uniform(0.0, 6.2831853, count)), dim=-1),
        there=rng.chance(0.5, count) & carries[:, piece] & low,
        shape=shape,
        material=first_material + torch.arange(count).expand(rows, count),
    )


def place_on_walls(rng: Rng, size_m: Tensor, outdoors: Tensor, first_material: int) -> tuple[Parts, Tensor]:
    """Doors, pictures, windows, cupboards and ledges, at most two on a wall; and (B, WALL_ITEMS) the kind of each."""
    rows = len(rng)
    item = rng.choice([0.16, 0.26, 0.16, 0.12, 0.1, 0.2], WALL_ITEMS)
    least = torch.tensor(
        [[0.4, 0.025, 1.0], [0.12, 0.01, 0.12], [0.35, 0.02, 0.35], [0.3, 0.14, 0.2], [0.25, 0.1, 0.012]]
    )
    most = torch.tensor([[0.5, 0.03, 1.08], [0.7, 0.025, 0.5], [1.1, 0.03, 0.75], [1.2, 0.2, 0.4], [0.9, 0.15, 0.025]])
    at_z = torch.tensor([[1.0, 1.08], [1.2, 1.7], [1.2, 1.6], [1.5, 1.9], [0.9, 1.9]])
    known = item.clamp_max(LEDGE)
    half = least[known] + (most - least)[known] * rng.uniform(0.0, 1.0, WALL_ITEMS, 3)
    middle_z = at_z[known, 0] + (at_z[known, 1] - at_z[known, 0]) * rng.uniform(0.0, 1.0, WALL_ITEMS)
    middle_z = torch.where(item == DOOR, half[..., 2], middle_z)
    slot = torch.arange(WALL_ITEMS)
    low_side, along_y = slot % 4 < 2, slot % 2 == 1
    # Items 0 to 3 are in the first half of their wall, 4 to 7 in the second, so that no two overlap.
    along_m = torch.where(along_y, size_m[:, 1:2], size_m[:, :1])
    room = (0.5 * along_m - 2.0 * half[..., 0]).clamp_min(0.0)
    start = torch.where(slot < 4, 0.0, 0.5) * along_m
    along = start + half[..., 0] + room * rng.uniform(0.0, 1.0, WALL_ITEMS)
    across_m = torch.where(along_y, size_m[:, :1], size_m[:, 1:2])
    across = torch.where(low_side, half[..., 1], across_m - half[..., 1])
    x, y = torch.where(along_y, across, along), torch.where(along_y, along, across)
    turn = torch.where(along_y[:, None], torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    fits = (2.0 * half[..., 0] < 0.5 * along_m) & (middle_z + half[..., 2] < size_m[:, 2:])
    parts = Parts(
        center_m=torch.stack([x, y, middle_z], dim=-1),
        half_m=half,
        turn=turn.expand(rows, WALL_ITEMS, 2),
        there=(item < NO_ITEM) & fits & ~outdoors[:, None],
        shape=torch.full((rows, WALL_ITEMS), BOX),
        material=first_material + slot.expand(rows, WALL_ITEMS),
    )
    return parts, item

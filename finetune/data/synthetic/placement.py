"""Where walls and pieces stand: nothing inside anything else, backs to the walls, things on top, doors and pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finetune.data.synthetic.furniture import BALL, BOX, CYLINDER, PARTS, PIECES, templates
from finetune.data.synthetic.rays import NOWHERE_M, Bodies
from finetune.data.synthetic.rng import Rng, cos_sin, pick

WALL_ITEMS = 8
DOOR, PICTURE, WINDOW, CUPBOARD, LEDGE, NO_ITEM = range(6)
THINGS = 4  # on top of a piece, at most
INNER_WALLS = 2  # in a room, at most
BLOCK, STUB, PILLAR = range(3)
CANDIDATES = 12  # places drawn for a piece
GAP_M = 0.06  # between pieces, and between them and walls


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """O pieces a world.

    Attributes:
        kind: (B, O) int64, position in ``PIECES``.
        there: (B, O) bool.
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
    """K bodies of any shape a world: (B, K, 3) center and half size, (B, K, 2) turn, the rest (B, K)."""

    center_m: Tensor
    half_m: Tensor
    turn: Tensor
    there: Tensor
    shape: Tensor
    material: Tensor


def of_shape(parts: Parts, shape: int) -> tuple[Bodies, Tensor]:
    """The bodies of one shape, no more slots than the fullest world needs, and (B, N) the number of their material."""
    order, there = used_first(parts.there & (parts.shape == shape))
    center_m = torch.where(there[..., None], pick(parts.center_m, order), NOWHERE_M)
    half_m = torch.where(there[..., None], pick(parts.half_m, order), 0.1)
    turn = torch.where(there[..., None], pick(parts.turn, order), torch.tensor([1.0, 0.0]))
    return Bodies(center_m=center_m, half_m=half_m, turn=turn), pick(parts.material, order)


def used_first(there: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) int64, the slots that are ``there`` and then others, N the largest number of them; and which are there."""
    order = torch.argsort((~there).to(torch.uint8), dim=1, stable=True)[:, : max(1, int(there.sum(1).max()))]
    return order, pick(there, order)


def walls_within(draws: Rng, size_m: Tensor, outdoors: Tensor, share: float, material: int) -> Parts:
    """Corners that a room is without, walls that end in it, and pillars, painted as its walls; all along its axes.

    Args:
        draws: one row a world.
        size_m: (B, 3) of the rooms.
        outdoors: (B,) bool; there are none there.
        share: of rooms that have one; of these, 4 in 10 have two.
        material: number of the paint.
    """
    shape = (len(draws), INNER_WALLS)
    kind = draws.choice([0.4, 0.4, 0.2], INNER_WALLS)[..., None]
    level_m = size_m[:, None, :2]
    long, at_end = draws.chance(0.5, INNER_WALLS, 1), draws.chance(0.5, INNER_WALLS, 2)
    lengthwise = torch.cat([long, ~long], dim=-1)
    spread = draws.uniform(0.0, 1.0, INNER_WALLS, 2)
    block = (0.15 + 0.4 * spread) * level_m
    stub = torch.where(lengthwise, (0.2 + 0.45 * spread) * level_m, 0.1 + 0.2 * spread)
    wide = torch.where(kind == BLOCK, block, torch.where(kind == STUB, stub, 0.2 + 0.5 * spread))
    half = 0.5 * wide
    anywhere = half + (level_m - wide).clamp_min(0.0) * draws.uniform(0.1, 0.9, INNER_WALLS, 2)
    at_wall = torch.where(at_end, level_m - half, half)
    center = torch.where((kind == BLOCK) | ((kind == STUB) & lengthwise), at_wall, anywhere)
    high = size_m[:, None, 2:].expand(*shape, 1)
    low = draws.chance(0.2, INNER_WALLS, 1) & (kind == STUB)
    high = torch.where(low, torch.minimum(high, draws.uniform(0.8, 1.4, INNER_WALLS, 1)), high)
    there = draws.chance(share, 1) & (torch.arange(INNER_WALLS) < draws.choice([0.6, 0.4], 1) + 1)
    return Parts(
        center_m=torch.cat([center, 0.5 * high], dim=-1),
        half_m=torch.cat([half, 0.5 * high], dim=-1),
        turn=torch.tensor([1.0, 0.0]).expand(*shape, 2),
        there=there & ~outdoors[:, None],
        shape=torch.full(shape, BOX),
        material=torch.full(shape, material),
    )


def beside_walls(pieces: Pieces, walls: Parts) -> Pieces:
    """The pieces that stand clear of walls within the room; the others are not there."""
    meet = _meet(pieces.center_m, _reach(pieces.turn, pieces.size_m) + GAP_M, walls)
    return replace(pieces, there=pieces.there & ~meet)


def outside_walls(parts: Parts, walls: Parts) -> Parts:
    """The parts that walls within the room do not reach; the others are not there."""
    return replace(parts, there=parts.there & ~_meet(parts.center_m[..., :2], _reach(parts.turn, parts.half_m), walls))


def _meet(center: Tensor, reach: Tensor, walls: Parts) -> Tensor:
    """(B, N) whether rectangles of these centers and half sizes (B, N, 2) overlap with any of the walls."""
    apart = (center[:, :, None] - walls.center_m[:, None, :, :2]).abs() - reach[:, :, None]
    return ((apart < walls.half_m[:, None, :, :2]).all(-1) & walls.there[:, None]).any(-1)


def place(draws: Rng, size_m: Tensor, outdoors: Tensor, objects: tuple[int, int]) -> Pieces:
    """
    Args:
        draws: one row a world.
        size_m: (B, 3) of the rooms, or of the ground that is built upon.
        outdoors: (B,) bool.
        objects: fewest and most pieces; what finds no room is not there.
    """
    shapes = templates()
    most = objects[1]
    inside = draws.choice([piece.indoors for piece in PIECES], most)
    kind = torch.where(outdoors[:, None], draws.choice([piece.outdoors for piece in PIECES], most), inside)
    smallest, largest = shapes.smallest_m[kind], shapes.largest_m[kind]
    size = smallest + (largest - smallest) * draws.uniform(0.0, 1.0, most, 3)
    depth = torch.where(shapes.round[kind], size[..., 0], size[..., 1])
    # Nothing stands through the ceiling; what would, ends at it.
    size = torch.stack([0.5 * size[..., 0], 0.5 * depth, torch.minimum(size[..., 2], size_m[:, 2:])], dim=-1)
    # A plot is far larger than a room: all that fits.
    wanted = (torch.arange(most) < draws.integers(*objects)[:, None]) | outdoors[:, None]
    at_wall = (draws.uniform(0.0, 1.0, most) < shapes.walls[kind]) & ~outdoors[:, None]
    turn, center = _candidates(draws, size, at_wall, size_m)
    return _first_that_fit(kind, wanted, size, turn, center, size_m)


def _candidates(draws: Rng, size: Tensor, at_wall: Tensor, size_m: Tensor) -> tuple[Tensor, Tensor]:
    """(B, O, CANDIDATES, 2) turns and centers, drawn."""
    most = size.shape[1]
    quarter = draws.integers(0, 3, most, CANDIDATES)
    quarters = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])[quarter]
    free = torch.stack(cos_sin(draws.uniform(0.0, 6.2831853, most, CANDIDATES)), dim=-1)
    askew = draws.chance(0.5, most, CANDIDATES) & ~at_wall[..., None]
    turn = torch.where(askew[..., None], free, quarters)
    reach = _reach(turn, size[:, :, None])
    # To within GAP_M of the walls; with its back to one, exactly that far away.
    room = size_m[:, None, None, :2]
    span = (room - 2.0 * (reach + GAP_M)).clamp_min(0.0)
    center = reach + GAP_M + span * draws.uniform(0.0, 1.0, most, CANDIDATES, 2)
    back = -torch.stack([-turn[..., 1], turn[..., 0]], dim=-1)
    backed = torch.where(back > 0.5, room - reach - GAP_M, torch.where(back < -0.5, reach + GAP_M, center))
    return turn, torch.where(at_wall[..., None, None], backed, center)


def _reach(turn: Tensor, size: Tensor) -> Tensor:
    """Half size along x and y of a turned box's bounding rectangle, (..., 2)."""
    cos, sin = turn[..., 0].abs(), turn[..., 1].abs()
    width, depth = size[..., 0], size[..., 1]
    return torch.stack([cos * width + sin * depth, sin * width + cos * depth], dim=-1)


def _first_that_fit(kind: Tensor, wanted: Tensor, size: Tensor, turn: Tensor, center: Tensor, size_m: Tensor) -> Pieces:
    """Of each piece the first candidate whose bounding rectangle is inside the room and meets none placed before."""
    rows, most = kind.shape
    frames = torch.arange(rows)
    there = torch.zeros(rows, most, dtype=torch.bool)
    chosen_turn, chosen_center = torch.zeros(rows, most, 2), torch.zeros(rows, most, 2)
    reach = torch.zeros(rows, most, 2)
    wide = _reach(turn, size[:, :, None])
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


def parts_of(pieces: Pieces) -> Parts:
    """What the pieces are made of; of O pieces, piece o is painted with materials o and O + o."""
    shapes = templates()
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


def things_on_top(draws: Rng, pieces: Pieces, first_material: int) -> Parts:
    """Up to THINGS small things on each piece that carries; materials are numbered from ``first_material``."""
    rows, most = pieces.kind.shape
    count = most * THINGS
    piece = torch.arange(count) // THINGS
    shape = draws.choice([0.55, 0.33, 0.12], count)
    half = draws.uniform(torch.tensor([0.03, 0.03, 0.02]), torch.tensor([0.17, 0.14, 0.17]), count, 3)
    flat = draws.chance(0.35, count) & (shape == BOX)
    half = torch.where(flat[..., None], half * torch.tensor([1.0, 1.0, 0.12]), half)
    slim = torch.stack([0.5 * half[..., 0], 0.5 * half[..., 0], half[..., 2]], dim=-1)
    half = torch.where((shape == CYLINDER)[..., None], slim, half)
    half = torch.where((shape == BALL)[..., None], half[..., :1].clamp_max(0.1), half)
    # In quarters of the top, so that no two meet; a thing may reach over an edge, its middle may not.
    quarter = torch.arange(count) % THINGS
    sign = torch.stack([2.0 * (quarter % 2) - 1.0, 2.0 * (quarter // 2) - 1.0], dim=-1)
    size = pieces.size_m[:, piece]
    aside = sign * (0.5 + draws.uniform(-0.3, 0.3, count, 2)) * size[..., :2]
    local = torch.cat([aside, size[..., 2:] + half[..., 2:]], dim=-1)
    low = size[..., 2] < 1.5
    carries = templates().carries[pieces.kind] & pieces.there
    return Parts(
        center_m=_to_world(local, pieces.turn[:, piece], pieces.center_m[:, piece]),
        half_m=half,
        turn=torch.stack(cos_sin(draws.uniform(0.0, 6.2831853, count)), dim=-1),
        there=draws.chance(0.5, count) & carries[:, piece] & low,
        shape=shape,
        material=first_material + torch.arange(count).expand(rows, count),
    )


def on_walls(draws: Rng, size_m: Tensor, outdoors: Tensor, first_material: int) -> tuple[Parts, Tensor]:
    """Doors, pictures, windows, cupboards and ledges, two at most on a wall; and (B, WALL_ITEMS) which they are."""
    rows = len(draws)
    item = draws.choice([0.16, 0.26, 0.16, 0.12, 0.1, 0.2], WALL_ITEMS)
    least = torch.tensor(
        [[0.4, 0.025, 1.0], [0.12, 0.01, 0.12], [0.35, 0.02, 0.35], [0.3, 0.14, 0.2], [0.25, 0.1, 0.012]]
    )
    most = torch.tensor([[0.5, 0.03, 1.08], [0.7, 0.025, 0.5], [1.1, 0.03, 0.75], [1.2, 0.2, 0.4], [0.9, 0.15, 0.025]])
    at_z = torch.tensor([[1.0, 1.08], [1.2, 1.7], [1.2, 1.6], [1.5, 1.9], [0.9, 1.9]])
    known = item.clamp_max(LEDGE)
    half = least[known] + (most - least)[known] * draws.uniform(0.0, 1.0, WALL_ITEMS, 3)
    middle_z = at_z[known, 0] + (at_z[known, 1] - at_z[known, 0]) * draws.uniform(0.0, 1.0, WALL_ITEMS)
    middle_z = torch.where(item == DOOR, half[..., 2], middle_z)
    slot = torch.arange(WALL_ITEMS)
    low_side, along_y = slot % 4 < 2, slot % 2 == 1
    # Items 0 to 3 keep to the first half of their wall, 4 to 7 to the second, so that two never overlap.
    along_m = torch.where(along_y, size_m[:, 1:2], size_m[:, :1])
    room = (0.5 * along_m - 2.0 * half[..., 0]).clamp_min(0.0)
    start = torch.where(slot < 4, 0.0, 0.5) * along_m
    along = start + half[..., 0] + room * draws.uniform(0.0, 1.0, WALL_ITEMS)
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

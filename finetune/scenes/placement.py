"""Where furniture stands: nothing inside anything else, backs to the walls, things on top, doors and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.scenes.draws import Draws, cos_sin, pick
from finetune.scenes.furniture import PARTS, PIECES, templates

WALL_ITEMS = 8
CANDIDATES = 12
GAP_M = 0.06
NOWHERE_M = -1000.0


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """O pieces of furniture a room.

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
class Boxes:
    """K boxes a room: (B, K, 3) center and half size, (B, K, 2) turn, (B, K) ``there`` and number of the material."""

    center_m: Tensor
    half_m: Tensor
    turn: Tensor
    there: Tensor
    material: Tensor


def joined(parts: list[Boxes]) -> Boxes:
    """The boxes of ``parts``, those that are there first and no more slots than the fullest room needs."""
    whole = {name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in vars(parts[0])}
    order, there = used_first(whole["there"])
    packed = {name: pick(values, order) for name, values in whole.items()}
    packed["center_m"] = torch.where(there[..., None], packed["center_m"], NOWHERE_M)
    return Boxes(**packed)


def used_first(there: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) int64, the slots that are ``there`` and then others, N the largest number of them; and which are there."""
    order = torch.argsort(~there, dim=1, stable=True)[:, : max(1, int(there.sum(1).max()))]
    return order, pick(there, order)


def place(draws: Draws, size_m: Tensor, objects: tuple[int, int]) -> Pieces:
    """Furnish rooms of ``size_m`` (B, 3) with ``objects`` pieces, fewest and most; what finds no room is not there."""
    shapes = templates()
    most = objects[1]
    kind = draws.choice([piece.weight for piece in PIECES], most)
    smallest, largest = shapes.smallest_m[kind], shapes.largest_m[kind]
    size = smallest + (largest - smallest) * draws.uniform(0.0, 1.0, most, 3)
    size = size * torch.tensor([0.5, 0.5, 1.0])
    # A ball is as wide as it is high.
    size = torch.where((kind == len(PIECES) - 1)[..., None], size[..., 2:] * torch.tensor([0.5, 0.5, 1.0]), size)
    wanted = torch.arange(most) < draws.integers(*objects)[:, None]
    at_wall = draws.uniform(0.0, 1.0, most) < shapes.walls[kind]
    turn, center = _candidates(draws, size, at_wall, size_m)
    return _first_that_fit(kind, wanted, size, turn, center, size_m)


def _candidates(draws: Draws, size: Tensor, at_wall: Tensor, size_m: Tensor) -> tuple[Tensor, Tensor]:
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
    for o in range(most):
        wide = _reach(turn[:, o], size[:, o, None])
        apart = (center[:, o, :, None] - chosen_center[:, None, :o]).abs() - (wide[:, :, None] + reach[:, None, :o])
        free = ((apart > GAP_M).any(-1) | ~there[:, None, :o]).all(-1)
        free &= (2.0 * (wide + GAP_M) <= size_m[:, None, :2]).all(-1)
        first = free.long().argmax(1)
        there[:, o] = free.any(1) & wanted[:, o]
        chosen_turn[:, o] = turn[frames, o, first]
        chosen_center[:, o] = center[frames, o, first]
        reach[:, o] = wide[frames, first]
    return Pieces(kind=kind, there=there, size_m=size, turn=chosen_turn, center_m=chosen_center)


def parts_of(pieces: Pieces) -> Boxes:
    """The boxes that the pieces are made of; the material of all parts is the number of their piece."""
    shapes = templates()
    rows, most = pieces.kind.shape
    size = pieces.size_m[:, :, None]
    local = shapes.at[pieces.kind] * size + shapes.shift_m[pieces.kind]
    half = shapes.half[pieces.kind] * size + shapes.add_m[pieces.kind]
    turn = pieces.turn[:, :, None].expand(rows, most, PARTS, 2)
    center = _to_world(local, turn, pieces.center_m[:, :, None])
    there = shapes.used[pieces.kind] & pieces.there[..., None]
    material = torch.arange(most)[None, :, None].expand(rows, most, PARTS)
    return Boxes(
        **{
            name: values.flatten(1, 2)
            for name, values in {
                "center_m": center,
                "half_m": half,
                "turn": turn,
                "there": there,
                "material": material,
            }.items()
        }
    )


def _to_world(local: Tensor, turn: Tensor, center: Tensor) -> Tensor:
    cos, sin = turn.unbind(-1)
    x, y, z = local.unbind(-1)
    return torch.stack([center[..., 0] + cos * x - sin * y, center[..., 1] + sin * x + cos * y, z], dim=-1)


def things_on_top(draws: Draws, pieces: Pieces, first_material: int) -> Boxes:
    """A small box on some of the pieces that carry; materials are numbered from ``first_material``."""
    rows, most = pieces.kind.shape
    half = draws.uniform(torch.tensor([0.05, 0.04, 0.03]), torch.tensor([0.17, 0.13, 0.2]), most, 3)
    # Tops are at least 0.25 m wide: a thing of up to 0.34 m may reach over an edge, its middle may not.
    aside = draws.uniform(-0.6, 0.6, most, 2) * pieces.size_m[..., :2]
    local = torch.cat([aside, pieces.size_m[..., 2:] + half[..., 2:]], dim=-1)
    turn = torch.stack(cos_sin(draws.uniform(0.0, 6.2831853, most)), dim=-1)
    low = pieces.size_m[..., 2] < 1.3
    return Boxes(
        center_m=_to_world(local, pieces.turn, pieces.center_m),
        half_m=half,
        turn=turn,
        there=draws.chance(0.7, most) & templates().carries[pieces.kind] & pieces.there & low,
        material=first_material + torch.arange(most).expand(rows, most),
    )


def on_walls(draws: Draws, size_m: Tensor, first_material: int) -> Boxes:
    """Doors and pictures, two at most on a wall; materials are numbered from ``first_material``."""
    rows = len(draws)
    item = draws.choice([0.3, 0.45, 0.25], WALL_ITEMS)  # door, picture, nothing
    door = (item == 0)[..., None]
    picture_half = draws.uniform(torch.tensor([0.2, 0.015, 0.15]), torch.tensor([0.7, 0.025, 0.45]), WALL_ITEMS, 3)
    half = torch.where(door, torch.tensor([0.45, 0.025, 1.0]), picture_half)
    middle_z = torch.where(door[..., 0], 1.0, draws.uniform(1.35, 1.65, WALL_ITEMS))
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
    return Boxes(
        center_m=torch.stack([x, y, middle_z], dim=-1),
        half_m=half,
        turn=turn.expand(rows, WALL_ITEMS, 2),
        there=(item < 2) & fits,
        material=first_material + slot.expand(rows, WALL_ITEMS),
    )

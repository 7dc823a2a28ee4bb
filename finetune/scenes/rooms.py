"""Furnished, painted and lit rooms from random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.scenes.draws import Draws, pick
from finetune.scenes.furniture import PIECES
from finetune.scenes.placement import (
    NOWHERE_M,
    WALL_ITEMS,
    joined,
    on_walls,
    parts_of,
    place,
    things_on_top,
    used_first,
)
from finetune.scenes.rays import Solids
from finetune.scenes.textures import Materials, draw_materials
from finetune.scenes.textures import joined as joined_materials

LIGHTS = 3
FACES = 6  # of a room: x = 0, x = size, y = 0, y = size, floor, ceiling


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Up to LIGHTS lamps a room, the first casting shadows.

    Attributes:
        place_m: (B, LIGHTS, 3).
        color: (B, LIGHTS, 3) linear RGB; 0 for a lamp that is not there.
        reach_m: (B, LIGHTS) distance at which half of it is left.
        ambient: (B, 3) linear RGB from everywhere.
    """

    place_m: Tensor
    color: Tensor
    reach_m: Tensor
    ambient: Tensor


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """B rooms.

    Attributes:
        solids: geometry.
        materials: M surfaces; the last six are the room's faces.
        box_material: (B, K) int64.
        sphere_material: (B, S) int64.
        target_m: (B, O, 3) middles of the pieces of furniture, for a camera to look at.
        targets: (B,) int64, how many of them are there; they come first.
        lights: lamps.
    """

    solids: Solids
    materials: Materials
    box_material: Tensor
    sphere_material: Tensor
    target_m: Tensor
    targets: Tensor
    lights: Lights


def draw_rooms(draws: Draws, *, objects: tuple[int, int]) -> Rooms:
    """
    Args:
        draws: one row a room.
        objects: fewest and most pieces of furniture; where no free floor is found for one, there are fewer.
    """
    size_m = draws.uniform(torch.tensor([2.8, 2.8, 2.3]), torch.tensor([7.5, 6.0, 3.3]), 3)
    pieces = place(draws, size_m, objects)
    most = pieces.kind.shape[1]
    boxes = joined(
        [
            parts_of(pieces),
            things_on_top(draws, pieces, first_material=most),
            on_walls(draws, size_m, first_material=2 * most),
        ]
    )
    radius_m = 0.5 * pieces.size_m[..., 2]
    balls, ball_there = used_first(pieces.there & (pieces.kind == len(PIECES) - 1))
    ball_center_m = torch.cat([pieces.center_m, radius_m[..., None]], dim=-1)
    targets, _ = used_first(pieces.there)
    return Rooms(
        solids=Solids(
            size_m=size_m,
            box_center_m=boxes.center_m,
            box_half_m=boxes.half_m,
            box_turn=boxes.turn,
            sphere_center_m=torch.where(ball_there[..., None], pick(ball_center_m, balls), NOWHERE_M),
            sphere_radius_m=pick(radius_m, balls),
        ),
        materials=_paint(draws, most),
        box_material=boxes.material,
        sphere_material=balls,
        target_m=pick(torch.cat([pieces.center_m, 0.5 * pieces.size_m[..., 2:]], dim=-1), targets),
        targets=pieces.there.long().sum(1),
        lights=_light(draws, size_m),
    )


def _paint(draws: Draws, pieces: int) -> Materials:
    """Surfaces in the order of their numbers: pieces, things on top, things on walls, walls, floor, ceiling."""
    #           plain checker stripes tiles bricks wood speckle
    furniture = (4.0, 0.6, 0.7, 0.3, 0.0, 3.0, 0.8)
    things = (3.0, 1.0, 1.5, 0.0, 0.0, 1.0, 1.0)
    walls = (5.0, 0.2, 1.0, 1.0, 1.2, 0.7, 0.8)
    floors = (0.6, 1.2, 0.3, 2.0, 0.3, 3.0, 2.0)
    free = {"value": (0.25, 0.98), "saturation": (0.1, 0.9)}
    walled = {"value": (0.6, 0.98), "saturation": (0.0, 0.5)}
    wall = draw_materials(draws, 1, weights=walls, period_m=(0.12, 0.45), contrast=(0.6, 0.9), **walled)
    other = draw_materials(draws, 1, weights=walls, period_m=(0.12, 0.45), contrast=(0.6, 0.9), **walled)
    # One wall of another make in half of the rooms; the rest are alike.
    accent = torch.where(draws.chance(0.5, 1), draws.integers(0, 3, 1), FACES)
    both = joined_materials([wall, other])
    number = (torch.arange(4) == accent).long()
    return joined_materials(
        [
            draw_materials(draws, pieces, weights=furniture, period_m=(0.12, 0.4), **free),
            draw_materials(draws, pieces, weights=things, period_m=(0.05, 0.15), **free),
            draw_materials(draws, WALL_ITEMS, weights=things, period_m=(0.1, 0.5), **free),
            Materials(**{name: pick(values, number) for name, values in vars(both).items()}),
            draw_materials(draws, 1, weights=floors, value=(0.35, 0.85), saturation=(0.05, 0.5), period_m=(0.15, 0.6)),
            draw_materials(
                draws,
                1,
                weights=(1.0, 0.0, 0.0, 0.25, 0.0, 0.1, 0.0),
                value=(0.75, 1.0),
                saturation=(0.0, 0.12),
                period_m=(0.5, 0.9),
                contrast=(0.85, 0.95),
            ),
        ]
    )


def _light(draws: Draws, size_m: Tensor) -> Lights:
    """One to three lamps under the ceiling, warm or cool."""
    count = draws.integers(1, LIGHTS, 1)
    there = (torch.arange(LIGHTS) < count)[..., None]
    place = draws.uniform(torch.tensor([0.2, 0.2, 0.85]), torch.tensor([0.8, 0.8, 0.96]), LIGHTS, 3)
    strength = draws.uniform(0.5, 1.0, LIGHTS, 1) * torch.tensor([1.6, 0.6, 0.6])[:, None]
    warmth = draws.uniform(-0.16, 0.16, LIGHTS, 1)
    color = 1.0 + warmth * torch.tensor([1.0, 0.2, -1.0])
    return Lights(
        place_m=place * size_m[:, None],
        color=torch.where(there, strength * color, 0.0),
        reach_m=draws.uniform(1.8, 3.5, LIGHTS),
        ambient=draws.uniform(0.2, 0.45, 1) * (1.0 + draws.uniform(-0.05, 0.05, 3)),
    )

"""Furnished, painted and lit worlds from random numbers: rooms and open ground."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finetune.data.synthetic.furniture import BALL, BOOKISH, BOX, CYLINDER, HOUSES, LEAFY, is_one_of
from finetune.data.synthetic.placement import (
    PICTURE,
    THINGS,
    WALL_ITEMS,
    WINDOW,
    Pieces,
    bodies_of_shape,
    draw_inner_walls,
    drop_parts_in_walls,
    drop_pieces_in_walls,
    order_used_first,
    parts_of_pieces,
    place_on_top,
    place_on_walls,
    place_pieces,
)
from finetune.data.synthetic.rays import Solids
from finetune.data.synthetic.records import join_records
from finetune.data.synthetic.rng import Rng, cos_sin, pick_rows, square_root
from finetune.data.synthetic.textures import (
    BOOKS,
    BRICKS,
    CHECKER,
    CLOUDS,
    DOTS,
    FRONT,
    PLAIN,
    POSTER,
    SPECKLE,
    STRIPES,
    TILES,
    WEAVE,
    WOOD,
    Materials,
    Palette,
    draw_materials,
    select_materials,
)

LIGHTS = 3
FACES = 6  # sides of a room: x = 0, x = size, y = 0, y = size, floor, ceiling
SUN_M = 300.0  # how far away the sun is, so that its light is nearly parallel


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Up to LIGHTS lamps in each world; the first casts shadows.

    Attributes:
        place_m: (B, LIGHTS, 3) in the world; outdoors, the first lamp is the sun, ``SUN_M`` away.
        color: (B, LIGHTS, 3) linear RGB; 0 for a lamp that the world does not have.
        reach_m: (B, LIGHTS) distance at which half of the light is left.
        ambient: (B, 3) linear RGB from all sides.
        sky: (B, 3) linear RGB of the sky overhead, between clouds.
        haze_m: (B,) distance at which haze makes half of the light.
    """

    place_m: Tensor
    color: Tensor
    reach_m: Tensor
    ambient: Tensor
    sky: Tensor
    haze_m: Tensor


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """B rooms, or plots of open ground.

    Attributes:
        solids: geometry.
        materials: M surfaces; the last six are the room's faces.
        material: (B, len(solids)) int64, the material of each body, in the order in which hits count bodies.
        target_m: (B, O, 3) middles of the pieces, for cameras to look at.
        targets: (B,) int64, how many pieces the world has; these come first.
        lights: lamps or the sun.
    """

    solids: Solids
    materials: Materials
    material: Tensor
    target_m: Tensor
    targets: Tensor
    lights: Lights


def draw_worlds(
    rng: Rng,
    *,
    objects: tuple[int, int],
    outdoors: float,
    inner_walls: float = 0.0,
    plain_floors: float = 0.0,
) -> Worlds:
    """
    Args:
        rng: one row per world.
        objects: fewest and most pieces; there are fewer if one finds no free floor.
        outdoors: share of worlds without walls.
        inner_walls: share of rooms with more than four walls.
        plain_floors: share of rooms whose floor is as plain as a wall, half of these in its color.
    """
    open_air = rng.chance(outdoors, 1)
    # Small rooms and low ceilings are more frequent than halls and high ceilings.
    room = torch.cat([rng.log_uniform(2.4, 10.0, 2), rng.log_uniform(2.2, 4.5, 1)], dim=1)
    plot = torch.cat([rng.log_uniform(12.0, 36.0, 2), torch.full((len(rng), 1), 40.0)], dim=1)
    size_m = torch.where(open_air, plot, room)
    open_air = open_air[:, 0]
    pieces = place_pieces(rng, size_m, open_air, objects)
    most = pieces.kind.shape[1]
    of_items = (2 + THINGS) * most
    items, item = place_on_walls(rng, size_m, open_air, first_material=of_items)
    inner = []
    if inner_walls:
        within = draw_inner_walls(rng, size_m, open_air, inner_walls, material=of_items + WALL_ITEMS)
        pieces, items, inner = drop_pieces_in_walls(pieces, within), drop_parts_in_walls(items, within), [within]
    parts = join_records([parts_of_pieces(pieces), place_on_top(rng, pieces, first_material=2 * most), items, *inner])
    (boxes, of_boxes), (cylinders, of_cylinders), (balls, of_balls) = (
        bodies_of_shape(parts, shape) for shape in (BOX, CYLINDER, BALL)
    )
    targets, _ = order_used_first(pieces.there)
    return Worlds(
        solids=Solids(size_m=size_m, outdoors=open_air, boxes=boxes, cylinders=cylinders, balls=balls),
        materials=_paint_world(rng, pieces, item, open_air, plain_floors),
        material=torch.cat([of_boxes, of_cylinders, of_balls], dim=1),
        target_m=pick_rows(torch.cat([pieces.center_m, 0.5 * pieces.size_m[..., 2:]], dim=-1), targets),
        targets=pieces.there.long().sum(1),
        lights=_draw_lights(rng, size_m, open_air),
    )


def _paint_world(rng: Rng, pieces: Pieces, item: Tensor, outdoors: Tensor, plain_floors: float) -> Materials:
    """Materials in the order of their numbers: two per piece, things on top, things on walls, walls, floor, ceiling."""
    return join_records(
        [*_paint_pieces(rng, pieces), _paint_items(rng, item), *_paint_room(rng, outdoors, plain_floors)]
    )


FURNITURE = {PLAIN: 4.0, WOOD: 2.5, CLOUDS: 0.7, SPECKLE: 0.7, STRIPES: 0.5, CHECKER: 0.3, WEAVE: 0.6, DOTS: 0.2}
THING = {PLAIN: 2.5, POSTER: 2.5, STRIPES: 1.0, CHECKER: 0.4, SPECKLE: 0.6, DOTS: 0.5, CLOUDS: 0.6, WOOD: 0.5}
WALLS = {PLAIN: 6.0, STRIPES: 0.5, TILES: 0.9, BRICKS: 0.9, WOOD: 0.5, SPECKLE: 0.6, CLOUDS: 0.9, DOTS: 0.2, WEAVE: 0.3}
FLOORS = {WOOD: 2.5, TILES: 1.5, SPECKLE: 1.8, PLAIN: 1.2, CLOUDS: 1.5, CHECKER: 0.6, STRIPES: 0.4, WEAVE: 0.9}
SMOOTH = {PLAIN: 2.0, CLOUDS: 1.0, SPECKLE: 0.5}
GROUND = {CLOUDS: 3.0, SPECKLE: 2.0, PLAIN: 0.6, TILES: 0.6, BRICKS: 0.4}

VIVID = Palette((0.12, 0.98), (0.02, 0.95))
LEAVES = Palette((0.2, 0.6), (0.1, 0.4))
FITTINGS = Palette((0.3, 0.98), (0.0, 0.6))
PAINT = Palette((0.35, 0.98), (0.0, 0.55))
UNDERFOOT = Palette((0.2, 0.92), (0.0, 0.6))
CONCRETE = Palette((0.3, 0.9), (0.0, 0.15))
OVERHEAD = Palette((0.6, 1.0), (0.0, 0.2))


def _paint_pieces(rng: Rng, pieces: Pieces) -> list[Materials]:
    most = pieces.kind.shape[1]
    paints = [draw_materials(rng, most, weights=FURNITURE, period_m=(0.12, 0.45), palette=VIVID) for _ in range(2)]
    books = draw_materials(rng, most, weights={BOOKS: 1.0}, period_m=(0.025, 0.06), palette=VIVID)
    leaves = draw_materials(rng, most, weights={SPECKLE: 1.0}, period_m=(0.3, 1.2), contrast=(0.2, 0.6), palette=LEAVES)
    green = 1.0 - torch.tensor([0.45, 0.1, 0.6]) * rng.uniform(0.6, 1.0, most, 1)
    leaves = replace(leaves, color=leaves.color * green, other=leaves.other * green)
    front = draw_materials(rng, most, weights={FRONT: 1.0}, period_m=(1.8, 3.5), gloss=0.0, palette=VIVID)
    main, second = paints
    return [
        select_materials(is_one_of(pieces.kind, HOUSES), front, main),
        select_materials(
            is_one_of(pieces.kind, BOOKISH), books, select_materials(is_one_of(pieces.kind, LEAFY), leaves, second)
        ),
        draw_materials(rng, most * THINGS, weights=THING, period_m=(0.03, 0.15), palette=VIVID),
    ]


def _paint_items(rng: Rng, item: Tensor) -> Materials:
    prints = draw_materials(
        rng, WALL_ITEMS, weights={POSTER: 3.0, CLOUDS: 1.0, PLAIN: 1.0}, period_m=(0.06, 0.3), palette=VIVID
    )
    doors = draw_materials(rng, WALL_ITEMS, weights={WOOD: 1.0, PLAIN: 2.0}, period_m=(0.3, 0.9), palette=FITTINGS)
    panes = draw_materials(rng, WALL_ITEMS, weights={CLOUDS: 1.0, TILES: 1.0}, period_m=(0.4, 0.9), palette=FITTINGS)
    # Windows show daylight or a dark night, and a print may be a screen.
    bright = rng.uniform(0.0, 6.0, WALL_ITEMS)
    screen = torch.where(rng.chance(0.25, WALL_ITEMS), rng.uniform(0.5, 2.0, WALL_ITEMS), 0.0)
    panes = replace(panes, glow=bright)
    prints = replace(prints, glow=screen)
    return select_materials(item == WINDOW, panes, select_materials(item == PICTURE, prints, doors))


def _paint_room(rng: Rng, outdoors: Tensor, plain_floors: float) -> list[Materials]:
    wall, other = (
        draw_materials(rng, 1, weights=WALLS, period_m=(0.1, 0.5), contrast=(0.6, 0.92), palette=PAINT)
        for _ in range(2)
    )
    # In half of the rooms, one wall differs from the others.
    accent = torch.where(rng.chance(0.5, 1), rng.integers(0, 3, 1), FACES)
    walls = select_materials(torch.arange(4) == accent, _repeat(other, 4), _repeat(wall, 4))
    floor = draw_materials(
        rng, 1, weights=FLOORS, period_m=(0.12, 0.9), contrast=(0.5, 0.92), gloss=0.8, palette=UNDERFOOT
    )
    ground = draw_materials(
        rng, 1, weights=GROUND, period_m=(0.3, 2.0), contrast=(0.5, 0.9), gloss=0.05, palette=UNDERFOOT
    )
    tone = 1.0 - torch.tensor([0.4, 0.15, 0.6]) * rng.uniform(0.0, 1.0, 1, 1)
    ground = replace(ground, color=ground.color * tone, other=ground.other * tone)
    ceiling = draw_materials(
        rng,
        1,
        weights={PLAIN: 3.0, TILES: 1.0, WOOD: 0.3, SPECKLE: 0.5},
        palette=OVERHEAD,
        period_m=(0.4, 0.9),
        contrast=(0.75, 0.95),
    )
    if plain_floors:
        floor = select_materials(rng.chance(plain_floors, 1), _plain_floor(rng, wall), floor)
    return [walls, select_materials(outdoors[:, None], ground, floor), ceiling]


def _plain_floor(rng: Rng, wall: Materials) -> Materials:
    """Concrete, lino or paint, in the wall's color or gray: only its place tells it from a wall."""
    own = draw_materials(rng, 1, weights=SMOOTH, period_m=(0.2, 2.0), contrast=(0.8, 0.97), gloss=0.8, palette=CONCRETE)
    tone = rng.uniform(0.6, 1.1, 1, 1)
    rougher = rng.uniform(0.8, 1.0, 1, 1)
    alike = replace(own, color=wall.color * tone, other=wall.color * tone * rougher)
    return select_materials(rng.chance(0.5, 1), alike, own)


def _repeat(material: Materials, count: int) -> Materials:
    return join_records([material] * count)


def _draw_lights(rng: Rng, size_m: Tensor, outdoors: Tensor) -> Lights:
    """One to three lamps under the ceiling, warm or cool; outdoors, the sun."""
    rows = len(rng)
    count = rng.integers(1, LIGHTS, 1)
    there = (torch.arange(LIGHTS) < count)[..., None]
    place = rng.uniform(torch.tensor([0.15, 0.15, 0.75]), torch.tensor([0.85, 0.85, 0.97]), LIGHTS, 3)
    place = place * size_m[:, None]
    strength = rng.uniform(0.4, 1.0, LIGHTS, 1) * torch.tensor([1.6, 0.8, 0.6])[:, None]
    warmth = rng.uniform(-0.25, 0.25, LIGHTS, 1)
    color = torch.where(there, strength * (1.0 + warmth * torch.tensor([1.0, 0.15, -1.0])), 0.0)
    reach = rng.log_uniform(1.2, 6.0, LIGHTS)
    ambient = rng.uniform(0.15, 0.7, 1) * (1.0 + rng.uniform(-0.08, 0.08, 3))
    cos, sin = cos_sin(rng.uniform(0.0, 6.2831853))
    high = rng.uniform(0.25, 0.95)
    level = square_root(1.0 - high * high)
    away = torch.stack([cos * level, sin * level, high], dim=1)
    first = (torch.arange(LIGHTS) == 0)[:, None]
    # From a clear sky with deep shadows to an overcast one without shadows.
    clear = rng.uniform(0.0, 1.0, 1)
    sun = first * (2.2 * clear[..., None] * torch.tensor([1.0, 0.93, 0.82]))
    open_air = outdoors[:, None]
    sky = (0.8 - 0.35 * clear * torch.tensor([1.0, 0.55, 0.0])) * rng.uniform(0.9, 2.5, 1)
    return Lights(
        place_m=torch.where(open_air[..., None], (0.5 * size_m + SUN_M * away)[:, None], place),
        color=torch.where(open_air[..., None], sun, color),
        reach_m=torch.where(open_air, 1e5, reach),
        ambient=torch.where(open_air, (0.75 - 0.35 * clear) * torch.tensor([0.92, 0.98, 1.08]), ambient),
        sky=sky.expand(rows, 3),
        haze_m=torch.where(outdoors, rng.log_uniform(60.0, 2000.0), 1e6),
    )

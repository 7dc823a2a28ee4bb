"""Furnished, painted and lit worlds from random numbers: rooms, and open ground."""

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
    beside_walls,
    of_shape,
    on_walls,
    outside_walls,
    parts_of,
    place,
    things_on_top,
    used_first,
    walls_within,
)
from finetune.data.synthetic.rays import Solids
from finetune.data.synthetic.records import joined
from finetune.data.synthetic.rng import Rng, cos_sin, pick, root
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
    either,
)

LIGHTS = 3
FACES = 6  # of a room: x = 0, x = size, y = 0, y = size, floor, ceiling
SUN_M = 300.0  # how far away the sun is: its light falls all but parallel


@dataclass(frozen=True, kw_only=True)
class Lights:
    """Up to LIGHTS lamps a world, the first casting shadows.

    Attributes:
        place_m: (B, LIGHTS, 3) in the world; in the open, the first is the sun, ``SUN_M`` away.
        color: (B, LIGHTS, 3) linear RGB; 0 for a lamp that is not there.
        reach_m: (B, LIGHTS) distance at which half of it is left.
        ambient: (B, 3) linear RGB from everywhere.
        sky: (B, 3) linear RGB of the sky overhead, where it has no clouds.
        haze_m: (B,) distance at which half of what is seen is sky.
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
        material: (B, len(solids)) int64 the material of each body, in the order that hits count them.
        target_m: (B, O, 3) middles of the pieces, for a camera to look at.
        targets: (B,) int64, how many of them are there; they come first.
        lights: lamps or the sun.
    """

    solids: Solids
    materials: Materials
    material: Tensor
    target_m: Tensor
    targets: Tensor
    lights: Lights


def draw_worlds(
    draws: Rng,
    *,
    objects: tuple[int, int],
    outdoors: float,
    inner_walls: float = 0.0,
    plain_floors: float = 0.0,
) -> Worlds:
    """
    Args:
        draws: one row a world.
        objects: fewest and most pieces; where no free floor is found for one, there are fewer.
        outdoors: share of worlds without walls.
        inner_walls: share of rooms with more walls than four.
        plain_floors: share of rooms whose floor is as plain as a wall, half of these in its color.
    """
    open_air = draws.chance(outdoors, 1)
    # Small rooms are more frequent than halls; so are low ceilings.
    room = torch.cat([draws.log_uniform(2.4, 10.0, 2), draws.log_uniform(2.2, 4.5, 1)], dim=1)
    plot = torch.cat([draws.log_uniform(12.0, 36.0, 2), torch.full((len(draws), 1), 40.0)], dim=1)
    size_m = torch.where(open_air, plot, room)
    open_air = open_air[:, 0]
    pieces = place(draws, size_m, open_air, objects)
    most = pieces.kind.shape[1]
    of_items = (2 + THINGS) * most
    items, item = on_walls(draws, size_m, open_air, first_material=of_items)
    inner = []
    if inner_walls:
        within = walls_within(draws, size_m, open_air, inner_walls, material=of_items + WALL_ITEMS)
        pieces, items, inner = beside_walls(pieces, within), outside_walls(items, within), [within]
    parts = joined([parts_of(pieces), things_on_top(draws, pieces, first_material=2 * most), items, *inner])
    (boxes, of_boxes), (cylinders, of_cylinders), (balls, of_balls) = (
        of_shape(parts, shape) for shape in (BOX, CYLINDER, BALL)
    )
    targets, _ = used_first(pieces.there)
    return Worlds(
        solids=Solids(size_m=size_m, outdoors=open_air, boxes=boxes, cylinders=cylinders, balls=balls),
        materials=_paint(draws, pieces, item, open_air, plain_floors),
        material=torch.cat([of_boxes, of_cylinders, of_balls], dim=1),
        target_m=pick(torch.cat([pieces.center_m, 0.5 * pieces.size_m[..., 2:]], dim=-1), targets),
        targets=pieces.there.long().sum(1),
        lights=_light(draws, size_m, open_air),
    )


def _paint(draws: Rng, pieces: Pieces, item: Tensor, outdoors: Tensor, plain_floors: float) -> Materials:
    """Surfaces in the order of their numbers: pieces twice, things on top, things on walls, walls, floor, ceiling."""
    return joined(
        [*_paint_pieces(draws, pieces), _paint_items(draws, item), *_paint_room(draws, outdoors, plain_floors)]
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


def _paint_pieces(draws: Rng, pieces: Pieces) -> list[Materials]:
    most = pieces.kind.shape[1]
    paints = [draw_materials(draws, most, weights=FURNITURE, period_m=(0.12, 0.45), palette=VIVID) for _ in range(2)]
    books = draw_materials(draws, most, weights={BOOKS: 1.0}, period_m=(0.025, 0.06), palette=VIVID)
    leaves = draw_materials(
        draws, most, weights={SPECKLE: 1.0}, period_m=(0.3, 1.2), contrast=(0.2, 0.6), palette=LEAVES
    )
    green = 1.0 - torch.tensor([0.45, 0.1, 0.6]) * draws.uniform(0.6, 1.0, most, 1)
    leaves = replace(leaves, color=leaves.color * green, other=leaves.other * green)
    front = draw_materials(draws, most, weights={FRONT: 1.0}, period_m=(1.8, 3.5), gloss=0.0, palette=VIVID)
    main, second = paints
    return [
        either(is_one_of(pieces.kind, HOUSES), front, main),
        either(is_one_of(pieces.kind, BOOKISH), books, either(is_one_of(pieces.kind, LEAFY), leaves, second)),
        draw_materials(draws, most * THINGS, weights=THING, period_m=(0.03, 0.15), palette=VIVID),
    ]


def _paint_items(draws: Rng, item: Tensor) -> Materials:
    prints = draw_materials(
        draws, WALL_ITEMS, weights={POSTER: 3.0, CLOUDS: 1.0, PLAIN: 1.0}, period_m=(0.06, 0.3), palette=VIVID
    )
    doors = draw_materials(draws, WALL_ITEMS, weights={WOOD: 1.0, PLAIN: 2.0}, period_m=(0.3, 0.9), palette=FITTINGS)
    panes = draw_materials(draws, WALL_ITEMS, weights={CLOUDS: 1.0, TILES: 1.0}, period_m=(0.4, 0.9), palette=FITTINGS)
    # Daylight, or a dark night; a print may be a screen.
    bright = draws.uniform(0.0, 6.0, WALL_ITEMS)
    screen = torch.where(draws.chance(0.25, WALL_ITEMS), draws.uniform(0.5, 2.0, WALL_ITEMS), 0.0)
    panes = replace(panes, glow=bright)
    prints = replace(prints, glow=screen)
    return either(item == WINDOW, panes, either(item == PICTURE, prints, doors))


def _paint_room(draws: Rng, outdoors: Tensor, plain_floors: float) -> list[Materials]:
    wall, other = (
        draw_materials(draws, 1, weights=WALLS, period_m=(0.1, 0.5), contrast=(0.6, 0.92), palette=PAINT)
        for _ in range(2)
    )
    # One wall of another make in half of the rooms; the rest are alike.
    accent = torch.where(draws.chance(0.5, 1), draws.integers(0, 3, 1), FACES)
    walls = either(torch.arange(4) == accent, _repeated(other, 4), _repeated(wall, 4))
    floor = draw_materials(
        draws, 1, weights=FLOORS, period_m=(0.12, 0.9), contrast=(0.5, 0.92), gloss=0.8, palette=UNDERFOOT
    )
    ground = draw_materials(
        draws, 1, weights=GROUND, period_m=(0.3, 2.0), contrast=(0.5, 0.9), gloss=0.05, palette=UNDERFOOT
    )
    tone = 1.0 - torch.tensor([0.4, 0.15, 0.6]) * draws.uniform(0.0, 1.0, 1, 1)
    ground = replace(ground, color=ground.color * tone, other=ground.other * tone)
    ceiling = draw_materials(
        draws,
        1,
        weights={PLAIN: 3.0, TILES: 1.0, WOOD: 0.3, SPECKLE: 0.5},
        palette=OVERHEAD,
        period_m=(0.4, 0.9),
        contrast=(0.75, 0.95),
    )
    if plain_floors:
        floor = either(draws.chance(plain_floors, 1), _plain_floor(draws, wall), floor)
    return [walls, either(outdoors[:, None], ground, floor), ceiling]


def _plain_floor(draws: Rng, wall: Materials) -> Materials:
    """Concrete, lino or paint, in the wall's color or a gray of its own: what tells it from a wall is where it lies."""
    own = draw_materials(
        draws, 1, weights=SMOOTH, period_m=(0.2, 2.0), contrast=(0.8, 0.97), gloss=0.8, palette=CONCRETE
    )
    tone = draws.uniform(0.6, 1.1, 1, 1)
    rougher = draws.uniform(0.8, 1.0, 1, 1)
    alike = replace(own, color=wall.color * tone, other=wall.color * tone * rougher)
    return either(draws.chance(0.5, 1), alike, own)


def _repeated(one: Materials, count: int) -> Materials:
    return joined([one] * count)


def _light(draws: Rng, size_m: Tensor, outdoors: Tensor) -> Lights:
    """One to three lamps under the ceiling, warm or cool; in the open, the sun."""
    rows = len(draws)
    count = draws.integers(1, LIGHTS, 1)
    there = (torch.arange(LIGHTS) < count)[..., None]
    place = draws.uniform(torch.tensor([0.15, 0.15, 0.75]), torch.tensor([0.85, 0.85, 0.97]), LIGHTS, 3)
    place = place * size_m[:, None]
    strength = draws.uniform(0.4, 1.0, LIGHTS, 1) * torch.tensor([1.6, 0.8, 0.6])[:, None]
    warmth = draws.uniform(-0.25, 0.25, LIGHTS, 1)
    color = torch.where(there, strength * (1.0 + warmth * torch.tensor([1.0, 0.15, -1.0])), 0.0)
    reach = draws.log_uniform(1.2, 6.0, LIGHTS)
    ambient = draws.uniform(0.15, 0.7, 1) * (1.0 + draws.uniform(-0.08, 0.08, 3))
    cos, sin = cos_sin(draws.uniform(0.0, 6.2831853))
    high = draws.uniform(0.25, 0.95)
    level = root(1.0 - high * high)
    away = torch.stack([cos * level, sin * level, high], dim=1)
    first = (torch.arange(LIGHTS) == 0)[:, None]
    # From a clear sky, where shadows are deep, to a covered one, where there are none.
    clear = draws.uniform(0.0, 1.0, 1)
    sun = first * (2.2 * clear[..., None] * torch.tensor([1.0, 0.93, 0.82]))
    open_air = outdoors[:, None]
    sky = (0.8 - 0.35 * clear * torch.tensor([1.0, 0.55, 0.0])) * draws.uniform(0.9, 2.5, 1)
    return Lights(
        place_m=torch.where(open_air[..., None], (0.5 * size_m + SUN_M * away)[:, None], place),
        color=torch.where(open_air[..., None], sun, color),
        reach_m=torch.where(open_air, 1e5, reach),
        ambient=torch.where(open_air, (0.75 - 0.35 * clear) * torch.tensor([0.92, 0.98, 1.08]), ambient),
        sky=sky.expand(rows, 3),
        haze_m=torch.where(outdoors, draws.log_uniform(60.0, 2000.0), 1e6),
    )

"""Where things stand: inside, apart, on the floor, on each other and on walls."""

from __future__ import annotations

import torch

from finetune.data.synthetic.furniture import BALL, BOX, CYLINDER, PIECES
from finetune.data.synthetic.placement import (
    GAP_M,
    NO_ITEM,
    WINDOW,
    Parts,
    bodies_of_shape,
    draw_inner_walls,
    drop_parts_in_walls,
    drop_pieces_in_walls,
    parts_of_pieces,
    place_on_top,
    place_on_walls,
    place_pieces,
)
from finetune.data.synthetic.rays import NOWHERE_M
from finetune.data.synthetic.rng import Rng

COUNT = 64


def rooms() -> tuple[Rng, torch.Tensor, torch.Tensor]:
    rng = Rng(1, range(COUNT))
    size_m = rng.uniform(torch.tensor([2.4, 2.4, 2.2]), torch.tensor([10.0, 10.0, 4.5]), 3)
    return rng, size_m, torch.zeros(COUNT, dtype=torch.bool)


def test_furniture_is_inside_the_room_and_not_inside_other_furniture() -> None:
    rng, size_m, outdoors = rooms()
    pieces = place_pieces(rng, size_m, outdoors, (4, 9))
    cos, sin = pieces.turn.abs().unbind(-1)
    width, depth = pieces.size_m[..., 0], pieces.size_m[..., 1]
    reach = torch.stack([cos * width + sin * depth, sin * width + cos * depth], dim=-1)
    low, high = pieces.center_m - reach, pieces.center_m + reach
    inside = (low > GAP_M - 1e-4).all(-1) & (high < size_m[:, None, :2] - GAP_M + 1e-4).all(-1)
    assert inside[pieces.there].all()
    assert (pieces.size_m[..., 2] <= size_m[:, 2:])[pieces.there].all()
    meet = ((low[:, :, None] < high[:, None]) & (low[:, None] < high[:, :, None])).all(-1)
    both = pieces.there[:, :, None] & pieces.there[:, None] & ~torch.eye(9, dtype=torch.bool)
    assert not (meet & both).any()
    assert pieces.there.sum(1).float().mean() > 4


def test_rooms_and_open_ground_have_pieces_of_their_own() -> None:
    rng = Rng(1, range(COUNT))
    outdoors = torch.arange(COUNT) % 2 == 1
    size_m = torch.tensor([30.0, 30.0, 40.0]).expand(COUNT, 3)
    pieces = place_pieces(rng, size_m, outdoors, (9, 9))
    for open_air in (False, True):
        for number in pieces.kind[outdoors == open_air].unique().tolist():
            piece = PIECES[number]
            assert (piece.outdoors if open_air else piece.indoors) > 0


def low_and_high(parts: Parts) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = parts.turn.abs().unbind(-1)
    width, depth, height = parts.half_m.unbind(-1)
    reach = torch.stack([cos * width + sin * depth, sin * width + cos * depth, height], dim=-1)
    return parts.center_m - reach, parts.center_m + reach


def test_things_stand_on_what_carries_them() -> None:
    rng, size_m, outdoors = rooms()
    pieces = place_pieces(rng, size_m, outdoors, (4, 9))
    things = place_on_top(rng, pieces, first_material=18)
    low, _ = low_and_high(things)
    number = torch.arange(things.there.shape[1]) // 4
    tops = pieces.size_m[:, number, 2]
    assert things.there.sum() > COUNT
    torch.testing.assert_close(low[..., 2][things.there], tops[things.there])
    carriers = pieces.kind[:, number][things.there].unique().tolist()
    assert all(PIECES[kind].carries for kind in carriers)
    assert set(things.shape[things.there].tolist()) == {BOX, CYLINDER, BALL}
    assert (things.material >= 18).all() and (things.material < 18 + 36).all()


def test_items_hang_on_walls_inside_the_room_and_do_not_overlap() -> None:
    rng, size_m, outdoors = rooms()
    items, kind = place_on_walls(rng, size_m, outdoors, first_material=5)
    low, high = low_and_high(items)
    assert (low > -1e-4)[items.there].all() and (high < size_m[:, None] + 1e-4)[items.there].all()
    to_wall = torch.minimum(low[..., :2], size_m[:, None, :2] - high[..., :2]).abs().amin(-1)
    assert to_wall[items.there].max() < 1e-4
    meet = ((low[:, :, None] < high[:, None] - 1e-4) & (low[:, None] < high[:, :, None] - 1e-4)).all(-1)
    same_wall = torch.arange(8)[:, None] % 4 == torch.arange(8) % 4
    both = items.there[:, :, None] & items.there[:, None] & ~torch.eye(8, dtype=torch.bool) & same_wall
    assert not (meet & both).any()
    assert set(kind[items.there].tolist()) == set(range(NO_ITEM))
    assert (kind == WINDOW)[items.there].any()
    in_the_open, _ = place_on_walls(rng, size_m, ~outdoors, first_material=5)
    assert not in_the_open.there.any()


def test_walls_within_a_room_stand_on_its_floor_and_inside_it() -> None:
    rng, size_m, outdoors = rooms()
    walls = draw_inner_walls(rng, size_m, outdoors, 1.0, material=7)
    low, high = low_and_high(walls)
    assert walls.there[:, 0].all() and 0.2 < walls.there[:, 1].float().mean() < 0.6
    assert (low > -1e-4).all() and (high < size_m[:, None] + 1e-4).all()
    assert low[..., 2].abs().max() < 1e-5
    assert (walls.shape == BOX).all() and (walls.material == 7).all()
    assert torch.equal(walls.turn, torch.tensor([1.0, 0.0]).expand(COUNT, 2, 2))
    # How many sides lie in a wall of the room tells a corner cut out from a wall that ends and from a pillar.
    at_walls = ((low[..., :2] < 1e-4) | (high[..., :2] > size_m[:, None, :2] - 1e-4)).sum(-1)
    assert torch.bincount(at_walls.flatten()).gt(8).tolist() == [True] * 3
    to_ceiling = high[..., 2] > size_m[:, None, 2] - 1e-4
    assert (at_walls[~to_ceiling] == 1).all() and 0.0 < (~to_ceiling).float().mean() < 0.2
    # None closes a room: at least a third of its length is free next to each.
    assert (walls.half_m[..., :2] * 2 < 0.66 * size_m[:, None, :2])[at_walls > 0].all()


def test_the_share_of_rooms_with_more_walls_is_that_asked_for_and_there_are_none_in_the_open() -> None:
    rng = Rng(2, range(400))
    size_m = torch.tensor([6.0, 5.0, 2.5]).expand(400, 3)
    outdoors = torch.arange(400) % 2 == 1
    has = draw_inner_walls(rng, size_m, outdoors, 0.3, material=0).there.any(1)
    assert not has[outdoors].any()
    assert 0.2 < has[~outdoors].float().mean() < 0.4


def test_nothing_stands_or_hangs_in_a_wall_within_the_room() -> None:
    rng, size_m, outdoors = rooms()
    placed = place_pieces(rng, size_m, outdoors, (4, 9))
    hung, _ = place_on_walls(rng, size_m, outdoors, first_material=5)
    walls = draw_inner_walls(rng, size_m, outdoors, 1.0, material=7)
    pieces, items = drop_pieces_in_walls(placed, walls), drop_parts_in_walls(hung, walls)

    def meets(parts: Parts) -> torch.Tensor:
        (low, high), (wall_low, wall_high) = low_and_high(parts), low_and_high(walls)
        over = (low[:, :, None, :2] < wall_high[:, None, :, :2]) & (wall_low[:, None, :, :2] < high[:, :, None, :2])
        return (over.all(-1) & walls.there[:, None]).any(-1)

    for before, after in ((placed.there, pieces.there), (hung.there, items.there)):
        assert not (after & ~before).any()
        assert 0.3 < after.sum() / before.sum() < 0.9
    assert meets(parts_of_pieces(placed))[parts_of_pieces(placed).there].any()
    assert not meets(parts_of_pieces(pieces))[parts_of_pieces(pieces).there].any()
    # What hangs elsewhere hangs still.
    assert torch.equal(items.there, hung.there & ~meets(hung))


def test_bodies_are_sorted_by_shape_and_unused_slots_are_nowhere() -> None:
    rng, size_m, outdoors = rooms()
    parts = parts_of_pieces(place_pieces(rng, size_m, outdoors, (4, 9)))
    for shape in (BOX, CYLINDER, BALL):
        wanted = parts.there & (parts.shape == shape)
        bodies, material = bodies_of_shape(parts, shape)
        there = bodies.center_m[..., 0] > 0.5 * NOWHERE_M
        assert len(bodies) == wanted.sum(1).max()
        assert torch.equal(there.sum(1), wanted.sum(1))
        assert torch.equal(bodies.center_m[there], parts.center_m[wanted])
        assert torch.equal(material[there], parts.material[wanted])

"""Every piece of furniture is inside its size, stands on the floor and can be drawn."""

from __future__ import annotations

import math

import pytest
import torch

from finetune.data.synthetic.drawing import draw_frames
from finetune.data.synthetic.furniture import BOOKISH, HOUSES, LEAFY, PARTS, PIECES, Piece, is_one_of, piece_templates
from finetune.data.synthetic.placement import Pieces, bodies_of_shape, parts_of_pieces
from finetune.data.synthetic.rays import Solids
from tests.small_worlds import camera_at, gray_world

NAMES = [f"{number}-{len(piece.parts)} parts" for number, piece in enumerate(PIECES)]
# Posts and boards may reach out by their own thickness, roofs by a share.
OUTWARD_M, OUTWARD = 0.02, 0.03


def alone(number: int, size_m: tuple[float, float, float]) -> Pieces:
    """One piece of this width, depth and height at (5, 4)."""
    return Pieces(
        kind=torch.tensor([[number]]),
        there=torch.tensor([[True]]),
        size_m=torch.tensor([[[0.5 * size_m[0], 0.5 * size_m[1], size_m[2]]]]),
        turn=torch.tensor([[[1.0, 0.0]]]),
        center_m=torch.tensor([[[5.0, 4.0]]]),
    )


@pytest.mark.parametrize("piece", PIECES, ids=NAMES)
def test_a_piece_may_be_drawn_and_has_a_size(piece: Piece) -> None:
    assert 1 <= len(piece.parts) <= PARTS
    assert piece.indoors > 0 or piece.outdoors > 0
    assert 0.0 <= piece.walls <= 1.0
    assert all(0 < low <= high for low, high in zip(piece.smallest_m, piece.largest_m, strict=True))


@pytest.mark.parametrize("number", range(len(PIECES)), ids=NAMES)
@pytest.mark.parametrize("large", [False, True], ids=["smallest", "largest"])
def test_all_parts_are_inside_its_size_and_it_stands_on_the_floor(number: int, large: bool) -> None:
    size_m = PIECES[number].largest_m if large else PIECES[number].smallest_m
    if PIECES[number].round:
        size_m = (size_m[0], size_m[0], size_m[2])
    parts = parts_of_pieces(alone(number, size_m))
    used = parts.there[0]
    low = ((parts.center_m - parts.half_m)[0, used] - torch.tensor([5.0, 4.0, 0.0])).amin(0)
    high = ((parts.center_m + parts.half_m)[0, used] - torch.tensor([5.0, 4.0, 0.0])).amax(0)
    assert (parts.half_m[0, used] > 0).all()
    # One of its sides or the other is as wide as it says.
    assert (high - low)[:2].max() >= 0.89 * max(size_m[:2])
    for axis in range(2):
        half = 0.5 * size_m[axis]
        furthest = half + max(OUTWARD_M, OUTWARD * half) + 1e-6
        assert low[axis] >= -furthest and high[axis] <= furthest, axis
    assert 0.9 * size_m[2] < high[2] <= size_m[2] * 1.001
    # Leaves may touch the ground, and what rolls stands on wheels too small to be drawn.
    assert -0.05 * size_m[2] - 1e-6 <= low[2] <= 0.031 * size_m[2]


@pytest.mark.parametrize("number", range(len(PIECES)), ids=NAMES)
def test_every_piece_is_seen(number: int) -> None:
    piece = PIECES[number]
    parts = parts_of_pieces(alone(number, piece.largest_m))
    (boxes, _), (cylinders, _), (balls, _) = (bodies_of_shape(parts, shape) for shape in range(3))
    shapes = Solids(
        size_m=torch.tensor([[10.0, 8.0, 40.0]]),
        outdoors=torch.tensor([True]),
        boxes=boxes,
        cylinders=cylinders,
        balls=balls,
    )
    width, depth, height = piece.largest_m
    away = 1.5 * max(width, depth, height)
    place = (5.0 - away, 4.0 + 0.6 * away, 0.5 * height + 0.3 * away)
    towards = (away, -0.6 * away, -0.3 * away)
    camera = camera_at(place, towards, height=42, width=42, focal_px=42.0)
    drawing = draw_frames(gray_world(shapes, ambient=1.0), camera, 42, 42)
    x, y, z = (part[0] for part in drawing.point_m)
    on_piece = (z > 0.02) & drawing.depth_m[0].isfinite()
    assert on_piece.sum() >= 8
    reach = 0.5 * math.hypot(width, depth) * (1 + OUTWARD) + OUTWARD_M
    assert ((x - 5.0).square() + (y - 4.0).square()).sqrt()[on_piece].max() <= reach + 1e-3
    assert z[on_piece].max() <= height * 1.001


def test_templates_hold_the_pieces() -> None:
    shapes = piece_templates()
    assert shapes.used.sum(1).tolist() == [len(piece.parts) for piece in PIECES]
    kinds = torch.arange(len(PIECES))
    for pieces in (BOOKISH, LEAFY, HOUSES):
        assert [PIECES[k] for k in kinds[is_one_of(kinds, pieces)].tolist()] == list(pieces)

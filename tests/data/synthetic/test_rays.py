"""Rays against distances worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from finetune.data.synthetic.rays import NOWHERE_M, SKY_M, Solids, nearest_distance, nearest_hit, rows_of
from tests.small_worlds import Body, Triple, bodies, solids

# In a room of 10 x 8 x 4 m: a box around (5, 4, 1), an unused slot, a cylinder of radius 0.5, 2 m high, around
# (5, 6.5, 1), and a ball of radius 1 around (5, 1.5, 2). They are counted in this order, and the room after them.
UNUSED: Body = ((NOWHERE_M,) * 3, (0.1, 0.1, 0.1), 0.0)
BOX, CYLINDER, BALL, ROOM = 0, 2, 3, 4


def furnished(*, outdoors: bool = False) -> Solids:
    return solids(
        boxes=[((5.0, 4.0, 1.0), (1.0, 0.5, 1.0), 0.0), UNUSED],
        cylinders=[((5.0, 6.5, 1.0), (0.5, 0.5, 1.0), 0.0)],
        balls=[((5.0, 1.5, 2.0), (1.0, 1.0, 1.0), 0.0)],
        outdoors=outdoors,
    )


def first_met(shapes: Solids, origin: Triple, direction: Triple) -> tuple[float, int]:
    """Distance and number of what one ray meets; checked against what is found without the room."""
    x, y, z = (torch.tensor([[part]]) for part in direction)
    frame, origin_m = torch.tensor([0]), torch.tensor([origin])
    distance, hit = nearest_hit(shapes, frame, origin_m, (x, y, z))
    without_room = nearest_distance(shapes, frame, origin_m, (x, y, z))
    if distance.item() < SKY_M and hit.item() < len(shapes):
        assert without_room.item() == distance.item()
    else:
        assert without_room.item() >= min(SKY_M, distance.item())
    return distance.item(), int(hit.item())


@pytest.mark.parametrize(
    ("origin", "direction", "distance", "hit"),
    [
        ((1.0, 4.0, 1.0), (1.0, 0.0, 0.0), 3.0, BOX),  # its face x = 4
        ((1.0, 4.0, 1.0), (2.0, 0.0, 0.0), 1.5, BOX),  # in units of the direction
        ((1.0, 4.0, 1.0), (1.0, 0.15, 0.0), 3.0, BOX),  # y = 4.45 there, inside of 4.5
        ((1.0, 4.0, 1.0), (1.0, 0.18, 0.0), 9.0, ROOM),  # y = 4.54 at the box, and up to its end more: past it
        ((5.0, 4.0, 3.0), (0.0, 0.0, -1.0), 1.0, BOX),  # its top, z = 2
        ((8.0, 4.0, 1.0), (1.0, 0.0, 0.0), 2.0, ROOM),  # the box is behind
        ((1.0, 6.5, 1.0), (1.0, 0.0, 0.0), 3.5, CYLINDER),  # its side, x = 5 - 0.5
        ((1.0, 6.8, 1.0), (1.0, 0.0, 0.0), 3.6, CYLINDER),  # x = 5 - sqrt(0.25 - 0.09)
        ((1.0, 7.1, 1.0), (1.0, 0.0, 0.0), 9.0, ROOM),  # next to it, though inside the box around it
        ((1.0, 6.5, 2.1), (1.0, 0.0, 0.0), 9.0, ROOM),  # over it
        ((5.3, 6.8, 3.5), (0.0, 0.0, -1.0), 1.5, CYLINDER),  # its cap from above: 0.3 * sqrt(2) from the axis
        ((5.4, 6.9, 3.5), (0.0, 0.0, -1.0), 3.5, ROOM),  # 0.4 * sqrt(2) = 0.57 is outside: the floor
        ((3.0, 6.5, 3.0), (1.0, 0.0, -0.5), 2.0, CYLINDER),  # down onto its cap at x = 5, z = 2
        ((3.0, 6.5, 3.0), (1.0, 0.0, -0.8), 1.5, CYLINDER),  # at its side x = 4.5 already below the cap: z = 1.8
        ((8.0, 6.5, 1.0), (1.0, 0.0, 0.0), 2.0, ROOM),  # the cylinder is behind
        ((1.0, 1.5, 2.0), (1.0, 0.0, 0.0), 3.0, BALL),  # x = 5 - 1
        ((1.0, 1.5, 2.6), (1.0, 0.0, 0.0), 3.2, BALL),  # x = 5 - sqrt(1 - 0.36)
        ((1.0, 1.5, 3.1), (1.0, 0.0, 0.0), 9.0, ROOM),  # over it
        ((8.0, 1.5, 2.0), (1.0, 0.0, 0.0), 2.0, ROOM),  # the ball is behind
        ((1.0, 6.0, 1.0), (0.0, 0.0, 1.0), 3.0, ROOM),
        ((1.0, 6.0, 1.0), (0.0, 0.0, -1.0), 1.0, ROOM),
    ],
)
def test_distances_by_hand(origin: Triple, direction: Triple, distance: float, hit: int) -> None:
    found, body = first_met(furnished(), origin, direction)
    assert found == pytest.approx(distance, abs=1e-5)
    assert body == hit


def test_in_the_open_there_is_the_floor_and_what_stands_on_it() -> None:
    open_air = furnished(outdoors=True)
    assert first_met(open_air, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0)) == (pytest.approx(3.0), BOX)
    assert first_met(open_air, (1.0, 6.0, 1.0), (0.0, 0.0, -1.0)) == (pytest.approx(1.0), ROOM)
    # Through where the wall x = 10 would be, to the floor 100 m away.
    assert first_met(open_air, (1.0, 7.5, 1.0), (1.0, 0.0, -0.01)) == (pytest.approx(100.0), ROOM)
    for up in ((1.0, 0.0, 0.0), (1.0, 0.0, 0.1), (0.0, 0.0, 1.0)):
        assert first_met(open_air, (1.0, 7.5, 1.0), up)[0] >= SKY_M


def test_a_turned_box_shows_its_edge_first() -> None:
    # A square of half 1, turned by 45 degrees: its edge is sqrt(2) before the center, at 4 - 1.414214.
    box = solids(boxes=[((5.0, 4.0, 1.0), (1.0, 1.0, 1.0), 45.0)])
    assert first_met(box, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0)) == (pytest.approx(2.585786, abs=1e-5), 0)


def test_a_box_turns_counterclockwise() -> None:
    # A long thin box along (cos 30, sin 30). From x = 5 towards y: y = 4 + tan(30) * 1 - 0.1 / cos(30) at x = 6.
    box = solids(boxes=[((5.0, 4.0, 1.0), (2.0, 0.1, 1.0), 30.0)])
    expected = 1.0 + 0.5773503 - 0.1154701
    assert first_met(box, (6.0, 3.0, 1.0), (0.0, 1.0, 0.0)) == (pytest.approx(expected, abs=1e-5), 0)


@pytest.mark.parametrize(("shape", "top_m"), [("cylinders", 1.0), ("balls", 2.0 - 0.435890)])
def test_an_ellipse_turns_counterclockwise(shape: str, top_m: float) -> None:
    # Half axes 2 and 0.5 along (cos 30, sin 30) and across. From the center along x, t (cos 30, -sin 30) in its axes is
    # on it where t^2 (cos^2 / 4 + sin^2 / 0.25) = 1, t = 1 / sqrt(0.1875 + 1) = 0.917663.
    body: Body = ((5.0, 4.0, 1.0), (2.0, 0.5, 1.0), 30.0)
    shapes = solids(cylinders=[body]) if shape == "cylinders" else solids(balls=[body])
    assert first_met(shapes, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0))[0] == pytest.approx(4.0 - 0.917663, abs=1e-5)
    # From above near its long end, (cos 30, sin 30) * 1.8 from the center; there the ball's top is sqrt(1 - 0.81) high.
    x, y = 5.0 + 1.558846, 0.9
    assert first_met(shapes, (x, 4.0 + y, 3.0), (0.0, 0.0, -1.0)) == (pytest.approx(top_m, abs=1e-5), 0)
    assert first_met(shapes, (x, 4.0 - y, 3.0), (0.0, 0.0, -1.0)) == (pytest.approx(3.0), len(shapes))


def test_an_ellipsoid_from_above_and_from_the_side() -> None:
    # Half axes 2, 1, 0.5 around (5, 4, 1). At (6, 4): z = 1 + 0.5 * sqrt(1 - 1/4) = 1.433013.
    shapes = solids(balls=[((5.0, 4.0, 1.0), (2.0, 1.0, 0.5), 0.0)])
    assert first_met(shapes, (6.0, 4.0, 3.0), (0.0, 0.0, -1.0))[0] == pytest.approx(3.0 - 1.433013, abs=1e-5)
    assert first_met(shapes, (1.0, 4.0, 1.0), (1.0, 0.0, 0.0))[0] == pytest.approx(2.0, abs=1e-5)
    assert first_met(shapes, (5.0, 1.0, 1.0), (0.0, 1.0, 0.0))[0] == pytest.approx(2.0, abs=1e-5)
    assert first_met(shapes, (7.1, 4.0, 3.0), (0.0, 0.0, -1.0)) == (pytest.approx(3.0), len(shapes))


def test_a_small_far_ball_keeps_its_digits() -> None:
    # Radius 3 cm, 60 m away: the discriminant of the textbook's quadratic equation would lose it.
    ball = solids(balls=[((70.0, 4.0, 1.0), (0.03, 0.03, 0.03), 0.0)], outdoors=True)
    assert first_met(ball, (10.0, 4.0, 1.0), (1.0, 0.0, 0.0))[0] == pytest.approx(60.0 - 0.03, abs=2e-5)
    chord = math.sqrt(0.03**2 - 0.02**2)
    assert first_met(ball, (10.0, 4.02, 1.0), (1.0, 0.0, 0.0))[0] == pytest.approx(60.0 - chord, abs=1e-4)


def test_each_row_is_asked_about_its_candidates_in_their_order() -> None:
    three = bodies(*[((float(k), 0.0, 0.0), (1.0, 1.0, 1.0), 0.0) for k in range(3)])
    frame = torch.tensor([1, 0, 1])
    candidates = torch.tensor([[False, False, True], [True, False, True], [False, False, False]])
    asked: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for rows, body in rows_of(three, frame, candidates):
        for row, number in zip(rows.tolist(), body.tolist(), strict=True):
            asked[row].append(number)
    assert asked == {0: [3 + 2], 1: [0, 2], 2: []}
    everything = [(rows.tolist(), body.tolist()) for rows, body in rows_of(three, frame, None)]
    assert everything == [([0, 1, 2], [3 + k, k, 3 + k]) for k in range(3)]

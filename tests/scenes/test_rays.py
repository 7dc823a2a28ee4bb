"""Rays against distances worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from finetune.scenes.rays import Solids, nearest, nearest_distance

EMPTY = -1000.0


def solids(*, half: tuple[float, float, float] = (1.0, 0.5, 1.0), turn_deg: float = 0.0) -> Solids:
    """A room of 10 x 8 x 4 m with a box around (5, 4, 1) and a ball of radius 1 around (5, 1.5, 2)."""
    turn = math.radians(turn_deg)
    return Solids(
        size_m=torch.tensor([[10.0, 8.0, 4.0]]),
        box_center_m=torch.tensor([[[5.0, 4.0, 1.0], [EMPTY, EMPTY, EMPTY]]]),
        box_half_m=torch.tensor([[half, (0.0, 0.0, 0.0)]]),
        box_turn=torch.tensor([[[math.cos(turn), math.sin(turn)], [1.0, 0.0]]]),
        sphere_center_m=torch.tensor([[[5.0, 1.5, 2.0]]]),
        sphere_radius_m=torch.tensor([[1.0]]),
    )


BOX, BALL, ROOM = 0, 2, 3  # two slots of boxes, then one of spheres, then the room


@pytest.mark.parametrize(
    ("origin", "direction", "distance", "hit"),
    [
        ((1.0, 4.0, 1.0), (1.0, 0.0, 0.0), 3.0, BOX),  # its face x = 4
        ((1.0, 4.0, 1.0), (2.0, 0.0, 0.0), 1.5, BOX),  # in units of the direction
        ((1.0, 4.0, 1.0), (1.0, 0.15, 0.0), 3.0, BOX),  # y = 4.45 there, inside of 4.5
        ((1.0, 4.0, 1.0), (1.0, 0.18, 0.0), 9.0, ROOM),  # y = 4.54 at the box, and up to its end more: past it
        ((5.0, 4.0, 3.0), (0.0, 0.0, -1.0), 1.0, BOX),  # its top, z = 2
        ((8.0, 4.0, 1.0), (1.0, 0.0, 0.0), 2.0, ROOM),  # the box is behind
        ((1.0, 1.5, 2.0), (1.0, 0.0, 0.0), 3.0, BALL),  # x = 5 - 1
        ((1.0, 1.5, 2.6), (1.0, 0.0, 0.0), 3.2, BALL),  # x = 5 - sqrt(1 - 0.36)
        ((1.0, 1.5, 3.1), (1.0, 0.0, 0.0), 9.0, ROOM),  # over it
        ((8.0, 1.5, 2.0), (1.0, 0.0, 0.0), 2.0, ROOM),  # the ball is behind
        ((1.0, 6.0, 1.0), (0.0, 0.0, 1.0), 3.0, ROOM),
        ((1.0, 6.0, 1.0), (0.0, 0.0, -1.0), 1.0, ROOM),
    ],
)
def test_distances_by_hand(
    origin: tuple[float, float, float], direction: tuple[float, float, float], distance: float, hit: int
) -> None:
    x, y, z = (torch.tensor([[part]]) for part in direction)
    found, body = nearest(solids(), torch.tensor([origin]), (x, y, z))
    assert found.item() == pytest.approx(distance, abs=1e-5)
    assert body.item() == hit
    only_things = nearest_distance(solids(), torch.tensor([origin]), (x, y, z)).item()
    assert only_things > 1e6 if hit == ROOM else only_things == found.item()


def test_a_turned_box_shows_its_edge_first() -> None:
    # A square of half 1, turned by 45 degrees: its edge is sqrt(2) before the center, at 4 - 1.414214.
    ray = (torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
    found, _ = nearest(solids(half=(1.0, 1.0, 1.0), turn_deg=45.0), torch.tensor([[1.0, 4.0, 1.0]]), ray)
    assert found.item() == pytest.approx(2.585786, abs=1e-5)


def test_a_box_turns_counterclockwise() -> None:
    # A long thin box along (cos 30, sin 30). From x = 5 towards y: y = 4 + tan(30) * 1 - 0.1 / cos(30) at x = 6.
    ray = (torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1))
    box = solids(half=(2.0, 0.1, 1.0), turn_deg=30.0)
    found, _ = nearest(box, torch.tensor([[6.0, 3.0, 1.0]]), ray)
    assert found.item() == pytest.approx(1.0 + 0.5773503 - 0.1154701, abs=1e-5)

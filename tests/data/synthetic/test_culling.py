"""What is left out is never seen: frames are the same, bit for bit, as if each tile were asked about every body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from finetune.data.synthetic import drawing, lighting
from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.culling import bodies_in_the_way, seen_by_tiles
from finetune.data.synthetic.drawing import TILE, Drawing, draw_frames
from finetune.data.synthetic.rays import Bodies
from finetune.data.synthetic.worlds import Worlds
from tests.small_worlds import bodies, camera_at, drawn_worlds

HEIGHT, WIDTH = 42, 56
IN_THE_OPEN = pytest.mark.parametrize("outdoors", [0.0, 1.0], ids=["rooms", "open ground"])


def everything(test: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A test that lets no body out."""
    return lambda *arguments, **options: torch.ones_like(test(*arguments, **options))


def smaller(test: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A test that takes bodies for half as large as they are."""
    return lambda bodies, *rest: test(replace(bodies, half_m=0.5 * bodies.half_m), *rest)


def without_contact(test: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A test that forgets how far bodies dim the light around them."""
    return lambda bodies, place_m, axes, edges, margin_m: test(bodies, place_m, axes, edges)


def drawn_with(patch: pytest.MonkeyPatch, worlds: Worlds, cameras: Cameras, **tests: Any) -> Drawing:
    """Sixteen frames, drawn with other tests in the place of ``seen_by_tiles`` and ``bodies_in_the_way``."""
    with patch.context() as here:
        here.setattr(drawing, "seen_by_tiles", tests.get("seen", seen_by_tiles))
        here.setattr(lighting, "bodies_in_the_way", tests.get("between", bodies_in_the_way))
        return draw_frames(worlds, cameras, HEIGHT, WIDTH, smooth=True)


def same(one: Drawing, other: Drawing) -> bool:
    return torch.equal(one.depth_m, other.depth_m) and torch.equal(one.light, other.light)


@IN_THE_OPEN
def test_frames_are_those_that_are_drawn_without_it(outdoors: float, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, cameras = drawn_worlds(11, 16, HEIGHT, WIDTH, outdoors=outdoors)
    asked = drawn_with(monkeypatch, worlds, cameras)
    whole = drawn_with(
        monkeypatch, worlds, cameras, seen=everything(seen_by_tiles), between=everything(bodies_in_the_way)
    )
    assert same(asked, whole)
    # And it would be seen if it were not so.
    for wrong in (
        {"seen": smaller(seen_by_tiles)},
        {"between": smaller(bodies_in_the_way)},
        {"seen": without_contact(seen_by_tiles)},
    ):
        assert not same(drawn_with(monkeypatch, worlds, cameras, **wrong), whole), wrong


@IN_THE_OPEN
def test_most_bodies_are_left_out(outdoors: float) -> None:
    worlds, cameras = drawn_worlds(11, 16, HEIGHT, WIDTH, outdoors=outdoors)
    tiles = drawing._make_tiles(cameras, HEIGHT, WIDTH, smooth=False)
    boxes = worlds.solids.boxes
    seen = seen_by_tiles(boxes, cameras.place_m, cameras.axes, tiles.edges)
    assert 0 < seen.float().mean() < 0.25


def thin_body(y: float, distance_m: float) -> Bodies:
    return bodies(((distance_m, y, 1.0), (1e-4, 1e-4, 1e-4), 0.0))


def test_what_lies_on_the_edge_of_two_tiles_is_a_candidate_of_both_however_far() -> None:
    # Looking along x from (0, 0, 1), y is to the left. Two tiles of 14 pixels next to each other, focal length 100 px:
    # their edge is straight ahead, and the far corner of the first is there too.
    width = 2 * TILE
    camera = camera_at((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), height=TILE, width=width)
    edges = drawing._make_tiles(camera, TILE, width, smooth=True).edges

    def candidates(y: float) -> list[bool]:
        return seen_by_tiles(thin_body(y, 400.0), camera.place_m, camera.axes, edges)[0, :, 0].tolist()

    assert candidates(0.0) == [True, True]
    # A pixel is 4 m wide there; a twentieth of it is enough to be in one alone.
    assert candidates(0.2) == [True, False]
    assert candidates(-0.2) == [False, True]
    # The outer edges of the picture are 14 pixels away, and nothing behind the camera is seen.
    assert candidates(14.1 * 4.0) == candidates(-14.1 * 4.0) == [False, False]
    behind = seen_by_tiles(thin_body(0.0, -400.0), camera.place_m, camera.axes, edges)
    assert not behind.any()


def test_what_stands_between_a_lamp_and_a_tile_by_hand() -> None:
    # A lamp at (0, 0, 3); the tile shows the floor from (3, -0.5) to (4, 0.5).
    lamp_m = torch.tensor([[0.0, 0.0, 3.0]])
    low_m, high_m = torch.tensor([[3.0, -0.5, 0.0]]), torch.tensor([[4.0, 0.5, 0.0]])
    them = bodies(
        ((2.0, 0.0, 1.3), (0.1, 0.1, 0.1), 0.0),  # on the way
        ((2.0, 0.0, 1.3), (0.1, 0.1, 0.1), 45.0),
        ((2.0, 3.0, 1.3), (0.1, 0.1, 0.1), 0.0),  # next to it
        ((2.0, 0.0, 3.5), (0.1, 0.1, 0.1), 0.0),  # over the lamp
        ((-1.0, 0.0, 1.3), (0.1, 0.1, 0.1), 0.0),  # behind it
        ((0.8, 0.0, 0.2), (0.1, 0.1, 0.1), 0.0),  # within the bounds of both, but far below the rays
        ((2.0, 3.0, 1.3), (0.1, 5.0, 0.1), 0.0),  # next to it, but reaching over
    )
    between = bodies_in_the_way(them, torch.tensor([0]), lamp_m, low_m, high_m)
    assert between[0].tolist() == [True, True, False, False, False, False, True]

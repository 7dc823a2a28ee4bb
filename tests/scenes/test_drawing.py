"""Drawn depth put back into the world lies on the surfaces it was drawn from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finetune.scenes.cameras import CLEARANCE_M, Cameras, clearance, draw_cameras, draw_intrinsics, looking
from finetune.scenes.drawing import draw
from finetune.scenes.draws import Draws
from finetune.scenes.placement import GAP_M, NOWHERE_M, place
from finetune.scenes.rooms import Rooms, draw_rooms

HEIGHT, WIDTH = 60, 80


def bare(rooms: Rooms) -> Rooms:
    """The rooms with nothing in them or on their walls."""
    solids = rooms.solids
    return replace(
        rooms,
        solids=replace(
            solids,
            box_center_m=torch.full_like(solids.box_center_m, NOWHERE_M),
            sphere_center_m=torch.full_like(solids.sphere_center_m, NOWHERE_M),
        ),
    )


def drawn(seed: int, count: int) -> tuple[Rooms, Cameras]:
    draws = Draws(seed, range(count))
    rooms = draw_rooms(draws, objects=(4, 9))
    return rooms, draw_cameras(draws, rooms, *draw_intrinsics(draws, HEIGHT, WIDTH, (50.0, 80.0)))


def world_points(depth_m: torch.Tensor, cameras: Cameras, frame: int) -> NDArray[np.float64]:
    """(H, W, 3), through the public camera of the frame and its place in the room."""
    points = cameras.intrinsics(frame).back_project(depth_m[frame].numpy())
    axes = torch.stack([cameras.right[frame], cameras.down[frame], cameras.forward[frame]]).double().numpy()
    return points @ axes + cameras.place_m[frame].double().numpy()


def test_points_of_bare_rooms_lie_on_floor_ceiling_and_walls() -> None:
    rooms, cameras = drawn(seed=0, count=8)
    depth_m = draw(bare(rooms), cameras, HEIGHT, WIDTH).depth_m
    floors = 0
    for frame in range(8):
        points = world_points(depth_m, cameras, frame)
        size_m = rooms.solids.size_m[frame].double().numpy()
        to_faces = np.concatenate([np.abs(points), np.abs(points - size_m)], axis=-1)
        assert to_faces.min(-1).max() < 1e-4
        assert (points > -1e-4).all() and (points < size_m + 1e-4).all()
        # Every face is flat and parallel to the one opposite: all of its points are on it, none between.
        floors += int((np.abs(points[..., 2]) < 1e-4).sum())
    assert floors > 0.1 * 8 * HEIGHT * WIDTH


def test_depth_is_along_the_axis_and_not_along_the_ray() -> None:
    rooms, cameras = drawn(seed=0, count=1)
    size_m = torch.tensor([[8.0, 6.0, 3.0]])
    rooms = bare(replace(rooms, solids=replace(rooms.solids, size_m=size_m)))
    right, down, forward = looking(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.0]))
    place_m = torch.tensor([[5.0, 3.0, 1.5]])
    level = replace(cameras, place_m=place_m, right=right, down=down, forward=forward)
    narrow = replace(level, focal_px=torch.tensor([[200.0, 200.0]]))
    # The wall x = 8 is 3 m away and fills the picture: 40 / 200 * 3 = 0.6 m to either side.
    depth_m = draw(rooms, narrow, HEIGHT, WIDTH).depth_m
    np.testing.assert_allclose(depth_m.numpy(), 3.0, atol=1e-5)


def test_points_on_a_ball_are_its_radius_away_from_its_center() -> None:
    rooms, cameras = drawn(seed=0, count=1)
    empty = bare(rooms)
    center, radius = torch.tensor([4.0, 3.0, 1.0]), 0.4
    solids = replace(
        empty.solids,
        size_m=torch.tensor([[8.0, 6.0, 3.0]]),
        sphere_center_m=center.view(1, 1, 3),
        sphere_radius_m=torch.tensor([[radius]]),
    )
    place_m = torch.tensor([[2.0, 2.0, 1.5]])
    right, down, forward = looking(center - place_m, torch.tensor([0.05]))
    at_ball = replace(cameras, place_m=place_m, right=right, down=down, forward=forward)
    depth_m = draw(replace(empty, solids=solids), at_ball, HEIGHT, WIDTH).depth_m
    away = np.linalg.norm(world_points(depth_m, at_ball, 0) - center.numpy(), axis=-1)
    on_ball = away < radius + 1e-3
    assert on_ball.sum() > 50
    np.testing.assert_allclose(away[on_ball], radius, atol=1e-4)
    # The middle of the picture looks at its center: sqrt(4 + 1 + 0.25) - 0.4 away, give or take half a pixel.
    assert depth_m[0, HEIGHT // 2, WIDTH // 2].item() == pytest.approx(5.25**0.5 - radius, abs=2e-3)


def test_axes_are_orthonormal_and_right_handed_whatever_the_view() -> None:
    towards = torch.cat([Draws(0, range(64)).normal(3), torch.tensor([[0.0, 0.0, -1.0], [0.01, -0.02, 3.0]])])
    right, down, forward = looking(towards, torch.linspace(-0.1, 0.1, 66))
    axes = torch.stack([right, down, forward], dim=1)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(66, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.cross(right, down), forward, atol=1e-6, rtol=0)
    assert (down[:, 2] < 0).all()


def test_cameras_stand_free_inside_their_rooms() -> None:
    rooms, cameras = drawn(seed=4, count=64)
    clear = clearance(rooms.solids, cameras.place_m[:, None])[:, 0]
    assert clear.min() > 0.05
    assert (clear > CLEARANCE_M).float().mean() > 0.9
    assert ((cameras.place_m > 0.25) & (cameras.place_m < rooms.solids.size_m - 0.25)).all()


def test_furniture_is_inside_the_room_and_not_inside_other_furniture() -> None:
    draws = Draws(1, range(64))
    size_m = draws.uniform(torch.tensor([2.8, 2.8, 2.3]), torch.tensor([7.5, 6.0, 3.3]), 3)
    pieces = place(draws, size_m, (4, 9))
    cos, sin = pieces.turn.abs().unbind(-1)
    width, depth = pieces.size_m[..., 0], pieces.size_m[..., 1]
    reach = torch.stack([cos * width + sin * depth, sin * width + cos * depth], dim=-1)
    low, high = pieces.center_m - reach, pieces.center_m + reach
    inside = (low > GAP_M - 1e-4).all(-1) & (high < size_m[:, None, :2] - GAP_M + 1e-4).all(-1)
    assert inside[pieces.there].all()
    meet = ((low[:, :, None] < high[:, None]) & (low[:, None] < high[:, :, None])).all(-1)
    both = pieces.there[:, :, None] & pieces.there[:, None] & ~torch.eye(9, dtype=torch.bool)
    assert not (meet & both).any()
    assert pieces.there.sum(1).float().mean() > 4


def test_the_picture_shows_edges_where_depth_has_them() -> None:
    rooms, cameras = drawn(seed=0, count=12)
    drawing = draw(rooms, cameras, HEIGHT, WIDTH)
    step = (drawing.depth_m[:, :, 1:] / drawing.depth_m[:, :, :-1]).log().abs() > 0.2
    contrast = (drawing.image[:, :, 1:] - drawing.image[:, :, :-1]).abs().mean(-1)
    assert contrast[step].mean() > 2 * contrast[~step].mean()

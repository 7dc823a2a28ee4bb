"""Drawn depth put back into the world lies on the surfaces it was drawn from, and what is drawn is drawn anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from finetune.data.synthetic import lighting, rays, textures
from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.drawing import develop, draw_frames, to_uint8
from finetune.data.synthetic.rays import NOWHERE_M, Bodies, Solids
from finetune.data.synthetic.records import take_rows
from finetune.data.synthetic.worlds import Worlds
from tests.small_worlds import camera_at, drawn_worlds, gray_world, solids

HEIGHT, WIDTH = 60, 80


def bare(worlds: Worlds) -> Worlds:
    """The worlds with nothing in them or on their walls."""

    def gone(bodies: Bodies) -> Bodies:
        return replace(bodies, center_m=torch.full_like(bodies.center_m, NOWHERE_M))

    shapes = worlds.solids
    return replace(
        worlds,
        solids=replace(shapes, boxes=gone(shapes.boxes), cylinders=gone(shapes.cylinders), balls=gone(shapes.balls)),
    )


def world_points(depth_m: torch.Tensor, cameras: Cameras, frame: int) -> NDArray[np.float64]:
    """(H, W, 3), through the public camera of the frame and its place in the world."""
    points = cameras.intrinsics(frame).back_project(depth_m[frame].numpy())
    axes = torch.stack([part[frame] for part in cameras.axes]).double().numpy()
    return points @ axes + cameras.place_m[frame].double().numpy()


def test_points_of_bare_rooms_lie_on_floor_ceiling_and_walls() -> None:
    worlds, cameras = drawn_worlds(0, 8, HEIGHT, WIDTH, outdoors=0.0)
    assert len(set(cameras.focal_px[:, 0].tolist())) == 8
    depth_m = draw_frames(bare(worlds), cameras, HEIGHT, WIDTH).depth_m
    floors = 0
    for frame in range(8):
        points = world_points(depth_m, cameras, frame)
        size_m = worlds.solids.size_m[frame].double().numpy()
        to_faces = np.concatenate([np.abs(points), np.abs(points - size_m)], axis=-1)
        assert to_faces.min(-1).max() < 1e-4
        assert (points > -1e-4).all() and (points < size_m + 1e-4).all()
        # Every face is flat and parallel to the one opposite: all of its points are on it, none between.
        floors += int((np.abs(points[..., 2]) < 1e-4).sum())
    assert floors > 0.1 * 8 * HEIGHT * WIDTH


def test_bare_ground_in_the_open_is_flat_up_to_the_horizon_and_above_it_is_the_sky() -> None:
    worlds, cameras = drawn_worlds(0, 8, HEIGHT, WIDTH, outdoors=1.0)
    depth_m = draw_frames(bare(worlds), cameras, HEIGHT, WIDTH).depth_m
    ground = 0
    for frame in range(8):
        upward = world_points(torch.ones_like(depth_m), cameras, frame)[..., 2] - cameras.place_m[frame, 2].item()
        np.testing.assert_array_equal(np.isinf(depth_m[frame].numpy()), upward > 0)
        seen = np.isfinite(depth_m[frame].numpy())
        points = world_points(torch.where(depth_m.isinf(), 1.0, depth_m), cameras, frame)[seen]
        assert (np.abs(points[:, 2]) < 1e-6 * depth_m[frame].numpy()[seen] + 1e-5).all()
        ground += int(seen.sum())
    assert 0.2 < ground / (8 * HEIGHT * WIDTH) < 0.9


def test_depth_is_along_the_axis_and_not_along_the_ray() -> None:
    world = gray_world(solids(size_m=(8.0, 6.0, 3.0)), ambient=1.0)
    camera = camera_at((5.0, 3.0, 1.5), (1.0, 0.0, 0.0), height=HEIGHT, width=WIDTH, focal_px=200.0)
    # The wall x = 8 is 3 m away and fills the picture: 40 / 200 * 3 = 0.6 m to either side.
    depth_m = draw_frames(world, camera, HEIGHT, WIDTH).depth_m
    np.testing.assert_allclose(depth_m.numpy(), 3.0, atol=1e-5)


def seen_from_above_left(shapes: Solids, towards: tuple[float, float, float]) -> NDArray[np.float64]:
    """(H, W, 3) points in the world, from (2, 2, 1.5), slightly rolled."""
    camera = camera_at((2.0, 2.0, 1.5), towards, height=HEIGHT, width=WIDTH, roll_rad=0.05)
    return world_points(draw_frames(gray_world(shapes), camera, HEIGHT, WIDTH).depth_m, camera, 0)


def test_points_on_a_ball_are_its_radius_away_from_its_center() -> None:
    points = seen_from_above_left(solids(balls=[((4.0, 3.0, 1.0), (0.4, 0.4, 0.4), 0.0)]), (2.0, 1.0, -0.5))
    away = np.linalg.norm(points - [4.0, 3.0, 1.0], axis=-1)
    on_ball = away < 0.4 + 1e-3
    assert on_ball.sum() > 50
    np.testing.assert_allclose(away[on_ball], 0.4, atol=1e-4)
    # The middle of the picture looks at its center: sqrt(4 + 1 + 0.25) - 0.4 away, give or take half a pixel.
    depth_m = np.linalg.norm(points[HEIGHT // 2, WIDTH // 2] - [2.0, 2.0, 1.5])
    assert depth_m == pytest.approx(5.25**0.5 - 0.4, abs=2e-3)


def test_points_on_a_cylinder_are_on_its_side_or_its_cap() -> None:
    points = seen_from_above_left(solids(cylinders=[((4.0, 3.0, 0.5), (0.6, 0.3, 0.5), 90.0)]), (2.0, 1.0, -0.7))
    # Turned by 90 degrees, it is 0.3 wide along x and 0.6 along y.
    around = np.hypot((points[..., 0] - 4.0) / 0.3, (points[..., 1] - 3.0) / 0.6)
    side = (around < 1.001) & (points[..., 2] < 0.999) & (points[..., 2] > 0.001)
    cap = (around < 0.999) & (points[..., 2] > 0.9)
    assert side.sum() > 100 and cap.sum() > 30
    np.testing.assert_allclose(around[side & ~cap], 1.0, atol=1e-3)
    np.testing.assert_allclose(points[..., 2][cap], 1.0, atol=1e-4)


def test_the_picture_shows_edges_where_depth_has_them() -> None:
    worlds, cameras = drawn_worlds(0, 12, HEIGHT, WIDTH, outdoors=0.0)
    drawing = draw_frames(worlds, cameras, HEIGHT, WIDTH)
    image = develop(drawing.light)
    step = (drawing.depth_m[:, :, 1:] / drawing.depth_m[:, :, :-1]).log().abs() > 0.2
    contrast = (image[:, :, 1:] - image[:, :, :-1]).abs().mean(-1)
    assert contrast[step].mean() > 2 * contrast[~step].mean()


def test_smooth_edges_mix_both_sides_and_leave_depth_as_it_is() -> None:
    # A dark box before a light wall, its edge at x = 41.06 px: between the centers of pixels 41 and 42.
    shapes = solids(boxes=[((5.0, 3.0, 2.0), (0.1, 0.969, 2.0), 0.0)], size_m=(8.0, 8.0, 4.0))
    world = gray_world(shapes, ambient=1.0)
    dark = torch.where(torch.arange(7) == 0, 0.1, 0.5)[None, :, None].expand(1, 7, 3)
    world = replace(world, materials=replace(world.materials, color=dark, other=dark, third=dark))
    camera = camera_at((2.0, 4.0, 2.0), (1.0, 0.0, 0.0), height=28, width=WIDTH)
    sharp, smooth = (draw_frames(world, camera, 28, WIDTH, smooth=smooth) for smooth in (False, True))
    assert torch.equal(sharp.depth_m, smooth.depth_m)
    away = torch.tensor([10, 30, 60])
    torch.testing.assert_close(smooth.light[:, :, away], sharp.light[:, :, away], rtol=0.05, atol=0)
    edge = int((sharp.depth_m[0, 14, 1:] - sharp.depth_m[0, 14, :-1]).abs().argmax())
    left, right = sharp.light[0, 14, edge, 0].item(), sharp.light[0, 14, edge + 1, 0].item()
    between = smooth.light[0, 14, edge : edge + 2, 0]
    # Of one pixel of the two, two of the four corners, which have half of its weight, are on the other side.
    assert max(abs(between[0].item() - left), abs(between[1].item() - right)) == pytest.approx(
        0.25 * abs(left - right), rel=0.1
    )


def test_exposure_is_the_same_whatever_the_light_and_a_stop_doubles_it() -> None:
    light = torch.rand((2, 20, 30, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(develop(light), develop(3.0 * light / 2.0), atol=2e-3, rtol=0)
    # 0.42 times light over its mean, then the shoulder e (1 + e / 4) / (1 + e), then the square root.
    exposed = 0.42 * light / light.mean((1, 2, 3), keepdim=True)
    for stops in (0.0, 1.0, -1.0):
        e = exposed * 2.0**stops
        expected = (e * (1 + e / 4) / (1 + e)).clamp(0, 1).sqrt()
        torch.testing.assert_close(develop(light, torch.full((2,), stops)), expected, atol=2e-3, rtol=0)
    assert torch.equal(develop(light, torch.zeros(2)), develop(light))
    assert to_uint8(torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2])).tolist() == [0, 0, 128, 255, 255]


FACTORIES = ("tensor", "as_tensor", "arange", "zeros", "ones", "full", "empty", "linspace", "eye", "rand", "randn")


class NoFactoryWithoutDevice(TorchFunctionMode):
    """Fails where a tensor is made without a word about its device: it would be on the CPU whatever draws."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = any(function is getattr(torch, name) for name in FACTORIES)
        assert not named or "device" in (kwargs or {}), f"torch.{function.__name__} without device"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("outdoors", [0.0, 1.0])
def test_every_tensor_that_drawing_makes_has_a_device(outdoors: float) -> None:
    worlds, cameras = drawn_worlds(2, 2, 28, 28, outdoors=outdoors)
    for cached in (textures._table, textures._lattice):
        cached.cache_clear()
    with NoFactoryWithoutDevice():
        develop(draw_frames(worlds, cameras, 28, 28, smooth=True).light, torch.zeros(2, device="cpu"))
    with NoFactoryWithoutDevice(), pytest.raises(AssertionError, match=r"torch\.arange without device"):
        torch.arange(3)


def test_frames_are_drawn_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # On "meta", which has shapes and devices but no numbers, and refuses to mix with the CPU's. Which bodies a tile is
    # asked about depends on numbers, so here it is all of them.
    rows_of = rays.rows_of
    for user in (rays, lighting):
        monkeypatch.setattr(user, "rows_of", lambda bodies, frame, candidates: rows_of(bodies, frame, None))
    worlds, cameras = drawn_worlds(2, 2, 28, 42, outdoors=0.5)
    every = slice(None)
    drawing = draw_frames(take_rows(worlds, every, "meta"), take_rows(cameras, every, "meta"), 28, 42, smooth=True)
    assert {part.device.type for part in (drawing.light, drawing.depth_m, *drawing.point_m)} == {"meta"}
    assert drawing.light.shape == (2, 28, 42, 3)

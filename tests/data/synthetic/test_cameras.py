"""Where cameras stand and how they look."""

from __future__ import annotations

import pytest
import torch

from finetune.data.synthetic.cameras import (
    CLEARANCE_M,
    HIGHEST_M,
    LOWEST_M,
    clearance,
    draw_cameras,
    draw_intrinsics,
    look_along,
)
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.worlds import draw_worlds
from tests.small_worlds import drawn_worlds, solids


def test_axes_are_orthonormal_and_right_handed_whatever_the_view() -> None:
    towards = torch.cat([Rng(0, range(64)).normal(3), torch.tensor([[0.0, 0.0, -1.0], [0.01, -0.02, 3.0]])])
    right, down, forward = look_along(towards, torch.linspace(-0.1, 0.1, 66))
    axes = torch.stack([right, down, forward], dim=1)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(66, 3, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.cross(right, down), forward, atol=1e-6, rtol=0)
    assert (down[:, 2] < 0).all()


def test_a_level_camera_has_right_to_its_right() -> None:
    right, down, forward = look_along(torch.tensor([[3.0, 0.0, 0.0]]), torch.zeros(1))
    assert (right.tolist(), down.tolist(), forward.tolist()) == ([[0, -1, 0]], [[0, 0, -1]], [[1, 0, 0]])


def test_clearance_by_hand() -> None:
    shapes = solids(boxes=[((5.0, 4.0, 1.0), (1.0, 0.5, 1.0), 90.0)], balls=[((5.0, 1.0, 1.0), (0.5, 0.5, 0.5), 0.0)])
    # Turned, the box reaches from 4.5 to 5.5 along x and from 3 to 5 along y.
    points = torch.tensor([[[6.0, 4.0, 1.0], [5.8, 5.4, 1.0], [5.0, 4.9, 1.0], [5.0, 1.0, 2.0]]])
    torch.testing.assert_close(clearance(shapes, points), torch.tensor([[0.5, 0.5, 0.0, 0.5]]))


def test_cameras_stand_free_inside_their_rooms() -> None:
    worlds, cameras = drawn_worlds(4, 64, 112, 154, outdoors=0.0)
    clear = clearance(worlds.solids, cameras.place_m[:, None])[:, 0]
    assert clear.min() > 0.05
    assert (clear > CLEARANCE_M).float().mean() > 0.9
    assert ((cameras.place_m >= LOWEST_M) & (cameras.place_m < worlds.solids.size_m - 0.25)).all()


def test_a_mounted_camera_keeps_its_height_and_tilt() -> None:
    rng = Rng(4, range(64))
    worlds = draw_worlds(rng, objects=(4, 14), outdoors=0.0)
    intrinsics = draw_intrinsics(rng, 112, 154, (50.0, 70.0))
    cameras = draw_cameras(rng, worlds, *intrinsics, height_m=(0.4, 0.9), look_down_deg=(5.0, 25.0))
    height_m, down_deg = cameras.place_m[:, 2], -cameras.forward[:, 2].asin().rad2deg()
    assert 0.4 <= height_m.min() < 0.45 and 0.85 < height_m.max() <= 0.9
    assert 5.0 - 1e-3 <= down_deg.min() < 7.0 and 23.0 < down_deg.max() <= 25.0 + 1e-3
    assert (clearance(worlds.solids, cameras.place_m[:, None]) > CLEARANCE_M).float().mean() > 0.9


@pytest.mark.parametrize(("roll_deg", "most", "mean"), [(None, 17.2, 4.3), (20.0, 20.0, 10.0), (0.0, 0.0, 0.0)])
def test_cameras_roll_as_far_as_they_are_told(roll_deg: float | None, most: float, mean: float) -> None:
    rng = Rng(4, range(256))
    worlds = draw_worlds(rng, objects=(1, 2), outdoors=0.0)
    cameras = draw_cameras(rng, worlds, *draw_intrinsics(rng, 112, 154, (50.0, 70.0)), roll_deg=roll_deg)
    # The axis to the right of a camera without roll is level, and square to where it looks.
    slope = cameras.right[:, 2].abs() / (1.0 - cameras.forward[:, 2].square()).sqrt()
    rolled_deg = slope.asin().rad2deg()
    assert 0.95 * most - 1e-3 <= rolled_deg.max() <= most + 1e-2
    assert rolled_deg.mean().item() == pytest.approx(mean, rel=0.15, abs=1e-3)


def test_in_the_open_cameras_stand_among_things_and_see_the_horizon() -> None:
    worlds, cameras = drawn_worlds(4, 64, 112, 154, outdoors=1.0)
    # Where a house covers the middle of the plot there is no free place: then it is not seen from inside.
    assert (clearance(worlds.solids, cameras.place_m[:, None]) > CLEARANCE_M).float().mean() > 0.9
    height_m = cameras.place_m[:, 2]
    assert (height_m >= LOWEST_M).all() and (height_m <= HIGHEST_M).all()
    # Up or down by less than half of the least vertical field of view, 33 degrees.
    assert (cameras.forward[:, 2].asin().rad2deg().abs() < 16).all()

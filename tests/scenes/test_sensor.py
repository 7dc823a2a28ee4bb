"""The simulated depth camera against its own formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finetune.scenes.cameras import Cameras
from finetune.scenes.drawing import Drawing
from finetune.scenes.draws import Draws
from finetune.scenes.rays import Solids
from finetune.scenes.sensor import DepthSensor, photograph

SIZE = 64


def wall(depth_m: float, *, reflectance: float = 0.5, incidence: float = 1.0) -> Drawing:
    """A camera at the origin before a wall at ``depth_m``, seen in a narrow view."""
    offset = (torch.arange(SIZE) - 31.5) / 500.0 * depth_m
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    flat = torch.full((1, SIZE, SIZE), depth_m)
    return Drawing(
        image=torch.full((1, SIZE, SIZE, 3), 0.5),
        depth_m=flat,
        point_m=(x[None] + 20.0, flat + 1.0, y[None] + 20.0),
        incidence=torch.full_like(flat, incidence),
        reflectance=torch.full_like(flat, reflectance),
    )


def camera() -> Cameras:
    return Cameras(
        place_m=torch.tensor([[20.0, 1.0, 20.0]]),
        right=torch.tensor([[1.0, 0.0, 0.0]]),
        down=torch.tensor([[0.0, 0.0, 1.0]]),
        forward=torch.tensor([[0.0, 1.0, 0.0]]),
        focal_px=torch.tensor([[500.0, 500.0]]),
        center_px=torch.tensor([[31.5, 31.5]]),
    )


def room(*, post_m: float | None = None) -> Solids:
    """A large room, with a thin post ``post_m`` before the camera if one is asked for."""
    center = [-1000.0] * 3 if post_m is None else [20.0, 1.0 + post_m, 20.0]
    return Solids(
        size_m=torch.tensor([[40.0, 40.0, 40.0]]),
        box_center_m=torch.tensor([[center]]),
        box_half_m=torch.tensor([[[0.01, 0.01, 5.0]]]),
        box_turn=torch.tensor([[[1.0, 0.0]]]),
        sphere_center_m=torch.full((1, 1, 3), -1000.0),
        sphere_radius_m=torch.zeros(1, 1),
    )


def measured(drawing: Drawing, solids: Solids | None = None) -> torch.Tensor:
    return DepthSensor().measure(Draws(0, [0]), drawing, solids or room(), camera())[0]


@pytest.mark.parametrize("depth_m", [1.0, 2.0, 4.0])
def test_noise_grows_with_the_square_of_the_range(depth_m: float) -> None:
    counts = measured(wall(depth_m))
    kept = counts[counts > 0].double()
    # 1.425e-3 * 2**2 = 5.7 mm at 2 m.
    assert kept.std().item() == pytest.approx(1.425 * depth_m**2, rel=0.06)
    assert kept.mean().item() == pytest.approx(1000 * depth_m, abs=0.3 * depth_m**2 + 0.1)
    assert kept.numel() / counts.numel() > 0.98


def test_at_4_m_steps_of_disparity_are_45_mm_apart() -> None:
    levels = measured(wall(4.0)).unique()
    levels = levels[levels > 0]
    # 2.85e-3 * 4**2 = 45.6 mm, a little more on the far side.
    assert 43 < levels.diff().double().mean() < 49


@pytest.mark.parametrize("depth_m", [0.29, 10.1])
def test_nothing_is_measured_out_of_range(depth_m: float) -> None:
    assert not measured(wall(depth_m)).any()


def test_dark_and_grazing_surfaces_are_lost_where_the_return_is_weak() -> None:
    # The threshold is 0.0015, times luck from 0.5 to 2: at 2 m, reflectance * cosine from 0.003 to 0.012.
    assert not measured(wall(2.0, reflectance=0.0029)).any()
    assert not measured(wall(2.0, reflectance=0.5, incidence=0.0058)).any()
    assert (measured(wall(2.0, reflectance=0.0121)) > 0).float().mean() > 0.98
    half = (measured(wall(2.0, reflectance=0.0075)) > 0).float().mean()
    assert 0.4 < half < 0.6


def test_depth_is_lost_beside_an_edge() -> None:
    drawing = wall(2.0)
    stepped = drawing.depth_m.clone()
    stepped[:, :, 32:] = 2.5
    counts = measured(replace(drawing, depth_m=stepped))
    assert not counts[:, 31:33].any()
    assert (counts[:, :31] > 0).float().mean() > 0.98
    assert (counts[:, 33:] > 0).float().mean() > 0.98


def test_depth_is_lost_where_a_post_hides_the_projector() -> None:
    counts = measured(wall(2.0), room(post_m=1.0))
    # From the projector at x = 0.06 past a post around x = 0 at 1 m: the shadow on the wall is around x = -0.06,
    # which is 500 * -0.06 / 2 = 15 pixels left of the center.
    lost = (counts == 0).float().mean(0)
    assert lost[31 - 15] == 1.0
    assert lost[31 + 15] < 0.1


def test_the_color_sensor_adds_noise_and_darkens_the_corners() -> None:
    drawing = wall(2.0)
    image = photograph(Draws(0, [0]), drawing)[0].double()
    assert image.shape == (SIZE, SIZE, 3)
    middle = image[24:40, 24:40]
    # 255 * sqrt(0.022**2 * 0.5 + 0.008**2) = 4.46
    assert middle.std().item() == pytest.approx(4.46, rel=0.1)
    assert image[:6, :6].mean() < middle.mean() - 8
    assert (photograph(Draws(0, [1]), drawing)[0] != image).any()

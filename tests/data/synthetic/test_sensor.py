"""The simulated depth camera and color camera, and the faults of both, against their own formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.drawing import Drawing, develop
from finetune.data.synthetic.rays import Solids
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.sensor import ColorSensor, DepthSensor, add_range_noise, mask_depth_steps, mask_scan_lines
from tests.small_worlds import solids

SIZE = 64


def wall(depth_m: float, *, reflectance: float = 0.5, incidence: float = 1.0) -> Drawing:
    """A camera at the origin before a wall at ``depth_m``, seen in a narrow view."""
    offset = (torch.arange(SIZE) - 31.5) / 500.0 * depth_m
    y, x = torch.meshgrid(offset, offset, indexing="ij")
    flat = torch.full((1, SIZE, SIZE), depth_m)
    return Drawing(
        light=torch.full((1, SIZE, SIZE, 3), 0.5),
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
    posts = [] if post_m is None else [((20.0, 1.0 + post_m, 20.0), (0.01, 0.01, 5.0), 0.0)]
    return solids(boxes=posts, size_m=(40.0, 40.0, 40.0))


def measured(drawing: Drawing, solids: Solids | None = None) -> torch.Tensor:
    return DepthSensor().measure(Rng(0, [0]), drawing, solids or room(), camera())[0]


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


def photographed(sensor: ColorSensor, light: torch.Tensor, frames: int = 1) -> torch.Tensor:
    """(B, H, W, 3) on a scale from 0 to 1."""
    return sensor(Rng(0, range(frames)), light.expand(frames, -1, -1, -1)).double() / 255


def gray() -> torch.Tensor:
    """Even light. Exposure makes 0.42 of it, the shoulder 0.42 * 1.105 / 1.42 = 0.326831, gamma 0.571691."""
    return torch.full((1, SIZE, SIZE, 3), 0.3)


GRAY = 0.571691
ROUNDED = 0.5 / 255 + 1e-6


def test_a_color_sensor_without_faults_only_develops() -> None:
    image = photographed(ColorSensor(), gray())
    assert image.shape == (1, SIZE, SIZE, 3)
    assert (image - GRAY).abs().max() <= ROUNDED


@pytest.mark.parametrize("noise", [0.02, 0.06])
def test_noise_has_its_deviation(noise: float) -> None:
    image = photographed(ColorSensor(noise=noise, evenly=True), gray())
    # Rounding to 255 steps adds its own 1 / sqrt(12).
    expected = (noise**2 * (GRAY + 0.13) + 1 / 12 / 255**2) ** 0.5
    assert image.std().item() == pytest.approx(expected, rel=0.03)
    assert image.mean().item() == pytest.approx(GRAY, abs=4 * expected / image.numel() ** 0.5)
    other = ColorSensor(noise=noise, evenly=True)(Rng(0, [1]), gray())
    assert (other.double() / 255 != image).any()


def test_noise_is_least_in_the_dark() -> None:
    light = gray()
    light[:, :, :32] = 0.0
    image = photographed(ColorSensor(noise=0.05, evenly=True, blur_px=0.0), light)
    # In the dark half of it is cut off at 0: what is left has a mean of 0.4 deviations.
    assert image[:, :, :32].mean().item() == pytest.approx(0.399 * 0.05 * 0.13**0.5, rel=0.1)


@pytest.mark.parametrize(("blur_px", "rel"), [(0.7, 0.03), (1.0, 0.03), (2.0, 0.03)])
def test_blur_keeps_the_mean_and_has_its_deviation(blur_px: float, rel: float) -> None:
    light = torch.full((1, SIZE, SIZE, 3), 0.02)
    light[:, :, 32:] = 1.0
    sharp = photographed(ColorSensor(), light)
    image = photographed(ColorSensor(blur_px=blur_px, evenly=True), light)
    assert image.mean().item() == pytest.approx(sharp.mean().item(), abs=1e-3)
    # How an even step rises from pixel to pixel is the kernel; between two pixels, half a pixel from either.
    rise = (image[0, 20, 1:, 0] - image[0, 20, :-1, 0])[31 - 12 : 31 + 13]
    assert rise.sum().item() == pytest.approx(float(sharp.max() - sharp.min()), abs=1e-6)
    away = torch.arange(-12, 13)
    deviation = ((away**2 * rise).sum() / rise.sum()).sqrt().item()
    assert deviation == pytest.approx(blur_px, rel=rel)
    # Along columns as along rows.
    turned = photographed(ColorSensor(blur_px=blur_px, evenly=True), light.transpose(1, 2))
    assert torch.equal(turned.transpose(1, 2), image)


def test_vignette_darkens_the_corners_by_its_share() -> None:
    image = photographed(ColorSensor(vignette=0.4, evenly=True), gray())[0, :, :, 0]
    assert image[0, 0].item() == pytest.approx(GRAY * 0.6, abs=ROUNDED)
    assert image[0, SIZE // 2].item() == pytest.approx(GRAY * 0.8, abs=2e-3)  # the middle of an edge
    assert image[SIZE // 2, SIZE // 2].item() == pytest.approx(GRAY, abs=ROUNDED)


def linear(image: torch.Tensor) -> torch.Tensor:
    """What was developed, from displayed values v: v^2 = e (1 + e / 4) / (1 + e), solved for e."""
    square = image.square()
    return 2 * (square - 1 + ((1 - square).square() + square).sqrt())


def test_exposure_is_off_by_at_most_its_stops_and_differs_from_frame_to_frame() -> None:
    assert linear(develop(gray()).double()).mean().item() == pytest.approx(0.42, rel=1e-3)
    image = photographed(ColorSensor(exposure_stops=1.0), gray(), frames=40)
    stops = (linear(image).mean((1, 2, 3)) / 0.42).log2()
    assert stops.abs().max() <= 1.01
    assert stops.min() < -0.7 and stops.max() > 0.7


def test_tint_moves_red_and_blue_against_green_by_at_most_its_share() -> None:
    image = photographed(ColorSensor(tint=0.2), gray(), frames=40)
    red, green, blue = linear(image).mean((1, 2)).unbind(-1)
    for share in (red / green, blue / green):
        assert share.min() > 0.79 and share.max() < 1.21
        assert share.min() < 0.87 and share.max() > 1.13
    assert (red / green - blue / green).abs().max() > 0.2


def test_each_frame_draws_its_share_of_each_fault() -> None:
    deviations = photographed(ColorSensor(noise=0.1), gray(), frames=30).std((1, 2, 3))
    most = 0.1 * (GRAY + 0.13) ** 0.5
    assert deviations.max() < most * 1.02
    assert deviations.min() < 0.2 * most and deviations.max() > 0.8 * most
    corners = photographed(ColorSensor(vignette=0.4), gray(), frames=30)[:, 0, 0, 0] / GRAY
    assert 0.59 < corners.min() < 0.7 and 0.9 < corners.max() < 1.01


def test_depth_away_from_steps_by_hand() -> None:
    depth_m = torch.full((1, 7, 9), 2.0)
    depth_m[:, :, 5:] = 2.2
    away = mask_depth_steps(depth_m, 0.05)
    assert away.all(dim=1)[0].tolist() == [True, True, True, True, False, False, True, True, True]
    assert mask_depth_steps(depth_m, 0.11).all()
    # The sky is beyond any step, but sky next to sky is none.
    depth_m[:, :, 5:] = torch.inf
    away = mask_depth_steps(depth_m, 0.05)
    assert away.all(dim=1)[0].tolist() == [True, True, True, True, False, False, True, True, True]


@pytest.mark.parametrize("depth_m", [1.0, 3.0])
def test_range_noise_grows_with_the_square_and_leaves_the_sky(depth_m: float) -> None:
    flat = torch.full((1, SIZE, SIZE), depth_m)
    flat[:, :8] = torch.inf
    noisy = add_range_noise(Rng(0, [0]), flat, 0.01)
    assert noisy[:, :8].isinf().all()
    assert noisy[:, 8:].std().item() == pytest.approx(0.01 * depth_m**2, rel=0.05)
    assert noisy[:, 8:].mean().item() == pytest.approx(depth_m, rel=0.002)
    assert add_range_noise(Rng(0, [0]), torch.full((1, SIZE, SIZE), 2.0), 4.0).min().item() == pytest.approx(1e-3)


@pytest.mark.parametrize("height", [1, 16, 112, 240, 479])
def test_scan_lines_are_exactly_as_many_and_evenly_spread(height: int) -> None:
    for lines in {1, 2, 3, 7, height // 3 + 1, height - 1, height} & set(range(1, height + 1)):
        rows = mask_scan_lines(height, lines, torch.device("cpu"))[:, 0].nonzero()[:, 0]
        assert len(rows) == lines
        assert lines < 2 or rows.diff().max() - rows.diff().min() <= 1

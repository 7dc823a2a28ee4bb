"""What patterns make of a point, by their own rules."""

from __future__ import annotations

import torch

from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.textures import (
    _MEAN,
    CHECKER,
    LATTICE,
    PATTERNS,
    STRIPES,
    TILES,
    WOOD,
    Mixture,
    Palette,
    draw_materials,
    mix_pattern,
    random_cell,
    value_noise,
)


def mixed(pattern: int, u: torch.Tensor, v: torch.Tensor, *, footprint: float = 0.0, stain: float = 0.0) -> Mixture:
    return mix_pattern(
        torch.full_like(u, pattern, dtype=torch.int64),
        u,
        v,
        torch.full_like(u, 3.7),
        torch.full_like(u, stain),
        torch.full_like(u, footprint),
    )


def places() -> tuple[torch.Tensor, torch.Tensor]:
    u, v = Rng(0, [0]).uniform(-40.0, 40.0, 2, 20000)[0]
    return u, v


def test_every_pattern_has_shares_from_0_to_1_and_the_mean_it_fades_to() -> None:
    u, v = places()
    for pattern in PATTERNS:
        near, far = (mixed(pattern, u, v, footprint=footprint) for footprint in (0.0, 1e4))
        for share in (near.other, near.third, near.shade):
            assert (share >= 0).all() and (share <= 1).all()
        assert abs(near.other.mean().item() - _MEAN[pattern]) < 0.12, pattern
        torch.testing.assert_close(far.other, torch.full_like(u, _MEAN[pattern]), atol=1e-3, rtol=0)
        assert far.third.abs().max() < 1e-3 and (far.shade - 1.0).abs().max() < 1e-3


def test_a_chessboard_and_stripes_by_hand() -> None:
    # In the middle of four cells; a tenth of it is noise.
    u, v = torch.tensor([0.5, 1.5, 0.5, 1.5]), torch.tensor([0.7, 0.7, 1.7, 1.7])
    assert (mixed(CHECKER, u, v).other > 0.5).tolist() == [False, True, True, False]
    v = torch.tensor([0.1, 0.4, 0.5, 0.9])
    assert (mixed(STRIPES, u, v).other > 0.5).tolist() == [True, True, False, False]
    # Joints of tiles are at whole numbers, up to 0.045 to either side.
    assert (mixed(TILES, torch.tensor([3.04, 3.06, 3.5, 3.96]), torch.full((4,), 0.5)).other > 0.9).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_stains_darken_by_at_most_their_share() -> None:
    u, v = places()
    shade = mixed(CHECKER, u, v, stain=0.3).shade
    assert 0.7 <= shade.min() < 0.75 and shade.max() > 0.95


def test_noise_is_smooth_and_repeats() -> None:
    u, v = places()
    values = value_noise(u, v)
    assert values.min() >= 0.0 and values.max() <= 1.0 and abs(values.mean().item() - 0.5) < 0.03
    assert (value_noise(u + 1e-3, v) - values).abs().max() < 5e-3
    whole_u, whole_v = u.floor(), v.floor()
    assert torch.equal(value_noise(whole_u, whole_v), random_cell(whole_u, whole_v))
    assert torch.equal(value_noise(whole_u + LATTICE, whole_v - LATTICE), value_noise(whole_u, whole_v))


def test_materials_are_in_their_ranges_and_wood_is_brown() -> None:
    palette = Palette((0.5, 0.9), (0.0, 0.0))
    drawn = draw_materials(Rng(0, range(8)), 50, weights={WOOD: 1.0, TILES: 1.0}, palette=palette, period_m=(0.1, 0.2))
    assert set(drawn.pattern.unique().tolist()) == {WOOD, TILES}
    assert drawn.period_m.min() >= 0.1 and drawn.period_m.max() <= 0.2
    for part in (drawn.color, drawn.other, drawn.third):
        assert part.shape == (8, 50, 3) and (part >= 0).all() and (part <= 0.81).all()
    # Of gray paint the first color or, where they are swapped, the other is gray; of wood red is above blue.
    shown = torch.where((drawn.third == drawn.color).all(-1, keepdim=True), drawn.color, drawn.other)
    gray = shown[drawn.pattern == TILES]
    assert torch.equal(gray[:, 0], gray[:, 1]) and torch.equal(gray[:, 0], gray[:, 2])
    brown = shown[drawn.pattern == WOOD]
    assert (brown[:, 0] > brown[:, 2]).all()

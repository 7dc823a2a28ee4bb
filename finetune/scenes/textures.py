"""Procedural surfaces: plain, checker, stripes, tiles, bricks, wood, speckle."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from finetune.scenes.draws import Draws

PLAIN, CHECKER, STRIPES, TILES, BRICKS, WOOD, SPECKLE = range(7)
LATTICE = 256


@dataclass(frozen=True, kw_only=True)
class Materials:
    """M surfaces a frame.

    Attributes:
        pattern: (B, M) int64, one of the numbers above.
        color, other: (B, M, 3) linear RGB reflectance; the pattern goes from the one to the other.
        period_m: (B, M) size of the pattern.
        swapped: (B, M) bool, the pattern lies across.
        offset: (B, M) where in the noise the surface lies.
    """

    pattern: Tensor
    color: Tensor
    other: Tensor
    period_m: Tensor
    swapped: Tensor
    offset: Tensor


def joined(parts: list[Materials]) -> Materials:
    """The surfaces of ``parts`` one after the other."""
    return Materials(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in vars(parts[0])})


def draw_materials(
    draws: Draws,
    count: int,
    *,
    weights: tuple[float, ...],
    value: tuple[float, float],
    saturation: tuple[float, float],
    period_m: tuple[float, float],
    contrast: tuple[float, float] = (0.35, 0.8),
) -> Materials:
    """
    Args:
        draws: one row a frame.
        count: of surfaces a frame, M.
        weights: how often each pattern comes, in the order of their numbers.
        value: range of the brightest channel, 0 to 1 as displayed.
        saturation: range of the distance from gray, 0 to 1.
        period_m: range of the pattern's size.
        contrast: range of the other color's brightness, as a share of the first's.
    """
    pattern = draws.choice(weights, count)
    tint = draws.uniform(*saturation, count, 1) * draws.uniform(0.0, 1.0, count, 3)
    # Boards and furniture of wood are brown, whatever the palette.
    brown = torch.tensor([0.0, 0.3, 0.55]) + 0.12 * draws.uniform(-1.0, 1.0, count, 1)
    tint = torch.where((pattern == WOOD)[..., None], brown.clamp(0.0, 0.8), tint)
    shown = draws.uniform(*value, count, 1) * (1.0 - tint)
    other = shown * draws.uniform(*contrast, count, 1) * (1.0 - 0.25 * draws.uniform(0.0, 1.0, count, 3))
    # Both directions, so that light grout between dark bricks is as frequent as dark between light.
    flipped = draws.chance(0.4, count)[..., None]
    return Materials(
        pattern=pattern,
        color=torch.where(flipped, other, shown).square(),
        other=torch.where(flipped, shown, other).square(),
        period_m=draws.uniform(*period_m, count),
        swapped=draws.chance(0.5, count),
        offset=draws.uniform(0.0, float(LATTICE), count),
    )


@cache
def _lattice(device: torch.device) -> Tensor:
    values = np.random.default_rng(0).random(LATTICE * LATTICE, dtype=np.float32)
    return torch.from_numpy(values).to(device)


def noise(u: Tensor, v: Tensor) -> Tensor:
    """Value noise of period ``LATTICE``: random numbers on the integers, smoothly between; 0 to 1, mean 0.5."""
    u0, v0 = u.floor(), v.floor()
    s, t = u - u0, v - v0
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    left, top = u0.long() & (LATTICE - 1), v0.long() & (LATTICE - 1)
    right, bottom = (left + 1) & (LATTICE - 1), (top + 1) & (LATTICE - 1)
    lattice = _lattice(u.device)
    upper = lattice[top * LATTICE + left] * (1.0 - s) + lattice[top * LATTICE + right] * s
    lower = lattice[bottom * LATTICE + left] * (1.0 - s) + lattice[bottom * LATTICE + right] * s
    return upper * (1.0 - t) + lower * t


def mixture(pattern: Tensor, u: Tensor, v: Tensor, offset: Tensor, footprint: Tensor) -> Tensor:
    """How far each point is from the first color to the other.

    Args:
        pattern: number of the pattern.
        u, v: place on the surface, in periods.
        offset: place in the noise, in periods.
        footprint: size of a pixel on the surface, in periods; where it nears one, the pattern fades to its mean, since
            a pixel cannot show it and would flicker.

    Returns:
        0 to 1, of the shape that all five share.
    """
    row = v.floor()
    u_bricks = torch.where(pattern == BRICKS, (u + 0.5 * (row - 2.0 * (0.5 * row).floor())) * 0.5, u)
    column = u_bricks.floor()
    inside_u, inside_v = u_bricks - column, v - row
    wood = pattern == WOOD
    # One look into the noise serves all: long grain for wood, soft clouds on plain walls, specks for carpets.
    stretch_u = torch.where(wood, 0.7, torch.where(pattern == SPECKLE, 7.0, 0.9))
    stretch_v = torch.where(wood, 9.0, torch.where(pattern == SPECKLE, 7.0, 0.9))
    grain = noise(u * stretch_u + offset + torch.where(wood, row * 17.0, 0.0), v * stretch_v + offset)
    tone = noise(column * 3.7 + offset, row * 5.3 + offset)
    even = column + row - 2.0 * (0.5 * (column + row)).floor()
    checker = torch.where(even > 0.5, 1.0, 0.0)
    stripes = torch.where(inside_v < 0.45, 1.0, 0.0)
    joint = torch.where(torch.minimum(inside_u, inside_v) < 0.07, 1.0, 0.45 * tone)
    planks = torch.where(inside_v < 0.035, 1.0, 0.45 * grain + 0.35 * noise(row * 7.3 + offset, offset))
    sharp = torch.where(pattern == CHECKER, 0.9 * checker + 0.1 * grain, 0.25 * grain)
    sharp = torch.where(pattern == STRIPES, 0.9 * stripes + 0.1 * grain, sharp)
    sharp = torch.where((pattern == TILES) | (pattern == BRICKS), joint, sharp)
    sharp = torch.where(wood, planks, sharp)
    sharp = torch.where(pattern == SPECKLE, grain, sharp)
    mean = torch.where((pattern == CHECKER) | (pattern == STRIPES) | (pattern == SPECKLE), 0.48, 0.3)
    mean = torch.where(pattern == PLAIN, 0.12, mean)
    fine = torch.where(pattern == SPECKLE, 7.0, torch.where(wood, 3.0, 1.5)) * footprint
    return mean + (sharp - mean) / (1.0 + fine * fine)

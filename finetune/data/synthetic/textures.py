"""Procedural materials, from plain paint to shelves of books and fronts of houses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.data.synthetic.rng import Rng

PATTERNS = range(13)
PLAIN, CHECKER, STRIPES, TILES, BRICKS, WOOD, SPECKLE, CLOUDS, BOOKS, POSTER, DOTS, FRONT, WEAVE = PATTERNS
LATTICE = 256

# How often the fine noise changes within a period of the pattern, across and along it.
#          plain check strip tiles brick wood  speck cloud books poster dots front weave
_GRAIN_U = (0.9, 0.9, 0.9, 1.3, 1.7, 0.7, 7.0, 2.3, 0.9, 1.9, 0.9, 0.9, 8.0)
_GRAIN_V = (0.9, 0.9, 0.9, 1.3, 1.7, 9.0, 7.0, 2.1, 5.0, 9.0, 0.9, 0.9, 2.0)
# How many details a period of the pattern has, and the mean share of its other color.
_FINENESS = (1.5, 1.5, 1.5, 1.5, 1.5, 3.0, 7.0, 2.0, 2.0, 3.0, 1.5, 1.5, 4.0)
_MEAN = (0.1, 0.48, 0.45, 0.3, 0.3, 0.4, 0.48, 0.5, 0.5, 0.5, 0.25, 0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class Materials:
    """M materials in each frame.

    Attributes:
        pattern: (B, M) int64, one of ``PATTERNS``.
        color, other, third: (B, M, 3) linear RGB reflectance; the pattern mixes them.
        period_m: (B, M) size of the pattern.
        swapped: (B, M) bool, whether the pattern is turned by 90 degrees.
        offset: (B, M) where in the noise the surface begins.
        stain: (B, M) share of the reflectance that stains take away.
        gloss: (B, M) reflectance of its polish, for highlights.
        glow: (B, M) light that it gives off, in units of its reflectance.
    """

    pattern: Tensor
    color: Tensor
    other: Tensor
    third: Tensor
    period_m: Tensor
    swapped: Tensor
    offset: Tensor
    stain: Tensor
    gloss: Tensor
    glow: Tensor


class Palette(NamedTuple):
    """Ranges of colors: the brightest channel, 0 to 1 as displayed, and the distance from gray, 0 to 1."""

    value: tuple[float, float]
    saturation: tuple[float, float]


def select_materials(mask: Tensor, chosen: Materials, other: Materials) -> Materials:
    """For each surface the material of ``chosen`` where ``mask``, (B, M) or (B, 1) bool, is True, else of ``other``."""

    def select(name: str) -> Tensor:
        a, b = getattr(chosen, name), getattr(other, name)
        return torch.where(mask[..., None] if a.ndim == 3 else mask, a, b)

    return Materials(**{name: select(name) for name in vars(chosen)})


def draw_materials(
    rng: Rng,
    count: int,
    *,
    weights: dict[int, float],
    palette: Palette,
    period_m: tuple[float, float],
    contrast: tuple[float, float] = (0.35, 0.85),
    gloss: float = 0.3,
) -> Materials:
    """
    Args:
        rng: one row per frame.
        count: how many materials a frame has, M.
        weights: how often each pattern is drawn, relative to the others.
        palette: ranges of their colors.
        period_m: range of the pattern's size.
        contrast: range of the other color's brightness, as a share of the first's.
        gloss: the highest gloss; most materials have far less.
    """
    pattern = rng.choice([weights.get(pattern, 0.0) for pattern in PATTERNS], count)
    # Most things in the world are muted; some are not.
    vivid = rng.uniform(0.0, 1.0, count, 1).square()
    grayest, purest = palette.saturation
    tint = (grayest + (purest - grayest) * vivid) * rng.uniform(0.0, 1.0, count, 3)
    # Wood is brown, whatever the palette.
    brown = torch.tensor([0.0, 0.3, 0.55]) + 0.12 * rng.uniform(-1.0, 1.0, count, 1)
    tint = torch.where((pattern == WOOD)[..., None], brown.clamp(0.0, 0.8), tint)
    shown = rng.uniform(*palette.value, count, 1) * (1.0 - tint)
    other = shown * rng.uniform(*contrast, count, 1) * (1.0 - 0.25 * rng.uniform(0.0, 1.0, count, 3))
    # In both directions: light grout between dark bricks, and dark grout between light ones.
    flipped = rng.chance(0.4, count)[..., None]
    # Books, prints and house fronts have colors of their own.
    loose = torch.isin(pattern, torch.tensor([BOOKS, POSTER, FRONT]))[..., None]
    free = rng.uniform(0.08, 0.95, count, 3)
    third = rng.uniform(0.08, 0.95, count, 1) * (1.0 - 0.8 * rng.uniform(0.0, 1.0, count, 3).square())
    other = torch.where(loose, free, other)
    return Materials(
        pattern=pattern,
        color=torch.where(flipped, other, shown).square(),
        other=torch.where(flipped, shown, other).square(),
        third=torch.where(loose, third, shown).square(),
        period_m=rng.uniform(*period_m, count),
        swapped=rng.chance(0.5, count) & ~torch.isin(pattern, torch.tensor([BOOKS, FRONT])),
        offset=rng.uniform(0.0, float(LATTICE), count),
        stain=0.35 * rng.uniform(0.0, 1.0, count).square(),
        gloss=gloss * rng.uniform(0.0, 1.0, count).square(),
        glow=torch.zeros(len(rng), count),
    )


@cache
def _lattice(device: torch.device) -> Tensor:
    values = np.random.default_rng(0).random(LATTICE * LATTICE, dtype=np.float32)
    return torch.from_numpy(values).to(device)


def random_cell(u: Tensor, v: Tensor) -> Tensor:
    """A random number, 0 to 1, for each pair of whole numbers; it repeats after ``LATTICE``."""
    wrapped = (v.to(torch.int32) & (LATTICE - 1)) * LATTICE + (u.to(torch.int32) & (LATTICE - 1))
    return _lattice(u.device)[wrapped]


def value_noise(u: Tensor, v: Tensor) -> Tensor:
    """Value noise of period ``LATTICE``: random at integers and smooth between them, from 0 to 1, with mean 0.5."""
    u0, v0 = u.floor(), v.floor()
    s, t = u - u0, v - v0
    s, t = s * s * (3.0 - 2.0 * s), t * t * (3.0 - 2.0 * t)
    left, top = u0.to(torch.int32) & (LATTICE - 1), v0.to(torch.int32) & (LATTICE - 1)
    right, bottom = (left + 1) & (LATTICE - 1), ((top + 1) & (LATTICE - 1)) * LATTICE
    top = top * LATTICE
    lattice = _lattice(u.device)
    upper, lower = lattice[top + left], lattice[bottom + left]
    upper = upper + (lattice[top + right] - upper) * s
    lower = lower + (lattice[bottom + right] - lower) * s
    return upper + (lower - upper) * t


@dataclass(frozen=True)
class Mixture:
    """The color of each point in a pattern: shares of the other and of the third color, and a factor of brightness."""

    other: Tensor
    third: Tensor
    shade: Tensor


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """The cell of the pattern around each point, such as a tile or a brick; the tensors have the shape of the points.

    Attributes:
        inside_u, inside_v: position in the cell, 0 to 1.
        even: 0 or 1, alternating as on a chessboard.
        first, second: random numbers of the cell, 0 to 1.
        fine, coarse: noise at the point, 0 to 1; the fine one has the pattern's grain.
    """

    inside_u: Tensor
    inside_v: Tensor
    even: Tensor
    first: Tensor
    second: Tensor
    fine: Tensor
    coarse: Tensor

    @property
    def edge(self) -> Tensor:
        """Distance to the nearest edge of the cell, 0 to 0.5."""
        to_u, to_v = (torch.minimum(inside, 1.0 - inside) for inside in (self.inside_u, self.inside_v))
        return torch.minimum(to_u, to_v)


def mix_pattern(pattern: Tensor, u: Tensor, v: Tensor, offset: Tensor, stain: Tensor, footprint: Tensor) -> Mixture:
    """
    Args:
        pattern: number of the pattern.
        u, v: position on the surface, in periods.
        offset: position in the noise, in periods.
        stain: most of the light that stains take away, as a share.
        footprint: size of a pixel on the surface, in periods. The pattern fades to its mean where this approaches 1,
            since such pixels cannot show it and would flicker.

    Returns:
        Shares from 0 to 1, in the shape of the arguments.
    """
    cells = _find_cells(pattern, u, v, offset)
    edge = cells.edge
    shown = 1.0 / (1.0 + (footprint * _per_pattern(pattern, _FINENESS)).square())
    mean = _per_pattern(pattern, _MEAN)
    other = _other_color(pattern, cells, edge)
    in_shelf = (cells.inside_v > 0.62 + 0.3 * cells.second) | (cells.inside_u < 0.08)
    shade = torch.where((pattern == BOOKS) & in_shelf, 0.12, 1.0)
    return Mixture(
        other=mean + (other.clamp(0.0, 1.0) - mean) * shown,
        third=_third_color(pattern, cells, edge) * shown,
        shade=(1.0 + (shade - 1.0) * shown) * (1.0 - stain * cells.coarse),
    )


def _find_cells(pattern: Tensor, u: Tensor, v: Tensor, offset: Tensor) -> _Cells:
    row = v.floor()
    staggered = (pattern == BRICKS) | (pattern == WOOD)
    shift = torch.where(staggered, 0.5 * row - (0.5 * row).floor(), 0.0)
    u = torch.where(staggered, 0.5 * u + shift, u)
    column = u.floor()
    whole = (offset * 16.0).floor()
    shelf = torch.where(pattern == BOOKS, 0.0, row)  # a book is as high as its shelf
    first = random_cell(column * 7.0 + whole, shelf * 13.0 + row * 3.0)
    return _Cells(
        inside_u=u - column,
        inside_v=v - row,
        even=column + row - 2.0 * (0.5 * (column + row)).floor(),
        first=first,
        second=random_cell(column * 11.0 + 5.0 * whole, row * 17.0 + 3.0),
        fine=value_noise(
            u * _per_pattern(pattern, _GRAIN_U) + offset, v * _per_pattern(pattern, _GRAIN_V) + offset + first
        ),
        coarse=value_noise(0.55 * u + 1.7 * offset, 0.55 * v + offset),
    )


def _other_color(pattern: Tensor, cells: _Cells, edge: Tensor) -> Tensor:
    """Share of the pattern's other color, before clamping to 0 to 1."""
    u, v, fine, first = cells.inside_u, cells.inside_v, cells.fine, cells.first
    from_middle = (u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5)
    joint = torch.where(edge < 0.045, 1.0, 0.4 * first)
    other = 0.2 * fine
    other = torch.where(pattern == CHECKER, 0.9 * cells.even.clamp(0.0, 1.0) + 0.1 * fine, other)
    other = torch.where(pattern == STRIPES, torch.where(v < 0.45, 0.9, 0.0) + 0.1 * fine, other)
    other = torch.where((pattern == TILES) | (pattern == BRICKS), joint + 0.12 * fine, other)
    other = torch.where(pattern == WOOD, torch.where(edge < 0.012, 1.0, 0.5 * fine + 0.35 * first), other)
    other = torch.where(pattern == SPECKLE, fine, other)
    other = torch.where(pattern == CLOUDS, 0.7 * cells.coarse + 0.3 * fine, other)
    other = torch.where(pattern == DOTS, torch.where(from_middle < 0.07, 0.9, 0.05), other)
    other = torch.where(pattern == WEAVE, 0.5 * fine + torch.where(cells.even > 0.5, u, v) * 0.5, other)
    printed = (pattern == POSTER) | (pattern == BOOKS) | (pattern == FRONT)
    return torch.where(printed, cells.second * torch.where(pattern == FRONT, 0.4, 1.0), other)


def _third_color(pattern: Tensor, cells: _Cells, edge: Tensor) -> Tensor:
    """Share of the third color: print on a poster, spines of some books, windows of a house."""
    lines = (cells.fine > 0.62) & (cells.first < 0.6)
    window = (edge > 0.14) & (cells.inside_u > 0.22) & (cells.inside_u < 0.78)
    third = torch.where((pattern == POSTER) & (lines | (cells.first > 0.75)), 0.9, 0.0)
    third = torch.where((pattern == BOOKS) & (cells.first > 0.5), 2.0 * cells.first - 1.0, third)
    return torch.where((pattern == FRONT) & window, 0.95, third)


@cache
def _table(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)


def _per_pattern(pattern: Tensor, values: tuple[float, ...]) -> Tensor:
    return _table(values, pattern.device)[pattern]

"""Draw color and exact depth of worlds as cameras see them, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.culling import seen_by_tiles
from finetune.data.synthetic.lighting import CONTACT_M, add_air, contact_shade, light_surfaces
from finetune.data.synthetic.rays import SKY_M, Candidates, Vector, nearest_hit
from finetune.data.synthetic.rng import square_root
from finetune.data.synthetic.surfaces import describe_surfaces
from finetune.data.synthetic.worlds import Worlds

TILE = 14  # pixels a side


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """B frames as a camera without faults would see them.

    Attributes:
        light: (B, H, W, 3) float32 linear RGB, before exposure.
        depth_m: (B, H, W) float32 along the optical axis, exact at the centers of the pixels; infinite in the sky.
        point_m: x, y, z, (B, H, W) each: the surface in the world.
        incidence: (B, H, W) cosine between the surface's normal and the way to the camera, 0 to 1.
        reflectance: (B, H, W) mean of the surface's linear RGB reflectance, 0 to 1.
    """

    light: Tensor
    depth_m: Tensor
    point_m: Vector
    incidence: Tensor
    reflectance: Tensor


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """The rays of B frames of rows x columns tiles, T tiles in all.

    Attributes:
        frame: (T,) int64.
        across, along: (T, S) where they meet the plane at depth 1; S is TILE^2 pixels, followed by (TILE + 1)^2
            corners where these are drawn.
        edges: (B, columns + 1) and (B, rows + 1), where tiles begin and end in that plane.
    """

    frame: Tensor
    across: Tensor
    along: Tensor
    columns: int
    rows: int
    edges: tuple[Tensor, Tensor]


def draw_frames(worlds: Worlds, cameras: Cameras, height: int, width: int, *, smooth: bool = False) -> Drawing:
    """
    Args:
        worlds: B worlds.
        cameras: B cameras, one in each.
        height, width: of the images, pixels.
        smooth: draw the corners of pixels as well, so that edges of the image have no steps; depth stays that of the
            centers. Takes twice as long.
    """
    solids = worlds.solids
    tiles = _make_tiles(cameras, height, width, smooth)
    direction = cameras.directions(tiles.frame, tiles.across, tiles.along)
    depth_m, hit = nearest_hit(solids, tiles.frame, cameras.place_m, direction, _seen_bodies(worlds, cameras, tiles))
    surface = describe_surfaces(worlds, cameras, tiles.frame, direction, depth_m, hit)
    contact = contact_shade(solids, tiles.frame, surface, hit, _seen_bodies(worlds, cameras, tiles, CONTACT_M))
    light = light_surfaces(solids, worlds.lights, tiles.frame, surface, contact)
    light = add_air(worlds.lights, tiles.frame, direction, depth_m, light)
    red, green, blue = surface.color
    whole = [_assemble(part, tiles, height, width) for part in (depth_m, *surface.point_m, surface.incidence)]
    return Drawing(
        light=torch.stack([_assemble(part, tiles, height, width, smooth) for part in light], dim=-1),
        depth_m=torch.where(whole[0] < SKY_M, whole[0], torch.inf),
        point_m=(whole[1], whole[2], whole[3]),
        incidence=whole[4],
        reflectance=_assemble((red + green + blue) / 3.0, tiles, height, width),
    )


def _seen_bodies(worlds: Worlds, cameras: Cameras, tiles: _Tiles, margin_m: float = 0.0) -> Candidates:
    """Which bodies, enlarged by ``margin_m``, each tile may show."""
    return [
        seen_by_tiles(bodies, cameras.place_m, cameras.axes, tiles.edges, margin_m).flatten(0, 1)
        for bodies in worlds.solids.shapes
    ]


def develop(light: Tensor, stops: Tensor | None = None) -> Tensor:
    """Linear light -> displayed RGB, 0 to 1: exposure by the mean of each frame, a soft shoulder, gamma 2.

    Args:
        light: (B, H, W, 3).
        stops: (B,) overexposure of each frame, in factors of 2.
    """
    # Whole numbers have the same sum in any order. Glare counts up to a limit.
    counts = (light.clamp_max(4.0) * 4096.0).long().flatten(1).sum(1)
    mean = counts.float() / (4096.0 * light[0].numel())
    gain = 0.42 / mean.clamp_min(1e-3)
    if stops is not None:
        gain = gain * (2.0 ** stops.double()).float()
    exposed = light * gain[:, None, None, None]
    return square_root((exposed * (1.0 + exposed / 4.0) / (1.0 + exposed)).clamp(0.0, 1.0))


def to_uint8(image: Tensor) -> Tensor:
    """(B, H, W, 3) displayed RGB, 0 to 1 -> uint8."""
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8)


def _make_tiles(cameras: Cameras, height: int, width: int, smooth: bool) -> _Tiles:
    """Tiles that cover images of this size; those at the right and at the bottom may extend beyond it."""
    device = cameras.place_m.device
    columns, rows = -(-width // TILE), -(-height // TILE)
    x = torch.arange(columns * TILE, device=device, dtype=torch.float32)
    y = torch.arange(rows * TILE, device=device, dtype=torch.float32)
    across, along = cameras.in_plane(x, y)
    sites = [_tile_sites(across, along, columns, rows, TILE)]
    if smooth:
        between = torch.arange(TILE + 1, device=device, dtype=torch.float32) - 0.5
        starts_x, starts_y = x[::TILE, None] + between, y[::TILE, None] + between
        sites.append(_tile_sites(*cameras.in_plane(starts_x.flatten(), starts_y.flatten()), columns, rows, TILE + 1))
    # Tiles end at edges of pixels, where the next tile begins.
    edges = cameras.in_plane(
        torch.arange(columns + 1, device=device) * TILE - 0.5, torch.arange(rows + 1, device=device) * TILE - 0.5
    )
    return _Tiles(
        frame=torch.arange(len(across), device=device).repeat_interleave(rows * columns),
        across=torch.cat([site[0] for site in sites], dim=1),
        along=torch.cat([site[1] for site in sites], dim=1),
        columns=columns,
        rows=rows,
        edges=edges,
    )


def _tile_sites(across: Tensor, along: Tensor, columns: int, rows: int, side: int) -> tuple[Tensor, Tensor]:
    """(B, columns * side) and (B, rows * side) -> both (B * rows * columns, side * side), tile by tile."""
    shape = (len(across), rows, columns, side, side)
    x = across.view(-1, 1, columns, 1, side).expand(shape)
    y = along.view(-1, rows, 1, side, 1).expand(shape)
    return x.reshape(-1, side * side), y.reshape(-1, side * side)


def _assemble(part: Tensor, tiles: _Tiles, height: int, width: int, smooth: bool = False) -> Tensor:
    """(T, S) in tiles -> (B, height, width); with ``smooth``, pixels are half their center, half their corners."""
    centers = part[:, : TILE * TILE].view(-1, TILE, TILE)
    if smooth:
        corners = part[:, TILE * TILE :].view(-1, TILE + 1, TILE + 1)
        around = corners[:, :-1, :-1] + corners[:, :-1, 1:] + corners[:, 1:, :-1] + corners[:, 1:, 1:]
        centers = 0.5 * centers + 0.125 * around
    image = centers.view(-1, tiles.rows, tiles.columns, TILE, TILE).transpose(2, 3)
    return image.reshape(-1, tiles.rows * TILE, tiles.columns * TILE)[:, :height, :width]

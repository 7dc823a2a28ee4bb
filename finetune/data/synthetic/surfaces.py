"""The surfaces that rays met: where they are, which way they face, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.rays import SKY_M, Solids, Vector, rotate
from finetune.data.synthetic.rng import square_root
from finetune.data.synthetic.textures import Materials, mix_pattern
from finetune.data.synthetic.worlds import FACES, Worlds

BASEBOARD_M = 0.07
BASEBOARD_SHADE = 0.35


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The surfaces that T rows of S rays met, (T, S) each.

    Attributes:
        point_m: point in the world; a million meters away in the sky.
        normal: unit vector towards the open side.
        back: unit vector to the camera.
        incidence: cosine between the two, 0 to 1.
        color: linear RGB reflectance, 0 to 1.
        gloss: reflectance of its polish, for highlights.
        glow: light that it gives off, in units of its reflectance.
    """

    point_m: Vector
    normal: Vector
    back: Vector
    incidence: Tensor
    color: Vector
    gloss: Tensor
    glow: Tensor


def describe_surfaces(
    worlds: Worlds, cameras: Cameras, frame: Tensor, direction: Vector, depth_m: Tensor, hit: Tensor
) -> Surface:
    """
    Args:
        worlds, cameras: B of each.
        frame: (T,) int64, the world of each row of rays.
        direction: x, y, z of the rays, (T, S) each, up to depth 1 m along the optical axis.
        depth_m, hit: (T, S), what ``nearest_hit`` found along them.
    """
    solids = worlds.solids
    reached_m = depth_m.clamp_max(SKY_M)
    point_m = _vector(*(cameras.place_m[frame, i, None] + reached_m * part for i, part in enumerate(direction)))
    length = square_root(direction[0].square() + direction[1].square() + direction[2].square())
    back = _vector(*(-part / length for part in direction))
    body = hit + (frame * (len(solids) + 1))[:, None]
    center_m, half_m, (cos, sin), (first_material,) = (
        [part[body] for part in table] for table in _tabulate_bodies(worlds)
    )
    away = [part - middle for part, middle in zip(point_m, center_m, strict=True)]
    local_m = _vector(*rotate(away[0], away[1], cos, sin), away[2])
    normal, on_surface_m, face = _find_faces(solids, hit, local_m, _vector(*half_m))
    normal = _vector(*rotate(normal[0], normal[1], cos, -sin), normal[2])
    facing = normal[0] * back[0] + normal[1] * back[1] + normal[2] * back[2]
    incidence = facing.clamp(0.0, 1.0)
    pixel_m = reached_m * length / (cameras.focal_px[frame, :1] * incidence.clamp_min(0.05))
    number = first_material + face + (frame * worlds.materials.pattern.shape[1])[:, None]
    # Whatever has a material of the room is a wall of it.
    of_room = first_material >= worlds.materials.pattern.shape[1] - FACES
    on_baseboard = of_room & (face < 4) & (point_m[2] < BASEBOARD_M)
    return Surface(
        point_m=point_m,
        normal=normal,
        back=back,
        incidence=incidence,
        color=_paint_points(worlds.materials, number, on_surface_m, pixel_m, on_baseboard),
        gloss=worlds.materials.gloss.reshape(-1)[number],
        glow=worlds.materials.glow.reshape(-1)[number],
    )


def _vector(x: Tensor, y: Tensor, z: Tensor) -> Vector:
    return x, y, z


def _paint_points(
    materials: Materials, number: Tensor, on_surface_m: tuple[Tensor, Tensor], pixel_m: Tensor, on_baseboard: Tensor
) -> Vector:
    """
    Args:
        materials: of B worlds.
        number: (T, S) int64, the material of each point, numbered through all worlds.
        on_surface_m: where on the surface each point is, (T, S) each.
        pixel_m: (T, S) size of a pixel there.
        on_baseboard: (T, S) bool.

    Returns:
        Linear RGB reflectance, (T, S) each.
    """

    def of_points(values: Tensor) -> Tensor:
        return values.reshape(-1)[number]

    across_m, along_m = on_surface_m
    period_m, swapped = of_points(materials.period_m), of_points(materials.swapped)
    mix = mix_pattern(
        of_points(materials.pattern),
        torch.where(swapped, along_m, across_m) / period_m,
        torch.where(swapped, across_m, along_m) / period_m,
        of_points(materials.offset),
        of_points(materials.stain),
        pixel_m / period_m,
    )
    shade = mix.shade * torch.where(on_baseboard, BASEBOARD_SHADE, 1.0)
    color = []
    for i in range(3):
        first, second, third = (of_points(part[..., i]) for part in (materials.color, materials.other, materials.third))
        blend = first + (second - first) * mix.other
        color.append((blend + (third - blend) * mix.third) * shade)
    return _vector(*color)


def _find_faces(
    solids: Solids, hit: Tensor, local: Vector, half: Vector
) -> tuple[Vector, tuple[Tensor, Tensor], Tensor]:
    """
    Args:
        solids: of the worlds.
        hit: (T, S) int64, which body each ray met.
        local: (T, S) each, the points in the axes of their bodies, meters from the center.
        half: (T, S) each, half sizes of the bodies, meters.

    Returns:
        Unit normals in the body's axes, towards the open side; two coordinates on the surface, meters; and for the room
        which of its ``FACES`` it is, else 0. All are (T, S).
    """
    boxes, cylinders = len(solids.boxes), len(solids.cylinders)
    room = hit == len(solids)
    ball = (hit >= boxes + cylinders) & ~room
    tube = (hit >= boxes) & (hit < boxes + cylinders)
    share = [part / size for part, size in zip(local, half, strict=True)]
    size = [part.abs() for part in share]
    around = square_root(share[0] * share[0] + share[1] * share[1])
    on_x = (size[0] >= size[1]) & (size[0] >= size[2])
    on_y = ~on_x & (size[1] >= size[2])
    on_z = torch.where(tube, size[2] >= around, ~(on_x | on_y))
    on_x, on_y = on_x & ~on_z, on_y & ~on_z
    sign = torch.where(room, -1.0, 1.0)
    flat = [
        torch.where(face, torch.where(part > 0, sign, -sign), 0.0)
        for face, part in zip((on_x, on_y, on_z), share, strict=True)
    ]
    # The normal of an ellipsoid is that of the unit ball, with each component divided by the half size once more.
    slope = [part / size for part, size in zip(share, half, strict=True)]
    slope[2] = torch.where(tube, 0.0, slope[2])
    steep = square_root(slope[0] * slope[0] + slope[1] * slope[1] + slope[2] * slope[2]).clamp_min(1e-6)
    curved = ball | (tube & ~on_z)
    x, y, z = (torch.where(curved, part / steep, plane) for part, plane in zip(slope, flat, strict=True))
    # Around a tube, a coordinate that needs no arc tangent: it grows evenly along the edges of a square on its corner.
    round_x = share[0] / (share[0].abs() + share[1].abs()).clamp_min(1e-6)
    way = torch.where(share[1] > 0, 1.0 - round_x, round_x - 1.0) * 1.57 * half[0]
    across = torch.where(curved, way, torch.where(on_x, local[1], local[0]))
    along = torch.where(on_z & ~curved, local[1], local[2])
    side = torch.where(on_x, local[0], torch.where(on_y, local[1], local[2])) > 0
    face = torch.where(on_x, 0, torch.where(on_y, 2, 4)) + side.long()
    return (x, y, z), (across, along), torch.where(room, face, 0)


def _tabulate_bodies(worlds: Worlds) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Center (3), half size (3), turn (2) and first material (1) of every body and the room, world after world."""
    solids = worlds.solids
    middle = 0.5 * solids.size_m[:, None]
    # Outdoors, the floor has no end.
    endless = middle * torch.tensor([1e5, 1e5, 1.0], device=middle.device)
    room = torch.where(solids.outdoors[:, None, None], endless, middle)
    straight = torch.tensor([1.0, 0.0], device=middle.device).expand(len(middle), 1, 2)
    faces = worlds.material.new_full((len(middle), 1), worlds.materials.pattern.shape[1] - FACES)
    center = torch.cat([*(bodies.center_m for bodies in solids.shapes), middle], dim=1)
    half = torch.cat([*(bodies.half_m for bodies in solids.shapes), room], dim=1)
    turn = torch.cat([*(bodies.turn for bodies in solids.shapes), straight], dim=1)
    center_m, half_m, turns = ([part.reshape(-1) for part in table.unbind(-1)] for table in (center, half, turn))
    return center_m, half_m, turns, [torch.cat([worlds.material, faces], dim=1).reshape(-1)]

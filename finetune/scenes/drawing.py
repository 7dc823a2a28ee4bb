"""Rooms and cameras -> color and exact depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.scenes.cameras import Cameras
from finetune.scenes.rays import Solids, Vector, nearest, nearest_distance, turned
from finetune.scenes.rooms import FACES, Lights, Rooms
from finetune.scenes.textures import mixture

SHADOW_BIAS = 2e-3  # of the way from the lamp to the surface; float32 places a surface to within 1e-6 of it
BASEBOARD_M = 0.07


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """B frames of what a camera without faults would see.

    Attributes:
        image: (B, H, W, 3) float32 RGB as displayed, 0 to 1.
        depth_m: (B, H, W) float32 along the optical axis, exact at the centers of the pixels.
        point_m: three of (B, H, W): the surface in the world.
        incidence: (B, H, W) cosine between the surface's normal and the way to the camera, 0 to 1.
        reflectance: (B, H, W) mean of the surface's linear RGB reflectance, 0 to 1.
    """

    image: Tensor
    depth_m: Tensor
    point_m: Vector
    incidence: Tensor
    reflectance: Tensor


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """What (B, P) rays met: place, unit normal and unit way back to the camera, reflectance, whether it is a wall."""

    point_m: Vector
    normal: Vector
    incidence: Tensor
    color: Vector


def draw(rooms: Rooms, cameras: Cameras, height: int, width: int) -> Drawing:
    """
    Args:
        rooms: B rooms.
        cameras: B cameras, one in each.
        height, width: of the images, pixels.
    """
    # Centers and corners of the pixels: depth is wanted at the centers, and with the corners, which four pixels share,
    # edges are smooth at two rays a pixel.
    x_px, y_px = _sites(height, width)
    direction = cameras.directions(x_px, y_px)
    depth_m, hit = nearest(rooms.solids, cameras.place_m, direction)
    surface = _surface(rooms, cameras, direction, depth_m, hit)
    light = _lit(rooms.solids, rooms.lights, surface)
    shape, cut = (len(depth_m), height, width), height * width
    image = [
        _smooth((color * lit)[:, :cut].view(shape), (color * lit)[:, cut:].view(-1, height + 1, width + 1))
        for color, lit in zip(surface.color, light, strict=True)
    ]
    x, y, z = (part[:, :cut].reshape(shape) for part in surface.point_m)
    red, green, blue = (part[:, :cut].reshape(shape) for part in surface.color)
    return Drawing(
        image=_developed(torch.stack(image, dim=-1)),
        depth_m=depth_m[:, :cut].reshape(shape),
        point_m=(x, y, z),
        incidence=surface.incidence[:, :cut].reshape(shape),
        reflectance=(red + green + blue) / 3.0,
    )


def to_uint8(image: Tensor) -> Tensor:
    """(B, H, W, 3) displayed RGB, 0 to 1 -> uint8."""
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8)


def _sites(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(height + 1.0), torch.arange(width + 1.0), indexing="ij")
    inner_x, inner_y = x[:height, :width], y[:height, :width]
    return torch.cat([inner_x.flatten(), x.flatten() - 0.5]), torch.cat([inner_y.flatten(), y.flatten() - 0.5])


def _smooth(centers: Tensor, corners: Tensor) -> Tensor:
    around = corners[:, :-1, :-1] + corners[:, :-1, 1:] + corners[:, 1:, :-1] + corners[:, 1:, 1:]
    return 0.5 * centers + 0.125 * around


def _developed(linear: Tensor) -> Tensor:
    """Exposure by the mean of the frame, a soft shoulder, gamma 2: linear light -> as displayed."""
    # Summed as whole numbers: those add up to the same in any order.
    counts = (linear * 4096.0).long().flatten(1).sum(1)
    mean = counts.float() / (4096.0 * linear[0].numel())
    exposed = linear * (0.42 / mean.clamp_min(1e-3))[:, None, None, None]
    return (exposed * (1.0 + exposed / 4.0) / (1.0 + exposed)).clamp(0.0, 1.0).sqrt()


def _surface(rooms: Rooms, cameras: Cameras, direction: Vector, depth_m: Tensor, hit: Tensor) -> _Surface:
    solids, materials = rooms.solids, rooms.materials
    origin = cameras.place_m[..., None].unbind(1)
    point: Vector = tuple(o + depth_m * d for o, d in zip(origin, direction, strict=True))  # type: ignore[assignment]
    center, half, turn, first_material = _bodies(rooms)
    cos, sin = (turn[..., i].gather(1, hit) for i in range(2))
    away = [part - center[..., i].gather(1, hit) for i, part in enumerate(point)]
    local_x, local_y = turned(away[0], away[1], cos, sin)
    local = (local_x, local_y, away[2])
    share = [part.abs() / half[..., i].gather(1, hit) for i, part in enumerate(local)]
    on_x = (share[0] >= share[1]) & (share[0] >= share[2])
    on_y = ~on_x & (share[1] >= share[2])
    on_z = ~(on_x | on_y)
    inside = hit == solids.boxes + solids.spheres
    normal = _normal(solids, hit, local, (on_x, on_y, on_z), inside, (cos, sin))
    length = (direction[0].square() + direction[1].square() + direction[2].square()).sqrt()
    facing = -(normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]) / length
    incidence = facing.clamp(0.0, 1.0)
    across = torch.where(on_x, local[1], local[0])
    along = torch.where(on_z, local[1], local[2])
    side = torch.where(on_x, local[0], torch.where(on_y, local[1], local[2])) > 0
    face = torch.where(on_x, 0, torch.where(on_y, 2, 4)) + side.long()
    number = first_material.gather(1, hit) + torch.where(inside, face, 0)
    period = materials.period_m.gather(1, number)
    swapped = materials.swapped.gather(1, number)
    pixel_m = depth_m * length / (cameras.focal_px[:, :1] * incidence.clamp_min(0.05))
    mix = mixture(
        materials.pattern.gather(1, number),
        torch.where(swapped, along, across) / period,
        torch.where(swapped, across, along) / period,
        materials.offset.gather(1, number),
        pixel_m / period,
    )
    board = torch.where(inside & ~on_z & (point[2] < BASEBOARD_M), 0.35, 1.0)
    color: Vector = tuple(  # type: ignore[assignment]
        board
        * (materials.color[..., i].gather(1, number) * (1.0 - mix) + materials.other[..., i].gather(1, number) * mix)
        for i in range(3)
    )
    return _Surface(point_m=point, normal=normal, incidence=incidence, color=color)


def _bodies(rooms: Rooms) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Center, half size, turn and first material of boxes, spheres and the room, in the order that hits count them."""
    solids = rooms.solids
    middle = 0.5 * solids.size_m[:, None]
    radius = solids.sphere_radius_m[..., None].expand(-1, -1, 3)
    straight = torch.tensor([1.0, 0.0], device=middle.device).expand(len(middle), solids.spheres + 1, 2)
    faces = torch.full_like(rooms.box_material[:, :1], rooms.materials.pattern.shape[1] - FACES)
    return (
        torch.cat([solids.box_center_m, solids.sphere_center_m, middle], dim=1),
        torch.cat([solids.box_half_m, radius, middle], dim=1),
        torch.cat([solids.box_turn, straight], dim=1),
        torch.cat([rooms.box_material, rooms.sphere_material, faces], dim=1),
    )


def _normal(
    solids: Solids, hit: Tensor, local: Vector, on: Vector, inside: Tensor, turn: tuple[Tensor, Tensor]
) -> Vector:
    """Unit normals in the world, towards the side that is open."""
    ball = (hit >= solids.boxes) & ~inside
    length = (local[0].square() + local[1].square() + local[2].square()).sqrt()
    sign = torch.where(inside, -1.0, 1.0)
    flat = [torch.where(face, torch.where(part > 0, sign, -sign), 0.0) for face, part in zip(on, local, strict=True)]
    x, y, z = (torch.where(ball, part / length, side) for part, side in zip(local, flat, strict=True))
    world_x, world_y = turned(x, y, turn[0], -turn[1])
    return world_x, world_y, z


def _lit(solids: Solids, lights: Lights, surface: _Surface) -> Vector:
    """Linear RGB light that falls on each point."""
    corner = _corner_shade(solids, surface)
    total = [lights.ambient[:, i, None] * corner for i in range(3)]
    for k in range(lights.place_m.shape[1]):
        lamp = lights.place_m[:, k]
        ray: Vector = tuple(p - lamp[:, i, None] for i, p in enumerate(surface.point_m))  # type: ignore[assignment]
        distance2 = ray[0].square() + ray[1].square() + ray[2].square()
        falling = -(ray[0] * surface.normal[0] + ray[1] * surface.normal[1] + ray[2] * surface.normal[2])
        reach = lights.reach_m[:, k, None]
        strength = (falling / distance2.sqrt()).clamp_min(0.0) / (1.0 + distance2 / (reach * reach))
        if k == 0:
            shadow = nearest_distance(solids, lamp, ray)
            strength = torch.where(shadow < 1.0 - SHADOW_BIAS, 0.0, strength)
        for i in range(3):
            total[i] = total[i] + lights.color[:, k, i, None] * strength
    return total[0], total[1], total[2]


def _corner_shade(solids: Solids, surface: _Surface) -> Tensor:
    """Ambient light is dimmer towards the edges of the room: by up to a third for each face but one's own."""
    shade = torch.ones_like(surface.incidence)
    for i, part in enumerate(surface.point_m):
        gap = torch.minimum(part, solids.size_m[:, i, None] - part) / 0.35
        near = 0.33 / (1.0 + gap * gap) * (1.0 - surface.normal[i].abs())
        shade = shade * (1.0 - near)
    return shade

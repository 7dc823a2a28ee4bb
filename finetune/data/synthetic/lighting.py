"""The light that surfaces send to the camera: from lamps and all around, with shadows, highlights and haze."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from finetune.data.synthetic.culling import bodies_in_the_way
from finetune.data.synthetic.rays import FAR, SKY_M, Candidates, Solids, Vector, nearest_distance, rotate, rows_of
from finetune.data.synthetic.rng import square_root
from finetune.data.synthetic.surfaces import Surface
from finetune.data.synthetic.textures import value_noise
from finetune.data.synthetic.worlds import Lights

CONTACT_M = 0.14  # distance up to which a body dims the light around it
CORNER_M = 0.35  # distance from an edge of a room at which half of its shade is left


def contact_shade(solids: Solids, frame: Tensor, surface: Surface, hit: Tensor, near: Candidates) -> Tensor:
    """
    Args:
        solids: B worlds.
        frame: (T,) int64, the world of each row.
        surface: what the rays met.
        hit: (T, S) int64, which body it belongs to; a body does not dim itself.
        near: bodies at most ``CONTACT_M`` away from what a row shows.

    Returns:
        (T, S) share of the light that is left next to bodies, which darken the floor around their feet.
    """
    shade = torch.ones_like(surface.incidence)
    before = 0
    for bodies, candidates in zip(solids.shapes, near, strict=True):
        turns = list(rows_of(bodies, frame, candidates))
        if turns:
            order = turns[0][0]
            x, y, z = (part[order] for part in surface.point_m)
            left, own = shade[order], hit[order] - before
            table = torch.cat([bodies.center_m, bodies.turn, bodies.half_m], dim=-1).flatten(0, 1)
            for rows, body in turns:
                n = len(rows)
                c_x, c_y, c_z, cos, sin, h_x, h_y, h_z = (part[:, None] for part in table[body].unbind(1))
                a_x, a_y = rotate(x[:n] - c_x, y[:n] - c_y, cos, sin)
                out_x, out_y = (a_x.abs() - h_x).clamp_min_(0.0), (a_y.abs() - h_y).clamp_min_(0.0)
                out_z = ((z[:n] - c_z).abs() - h_z).clamp_min_(0.0)
                gap2 = out_x.square() + out_y.square() + out_z.square()
                dim = (1.0 - gap2 / (CONTACT_M * CONTACT_M)).clamp_min_(0.0)
                number = (body - frame[rows] * len(bodies))[:, None]
                left[:n] *= 1.0 - 0.5 * dim * dim * (own[:n] != number)
            shade[order] = left
        before += len(bodies)
    return shade


def light_surfaces(solids: Solids, lights: Lights, frame: Tensor, surface: Surface, contact: Tensor) -> list[Tensor]:
    """
    Args:
        solids, lights: of B worlds.
        frame: (T,) int64, the world of each row.
        surface: what the rays met.
        contact: (T, S) share of the ambient light that is left.

    Returns:
        Linear RGB light that each point sends to the camera, (T, S) each.
    """
    dim = contact * _corner_shade(solids, frame, surface)
    falling = [lights.ambient[frame, i, None] * dim for i in range(3)]
    shine = [torch.zeros_like(dim) for _ in range(3)]
    for k in range(lights.place_m.shape[1]):
        strength, spot = _from_lamp(solids, lights, frame, surface, k)
        for i in range(3):
            color = lights.color[frame, k, i, None]
            falling[i] = falling[i] + color * strength
            shine[i] = shine[i] + color * spot
    return [
        part * (light + surface.glow) + surface.gloss * bright
        for part, light, bright in zip(surface.color, falling, shine, strict=True)
    ]


def _from_lamp(solids: Solids, lights: Lights, frame: Tensor, surface: Surface, k: int) -> tuple[Tensor, Tensor]:
    """(T, S) light of lamp k that falls on each point, and that of its highlight, as shares of the lamp's light."""
    x, y, z = (part - lights.place_m[frame, k, i, None] for i, part in enumerate(surface.point_m))
    distance2 = x.square() + y.square() + z.square()
    distance = square_root(distance2)
    facing = -(x * surface.normal[0] + y * surface.normal[1] + z * surface.normal[2]) / distance
    reach = lights.reach_m[frame, k, None]
    strength = facing.clamp_min(0.0) / (1.0 + distance2 / (reach * reach))
    if k == 0:
        strength = strength * _find_lit(solids, frame, lights.place_m[:, 0], (x, y, z), distance)
    # Blinn 1977: the cosine between the normal and halfway from lamp to camera, to the 32nd power.
    half = [back - part / distance for back, part in zip(surface.back, (x, y, z), strict=True)]
    length = square_root(half[0] * half[0] + half[1] * half[1] + half[2] * half[2]).clamp_min(1e-6)
    toward = (half[0] * surface.normal[0] + half[1] * surface.normal[1] + half[2] * surface.normal[2]) / length
    spot = toward.clamp_min(0.0)
    for _ in range(5):
        spot = spot * spot
    return strength, 3.0 * spot * strength


def _find_lit(solids: Solids, frame: Tensor, lamp_m: Tensor, ray: Vector, distance: Tensor) -> Tensor:
    """(T, S): 1 where nothing is between the lamp and the end of its ray, else 0."""
    ends = torch.stack([part + lamp_m[frame, i, None] for i, part in enumerate(ray)])
    # The sky has no shadow, and its far end would make the bounds contain everything.
    sky = distance > 0.5 * SKY_M
    low = torch.where(sky, 1e4, ends).amin(-1).T
    high = torch.where(sky, -1e4, ends).amax(-1).T
    between = [bodies_in_the_way(bodies, frame, lamp_m, low, high) for bodies in solids.shapes]
    shadow = nearest_distance(solids, frame, lamp_m, ray, between)
    # float32 places a surface to within a millionth of its distance.
    bias = (0.008 + 1e-4 * distance) / distance
    return torch.where((shadow < 1.0 - bias) & ~sky, 0.0, 1.0)


def _corner_shade(solids: Solids, frame: Tensor, surface: Surface) -> Tensor:
    """(T, S) share of the ambient light left near edges of a room: each other face takes up to a third."""
    shade = torch.ones_like(surface.incidence)
    inside = ~solids.outdoors[frame][:, None]
    for i, part in enumerate(surface.point_m):
        gap = torch.minimum(part, solids.size_m[frame, i, None] - part) / CORNER_M
        near = 0.33 / (1.0 + gap * gap) * (1.0 - surface.normal[i].abs())
        shade = shade * (1.0 - near * inside)
    return shade


def add_air(lights: Lights, frame: Tensor, direction: Vector, depth_m: Tensor, light: Sequence[Tensor]) -> list[Tensor]:
    """
    Args:
        lights: of B worlds.
        frame: (T,) int64, the world of each row of rays.
        direction: x, y, z of the rays, (T, S) each.
        depth_m: (T, S) how far along the rays a surface is.
        light: linear RGB that the surface sends, (T, S) each.

    Returns:
        The light behind haze, and a sky with clouds where no surface is.
    """
    x, y, z = direction
    height = (z / square_root(x * x + y * y + z * z)).clamp_min(0.0)
    flat = 2.0 / (height + 0.15)
    cloud = value_noise(x * flat + 40.0, y * flat + 40.0)
    length = depth_m * square_root(x * x + y * y + z * z)
    haze_m = lights.haze_m[frame][:, None]
    veil = torch.where(depth_m < SKY_M, length / (length + haze_m), 1.0)
    seen = []
    for i, part in enumerate(light):
        sky = lights.sky[frame, i, None]
        sky = sky + (0.9 - sky) * (0.7 * cloud * (1.0 - height))
        horizon = torch.where(depth_m < SKY_M, lights.sky[frame, i, None], sky)
        seen.append(torch.where(depth_m < FAR, part, 0.0) * (1.0 - veil) + horizon * veil)
    return seen

"""Cameras that stand free in a room and look at its furniture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.camera import Camera
from finetune.scenes.draws import Draws, cos_sin, pick
from finetune.scenes.rays import Solids, Vector, nearest_distance, turned
from finetune.scenes.rooms import Rooms

CANDIDATES = 24
CLEARANCE_M = 0.35
NEAREST_M = 0.7  # to the middle of what is looked at, over the floor


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """B pinhole cameras in the world. Pixel (0, 0) is the center of the top left pixel.

    Attributes:
        place_m: (B, 3).
        right, down, forward: (B, 3) the camera's axes in the world, unit length.
        focal_px: (B, 2) fx, fy.
        center_px: (B, 2) cx, cy.
    """

    place_m: Tensor
    right: Tensor
    down: Tensor
    forward: Tensor
    focal_px: Tensor
    center_px: Tensor

    def intrinsics(self, frame: int) -> Camera:
        """The camera of one frame, without its place."""
        fx, fy = self.focal_px[frame].tolist()
        cx, cy = self.center_px[frame].tolist()
        return Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)

    def directions(self, x_px: Tensor, y_px: Tensor) -> Vector:
        """Rays through the pixels (P,), as (B, P) world x, y, z; they reach depth 1 m at their end."""
        across = (x_px - self.center_px[:, :1]) / self.focal_px[:, :1]
        along = (y_px - self.center_px[:, 1:]) / self.focal_px[:, 1:]
        x, y, z = (
            self.right[:, i, None] * across + self.down[:, i, None] * along + self.forward[:, i, None] for i in range(3)
        )
        return x, y, z


def draw_intrinsics(draws: Draws, height: int, width: int, hfov_deg: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(B, 2) focal lengths and (B, 2) principal points, pixels, of a field of view drawn from ``hfov_deg``."""
    half_rad = draws.uniform(*hfov_deg, 1).double() * (torch.pi / 360.0)
    focal_px = (0.5 * width / half_rad.tan()).float()
    center_px = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(draws), 2)
    return focal_px.expand(-1, 2), center_px


def draw_cameras(draws: Draws, rooms: Rooms, focal_px: Tensor, center_px: Tensor) -> Cameras:
    """
    Args:
        draws: one row a camera.
        rooms: one room a camera.
        focal_px, center_px: (B, 2) intrinsics.
    """
    size_m = rooms.solids.size_m
    seen = (draws.uniform(0.0, 1.0, 1) * rooms.targets[:, None]).long()
    target = pick(rooms.target_m, seen)[:, 0]
    # An empty room has nothing to look at but its middle.
    target = torch.where(rooms.targets[:, None] > 0, target, 0.5 * size_m)
    place = _free_place(draws, rooms.solids, target)
    aim = target + draws.uniform(torch.tensor([-0.7, -0.7, -0.3]), torch.tensor([0.7, 0.7, 0.7]), 3)
    right, down, forward = looking(aim - place, draws.uniform(-0.07, 0.07))
    return Cameras(place_m=place, right=right, down=down, forward=forward, focal_px=focal_px, center_px=center_px)


def _free_place(draws: Draws, solids: Solids, target: Tensor) -> Tensor:
    """(B, 3), at a person's heights, the first of the places drawn that is free and sees the target (B, 3)."""
    lowest = torch.tensor([0.3, 0.3, 0.5])
    highest = solids.size_m - torch.tensor([0.3, 0.3, 0.4])
    highest = torch.cat([highest[:, :2], highest[:, 2:].clamp_max(1.9)], dim=1)
    places = lowest + (highest - lowest)[:, None] * draws.uniform(0.0, 1.0, CANDIDATES, 3)
    clear = clearance(solids, places)
    x, y, z = (places - target[:, None]).unbind(-1)
    # From inside a solid, where a target may lie, that solid does not stand in the way.
    sees = nearest_distance(solids, target, (x, y, z)) > 1.0
    good = (clear > CLEARANCE_M) & sees & (x * x + y * y > NEAREST_M * NEAREST_M)
    best = torch.where(good.any(1), good.long().argmax(1), clear.argmax(1))
    return pick(places, best[:, None])[:, 0]


def looking(towards: Tensor, roll_rad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right, down and forward (B, 3) of a camera that looks along ``towards`` (B, 3), at most 35 degrees up or down."""
    x, y, z = towards.unbind(1)
    # Straight up or down has no heading: take one.
    x = torch.where(torch.maximum(x.abs(), y.abs()) < 0.05, 0.1, x)
    level = (x * x + y * y).sqrt()
    z = torch.minimum(torch.maximum(z, -0.7 * level), 0.7 * level)
    length = (level * level + z * z).sqrt()
    ahead_x, ahead_y = x / level, y / level
    level, z = level / length, z / length
    zero = torch.zeros_like(z)
    forward = torch.stack([ahead_x * level, ahead_y * level, z], dim=1)
    right = torch.stack([ahead_y, -ahead_x, zero], dim=1)
    down = torch.stack([ahead_x * z, ahead_y * z, -level], dim=1)
    cos, sin = (part[:, None] for part in cos_sin(roll_rad))
    return cos * right + sin * down, cos * down - sin * right, forward


def clearance(solids: Solids, points_m: Tensor) -> Tensor:
    """(B, N) meters from the points (B, N, 3) to the nearest box or sphere; 0 or less inside one."""
    away = points_m[:, :, None] - solids.box_center_m[:, None]
    cos, sin = solids.box_turn[:, None].unbind(-1)
    x, y = turned(away[..., 0], away[..., 1], cos, sin)
    outside = torch.stack([x, y, away[..., 2]], dim=-1).abs() - solids.box_half_m[:, None]
    apart = outside.clamp_min(0.0)
    boxes = (apart[..., 0] * apart[..., 0] + apart[..., 1] * apart[..., 1] + apart[..., 2] * apart[..., 2]).sqrt()
    ball = points_m[:, :, None] - solids.sphere_center_m[:, None]
    reach = (ball[..., 0] * ball[..., 0] + ball[..., 1] * ball[..., 1] + ball[..., 2] * ball[..., 2]).sqrt()
    return torch.minimum(boxes.amin(-1), (reach - solids.sphere_radius_m[:, None]).amin(-1))

"""Cameras at free places of a world, which look at what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.data.camera import Camera
from finetune.data.synthetic.rays import Solids, Vector, nearest_distance, nearest_hit, rotate
from finetune.data.synthetic.rng import Rng, cos_sin, pick_rows, square_root
from finetune.data.synthetic.worlds import Worlds

CANDIDATES = 24  # places drawn for each camera
HEADINGS = 4  # directions drawn for a camera that looks at nothing in particular
CLEARANCE_M = 0.3  # least distance between a camera and anything else
LOWEST_M, HIGHEST_M = 0.25, 2.0  # over the floor
NEAREST_M = 0.6  # least distance to the middle of what a camera looks at, along the floor


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
        """Focal lengths and principal point of one frame's camera."""
        fx, fy = self.focal_px[frame].tolist()
        cx, cy = self.center_px[frame].tolist()
        return Camera(fx_px=fx, fy_px=fy, cx_px=cx, cy_px=cy)

    @property
    def axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Right, down and forward."""
        return self.right, self.down, self.forward

    def in_plane(self, x_px: Tensor, y_px: Tensor) -> tuple[Tensor, Tensor]:
        """Columns (N,) and rows (M,) in pixels -> (B, N) and (B, M) at depth 1."""
        across = (x_px - self.center_px[:, :1]) / self.focal_px[:, :1]
        along = (y_px - self.center_px[:, 1:]) / self.focal_px[:, 1:]
        return across, along

    def directions(self, frame: Tensor, across: Tensor, along: Tensor) -> Vector:
        """x, y, z of the rays from the cameras ``frame`` (T,) to points (T, S) of the plane at depth 1."""
        x, y, z = (
            self.right[frame, i, None] * across + self.down[frame, i, None] * along + self.forward[frame, i, None]
            for i in range(3)
        )
        return x, y, z


def draw_intrinsics(rng: Rng, height: int, width: int, hfov_deg: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """(B, 2) focal lengths and (B, 2) principal points, pixels, for a field of view drawn from ``hfov_deg``."""
    half_rad = rng.uniform(*hfov_deg, 1).double() * (torch.pi / 360.0)
    focal_px = (0.5 * width / half_rad.tan()).float()
    center_px = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(rng), 2)
    return focal_px.expand(-1, 2), center_px


def draw_cameras(
    rng: Rng,
    worlds: Worlds,
    focal_px: Tensor,
    center_px: Tensor,
    *,
    height_m: tuple[float, float] = (LOWEST_M, HIGHEST_M),
    look_down_deg: tuple[float, float] | None = None,
    roll_deg: float | None = None,
) -> Cameras:
    """
    Args:
        rng: one row per camera.
        worlds: one world per camera.
        focal_px, center_px: (B, 2) intrinsics.
        height_m: least and most height of a camera over the floor, meters.
        look_down_deg: least and most angle below the horizon, for a mounted camera; None: each camera looks at
            something, or ahead.
        roll_deg: the largest roll to either side, all equally likely; None: at most 17, mostly less than 5.
    """
    solids = worlds.solids
    seen = (rng.uniform(0.0, 1.0, 1) * worlds.targets[:, None]).long()
    target = pick_rows(worlds.target_m, seen)[:, 0]
    # In an empty room, a camera looks at the middle.
    target = torch.where(worlds.targets[:, None] > 0, target, 0.5 * solids.size_m)
    place = _free_place(rng, solids, target, height_m)
    aim = target + rng.uniform(torch.tensor([-0.7, -0.7, -0.3]), torch.tensor([0.7, 0.7, 0.7]), 3)
    towards = torch.where(rng.chance(0.65, 1), aim - place, _open_heading(rng, solids, place))
    level = torch.stack([towards[:, 0], towards[:, 1], rng.uniform(-0.2, 0.2) * towards[:, :2].abs().sum(1)], dim=1)
    towards = torch.where(solids.outdoors[:, None], level, towards)
    if look_down_deg is not None:
        down_rad = rng.uniform(*look_down_deg).double() * (torch.pi / 180.0)
        slope = -down_rad.tan().float() * square_root(towards[:, :2].square().sum(1))
        towards = torch.cat([towards[:, :2], slope[:, None]], dim=1)
    tilt = rng.uniform(-1.0, 1.0)
    roll_rad = 0.3 * tilt * tilt * tilt if roll_deg is None else tilt * math.radians(roll_deg)
    right, down, forward = look_along(towards, roll_rad)
    return Cameras(place_m=place, right=right, down=down, forward=forward, focal_px=focal_px, center_px=center_px)


def _free_place(rng: Rng, solids: Solids, target: Tensor, of_camera_m: tuple[float, float]) -> Tensor:
    """(B, 3): of the places drawn between two heights, the first that is free and sees the target."""
    level_m, height_m = solids.size_m[:, :2], solids.size_m[:, 2:]
    # In the open, a camera is in the middle of the plot, so that something is on every side.
    first = torch.where(solids.outdoors[:, None], 0.3 * level_m, CLEARANCE_M)
    last = torch.where(solids.outdoors[:, None], 0.7 * level_m, level_m - CLEARANCE_M)
    lowest = torch.cat([first, torch.full_like(height_m, of_camera_m[0])], dim=1)
    highest = torch.cat([last, (height_m - CLEARANCE_M).clamp_max(of_camera_m[1])], dim=1)
    places = lowest[:, None] + (highest - lowest)[:, None] * rng.uniform(0.0, 1.0, CANDIDATES, 3)
    clear = clearance(solids, places)
    x, y, z = (places - target[:, None]).unbind(-1)
    # The target may be inside a solid, which does not block rays that start in it.
    sees = nearest_distance(solids, torch.arange(len(places)), target, (x, y, z)) > 1.0
    good = (clear > CLEARANCE_M) & sees & (x * x + y * y > NEAREST_M * NEAREST_M)
    best = torch.where(good.any(1), good.long().argmax(1), clear.argmax(1))
    return pick_rows(places, best[:, None])[:, 0]


def _open_heading(rng: Rng, solids: Solids, place: Tensor) -> Tensor:
    """(B, 3): the most open of the directions drawn, as for a person or a robot on its way."""
    cos, sin = cos_sin(rng.uniform(0.0, 6.2831853, HEADINGS))
    headings = torch.stack([cos, sin, rng.uniform(-0.9, 0.15, HEADINGS)], dim=-1)
    x, y, z = headings.unbind(-1)
    ahead, _ = nearest_hit(solids, torch.arange(len(place)), place, (x, y, z))
    return pick_rows(headings, ahead.clamp_max(3.0).argmax(1)[:, None])[:, 0]


def look_along(towards: Tensor, roll_rad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right, down and forward (B, 3) of cameras that look along ``towards`` (B, 3), at most 50 degrees up or down."""
    x, y, z = towards.unbind(1)
    # Straight up or down has no heading, so one is chosen.
    x = torch.where(torch.maximum(x.abs(), y.abs()) < 0.05, 0.1, x)
    level = square_root(x * x + y * y)
    z = torch.minimum(torch.maximum(z, -1.2 * level), 1.2 * level)
    length = square_root(level * level + z * z)
    ahead_x, ahead_y = x / level, y / level
    level, z = level / length, z / length
    zero = torch.zeros_like(z)
    forward = torch.stack([ahead_x * level, ahead_y * level, z], dim=1)
    right = torch.stack([ahead_y, -ahead_x, zero], dim=1)
    down = torch.stack([ahead_x * z, ahead_y * z, -level], dim=1)
    cos, sin = (part[:, None] for part in cos_sin(roll_rad))
    return cos * right + sin * down, cos * down - sin * right, forward


def clearance(solids: Solids, points_m: Tensor) -> Tensor:
    """(B, N) meters from points (B, N, 3) to the box around the nearest body; 0 or less inside a box."""
    nearest_m = torch.full(points_m.shape[:2], 1e3)
    for bodies in solids.shapes:
        away = points_m[:, :, None] - bodies.center_m[:, None]
        x, y = rotate(away[..., 0], away[..., 1], *bodies.turn[:, None].unbind(-1))
        apart = (torch.stack([x, y, away[..., 2]], dim=-1).abs() - bodies.half_m[:, None]).clamp_min(0.0)
        x, y, z = apart.unbind(-1)
        if len(bodies):
            nearest_m = torch.minimum(nearest_m, square_root(x * x + y * y + z * z).amin(-1))
    return nearest_m

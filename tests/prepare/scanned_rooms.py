"""Drawn rooms that a scanner above the camera measures, with what the camera truly sees of each point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.synthetic.cameras import Cameras, draw_cameras, draw_intrinsics
from finetune.data.synthetic.rays import nearest_distance, nearest_hit
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.worlds import Worlds, draw_worlds
from finetune.prepare.calibration import CalibratedCamera

ABOVE_M, RIGHT_M = 0.5, 0.2
HEIGHT, WIDTH = 480, 640
# Lines, columns and field of view of an Ouster OS1-64, tilted down to cover what the camera sees.
LINES, COLUMNS, FOV_DEG = 64, 2048, (5.0, -40.0)
# What is nearer to the camera, the scanner does not measure: it is below its lowest line.
NEAREST_M = 1.2
# The least distance, in meters, by which a surface is in front of a point that it hides.
_HIDES_M = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class ScannedRoom:
    """
    Attributes:
        camera: of the image.
        points_m: (N, 3) in the frame of the scanner, meters; x ahead, y left, z up.
        color_from_lidar: (4, 4).
        visible: (N,) bool: no surface is between the camera and the point.
    """

    camera: CalibratedCamera
    points_m: NDArray[np.float64]
    color_from_lidar: NDArray[np.float64]
    visible: NDArray[np.bool_]


def draw_scanned_rooms(
    seed: int, count: int, *, fov_deg: tuple[float, float] = FOV_DEG, columns: int = COLUMNS
) -> list[ScannedRoom]:
    """
    Args:
        seed: other seeds give other rooms.
        count: how many rooms; those where a surface is between camera and scanner are left out.
        fov_deg: elevation of the highest and the lowest of the 64 lines.
        columns: of a whole turn.
    """
    rooms: list[ScannedRoom] = []
    index = 0
    while len(rooms) < count:
        rng = Rng(seed, [index])
        index += 1
        worlds = draw_worlds(rng, objects=(8, 14), outdoors=0.0)
        cameras = draw_cameras(rng, worlds, *draw_intrinsics(rng, HEIGHT, WIDTH, (50.0, 70.0)), height_m=(0.5, 1.6))
        room = _scan(worlds, cameras, fov_deg, columns)
        if room is not None:
            rooms.append(room)
    return rooms


def _scan(worlds: Worlds, cameras: Cameras, fov_deg: tuple[float, float], columns: int) -> ScannedRoom | None:
    axes = torch.stack(cameras.axes, dim=-1)[0].double().numpy()  # world from camera
    place = cameras.place_m[0].double().numpy()
    from_camera = axes @ (RIGHT_M, -ABOVE_M, 0.0)
    origin = place + from_camera
    size = worlds.solids.size_m[0].numpy()
    if not ((origin > 0.05) & (origin < size - 0.05)).all() or _first_hit(worlds, place, from_camera[None])[0] < 1.2:
        return None
    if _nearest_body_m(worlds, cameras, place, axes) < NEAREST_M:
        return None
    elevation = np.radians(np.linspace(*fov_deg, LINES))[:, None]
    azimuth = np.radians(np.arange(columns) * 360.0 / columns - 180.0)
    azimuth = azimuth[np.abs(azimuth) < np.radians(60.0)]  # the rest is beside or behind the camera
    directions = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation) + 0 * azimuth],
        axis=-1,
    ).reshape(-1, 3)
    color_from_lidar = np.eye(4)
    color_from_lidar[:3] = np.array([[0, -1, 0, RIGHT_M], [0, 0, -1, -ABOVE_M], [1, 0, 0, 0]])
    in_world = directions @ color_from_lidar[:3, :3].T @ axes.T
    distance, _ = nearest_hit(
        worlds.solids,
        torch.zeros(1, dtype=torch.int64),
        torch.from_numpy(origin).float()[None],
        tuple(torch.from_numpy(in_world).float().T[:, None]),
    )
    points = directions * distance[0].double().numpy()[:, None]
    seen = points @ color_from_lidar[:3, :3].T + color_from_lidar[:3, 3]
    ahead = seen[:, 2] > 0.05
    to_point = seen[ahead] @ axes.T
    reach = np.linalg.norm(to_point, axis=1)
    visible = _first_hit(worlds, place, to_point) * reach > reach - _HIDES_M
    camera = CalibratedCamera(camera=cameras.intrinsics(0), height=HEIGHT, width=WIDTH)
    return ScannedRoom(camera=camera, points_m=points[ahead], color_from_lidar=color_from_lidar, visible=visible)


def _nearest_body_m(worlds: Worlds, cameras: Cameras, place: NDArray[np.float64], axes: NDArray[np.float64]) -> float:
    """Depth of the nearest body in the image, by every tenth pixel, meters."""
    rays = cameras.intrinsics(0).rays(HEIGHT, WIDTH)[::10, ::10].reshape(-1, 3)
    return float(_first_hit(worlds, place, rays @ axes.T).min())


def _first_hit(worlds: Worlds, origin: NDArray[np.float64], directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) how far along each direction (N, 3) the first body is; the room is convex and hides nothing."""
    distance = nearest_distance(
        worlds.solids,
        torch.zeros(1, dtype=torch.int64),
        torch.from_numpy(origin).float()[None],
        tuple(torch.from_numpy(directions).float().T[:, None]),
    )
    return distance[0].double().numpy()

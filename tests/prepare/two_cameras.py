"""Drawn rooms as a depth camera and a color camera next to it see them, exact by ray casting."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from finetune.data.camera import Camera
from finetune.data.readers.intrinsics import Lens
from finetune.data.synthetic.cameras import Cameras, draw_cameras
from finetune.data.synthetic.drawing import develop, draw_frames, to_uint8
from finetune.data.synthetic.rays import nearest_hit
from finetune.data.synthetic.rng import Rng
from finetune.data.synthetic.worlds import draw_worlds
from finetune.prepare.calibration import CalibratedCamera, Rig
from finetune.prepare.projection import camera_rays, project_points

Floats = NDArray[np.float64]
_NEAR_M = 0.002
_COLOR_LENS = Lens(fisheye=False, coefficients=(0.09, -0.18, 0.001, -0.0007, 0.07))
_DEPTH_LENS = Lens(fisheye=False, coefficients=(0.08, -0.15, -0.0004, 0.0006, 0.05))


def make_rig(
    color: tuple[int, int, float] = (240, 320, 260.0),
    depth: tuple[int, int, float] = (120, 160, 105.0),
    *,
    pinholes: bool = False,
) -> Rig:
    """Height, width and focal length of each camera, pixels; both lenses bend, and the cameras are 5 cm apart."""
    cameras = [
        CalibratedCamera(
            camera=Camera(fx_px=focal, fy_px=1.003 * focal, cx_px=width / 2 + 1.6, cy_px=height / 2 - 1.1),
            height=height,
            width=width,
            lens=None if pinholes else lens,
        )
        for (height, width, focal), lens in ((color, _COLOR_LENS), (depth, _DEPTH_LENS))
    ]
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.01, -0.02, 0.013]).as_matrix()
    matrix[:3, 3] = (0.0495, 0.004, -0.0056)
    return Rig(color=cameras[0], depth=cameras[1], color_from_sensor=matrix)


class TwoViews:
    """A room with the two cameras of a rig in it; the depth camera is the one that ``draw_cameras`` placed."""

    def __init__(self, seed: int, rig: Rig) -> None:
        assert rig.depth is not None
        self.rig, self.depth_camera = rig, rig.depth
        rng = Rng(seed, [0])
        self._worlds = draw_worlds(rng, objects=(6, 14), outdoors=0.0, inner_walls=0.3, plain_floors=0.0)
        cameras = draw_cameras(rng, self._worlds, torch.full((1, 2), 500.0), torch.zeros(1, 2))
        self._axes = np.stack([axis[0].numpy() for axis in cameras.axes]).astype(np.float64)
        self._place = cameras.place_m[0].numpy().astype(np.float64)

    @cached_property
    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) what the depth camera measures, without noise."""
        rays = camera_rays(self.depth_camera)
        depth_m, _ = self.cast(np.nan_to_num(rays), color=False)
        return np.where(np.isfinite(rays[..., 0]) & np.isfinite(depth_m), depth_m, 0.0).astype(np.float32)

    def draw_color(self) -> NDArray[np.uint8]:
        """(H, W, 3) what the color camera sees, whose lens is a pinhole."""
        camera, matrix = self.rig.color, self.rig.color_from_sensor
        assert camera.lens is None
        axes = matrix[:3, :3] @ self._axes
        place = self._place - matrix[:3, 3] @ axes
        right, down, forward, place_m = (torch.from_numpy(part.astype(np.float32))[None] for part in (*axes, place))
        pinhole = camera.camera
        cameras = Cameras(
            place_m=place_m,
            right=right,
            down=down,
            forward=forward,
            focal_px=torch.tensor([[pinhole.fx_px, pinhole.fy_px]]),
            center_px=torch.tensor([[pinhole.cx_px, pinhole.cy_px]]),
        )
        drawing = draw_frames(self._worlds, cameras, camera.height, camera.width)
        return to_uint8(develop(drawing.light))[0].numpy()

    def cast(self, rays: Floats, *, color: bool) -> tuple[Floats, NDArray[np.int64]]:
        """(H, W) depth along the axis of one of the cameras at rays (H, W, 2) of its plane at depth 1, and what was
        hit."""
        matrix = self.rig.color_from_sensor
        axes, place = self._axes, self._place
        if color:
            place = place - matrix[:3, 3] @ matrix[:3, :3] @ axes
            axes = matrix[:3, :3] @ axes
        ways = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1).reshape(-1, 3) @ axes
        x, y, z = torch.from_numpy(ways.astype(np.float32)).T[:, None]
        origin = torch.from_numpy(place.astype(np.float32))[None]
        depth_m, hit = nearest_hit(self._worlds.solids, torch.tensor([0]), origin, (x, y, z))
        shape = rays.shape[:-1]
        return depth_m.numpy().reshape(shape).astype(np.float64), hit.numpy().reshape(shape)

    def seen_by_both(self, camera: CalibratedCamera, *, color: bool) -> NDArray[np.bool_]:
        """(H, W): pixels of ``camera`` whose surface the other camera sees too."""
        rays = np.nan_to_num(camera_rays(camera))
        matrix = self.rig.color_from_sensor if not color else np.linalg.inv(self.rig.color_from_sensor)
        other = self.depth_camera if color else self.rig.color
        depth_m, _ = self.cast(rays, color=color)
        points = np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1) * depth_m[..., None]
        moved = points @ matrix[:3, :3].T + matrix[:3, 3]
        pixels = project_points(moved.reshape(-1, 3), other).reshape(*depth_m.shape, 2)
        with np.errstate(invalid="ignore"):
            inside = ((pixels > -0.5) & (pixels < np.array([other.width, other.height]) - 0.5)).all(axis=-1)
        first_m, _ = self.cast(moved[..., :2] / moved[..., 2:], color=not color)
        far_m = moved[..., 2]
        return inside & (far_m > 0) & (np.abs(first_m - far_m) < 1e-3 * far_m + 1e-3)

    def is_drawn_within_a_pixel(self, depth_m: NDArray[np.float32], camera: CalibratedCamera) -> NDArray[np.bool_]:
        """
        (H, W): whether the color camera sees depth within 2 mm of ``depth_m`` somewhere within 1 px.

        Rays are cast a quarter of a pixel apart. Between two that hit one body, every depth between theirs is seen.
        """
        steps = [i / 4 for i in range(-4, 5)]
        seen = {}
        for across, down in product(steps, steps):
            if across**2 + down**2 <= 1:
                centers = replace(camera.camera, cx_px=camera.camera.cx_px - across, cy_px=camera.camera.cy_px - down)
                seen[across, down] = self.cast(camera_rays(replace(camera, camera=centers)), color=True)
        found = np.zeros(depth_m.shape, dtype=np.bool_)
        for (across, down), (first_m, hit) in seen.items():
            found |= np.abs(first_m - depth_m) <= _NEAR_M
            for neighbor in ((across + 0.25, down), (across, down + 0.25)):
                if neighbor in seen:
                    second_m, other_hit = seen[neighbor]
                    near_m, far_m = np.minimum(first_m, second_m) - _NEAR_M, np.maximum(first_m, second_m) + _NEAR_M
                    found |= (hit == other_hit) & (depth_m >= near_m) & (depth_m <= far_m)
        return found


def write_recording(folder: Path, rig: Rig, seeds: Sequence[int]) -> Path:
    """Images, depth in millimeters and our calibration JSON, as a user has them."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    for number, seed in enumerate(seeds):
        views = TwoViews(seed, rig)
        depth_mm = (1000 * views.depth_m).round()
        cv2.imwrite(str(folder / "rgb" / f"{number:04d}.png"), views.draw_color()[..., ::-1])
        cv2.imwrite(
            str(folder / "depth" / f"{number:04d}.png"), np.where(depth_mm < 60_000, depth_mm, 0).astype(np.uint16)
        )
    (folder / "rig.json").write_text(json.dumps(describe_rig(rig)))
    return folder


def describe_rig(rig: Rig) -> dict[str, object]:
    """A rig of pinholes as our calibration JSON."""
    assert rig.depth is not None
    cameras = {
        name: {
            **{"width": camera.width, "height": camera.height, "fx": camera.camera.fx_px, "fy": camera.camera.fy_px},
            **{"cx": camera.camera.cx_px, "cy": camera.camera.cy_px},
        }
        for name, camera in (("color", rig.color), ("depth", rig.depth))
    }
    return {**cameras, "color_from_depth": rig.color_from_sensor.tolist()}

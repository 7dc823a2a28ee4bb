"""What a depth camera would have written: noise, holes, steps; and the color sensor beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from finetune.scenes.cameras import Cameras
from finetune.scenes.drawing import Drawing, to_uint8
from finetune.scenes.draws import Draws
from finetune.scenes.rays import Solids, Vector, nearest_distance

UNITS_PER_METER = 1000.0


@dataclass(frozen=True, kw_only=True)
class DepthSensor:
    """A camera beside an infrared projector, as in the first Kinect and in active stereo cameras.

    Attributes:
        nearest_m, farthest_m: range.
        step_per_m: disparity is measured in whole steps; at depth z a step is ``step_per_m * z**2`` meters, 2.85e-3 for
            the first Kinect (Khoshelham and Elberink 2012, Sensors 12(2): 2.85e-5 per cm).
        noise_steps: deviation of the disparity before rounding. Rounding adds sqrt(1/12), so 0.408 makes the half step
            of that source, and the deviation of a depth z is 1.425e-3 * z**2 meters.
        baseline_m: the projector's place, to the right of the camera; what it cannot see has no depth.
        edge_ratio: depth is lost where it changes by more than this share between neighboring pixels.
        weakest: return, reflectance * cosine / z**2, below which depth is lost; each pixel has its own luck, from half
            to twice of it.
        dropout: share of pixels lost for no reason.
    """

    nearest_m: float = 0.3
    farthest_m: float = 10.0
    step_per_m: float = 2.85e-3
    noise_steps: float = 0.408
    baseline_m: float = 0.06
    edge_ratio: float = 0.06
    weakest: float = 0.0015
    dropout: float = 0.004

    def measure(self, draws: Draws, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        """
        Args:
            draws: one row a frame.
            drawing: B frames.
            solids, cameras: what they were drawn from.

        Returns:
            (B, H, W) int32 counts of 1 mm, 0 where nothing was measured.
        """
        shape = drawing.depth_m.shape[1:]
        depth_m = drawing.depth_m
        steps = 1.0 / (self.step_per_m * depth_m) + self.noise_steps * draws.normal(*shape)
        measured_m = 1.0 / (self.step_per_m * (steps + 0.5).floor().clamp_min(1.0))
        luck = draws.uniform(0.5, 2.0, *shape)
        kept = drawing.reflectance * drawing.incidence / (depth_m * depth_m) > self.weakest * luck
        kept &= (depth_m >= self.nearest_m) & (depth_m <= self.farthest_m)
        kept &= _widest_step(depth_m) <= self.edge_ratio
        kept &= ~self._in_projector_shadow(drawing, solids, cameras)
        kept &= ~draws.chance(self.dropout, *shape)
        counts = (measured_m * UNITS_PER_METER + 0.5).floor().to(torch.int32)
        return torch.where(kept, counts, 0)

    def _in_projector_shadow(self, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        projector_m = cameras.place_m + self.baseline_m * cameras.right
        x, y, z = (part.flatten(1) - projector_m[:, i, None] for i, part in enumerate(drawing.point_m))
        ray: Vector = (x, y, z)
        return (nearest_distance(solids, projector_m, ray) < 0.995).view_as(drawing.depth_m)


def _widest_step(depth_m: Tensor) -> Tensor:
    """(B, H, W): by what share depth rises from the nearest to the farthest of the 3 x 3 pixels around each."""
    farthest = max_pool2d(depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    nearest = -max_pool2d(-depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    return farthest / nearest - 1.0


def photograph(draws: Draws, drawing: Drawing, *, shot: float = 0.022, read: float = 0.008) -> Tensor:
    """
    Args:
        draws: one row a frame.
        drawing: B frames.
        shot: deviation of the noise where the image is white, growing with the root of the light, as photons do.
        read: deviation of the noise in the dark.

    Returns:
        (B, H, W, 3) uint8 RGB as a small color sensor sees it: with noise and darker corners.
    """
    height, width = drawing.depth_m.shape[1:]
    y = torch.linspace(-1.0, 1.0, height, device=drawing.image.device)[:, None]
    x = torch.linspace(-1.0, 1.0, width, device=drawing.image.device)
    vignette = 1.0 - 0.09 * (x * x + y * y)
    image = drawing.image * vignette[..., None]
    deviation = (shot * shot * image + read * read).sqrt()
    return to_uint8(image + deviation * draws.normal(height, width, 3))

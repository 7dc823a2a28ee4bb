"""What a depth camera would have written: noise, holes, steps; and the color sensor beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.drawing import Drawing, developed, to_uint8
from finetune.data.synthetic.rays import Solids, nearest_distance
from finetune.data.synthetic.rng import Rng, root

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

    def measure(self, draws: Rng, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        """
        Args:
            draws: one row a frame.
            drawing: B frames.
            solids, cameras: what they were drawn from.

        Returns:
            (B, H, W) int32 counts of 1 mm, 0 where nothing was measured.
        """
        depth_m, shape, device = drawing.depth_m, drawing.depth_m.shape[1:], drawing.depth_m.device
        steps = 1.0 / (self.step_per_m * depth_m) + self.noise_steps * draws.normal(*shape).to(device)
        measured_m = 1.0 / (self.step_per_m * (steps + 0.5).floor().clamp_min(1.0))
        luck = draws.uniform(0.5, 2.0, *shape).to(device)
        kept = drawing.reflectance * drawing.incidence / (depth_m * depth_m) > self.weakest * luck
        kept &= (depth_m >= self.nearest_m) & (depth_m <= self.farthest_m)
        kept &= away_from_steps(depth_m, self.edge_ratio)
        kept &= ~self._in_projector_shadow(drawing, solids, cameras)
        kept &= ~draws.chance(self.dropout, *shape).to(device)
        counts = (measured_m * UNITS_PER_METER + 0.5).floor().to(torch.int32)
        return torch.where(kept, counts, 0)

    def _in_projector_shadow(self, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        """(B, H, W) bool: where something stands between the projector and the surface."""
        projector_m = cameras.place_m + self.baseline_m * cameras.right
        x, y, z = (part.flatten(1) - projector_m[:, i, None] for i, part in enumerate(drawing.point_m))
        frame = torch.arange(len(x), device=x.device)
        return (nearest_distance(solids, frame, projector_m, (x, y, z)) < 0.995).view_as(drawing.depth_m)


def away_from_steps(depth_m: Tensor, edge_ratio: float) -> Tensor:
    """(B, H, W) bool: where the farthest of 3 x 3 pixels is at most ``edge_ratio``, a share, behind the nearest."""
    farthest = max_pool2d(depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    nearest = -max_pool2d(-depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    # Sky beside sky is no step, though infinity over infinity is no number.
    return (farthest / nearest - 1.0 <= edge_ratio) | (farthest == nearest)


@dataclass(frozen=True, kw_only=True)
class ColorSensor:
    """What a small color camera makes of light; each frame draws its own share of each fault, from none to all of it.

    Attributes:
        noise: where the image is v, on a scale from 0 to 1, the noise's deviation is this * sqrt(v + 0.13): it grows
            with the root of the light, as photons do, and in the dark a third of it is left.
        blur_px: deviation of a Gaussian blur, pixels.
        vignette: by what share the corners are darker; halfway to them, by a quarter of it.
        exposure_stops: over- or underexposure, at most so many factors of 2.
        tint: by what share red and blue are off against green, at most; before exposure, in linear light.
        evenly: every frame has the whole of each fault, and none of exposure and tint.
    """

    noise: float = 0.0
    blur_px: float = 0.0
    vignette: float = 0.0
    exposure_stops: float = 0.0
    tint: float = 0.0
    evenly: bool = False

    def __call__(self, draws: Rng, light: Tensor) -> Tensor:
        """
        Args:
            draws: one row a frame, on any device; its numbers go to that of ``light``.
            light: (B, H, W, 3) linear RGB.

        Returns:
            (B, H, W, 3) uint8 RGB.
        """
        device, (height, width) = light.device, light.shape[1:3]
        shares = torch.ones(len(draws), 3) if self.evenly else draws.uniform(0.0, 1.0, 3)
        if self.exposure_stops or self.tint:
            off = draws.uniform(-1.0, 1.0, 3)
            gains = torch.stack([1.0 + self.tint * off[:, 0], torch.ones(len(draws)), 1.0 + self.tint * off[:, 1]], 1)
            image = developed(light * gains[:, None, None].to(device), (self.exposure_stops * off[:, 2]).to(device))
        else:
            image = developed(light)
        if self.blur_px:
            image = _blurred(image, (self.blur_px * shares[:, 0]).to(device), max(3, math.ceil(3 * self.blur_px)))
        if self.vignette:
            # In double precision, whose rounding hides how a library computes the steps.
            y, x = (torch.linspace(-1.0, 1.0, size, dtype=torch.float64).to(device).float() for size in (height, width))
            darker = (0.5 * self.vignette * shares[:, 1]).to(device)[:, None, None]
            image = image * (1.0 - darker * (x * x + (y * y)[:, None]))[..., None]
        if self.noise:
            most = (self.noise * shares[:, 2]).to(device)[:, None, None, None]
            deviation = most * root(image + 0.13)
            image = image + deviation * draws.normal(height, width, 3).to(device)
        return to_uint8(image)


def _blurred(image: Tensor, deviation_px: Tensor, reach: int) -> Tensor:
    """Gaussian blur of (B, H, W, 3), cut off ``reach`` pixels to either side; each frame has its own deviation (B,)."""
    offsets = torch.arange(-reach, reach + 1, device=image.device)
    weights = (-0.5 * (offsets / deviation_px.clamp_min(1e-3)[:, None]).double().square()).exp()
    weights = (weights / weights.sum(1, keepdim=True)).float()
    for dim in (1, 2):
        size = image.shape[dim]
        places = (torch.arange(size, device=image.device)[None] + offsets[:, None]).clamp(0, size - 1)
        parts = [weights[:, i, None, None, None] * image.index_select(dim, places[i]) for i in range(len(offsets))]
        image = parts[0]
        for part in parts[1:]:
            image = image + part
    return image


def with_range_noise(draws: Rng, depth_m: Tensor, noise_per_m: float) -> Tensor:
    """(B, H, W) meters with noise of deviation ``noise_per_m * z**2`` at depth z, as triangulation has it."""
    noise_m = noise_per_m * depth_m.square() * draws.normal(*depth_m.shape[1:]).to(depth_m)
    # The sky stays where it is: infinity less infinity is no number.
    return torch.where(depth_m.isinf(), depth_m, (depth_m + noise_m).clamp_min(1e-3))


def on_scan_lines(height: int, lines: int, device: torch.device) -> Tensor:
    """(H, 1) bool: the rows that a LiDAR of so many lines hits, evenly spread."""
    hit = torch.zeros(height, 1, dtype=torch.bool, device=device)
    hit[((torch.arange(lines, device=device) + 0.5) * height / lines).long()] = True
    return hit

"""Faults of sensors: a depth camera with noise, holes and steps, and a small color camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from finetune.data.synthetic.cameras import Cameras
from finetune.data.synthetic.drawing import Drawing, develop, to_uint8
from finetune.data.synthetic.rays import Solids, nearest_distance
from finetune.data.synthetic.rng import Rng, square_root

UNITS_PER_METER = 1000.0


@dataclass(frozen=True, kw_only=True)
class DepthSensor:
    """A camera next to an infrared projector, as in the first Kinect and in active stereo cameras.

    Attributes:
        nearest_m, farthest_m: range of the sensor.
        step_per_m: disparity is measured in whole steps; at depth z a step is ``step_per_m * z**2`` meters, 2.85e-3 for
            the first Kinect (Khoshelham and Elberink 2012, Sensors 12(2): 2.85e-5 per cm).
        noise_steps: standard deviation of the disparity before rounding, in steps. Rounding adds sqrt(1/12), so 0.408
            makes half a step, as in that source: a depth z has the deviation 1.425e-3 * z**2 meters.
        baseline_m: from the camera to the projector on its right; what the projector cannot see has no depth.
        edge_ratio: depth is lost where it changes by more than this share between neighboring pixels.
        weakest: depth is lost where the return, reflectance * cosine / z**2, is below this; chance makes it half to
            twice as much for each pixel.
        dropout: share of pixels lost at random.
    """

    nearest_m: float = 0.3
    farthest_m: float = 10.0
    step_per_m: float = 2.85e-3
    noise_steps: float = 0.408
    baseline_m: float = 0.06
    edge_ratio: float = 0.06
    weakest: float = 0.0015
    dropout: float = 0.004

    def measure(self, rng: Rng, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        """
        Args:
            rng: one row per frame.
            drawing: B frames.
            solids, cameras: from which they were drawn.

        Returns:
            (B, H, W) int32 millimeters, 0 where nothing was measured.
        """
        depth_m, shape, device = drawing.depth_m, drawing.depth_m.shape[1:], drawing.depth_m.device
        steps = 1.0 / (self.step_per_m * depth_m) + self.noise_steps * rng.normal(*shape).to(device)
        measured_m = 1.0 / (self.step_per_m * (steps + 0.5).floor().clamp_min(1.0))
        luck = rng.uniform(0.5, 2.0, *shape).to(device)
        kept = drawing.reflectance * drawing.incidence / (depth_m * depth_m) > self.weakest * luck
        kept &= (depth_m >= self.nearest_m) & (depth_m <= self.farthest_m)
        kept &= mask_depth_steps(depth_m, self.edge_ratio)
        kept &= ~self._in_projector_shadow(drawing, solids, cameras)
        kept &= ~rng.chance(self.dropout, *shape).to(device)
        counts = (measured_m * UNITS_PER_METER + 0.5).floor().to(torch.int32)
        return torch.where(kept, counts, 0)

    def _in_projector_shadow(self, drawing: Drawing, solids: Solids, cameras: Cameras) -> Tensor:
        """(B, H, W) bool: where something is between the projector and the surface."""
        projector_m = cameras.place_m + self.baseline_m * cameras.right
        x, y, z = (part.flatten(1) - projector_m[:, i, None] for i, part in enumerate(drawing.point_m))
        frame = torch.arange(len(x), device=x.device)
        return (nearest_distance(solids, frame, projector_m, (x, y, z)) < 0.995).view_as(drawing.depth_m)


def mask_depth_steps(depth_m: Tensor, edge_ratio: float) -> Tensor:
    """(B, H, W) bool: where the farthest of 3 x 3 pixels is at most the share ``edge_ratio`` behind the nearest."""
    farthest = max_pool2d(depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    nearest = -max_pool2d(-depth_m[:, None], 3, stride=1, padding=1)[:, 0]
    # Sky next to sky is no step, although infinity over infinity is not a number.
    return (farthest / nearest - 1.0 <= edge_ratio) | (farthest == nearest)


@dataclass(frozen=True, kw_only=True)
class ColorSensor:
    """A small color camera. Each frame draws its own share of each fault, from none to all of it.

    Attributes:
        noise: at an image value v, from 0 to 1, the standard deviation of the noise is this * sqrt(v + 0.13): it grows
            with the root of the light, like that of photons, and a third of it is left in the dark.
        blur_px: standard deviation of a Gaussian blur, pixels.
        vignette: share by which the corners are darker; halfway to them, it is a quarter of that.
        exposure_stops: most over- or underexposure, in factors of 2.
        tint: most share by which red and blue differ from green, in linear light before exposure.
        evenly: every frame has all of each fault, without the random exposure and tint.
    """

    noise: float = 0.0
    blur_px: float = 0.0
    vignette: float = 0.0
    exposure_stops: float = 0.0
    tint: float = 0.0
    evenly: bool = False

    def __call__(self, rng: Rng, light: Tensor) -> Tensor:
        """
        Args:
            rng: one row per frame; its numbers move to the device of ``light``.
            light: (B, H, W, 3) linear RGB.

        Returns:
            (B, H, W, 3) uint8 RGB.
        """
        device, (height, width) = light.device, light.shape[1:3]
        shares = torch.ones(len(rng), 3) if self.evenly else rng.uniform(0.0, 1.0, 3)
        if self.exposure_stops or self.tint:
            off = rng.uniform(-1.0, 1.0, 3)
            gains = torch.stack([1.0 + self.tint * off[:, 0], torch.ones(len(rng)), 1.0 + self.tint * off[:, 1]], 1)
            image = develop(light * gains[:, None, None].to(device), (self.exposure_stops * off[:, 2]).to(device))
        else:
            image = develop(light)
        if self.blur_px:
            image = _blur(image, (self.blur_px * shares[:, 0]).to(device), max(3, math.ceil(3 * self.blur_px)))
        if self.vignette:
            # Double precision, so that rounding hides how a library computes the steps.
            y, x = (torch.linspace(-1.0, 1.0, size, dtype=torch.float64).to(device).float() for size in (height, width))
            darker = (0.5 * self.vignette * shares[:, 1]).to(device)[:, None, None]
            image = image * (1.0 - darker * (x * x + (y * y)[:, None]))[..., None]
        if self.noise:
            most = (self.noise * shares[:, 2]).to(device)[:, None, None, None]
            deviation = most * square_root(image + 0.13)
            image = image + deviation * rng.normal(height, width, 3).to(device)
        return to_uint8(image)


def _blur(image: Tensor, deviation_px: Tensor, reach: int) -> Tensor:
    """Gaussian blur of (B, H, W, 3), cut off ``reach`` pixels to either side; each frame has its own deviation (B,)."""
    offsets = torch.arange(-reach, reach + 1, device=image.device)
    weights = (-0.5 * (offsets / deviation_px.clamp_min(1e-3)[:, None]).double().square()).exp()
    weights = (weights / weights.sum(1, keepdim=True)).float()
    for dim in (1, 2):
        size = image.shape[dim]
        sources = (torch.arange(size, device=image.device)[None] + offsets[:, None]).clamp(0, size - 1)
        parts = [weights[:, i, None, None, None] * image.index_select(dim, sources[i]) for i in range(len(offsets))]
        image = parts[0]
        for part in parts[1:]:
            image = image + part
    return image


def add_range_noise(rng: Rng, depth_m: Tensor, noise_per_m: float) -> Tensor:
    """(B, H, W) meters with the noise of triangulation: at depth z its standard deviation is ``noise_per_m * z**2``."""
    noise_m = noise_per_m * depth_m.square() * rng.normal(*depth_m.shape[1:]).to(depth_m)
    # The sky gets no noise: infinity minus infinity is not a number.
    return torch.where(depth_m.isinf(), depth_m, (depth_m + noise_m).clamp_min(1e-3))


def mask_scan_lines(height: int, lines: int, device: torch.device) -> Tensor:
    """(H, 1) bool: the rows that a LiDAR with this many lines hits, evenly spread."""
    hit = torch.zeros(height, 1, dtype=torch.bool, device=device)
    hit[((torch.arange(lines, device=device) + 0.5) * height / lines).long()] = True
    return hit

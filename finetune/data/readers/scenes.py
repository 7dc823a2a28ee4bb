"""Procedural rooms and open ground with exact depth, drawn when a frame is asked for; there are no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.utils.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from finetune.data.synthetic.rng import Rng

# How many frames a CPU draws together: more do not fit its cache.
_FRAMES_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Scenes(Reader):
    """Worlds from a seed, with the camera of each frame. Frame i is a function of the options and i alone.

    Faults of the color sensor are the largest that a frame can have; each frame draws a share of them.
    """

    seed: int = 0  # decides worlds, cameras and lamps; another seed gives other frames
    count: int = 1000  # frames; frame i is the same whatever the count
    size: tuple[int, int] = (240, 320)  # height, width, pixels
    hfov_deg: tuple[float, float] = (45.0, 85.0)  # least and most horizontal field of view
    camera_height_m: tuple[float, float] = (0.25, 2.0)  # least and most over the floor: a robot's to a person's
    look_down_deg: tuple[float, float] | None = None  # least and most below the horizon; null: at something, or ahead
    roll_deg: float | None = None  # largest roll to either side, all equally likely; null: at most 17, mostly below 5
    max_depth_m: float | None = None  # what is farther, and the sky, is not valid; null: all is valid, the sky infinite
    objects: tuple[int, int] = (4, 14)  # fewest and most pieces of furniture, trees, houses
    outdoors: float = 0.0  # share of frames on open ground, under the sky
    inner_walls: float = 0.0  # share of rooms with walls that end inside, cut-out corners, or pillars
    plain_floors: float = 0.0  # share of rooms whose floor is as plain as a wall, and may have its color
    noise: float = 0.0  # standard deviation of the noise at white, on a scale from 0 to 1
    blur_px: float = 0.0  # standard deviation of a Gaussian blur, pixels
    vignette: float = 0.0  # share by which corners are darker
    exposure_stops: float = 0.0  # over- or underexposure, factors of 2
    tint: float = 0.0  # share by which red and blue differ from green
    jpeg_quality: int | None = None  # lowest; each frame is compressed and read again; null: is not compressed
    depth_noise_per_m: float = 0.0  # standard deviation of depth z is this * z**2, meters
    edge_ratio: float | None = None  # depth is lost where it changes by a larger share within a pixel; null: never
    scan_lines: int | None = None  # depth is left on this many rows, as a LiDAR measures it; null: on all

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError("seed", self.seed, "a whole number from 0")
        if self.count < 1:
            raise RecipeError("count", self.count, "at least 1 frame")
        if min(self.size) < 1:
            raise RecipeError("size", self.size, "[height, width] in pixels, such as [240, 320]")
        if not 1.0 <= self.hfov_deg[0] <= self.hfov_deg[1] <= 150.0:
            raise RecipeError("hfov_deg", self.hfov_deg, "[least, most] between 1 and 150 degrees, such as [50, 80]")
        if not 0.1 <= self.camera_height_m[0] <= self.camera_height_m[1] <= 2.0:
            raise RecipeError("camera_height_m", self.camera_height_m, "[least, most] between 0.1 and 2 meters")
        if self.look_down_deg is not None and not -45.0 <= self.look_down_deg[0] <= self.look_down_deg[1] <= 45.0:
            expected = "[least, most] between -45 and 45 degrees, such as [5, 25], or null"
            raise RecipeError("look_down_deg", self.look_down_deg, expected)
        if self.roll_deg is not None and not 0.0 <= self.roll_deg <= 45.0:
            raise RecipeError("roll_deg", self.roll_deg, "from 0 to 45 degrees, or null")
        if self.max_depth_m is not None and not self.max_depth_m > 0:
            raise RecipeError("max_depth_m", self.max_depth_m, "meters, more than 0, or null for no limit")
        if not (0 <= self.objects[0] <= self.objects[1] and 1 <= self.objects[1] <= 30):
            raise RecipeError("objects", self.objects, "[fewest, most], most from 1 to 30, such as [4, 9]")
        self._check_faults()

    def _check_faults(self) -> None:
        for name in ("outdoors", "inner_walls", "plain_floors", "noise", "vignette", "tint"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise RecipeError(name, getattr(self, name), "a share from 0 to 1")
        for name in ("blur_px", "exposure_stops", "depth_noise_per_m"):
            if not 0.0 <= getattr(self, name) <= 4.0:
                raise RecipeError(name, getattr(self, name), "a number from 0 to 4")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise RecipeError("jpeg_quality", self.jpeg_quality, "a whole number from 1 to 100, or null")
        if self.edge_ratio is not None and not self.edge_ratio > 0:
            raise RecipeError("edge_ratio", self.edge_ratio, "a share above 0, such as 0.06, or null")
        if self.scan_lines is not None and not 1 <= self.scan_lines <= self.size[0]:
            raise RecipeError("scan_lines", self.scan_lines, f"from 1 to the {self.size[0]} rows of size, or null")

    def __len__(self) -> int:
        return self.count

    def source(self, index: int) -> str:
        """The name that errors and tables give frame ``index``."""
        return f"scenes:seed={self.seed}#{index}"

    def __getitem__(self, index: int) -> DepthSample:
        return self.batch([index])[0]

    def batch(self, indices: Sequence[int], device: str = "cpu") -> list[DepthSample]:
        """
        Args:
            indices: of the frames.
            device: that draws the pixels.

        Returns:
            The frames, drawn together: the same as one by one, to the last bit.
        """
        for index in indices:
            if not 0 <= index < self.count:
                raise IndexError(f"frame {index} of {self.count}")
        import torch

        from finetune.data.synthetic.cameras import draw_cameras, draw_intrinsics
        from finetune.data.synthetic.drawing import draw_frames
        from finetune.data.synthetic.records import take_rows
        from finetune.data.synthetic.rng import Rng
        from finetune.data.synthetic.worlds import draw_worlds

        height, width = self.size
        rng = Rng(self.seed, indices)
        worlds = draw_worlds(
            rng,
            objects=self.objects,
            outdoors=self.outdoors,
            inner_walls=self.inner_walls,
            plain_floors=self.plain_floors,
        )
        cameras = draw_cameras(
            rng,
            worlds,
            *draw_intrinsics(rng, height, width, self.hfov_deg),
            height_m=self.camera_height_m,
            look_down_deg=self.look_down_deg,
            roll_deg=self.roll_deg,
        )
        samples: list[DepthSample] = []
        together = _FRAMES_AT_ONCE if torch.device(device).type == "cpu" else max(1, len(indices))
        for first in range(0, len(indices), together):
            rows = slice(first, first + together)
            drawing = draw_frames(take_rows(worlds, rows, device), take_rows(cameras, rows, device), height, width)
            of_rows = rng[rows]
            image = self._photograph(of_rows, drawing.light)
            depth_m, valid = (part.cpu().numpy() for part in self._measure(of_rows, drawing.depth_m))
            samples += [
                DepthSample(
                    image=image[row],
                    depth_m=depth_m[row],
                    valid=valid[row],
                    source=self.source(index),
                    camera=cameras.intrinsics(first + row),
                )
                for row, index in enumerate(indices[rows])
            ]
        return samples

    def _photograph(self, rng: Rng, light: torch.Tensor) -> NDArray[np.uint8]:
        """(B, H, W, 3) RGB, seen by a color camera with the faults of the options."""
        from finetune.data.synthetic.sensor import ColorSensor

        sensor = ColorSensor(
            noise=self.noise,
            blur_px=self.blur_px,
            vignette=self.vignette,
            exposure_stops=self.exposure_stops,
            tint=self.tint,
        )
        image = sensor(rng, light).cpu().numpy()
        if self.jpeg_quality is None:
            return image
        import cv2

        for frame, quality in zip(image, rng.integers(self.jpeg_quality, 100).tolist(), strict=True):
            # OpenCV expects blue first, and JPEG keeps less of blue than of red.
            _, packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            unpacked = cv2.imdecode(packed, cv2.IMREAD_COLOR)
            assert unpacked is not None
            frame[:] = unpacked[..., ::-1]
        return image

    def _measure(self, rng: Rng, depth_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, H, W) meters with the noise of the options, and (B, H, W) bool, True where depth is measured."""
        import torch

        from finetune.data.synthetic.sensor import add_range_noise, mask_depth_steps, mask_scan_lines

        valid = torch.ones_like(depth_m, dtype=torch.bool)
        if self.edge_ratio is not None:
            valid &= mask_depth_steps(depth_m, self.edge_ratio)
        if self.scan_lines is not None:
            valid &= mask_scan_lines(depth_m.shape[1], self.scan_lines, depth_m.device)
        if self.depth_noise_per_m:
            depth_m = add_range_noise(rng, depth_m, self.depth_noise_per_m)
        if self.max_depth_m is not None:
            valid &= depth_m <= self.max_depth_m
        return depth_m, valid

"""Procedural rooms with exact depth, drawn when they are asked for; there are no files."""

from __future__ import annotations

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.errors import RecipeError
from finetune.sample import DepthSample


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Scenes:
    """Furnished rooms from a seed, with the camera of each frame. Frame i is a function of the options and i alone.

    Fields are recipe options.
    """

    seed: int = 0  # of the rooms, cameras and lamps; another seed gives other frames
    count: int = 1000  # frames; frame i is the same whatever the count
    size: tuple[int, int] = (240, 320)  # height, width, pixels
    hfov_deg: tuple[float, float] = (50.0, 80.0)  # least and most horizontal field of view
    max_depth_m: float = 10.0  # what is farther away is not valid
    objects: tuple[int, int] = (4, 9)  # fewest and most pieces of furniture

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError("seed", self.seed, "a whole number from 0")
        if self.count < 1:
            raise RecipeError("count", self.count, "at least 1 frame")
        if min(self.size) < 1:
            raise RecipeError("size", self.size, "[height, width] in pixels, such as [240, 320]")
        if not 1.0 <= self.hfov_deg[0] <= self.hfov_deg[1] <= 150.0:
            raise RecipeError("hfov_deg", self.hfov_deg, "[least, most] between 1 and 150 degrees, such as [50, 80]")
        if not self.max_depth_m > 0:
            raise RecipeError("max_depth_m", self.max_depth_m, "meters, more than 0; rooms are up to 10 across")
        if not (0 <= self.objects[0] <= self.objects[1] and 1 <= self.objects[1] <= 30):
            raise RecipeError("objects", self.objects, "[fewest, most], most from 1 to 30, such as [4, 9]")

    def __len__(self) -> int:
        return self.count

    def source(self, index: int) -> str:
        """The name that errors and tables give frame ``index``."""
        return f"scenes:seed={self.seed}#{index}"

    def __getitem__(self, index: int) -> DepthSample:
        if not 0 <= index < self.count:
            raise IndexError(f"frame {index} of {self.count}")
        return self.batch([index])[0]

    def batch(self, indices: list[int]) -> list[DepthSample]:
        """The frames of ``indices``, drawn at once: the same as one by one, to the last bit."""
        from finetune.scenes.cameras import draw_cameras, draw_intrinsics
        from finetune.scenes.drawing import draw, to_uint8
        from finetune.scenes.draws import Draws
        from finetune.scenes.rooms import draw_rooms

        height, width = self.size
        draws = Draws(self.seed, indices)
        rooms = draw_rooms(draws, objects=self.objects)
        cameras = draw_cameras(draws, rooms, *draw_intrinsics(draws, height, width, self.hfov_deg))
        drawing = draw(rooms, cameras, height, width)
        image = to_uint8(drawing.image).numpy()
        depth_m = drawing.depth_m.numpy()
        return [
            DepthSample(
                image=image[row],
                depth_m=depth_m[row],
                valid=depth_m[row] <= self.max_depth_m,
                source=self.source(index),
                camera=cameras.intrinsics(row),
            )
            for row, index in enumerate(indices)
        ]

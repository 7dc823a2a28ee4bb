"""Small inputs whose truth is a formula."""

import dataclasses
import itertools
import os
import signal
from collections.abc import Collection
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch.utils.data import get_worker_info

from finetune.data.camera import Camera
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.utils.errors import DataError


def tilted_plane(height: int = 48, width: int = 64, near_m: float = 1.0, far_m: float = 4.0) -> DepthSample:
    """Depth falls linearly from top to bottom; brightness follows it, so that a network can learn it."""
    depth_m = np.linspace(far_m, near_m, height, dtype=np.float32)[:, None].repeat(width, axis=1)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = (depth_m / far_m * 255).astype(np.uint8)
    image[..., 1] = np.linspace(0, 255, width).astype(np.uint8)
    return DepthSample(
        image=image,
        depth_m=depth_m,
        valid=np.ones((height, width), dtype=np.bool_),
        source="plane",
        camera=Camera(fx_px=60.0, fy_px=60.0, cx_px=30.0, cy_px=25.0),
    )


class Planes(Reader):
    """A reader of tilted planes, each named by its index and with its own far end."""

    def __init__(self, count: int, name: str = "plane") -> None:
        self.count = count
        self.name = name

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        plane = tilted_plane(far_m=2.0 + index % 3)
        return DepthSample(
            image=plane.image,
            depth_m=plane.depth_m,
            valid=plane.valid,
            source=f"{self.name}#{index}",
            camera=plane.camera,
        )


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Skies(Reader):
    """A reader for recipes, of planes of 1 to 4 m below a third of sky; in its last frame there is nothing but sky."""

    count: int = 4

    def __len__(self) -> int:
        return self.count

    def source(self, index: int) -> str:
        return f"sky#{index}"

    def __getitem__(self, index: int) -> DepthSample:
        plane = tilted_plane()
        sky = np.arange(48)[:, None].repeat(64, axis=1) < (48 if index == self.count - 1 else 16)
        image = np.where(sky[..., None], np.uint8(255), np.roll(plane.image, index, axis=1))
        depth_m = np.where(sky, np.float32(np.inf), plane.depth_m)
        return replace(plane, image=image, depth_m=depth_m, source=self.source(index))


class NoFrames(Reader):
    """A reader without a frame."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> DepthSample:
        raise IndexError(index)


def reader_with(**options: object) -> Reader:
    """A reader that has these options in a recipe, for what looks at options alone."""
    cls = dataclasses.make_dataclass("ReaderWith", options, bases=(NoFrames,), frozen=True)
    reader: Reader = cls(**options)
    return reader


class Holed(Planes):
    """Planes of which some cannot be read."""

    def __init__(self, count: int, bad: Collection[int]) -> None:
        super().__init__(count)
        self.bad = bad

    def __getitem__(self, index: int) -> DepthSample:
        if index in self.bad:
            raise DataError(f"{self.name}#{index}", "is empty (0 bytes)", "Write it again")
        return super().__getitem__(index)


_READ_BY_THIS_WORKER = itertools.count()


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Mortal(Skies):
    """A reader for recipes whose worker dies over a frame, once it has read some; without a worker nothing happens."""

    lives: int = 5  # frames that a worker reads before
    death: Literal["killed", "exit", "fault"] = "killed"

    def __getitem__(self, index: int) -> DepthSample:
        if get_worker_info() is not None and next(_READ_BY_THIS_WORKER) >= self.lives:
            if self.death == "fault":
                raise RuntimeError("a fault of the code")
            if self.death == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def lidar_scan(height: int = 375, width: int = 1242, lines: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Depth and validity of a street seen by so many scan lines below the horizon, with a fifth of the returns lost."""
    draw = np.random.default_rng(0)
    rows = np.unique(np.linspace(height * 0.4, height - 1, lines).round().astype(int))
    valid = np.zeros((height, width), bool)
    valid[rows] = draw.random((len(rows), width)) < 0.8
    y = np.arange(height)[:, None] - height * 0.38
    depth_m = np.where(valid, np.clip(1.65 * 720 / np.maximum(y, 1.0), 2, 80) + draw.random((height, width)), 0.0)
    return depth_m.astype(np.float32), valid

"""What is kept of each frame that is written, so that a later call goes on and the end needs no frame again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.prepare.depth_unit import DepthRange

# Bins of equal ratio, 4 % wide, from 1 cm to beyond every depth.
BIN_EDGES_M = np.geomspace(0.01, 10_000.0, 353)
_BINS = len(BIN_EDGES_M) - 1


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """A frame that is written, or left out.

    Attributes:
        index: its number in the source.
        source: where a person finds it.
        left_out: why it was not written; "" if it was.
        image, depth: its files, below the folder that is prepared.
        image_bytes, depth_bytes: their sizes.
        unit: meters per unit of the depth file.
        size, depth_size: (height, width) of image and depth, pixels.
        camera: fx, fy, cx, cy of the image, pixels; None where it is not known.
        measured: number of pixels with a depth.
        sparse: whether it is scattered points, and not a surface with holes.
        near_m, far_m: of the measured depth, meters.
        exact_units: see ``DepthRange``.
        counts: number of measured pixels in each bin of ``BIN_EDGES_M``.
        totals: the ``counts`` of the kind.
        confidence: the file of its confidence, with its size; "" where all depth was measured.
        facts: those of ``RecordedFrame``.
    """

    index: int
    source: str
    left_out: str = ""
    image: str = ""
    depth: str = ""
    image_bytes: int = 0
    depth_bytes: int = 0
    unit: float = 0.0
    size: tuple[int, int] = (0, 0)
    depth_size: tuple[int, int] = (0, 0)
    camera: tuple[float, float, float, float] | None = None
    measured: int = 0
    sparse: bool = False
    near_m: float = 0.0
    far_m: float = 0.0
    exact_units: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    totals: Mapping[str, int] | None = None
    confidence: str = ""
    confidence_bytes: int = 0
    facts: Mapping[str, str | int | float] | None = None

    @property
    def range(self) -> DepthRange:
        """How far it reaches."""
        return DepthRange(far_m=self.far_m, exact_units=self.exact_units)

    @property
    def labeled_share(self) -> float:
        """Share of the pixels of the depth map that have a depth."""
        return self.measured / (self.depth_size[0] * self.depth_size[1])

    def to_mapping(self) -> dict[str, object]:
        """The record as JSON takes it."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, content: Mapping[str, object]) -> FrameRecord:
        """The record that ``to_mapping`` wrote; JSON has lists for tuples."""
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
        return cls(**values)  # type: ignore[arg-type]


def count_depths(depths_m: NDArray[np.float32]) -> tuple[int, ...]:
    """(N,) measured depths, meters -> how many are in each bin of ``BIN_EDGES_M``; the ends take what is beyond."""
    # By a logarithm: np.histogram sorts, which takes three times as long.
    place = np.log(depths_m / np.float32(BIN_EDGES_M[0])) * np.float32(_BINS / np.log(BIN_EDGES_M[-1] / BIN_EDGES_M[0]))
    bins = np.clip(place, 0, _BINS - 1).astype(np.intp)
    return tuple(np.bincount(bins, minlength=_BINS).tolist())


def camera_values(camera: Camera | None) -> tuple[float, float, float, float] | None:
    """fx, fy, cx, cy, pixels."""
    return None if camera is None else (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px)

"""Facts of one sample: a few kilobytes, so that hundreds of samples can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.flatness import Reading, largest_plane
from finetune.data.checks.registration import Edges, find_edges
from finetune.data.checks.stored_numbers import Numbers, recognize_numbers
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample, is_sparse

_DEPTHS = 2048
_HASH_SIDE = 16
# The farthest depth is a code where more than this share of the pixels has it and all others are nearer by more than
# this ratio.
_FEW, _APART = 5e-4, 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Facts:
    """One sample.

    Attributes:
        source: the depth file or the frame's name.
        size: (height, width), pixels.
        focal_px: (fx + fy) / 2; None without intrinsics.
        valid_share: share of the pixels that were measured.
        left_out_share: share of the pixels that have a positive number and are not valid.
        depth_m: at most 2048 measured depths, evenly picked, meters, without infinite ones.
        most_m, most_share: the largest measured depth and the share of measured pixels that have exactly it.
        next_m: the largest depth below it.
        constant: more than one pixel is measured, and all have one depth.
        sparse: depth is a scatter of points.
        edges: None where depth has too few, or is sparse.
        plane: see ``flatness.largest_plane``.
        numbers: what the stored numbers look like.
        image_levels: how many of 256 levels the image uses.
        look: 256 bits, which differ little between images that look alike.
    """

    source: str
    size: tuple[int, int]
    focal_px: float | None
    valid_share: float
    left_out_share: float
    depth_m: NDArray[np.float32]
    most_m: float
    most_share: float
    next_m: float
    constant: bool
    sparse: bool
    edges: Edges | None
    plane: Mapping[Reading, float] | None
    numbers: Numbers
    image_levels: int
    look: NDArray[np.bool_]

    @property
    def points(self) -> int:
        """How many pixels are measured."""
        return round(self.valid_share * self.size[0] * self.size[1])

    @property
    def has_code(self) -> bool:
        """Whether the largest depth looks like a code: many pixels have exactly it, and nothing is near it."""
        return self.next_m > 0 and self.most_share > _FEW and self.most_m > _APART * self.next_m


def collect_facts(sample: DepthSample, meters_per_unit: float | None = None) -> Facts:
    """
    Look at a sample.

    Args:
        sample: as a reader gives it.
        meters_per_unit: what the reader multiplied the stored numbers by; None where it did something else.
    """
    measured = sample.depth_m[sample.valid & np.isfinite(sample.depth_m)]
    most_m = float(measured.max()) if measured.size else 0.0
    below = measured[measured < most_m]
    next_m = float(below.max()) if below.size else 0.0
    # Pixels with a code show no surface, and no edge.
    surface = sample.valid & (sample.depth_m < most_m) if most_m > _APART * next_m > 0 else sample.valid
    return Facts(
        source=sample.source,
        size=sample.depth_m.shape,
        focal_px=sample.camera.focal_px if sample.camera else None,
        valid_share=float(sample.valid.mean()),
        left_out_share=left_out_share(sample),
        depth_m=measured[:: max(1, -(-len(measured) // _DEPTHS))],
        most_m=most_m,
        most_share=1.0 - len(below) / len(measured) if measured.size else 0.0,
        next_m=next_m,
        constant=measured.size > 1 and not below.size,
        sparse=is_sparse(surface),
        edges=find_edges(sample.full_image(), sample.depth_m, surface),
        plane=largest_plane(sample.depth_m, surface, sample.camera),
        numbers=recognize_numbers(sample.depth_m, sample.valid, meters_per_unit),
        image_levels=int(np.count_nonzero(np.bincount(sample.image.reshape(-1), minlength=256))),
        look=hash_image(sample.image),
    )


def left_out_share(sample: DepthSample) -> float:
    """Share of the pixels that have a positive number and are not valid."""
    return float(np.mean(~sample.valid & (sample.depth_m > 0)))


def plain_unit(reader: Reader) -> float | None:
    """Meters that a reader multiplies stored numbers by; None where it does more than that, or does not say."""
    return None if reader.depth_is != "z" or reader.bits else reader.meters_per_unit


def hash_image(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """
    (H, W, 3) -> (256,) bits: whether each of 16x16 cells is brighter than the one to its right.

    Source: the difference hash, Krawetz 2013, http://www.hackerfactor.com/blog/?/archives/529-Kind-of-Like-That.html.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(gray, (_HASH_SIDE + 1, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    return (small[:, :-1] > small[:, 1:]).reshape(-1)

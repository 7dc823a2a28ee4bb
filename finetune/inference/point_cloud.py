"""Turn depth in meters into colored points, and write them as PLY."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.depth_edges import find_depth_edges
from finetune.utils.files import write_file

_VERTEX = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")])


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """
    Attributes:
        xyz_m: (N, 3) float32, meters; x right, y down, z along the optical axis.
        color: (N, 3) uint8, RGB.
    """

    xyz_m: NDArray[np.float32]
    color: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.xyz_m)

    def save(self, path: str | os.PathLike[str]) -> None:
        """
        Write a binary PLY, in meters, with a color for each point. An interrupted write leaves no file.

        Raises:
            OSError: it cannot be written.
        """
        vertices = np.empty(len(self), _VERTEX)
        for column, name in enumerate(("x", "y", "z")):
            vertices[name] = self.xyz_m[:, column]
        for column, name in enumerate(("red", "green", "blue")):
            vertices[name] = self.color[:, column]
        kinds = {"<f4": "float", "|u1": "uchar"}
        properties = [f"property {kinds[kind.str]} {name}" for name, (kind, *_) in (_VERTEX.fields or {}).items()]
        head = [
            "ply",
            "format binary_little_endian 1.0",
            "comment meters; x right, y down, z along the optical axis",
            f"element vertex {len(self)}",
            *properties,
            "end_header",
        ]
        write_file(Path(path), "\n".join(head).encode() + b"\n" + vertices.tobytes())


def point_cloud(
    depth_m: NDArray[np.float32],
    image: NDArray[np.uint8],
    camera: Camera,
    *,
    edge_ratio: float | None = None,
    max_points: int | None = None,
) -> PointCloud:
    """
    Args:
        depth_m: (H, W), meters along the optical axis.
        image: (H, W, 3) uint8, RGB.
        camera: of the image.
        edge_ratio: leave out pixels whose depth differs from that of one of their four neighbors by more than this
            share of the smaller; None: keep them. Between a near and a far surface a network predicts depths that are
            on neither, which would float in the air.
        max_points: at most this many, drawn evenly, the same ones each time; None: all.
    """
    kept = np.isfinite(depth_m) & (depth_m > 0)
    if edge_ratio is not None:
        kept &= ~find_depth_edges(depth_m, edge_ratio)
    pixels = np.flatnonzero(kept)
    if max_points is not None and len(pixels) > max_points:
        pixels = np.sort(np.random.default_rng(0).choice(pixels, max_points, replace=False))
    points = camera.back_project(depth_m).reshape(-1, 3)[pixels]
    return PointCloud(xyz_m=points.astype(np.float32), color=image.reshape(-1, 3)[pixels])

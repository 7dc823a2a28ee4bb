"""What the numbers of a depth map are, told by its flat surfaces.

The inverse of depth along the optical axis is linear in pixel coordinates over any plane, whatever the camera: with
X = x z / f and a plane n . X = d, 1 / z = n . (x / f, y / f, 1) / d. Of numbers that are disparity, the numbers
themselves are linear; of distances along the ray, 1 / distance times the length of the ray of the pixel is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.camera import Camera

Reading = Literal["z", "range", "disparity"]
_PIXELS = 2000
_PLANES = 200  # random ones through three pixels each
_TOLERANCE = 0.005  # share of the value itself


def largest_plane(
    depth_m: NDArray[np.float32], valid: NDArray[np.bool_], camera: Camera | None
) -> Mapping[Reading, float] | None:
    """
    Args:
        depth_m, valid: (H, W).
        camera: intrinsics; None: whether it is range cannot be told.

    Returns:
        For each reading of the numbers, the share of pixels on the plane that holds most of them; None where fewer
        than a hundred pixels are measured.
    """
    known = valid & np.isfinite(depth_m)
    generator = np.random.default_rng(0)
    chosen = generator.permutation(np.flatnonzero(known))[:_PIXELS]
    if len(chosen) < 100:
        return None
    rows, columns = np.divmod(chosen, depth_m.shape[1])
    values = depth_m.reshape(-1)[chosen].astype(np.float64)
    readings: dict[Reading, NDArray[np.float64]] = {"z": 1.0 / values, "disparity": values}
    if camera:
        x, y = (columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px
        readings["range"] = np.sqrt(1.0 + x**2 + y**2) / values
    places = np.stack([columns, rows, np.full(len(chosen), depth_m.shape[1])], axis=1) / depth_m.shape[1]
    triples = generator.integers(len(chosen), size=(_PLANES, 3))
    corners = places[triples]
    triples = triples[np.abs(np.linalg.det(corners)) > 1e-4]
    if not len(triples):
        return None
    return {name: _share(reading, places, triples) for name, reading in readings.items()}


def _share(values: NDArray[np.float64], places: NDArray[np.float64], triples: NDArray[np.intp]) -> float:
    """Of the (M, 3) triples, the share of all (N,) values on the plane through the best of them."""
    planes = np.linalg.solve(places[triples], values[triples][..., None])[..., 0]
    return float((np.abs(planes @ places.T - values) < _TOLERANCE * values).mean(axis=1).max())

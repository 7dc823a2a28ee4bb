"""What the numbers of a depth map mean, by its flat surfaces.

The inverse of depth along the optical axis is linear in pixel coordinates over any plane, whatever the camera: with
X = x z / f and a plane n . X = d, 1 / z = n . (x / f, y / f, 1) / d. If the numbers are
disparity, they are linear themselves; if they are distances along the ray, 1 / distance times the length of the pixel's
ray is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera

Reading = Literal["z", "range", "disparity"]
_PIXELS = 2000
_PLANES = 200  # at random, each through three pixels
_TOLERANCE = 0.005  # share of the value itself
_PATCH_PX = 12
_MAX_BEND = 0.3  # share of its spread by which a piece of surface may differ from a plane
_SHARE_OF_SPREAD = 0.02  # tolerance as a share of the spread of the middle half of the values


def largest_plane(
    depth_m: NDArray[np.float32], valid: NDArray[np.bool_], camera: Camera | None
) -> Mapping[Reading, float] | None:
    """
    Args:
        depth_m, valid: (H, W).
        camera: intrinsics; None: distance along the ray is not tried.

    Returns:
        For each reading of the numbers, the share of pixels on the plane that holds most of them; None where fewer
        than a hundred pixels are measured.
    """
    drawn = _draw_triples(valid & np.isfinite(depth_m))
    if drawn is None:
        return None
    chosen, places, triples = drawn
    rows, columns = np.divmod(chosen, depth_m.shape[1])
    values = depth_m.reshape(-1)[chosen].astype(np.float64)
    readings: dict[Reading, NDArray[np.float64]] = {"z": 1.0 / values, "disparity": values}
    if camera:
        x, y = (columns - camera.cx_px) / camera.fx_px, (rows - camera.cy_px) / camera.fy_px
        readings["range"] = np.sqrt(1.0 + x**2 + y**2) / values
    return {name: _largest_share(reading, places, triples, _TOLERANCE * reading) for name, reading in readings.items()}


def flat_shares(known: NDArray[np.bool_], *readings: NDArray[np.float64]) -> list[float] | None:
    """
    Compare interpretations of the same values; near a plane means within a share of an interpretation's own spread.

    Args:
        known: (H, W), where something is measured.
        readings: (H, W), each of which would be linear in pixels over a plane if it were the right one.

    Returns:
        For each, the share of pixels on the plane that holds most of them; None where fewer than a hundred are known.
    """
    drawn = _draw_triples(known)
    if drawn is None:
        return None
    chosen, places, triples = drawn
    values = [reading.reshape(-1)[chosen] for reading in readings]
    spreads = [np.subtract(*np.percentile(reading, (75, 25))) for reading in values]
    return [
        _largest_share(reading, places, triples, np.full(len(reading), _SHARE_OF_SPREAD * spread))
        for reading, spread in zip(values, spreads, strict=True)
    ]


def measure_bends(known: NDArray[np.bool_], *readings: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    How far small pieces of surface are from planes, for each interpretation of the same values.

    Args:
        known: (H, W), where something is measured.
        readings: (H, W), each of which would be linear in pixels over a plane if it were the right one.

    Returns:
        (N, readings): for each measured square of 12 x 12 pixels, the deviation from its plane as a share of its
        spread. Squares that are no surface, with a share above 0.3, are left out.
    """
    height, width = (side // _PATCH_PX * _PATCH_PX for side in known.shape)

    def split(values: NDArray[np.generic]) -> NDArray[np.generic]:
        rows = values[:height, :width].reshape(height // _PATCH_PX, _PATCH_PX, width // _PATCH_PX, _PATCH_PX)
        return rows.swapaxes(1, 2).reshape(-1, _PATCH_PX**2)

    inside = split(known).all(axis=1)
    row, column = np.divmod(np.arange(_PATCH_PX**2), _PATCH_PX)
    plane, _ = np.linalg.qr(np.stack([row, column, np.ones_like(row)], axis=1).astype(np.float64))
    shares = []
    for reading in readings:
        patches = split(reading)[inside].astype(np.float64)
        apart = patches - patches @ plane @ plane.T
        # A constant square has no spread, and is left out.
        shares.append(np.sqrt((apart**2).mean(axis=1)) / np.maximum(patches.std(axis=1), 1e-12))
    found = np.stack(shares, axis=1)
    return found[(found < _MAX_BEND).all(axis=1) & (found > 0).all(axis=1)]


def _draw_triples(
    known: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.intp]] | None:
    """Pixels (N,), their (N, 3) places, and (M, 3) triples of them not in one line; None where there are few."""
    generator = np.random.default_rng(0)
    chosen = generator.permutation(np.flatnonzero(known))[:_PIXELS]
    if len(chosen) < 100:
        return None
    rows, columns = np.divmod(chosen, known.shape[1])
    places = np.stack([columns, rows, np.full(len(chosen), known.shape[1])], axis=1) / known.shape[1]
    triples = generator.integers(len(chosen), size=(_PLANES, 3))
    triples = triples[np.abs(np.linalg.det(places[triples])) > 1e-4]
    return (chosen, places, triples) if len(triples) else None


def _largest_share(
    values: NDArray[np.float64], places: NDArray[np.float64], triples: NDArray[np.intp], tolerance: NDArray[np.float64]
) -> float:
    """The share of all (N,) values on the plane through the best of the (M, 3) triples."""
    planes = np.linalg.solve(places[triples], values[triples][..., None])[..., 0]
    return float((np.abs(planes @ places.T - values) < tolerance).mean(axis=1).max())

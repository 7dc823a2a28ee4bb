"""Write depth as files that people and programs open: ``.npy``, 16-bit PNG, a preview in color, points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.inference.point_cloud import PointCloud
from finetune.reporting.images import add_labels, add_legend, colorize
from finetune.utils.files import explain_write_errors, remove, write_output

MAX_COUNTS = 65535  # the largest 16-bit number
UNITS_PER_METER = 1000.0


@dataclass(frozen=True, kw_only=True)
class MeterFiles:
    """Writes depth in meters.

    Attributes:
        units_per_meter: of the 16-bit PNG.
    """

    units_per_meter: float = UNITS_PER_METER

    @property
    def max_png_m(self) -> float:
        """The largest depth that the 16-bit PNG holds, meters."""
        return MAX_COUNTS / self.units_per_meter

    def write(
        self, depth_m: NDArray[np.float32], stem: Path, range_m: tuple[float, float], points: PointCloud | None = None
    ) -> bool:
        """
        Write ``<stem>.npy``, ``<stem>.png``, ``<stem>_preview.png`` and, if there are points, ``<stem>.ply``.

        Args:
            depth_m: (H, W), meters.
            stem: folder, and name without its ending.
            range_m: ends of the preview's colors, meters.
            points: of this depth.

        Returns:
            False if a depth is beyond ``max_png_m``: then there is no ``<stem>.png``, not even one of an earlier call.

        Raises:
            FinetuneError: nothing can be written there.
        """
        fits = bool(depth_m.max() <= self.max_png_m)
        if points is not None:
            with explain_write_errors(_add_ending(stem, ".ply")):
                points.save(_add_ending(stem, ".ply"))
        write_output(_add_ending(stem, "_preview.png"), _encode_png(meter_preview(depth_m, range_m)[..., ::-1]))
        counts_file = _add_ending(stem, ".png")
        if fits:
            write_output(
                counts_file, _encode_png(np.rint(depth_m.astype(np.float64) * self.units_per_meter).astype(np.uint16))
            )
        else:
            # One of an earlier call would be taken for this prediction.
            with explain_write_errors(counts_file):
                remove(counts_file)
        # Write .npy last: where it is, the other files are complete.
        write_output(_add_ending(stem, ".npy"), _encode_npy(depth_m))
        return fits


def meter_preview(depth_m: NDArray[np.float32], range_m: tuple[float, float]) -> NDArray[np.uint8]:
    """(H, W) meters -> (H + legend, W, 3) uint8, RGB."""
    return add_legend(colorize(depth_m, *range_m), *range_m, "m")


def spread_range(values: NDArray[np.float32]) -> tuple[float, float]:
    """
    Args:
        values: (H, W), any unit.

    Returns:
        Their 2nd and 98th percentile, a range that uses the colors well. If all values are the same, a range around
        them.
    """
    # About a hundred thousand values are enough for a percentile, and quick.
    step = max(1, int((values.size / 1e5) ** 0.5))
    low, high = np.percentile(values[::step, ::step], (2, 98)).tolist()
    if high - low <= 1e-3 * abs(high):
        low, high = low - 0.05 * abs(low), high + 0.05 * abs(high) or 1.0
    return low, high


def write_inverse(inverse: NDArray[np.float32], stem: Path, ends: tuple[float, float] | None = None) -> None:
    """
    Write ``<stem>_inverse.npy`` and ``<stem>_preview.png``.

    Args:
        inverse: (H, W), inverse depth of unknown scale and shift; larger is nearer.
        stem: folder, and name without its ending.
        ends: inverse depth at the ends of the colors, far and near; None: the smallest and the largest of the image.

    Raises:
        FinetuneError: nothing can be written there.
    """
    write_output(_add_ending(stem, "_preview.png"), _encode_png(inverse_preview(inverse, ends)[..., ::-1]))
    write_output(_add_ending(stem, "_inverse.npy"), _encode_npy(inverse))


def inverse_preview(inverse: NDArray[np.float32], ends: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """(H, W) inverse depth -> (H + legend, W, 3) uint8, RGB; ``ends`` as for ``write_inverse``."""
    far, near = ends or (float(inverse.min()), float(inverse.max()))
    # Near is blue, as in previews in meters. An image of one value has no range.
    picture = colorize(near - inverse, 0.0, (near - far) or 1.0)
    return add_labels(picture, ("near", "relative, no unit", "far"))


def _add_ending(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}{ending}")


def _encode_npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    encoded, data = cv2.imencode(".png", pixels)
    assert encoded
    return data.tobytes()

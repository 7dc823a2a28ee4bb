"""Depth as files that people and programs open: ``.npy``, 16-bit PNG, a picture, points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError
from finetune.pictures import colored, with_labels, with_legend
from finetune.point_cloud import PointCloud

MOST_COUNTS = 65535  # of 16 bits
UNITS_PER_METER = 1000.0


@dataclass(frozen=True, kw_only=True)
class MeterFiles:
    """How meters are written.

    Attributes:
        range_m: ends of the preview's colors, meters; fixed, so that previews compare.
        units_per_meter: of the 16-bit PNG.
    """

    range_m: tuple[float, float]
    units_per_meter: float = UNITS_PER_METER

    @property
    def most_m(self) -> float:
        """What the 16-bit PNG holds, meters."""
        return MOST_COUNTS / self.units_per_meter

    def preview(self, depth_m: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(H, W) meters -> (H + legend, W, 3) uint8, RGB."""
        return with_legend(colored(depth_m, *self.range_m), *self.range_m, "m")

    def write(self, depth_m: NDArray[np.float32], stem: Path, points: PointCloud | None = None) -> bool:
        """
        Write ``<stem>.npy``, ``<stem>.png``, ``<stem>_preview.png`` and, if there are points, ``<stem>.ply``.

        Args:
            depth_m: (H, W), meters.
            stem: folder, and name without its ending.
            points: of this depth.

        Returns:
            False when a depth is beyond ``most_m``: then there is no ``<stem>.png``, not even one of an earlier call.

        Raises:
            FinetuneError: nothing can be written there.
        """
        if points is not None:
            _save_points(points, _named(stem, ".ply"))
        _write(_named(stem, "_preview.png"), _png(self.preview(depth_m)[..., ::-1]))
        fits = bool(depth_m.max() <= self.most_m)
        counts_file = _named(stem, ".png")
        if fits:
            _write(counts_file, _png(np.rint(depth_m.astype(np.float64) * self.units_per_meter).astype(np.uint16)))
        else:
            # One of an earlier call would be taken for this answer.
            counts_file.unlink(missing_ok=True)
        # Last: where it stands, so do the others.
        _write(_named(stem, ".npy"), _npy(depth_m))
        return fits


def write_inverse(inverse: NDArray[np.float32], stem: Path) -> None:
    """
    Write ``<stem>_inverse.npy`` and ``<stem>_preview.png``, whose colors go from the image's nearest to its farthest.

    Args:
        inverse: (H, W), inverse depth of unknown scale and shift, bigger is nearer.
        stem: folder, and name without its ending.

    Raises:
        FinetuneError: nothing can be written there.
    """
    _write(_named(stem, "_preview.png"), _png(inverse_preview(inverse)[..., ::-1]))
    _write(_named(stem, "_inverse.npy"), _npy(inverse))


def inverse_preview(inverse: NDArray[np.float32], ends: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """(H, W) inverse depth -> (H + legend, W, 3) uint8, RGB; from its own farthest to its nearest, or between ends."""
    far, near = ends or (float(inverse.min()), float(inverse.max()))
    # Near is blue as it is in meters; an image of one value has no range.
    picture = colored(near - inverse, 0.0, (near - far) or 1.0)
    return with_labels(picture, ("near", "relative, no unit", "far"))


def _named(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}{ending}")


def _npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    encoded, data = cv2.imencode(".png", pixels)
    assert encoded
    return data.tobytes()


def _write(path: Path, content: bytes) -> None:
    """
    Raises:
        FinetuneError: the disk said no.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        raise _unwritable(path, error) from error


def _save_points(points: PointCloud, path: Path) -> None:
    """
    Raises:
        FinetuneError: the disk said no.
    """
    try:
        points.save(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FinetuneError:
    return FinetuneError(
        f"{path}: cannot be written ({error.strerror}). Name an --output where this user may write and there is room."
    )

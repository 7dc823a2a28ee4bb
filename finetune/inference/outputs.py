"""Write depth as files that people and programs open: ``.npy``, 16-bit PNG, a preview in color, points."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.label_files import DISAGREEMENT_UNITS
from finetune.inference.inputs import ENDINGS
from finetune.inference.point_cloud import PointCloud
from finetune.reporting.images import add_labels, add_legend, colorize
from finetune.utils.files import explain_write_errors, remove, write_output
from finetune.utils.kinds import Kind, rises_with_distance

# What follows the name of an image in that of its prediction.
PREDICTION_ENDINGS: dict[Kind, str] = {"metric": ".npy", "relative": "_inverse.npy", "relative_depth": "_relative.npy"}
MAX_COUNTS = 65535  # the largest 16-bit number
UNITS_PER_METER = 1000.0
# Where the colors of a preview of disagreement end: natural logarithm, about a quarter of a depth.
_MAX_SHOWN = 0.25


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
        self,
        depth_m: NDArray[np.float32],
        stem: Path,
        range_m: tuple[float, float],
        points: PointCloud | None = None,
        disagreement: NDArray[np.float32] | None = None,
    ) -> bool:
        """
        Write ``<stem>.npy``, ``<stem>.png``, ``<stem>_preview.png`` and, if there are points, ``<stem>.ply``. What this
        call does not write and an earlier one did, points and disagreement, is removed.

        Args:
            depth_m: (H, W), meters.
            stem: folder, and name without its ending.
            range_m: ends of the preview's colors, meters.
            points: of this depth.
            disagreement: (H, W), drawn next to the preview, and written as ``write_disagreement`` does.

        Returns:
            False if a depth is beyond ``max_png_m``: then there is no ``<stem>.png``, not even one of an earlier call.

        Raises:
            FinetuneError: nothing can be written there.
        """
        fits = bool(depth_m.max() <= self.max_png_m)
        if points is not None:
            with explain_write_errors(_add_ending(stem, ".ply")):
                points.save(_add_ending(stem, ".ply"))
        else:
            _remove_stale(stem, ".ply")
        _write_preview(stem, meter_preview(depth_m, range_m), disagreement)
        counts_file = _add_ending(stem, ".png")
        if fits:
            write_output(
                counts_file, encode_png(np.rint(depth_m.astype(np.float64) * self.units_per_meter).astype(np.uint16))
            )
        else:
            _remove_stale(stem, ".png")
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


def write_relative(
    prediction: NDArray[np.float32],
    stem: Path,
    kind: Kind,
    ends: tuple[float, float] | None = None,
    disagreement: NDArray[np.float32] | None = None,
) -> None:
    """
    Write ``<stem>_inverse.npy``, or ``<stem>_relative.npy`` of relative depth, and ``<stem>_preview.png``; the
    disagreement of an earlier call is removed.

    Args:
        prediction: (H, W), inverse depth or depth of unknown scale and shift.
        stem: folder, and name without its ending.
        kind: which of both.
        ends: the numbers at the ends of the colors, rising; None: the smallest and the largest of the image.
        disagreement: as for ``MeterFiles.write``.

    Raises:
        FinetuneError: nothing can be written there.
    """
    _write_preview(stem, relative_preview(prediction, kind, ends), disagreement)
    write_output(_add_ending(stem, PREDICTION_ENDINGS[kind]), _encode_npy(prediction))


def relative_preview(
    prediction: NDArray[np.float32], kind: Kind, ends: tuple[float, float] | None = None
) -> NDArray[np.uint8]:
    """(H, W) inverse depth or relative depth -> (H + legend, W, 3) uint8, RGB; arguments as for ``write_relative``."""
    low, high = ends or (float(prediction.min()), float(prediction.max()))
    # Near is blue, as in previews in meters. An image of one value has no range.
    distance = prediction - low if rises_with_distance(kind) else high - prediction
    picture = colorize(distance, 0.0, (high - low) or 1.0)
    return add_labels(picture, ("near", "relative, no unit", "far"))


def _write_preview(stem: Path, picture: NDArray[np.uint8], disagreement: NDArray[np.float32] | None) -> None:
    """Write ``<stem>_preview.png``, and what disagreement there is, next to it and as ``<stem>_unsure.png``."""
    if disagreement is not None:
        write_disagreement(disagreement, stem)
        doubt = add_legend(colorize(disagreement, 0.0, _MAX_SHOWN), 0.0, _MAX_SHOWN, "ln")
        height = max(len(picture), len(doubt))
        pictures = [np.pad(part, ((0, height - len(part)), (0, 0), (0, 0))) for part in (picture, doubt)]
        picture = np.hstack(pictures)
    else:
        _remove_stale(stem, "_unsure.png")
    write_output(_add_ending(stem, "_preview.png"), encode_png(picture[..., ::-1]))


def write_disagreement(disagreement: NDArray[np.float32], stem: Path) -> None:
    """
    Write ``<stem>_unsure.png``, 16 bits: natural logarithm times ``DISAGREEMENT_UNITS``; 65535 is that or more.

    Args:
        disagreement: (H, W), as ``predict_disagreement`` gives it.
        stem: folder, and name without its ending.

    Raises:
        FinetuneError: nothing can be written there.
    """
    write_output(_add_ending(stem, "_unsure.png"), encode_disagreement(disagreement))


def encode_disagreement(disagreement: NDArray[np.float32]) -> bytes:
    """(H, W) disagreement -> PNG of 16 bits: natural logarithm times ``DISAGREEMENT_UNITS``; 65535 is that or more."""
    counts = np.minimum(np.rint(disagreement.astype(np.float64) * DISAGREEMENT_UNITS), MAX_COUNTS)
    return encode_png(counts.astype(np.uint16))


def _remove_stale(stem: Path, ending: str) -> None:
    """Remove a file of an earlier call, which would be taken for one of this prediction."""
    path = _add_ending(stem, ending)
    with explain_write_errors(path):
        remove(path)


def remove_later_frames(folder: Path, count: int) -> None:
    """Remove the files of frames from number ``count`` on, which an earlier call left of a longer video."""
    for ending in ENDINGS:
        for path in folder.glob(f"[0-9]*{ending}"):
            number = path.name.removesuffix(ending)
            if number.isdecimal() and int(number) >= count:
                with explain_write_errors(path):
                    remove(path)


def _add_ending(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}{ending}")


def _encode_npy(values: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def encode_png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """(H, W) or (H, W, 3) BGR -> PNG."""
    encoded, data = cv2.imencode(".png", pixels)
    assert encoded
    return data.tobytes()

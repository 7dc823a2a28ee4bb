"""Write a frame: its image as it is or as PNG, its depth as 16-bit PNG, and what is to be known of it later."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.sample import is_sparse
from finetune.prepare.depth_unit import MAX_DEPTH_M, DepthRange, encode_depth, find_range
from finetune.prepare.frame_record import FrameRecord, camera_values, count_depths
from finetune.prepare.recording import RecordedFrame
from finetune.utils.errors import DataError
from finetune.utils.files import remove, unfinished_name
from finetune.utils.paths import make_folder
from finetune.utils.text import meters

IMAGE_FOLDER, DEPTH_FOLDER, CONFIDENCE_FOLDER = "image", "depth", "confidence"
# Two sizes have one shape if the ratios of their sides differ by at most this share; each side is rounded.
_ONE_SHAPE = 0.01
EMPTY = "nothing was measured in them"


@dataclass(frozen=True, kw_only=True)
class DepthLimits:
    """Depth up to ``min_m`` and beyond ``max_m``, meters, is left out; None for no limit."""

    min_m: float = 0.0
    max_m: float | None = None


def write_frame(
    folder: Path, index: int, name: str, frame: RecordedFrame, limits: DepthLimits, known: DepthRange
) -> FrameRecord:
    """
    Args:
        folder: that is prepared.
        index: of the frame in its source.
        name: of its files, without the ending.
        frame: as its kind gives it.
        limits: of the depth that is kept.
        known: the range of other frames; the unit of this one fits them too.

    Returns:
        What was written. A frame in which nothing was measured is left out.

    Raises:
        DataError: sizes or numbers are not those of a frame.
        OSError: the disk is full or broken.
    """
    depth_m = keep_depth(frame, limits)
    depths_m = depth_m[depth_m > 0]
    if not depths_m.size:
        return FrameRecord(index=index, source=frame.source, left_out=EMPTY)
    found = find_range(depths_m)
    if found.far_m > MAX_DEPTH_M:
        raise DataError(
            frame.source,
            f"reaches {meters(found.far_m)}, farther than 16 bits can hold in steps of 0.1 m",
            "Leave out what is far with --max-depth METERS",
        )
    image = f"{IMAGE_FOLDER}/{name}{frame.image_file.suffix.lower() if frame.image_file else '.png'}"
    confidence = "" if frame.confidence is None else f"{CONFIDENCE_FOLDER}/{name}.png"
    record = FrameRecord(
        index=index,
        source=frame.source,
        image=image,
        image_bytes=_write_image(folder / image, frame),
        depth=f"{DEPTH_FOLDER}/{name}.png",
        size=frame.image.shape[:2],
        depth_size=depth_m.shape,
        camera=camera_values(frame.camera),
        measured=int(depths_m.size),
        sparse=is_sparse(depth_m > 0),
        near_m=float(depths_m.min()),
        far_m=found.far_m,
        exact_units=found.exact_units,
        counts=count_depths(depths_m),
        totals=dict(frame.counts),
        confidence=confidence,
        confidence_bytes=_write_gray(folder / confidence, frame.confidence) if frame.confidence is not None else 0,
        facts=dict(frame.facts),
    )
    return write_depth(folder, record, depth_m, known.joined(found).unit)


def write_depth(folder: Path, record: FrameRecord, depth_m: NDArray[np.float32], unit: float) -> FrameRecord:
    """The record, after its depth was written in ``unit``, meters."""
    done, data = cv2.imencode(".png", encode_depth(depth_m, unit))
    assert done, "OpenCV encodes every (H, W) uint16"
    return replace(record, unit=unit, depth_bytes=_write_bytes(folder / record.depth, data))


def keep_depth(frame: RecordedFrame, limits: DepthLimits) -> NDArray[np.float32]:
    """
    The depth of a frame, meters, with 0 where there is none within the limits.

    Raises:
        DataError: the two do not show one view by their sizes.
    """
    image, depth_m = frame.image, frame.depth_m
    assert image.ndim == 3 and image.dtype == np.uint8 and depth_m.ndim == 2, "the contract of RecordedFrame"
    down, across = depth_m.shape[0] / image.shape[0], depth_m.shape[1] / image.shape[1]
    if max(down, across) > 1 or abs(down / across - 1) > _ONE_SHAPE:
        raise DataError(
            frame.source,
            f"depth is {depth_m.shape[0]}x{depth_m.shape[1]} (height x width), its image is "
            f"{image.shape[0]}x{image.shape[1]}",
            "Export both with one view and one size; depth may be smaller than its image, with the same shape",
        )
    kept = np.isfinite(depth_m) & (depth_m > limits.min_m)
    if limits.max_m is not None:
        kept &= depth_m <= limits.max_m
    return np.where(kept, depth_m, np.float32(0))


def _write_image(path: Path, frame: RecordedFrame) -> int:
    """The size of the file in bytes."""
    if frame.image_file is None:
        done, data = cv2.imencode(".png", frame.image[..., ::-1])
        assert done, "OpenCV encodes every (H, W, 3) uint8"
        return _write_bytes(path, data)
    with _moved_when_whole(path) as unfinished:
        shutil.copyfile(frame.image_file, unfinished)
    return path.stat().st_size


def _write_gray(path: Path, values: NDArray[np.uint8]) -> int:
    """The size of the file in bytes."""
    done, data = cv2.imencode(".png", values)
    assert done, "OpenCV encodes every (H, W) uint8"
    return _write_bytes(path, data)


def _write_bytes(path: Path, data: NDArray[np.uint8]) -> int:
    """Write a file; its size in bytes."""
    with _moved_when_whole(path) as unfinished:
        unfinished.write_bytes(data.tobytes())
    return len(data)


@contextmanager
def _moved_when_whole(path: Path) -> Iterator[Path]:
    """
    A hidden name next to ``path``, which becomes ``path`` when the block ends, and is removed if it ends with an error.

    Nothing is synced to the disk here, which would take longer than all else: the folder is synced at the end, and a
    later call writes again what has not the size that was noted.
    """
    make_folder(path.parent)
    unfinished = unfinished_name(path)
    try:
        remove(unfinished)
        yield unfinished
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            remove(unfinished)

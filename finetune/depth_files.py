"""Depth as files that people and programs open: ``.npy``, 16-bit PNG in millimeters, a picture."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.errors import FinetuneError
from finetune.pictures import colored, with_labels, with_legend

MOST_M = 65.535  # what 16 bits of millimeters hold


def write_meters(depth_m: NDArray[np.float32], max_depth_m: float, stem: Path) -> bool:
    """
    Write ``<stem>.npy``, ``<stem>.png`` in millimeters and ``<stem>_preview.png``, whose colors go from 0 to the max
    depth, so that previews of one model compare.

    Args:
        depth_m: (H, W), meters.
        max_depth_m: of the model.
        stem: folder, and name without its ending.

    Returns:
        False when a depth is beyond ``MOST_M``: then there is no ``<stem>.png``, not even one of an earlier call.

    Raises:
        FinetuneError: nothing can be written there.
    """
    _write(_named(stem, ".npy"), _npy(depth_m))
    preview = with_legend(colored(depth_m, 0.0, max_depth_m), 0.0, max_depth_m, "m")
    _write(_named(stem, "_preview.png"), _png(preview[..., ::-1]))
    in_millimeters = _named(stem, ".png")
    if depth_m.max() > MOST_M:
        # One of an earlier call would be taken for this answer.
        in_millimeters.unlink(missing_ok=True)
        return False
    _write(in_millimeters, _png(np.rint(depth_m * 1000.0).astype(np.uint16)))
    return True


def write_inverse(inverse: NDArray[np.float32], stem: Path) -> None:
    """
    Write ``<stem>_inverse.npy`` and ``<stem>_preview.png``, whose colors go from the image's nearest to its farthest.

    Args:
        inverse: (H, W), inverse depth of unknown scale and shift, bigger is nearer.
        stem: folder, and name without its ending.

    Raises:
        FinetuneError: nothing can be written there.
    """
    _write(_named(stem, "_inverse.npy"), _npy(inverse))
    far, near = float(inverse.min()), float(inverse.max())
    # Near is blue as it is in meters; an image of one value has no range.
    picture = colored(near - inverse, 0.0, (near - far) or 1.0)
    _write(_named(stem, "_preview.png"), _png(with_labels(picture, ("near", "relative, no unit", "far"))[..., ::-1]))


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
        raise FinetuneError(
            f"{path}: cannot be written ({error.strerror}). Name an --output where this user may write and there is "
            "room."
        ) from error

"""Which frames belong to an official split: a fact, kept as frame numbers of each scene or drive."""

from __future__ import annotations

import json
from pathlib import Path


def split_frames(name: str) -> list[tuple[str, int]]:
    """
    Args:
        name: a split kept here: ``nyuv2_train``, ``nyuv2_test``, ``kitti_eigen_train``, ``kitti_eigen_test``.

    Returns:
        (scene or drive, frame number) of every frame, sorted by name and then by number. The published lists are
        shuffled or in an order of their own; which frames they hold is the same.
    """
    packed = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))["frames"]
    return [(group, frame) for group in sorted(packed) for frame in _unpacked(packed[group])]


def _unpacked(ranges: str) -> list[int]:
    """``"1-3 7"`` -> 1, 2, 3, 7."""
    bounds = (span.partition("-") for span in ranges.split())
    return [frame for first, _, last in bounds for frame in range(int(first), int(last or first) + 1)]

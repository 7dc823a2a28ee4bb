"""The image on which an export is compared by default."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.files import read_image
from finetune.utils.paths import is_file


def default_test_image() -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB: a frame of ``data/room`` if it is there, as in a clone, else ``draw_dead_leaves()``."""
    path = Path(__file__).resolve().parents[2] / "data" / "room" / "color" / "0000.jpg"
    return read_image(path) if is_file(path) else draw_dead_leaves()


def draw_dead_leaves(height: int = 480, width: int = 640, seed: int = 0) -> NDArray[np.uint8]:
    """
    Returns:
        (height, width, 3) uint8, RGB: opaque shaded disks, the number of those larger than r falling with 1 / r^2, so
        that there are edges at every scale, as in photographs. Source: Lee, Mumford, Huang 2001, IJCV 41 (dead leaves).
    """
    generator = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 128, np.uint8)
    smallest, largest = 4.0, 200.0
    for share in generator.uniform(size=4000):
        # The inverse of the distribution function of density r^-3 between the two radii.
        radius = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
        center = generator.integers((0, 0), (width, height))
        color = generator.integers(20, 236) + generator.integers(-20, 20, 3)
        cv2.circle(picture, center.tolist(), round(radius), np.clip(color, 0, 255).tolist(), cv2.FILLED, cv2.LINE_AA)
    shading = np.linspace(0.6, 1.0, height)[:, None, None]
    return np.asarray(picture * shading, dtype=np.uint8)

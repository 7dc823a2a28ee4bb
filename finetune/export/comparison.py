"""The difference between an exported model and its source, measured on one image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the exported files' prediction is from the model's own, on one image. Printed: one line, and the notes.

    Attributes:
        output: the exported file or folder.
        to: the format.
        image_size: height and width, pixels.
        largest, mean: absolute difference over the image; meters for a metric model.
        near, far: largest and mean difference over the nearer half of the pixels, and over the farther half.
        spread: max - min of the model's own prediction.
        limit: the largest difference allowed, as a share of the spread; infinity where something else decides.
        unit: ``m``, or ``inverse depth``.
        stored_as: a precision, such as ``float32``.
        notes: sentences about the format, one a line.
    """

    output: Path
    to: str
    image_size: tuple[int, int]
    largest: float
    mean: float
    near: tuple[float, float]
    far: tuple[float, float]
    spread: float
    limit: float
    unit: str
    stored_as: str = "float32"
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        height, width = self.image_size
        stored = "" if self.stored_as == "float32" else f" stored as {self.stored_as},"
        allowed = "" if math.isinf(self.limit) else f" ({self._in_unit(self.limit * self.spread)} allowed)"
        line = (
            f"{self.output}: {self.to},{stored} reloaded: {self._difference()} on an image of {height}x{width}{allowed}"
        )
        return "\n".join((line, *self.notes))

    def _difference(self) -> str:
        if self.largest == 0:
            return "identical"
        halves = f"near half {self._in_unit(self.near[0])}, far half {self._in_unit(self.far[0])}"
        return f"differs by at most {self._in_unit(self.largest)}, by {self._in_unit(self.mean)} on average ({halves})"

    def _in_unit(self, value: float) -> str:
        """Meters as millimeters; inverse depth, which has no unit, as a share of the prediction's spread."""
        return f"{1000 * value:.2g} mm" if self.unit == "m" else f"{value / self.spread:.2g} of the spread"

    @property
    def acceptable(self) -> bool:
        """Whether the largest difference is within the limit. NaN is not."""
        return self.largest <= self.limit * self.spread

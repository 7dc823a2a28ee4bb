"""How far what was exported is from the model, measured on one image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far the exported files' answer is from the model's own, on one image; printed, one line and the notes.

    Attributes:
        output: what was exported.
        to: the format.
        image_size: height and width, pixels.
        largest, mean: absolute difference over the image; meters for a metric model.
        near, far: largest and mean over the half of the pixels that the model sees nearer, and over the other half.
        spread: max - min of the model's own answer.
        limit: the largest acceptable share of the spread.
        unit: ``m``, or ``inverse depth``.
        stored_as: ``float32`` or ``float16``.
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
        halves = ", ".join(
            f"{name} half {largest:.2g} and {mean:.2g}"
            for name, (largest, mean) in (("near", self.near), ("far", self.far))
        )
        stored = "" if self.stored_as == "float32" else f" stored as {self.stored_as},"
        line = (
            f"{self.output}: {self.to},{stored} reloaded and compared on an image of {height}x{width}: largest "
            f"difference {self.largest:.2g} {self.unit}, mean {self.mean:.2g} ({halves}); allowed "
            f"{self.limit * self.spread:.2g} ({self.limit:g} of the answer's spread, {self.spread:.3g} {self.unit})"
        )
        return "\n".join((line, *self.notes))

    @property
    def acceptable(self) -> bool:
        """Whether the largest difference is within the limit; one that is not a number is not."""
        return self.largest <= self.limit * self.spread

"""How image files are read: which numbers of more than 8 bits become black and white, and whether JPEG is reduced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Whether a JPEG that is much larger than the network sees it is decoded at its size, or at a part of it.
Decode = Literal["full", "reduced"]


@dataclass(frozen=True, kw_only=True)
class ImageLevels:
    """Which numbers of an image of more than 8 bits become black and white. Numbers beyond them become the same.

    Attributes:
        black, white: numbers as the file stores them, such as 7200 and 8100 of a thermal camera's counts.
        percentiles: instead of both, two percentiles of each image's own numbers, such as (1, 99).
    """

    black: float | None = None
    white: float | None = None
    percentiles: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: neither is given, or both are, or white is not above black.
        """
        ends = self.percentiles if self.percentiles is not None else (self.black, self.white)
        low, high = ends
        both = self.percentiles is not None and (self.black is not None or self.white is not None)
        if both or low is None or high is None or not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError("expected black below white, or two percentiles, the lower first")
        if self.percentiles is not None and not 0 <= low < high <= 100:
            raise ValueError("expected two percentiles from 0 to 100, the lower first")

    def to_8_bit(self, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
        """(H, W, C) numbers -> (H, W, C) uint8, rounded. By percentiles, an image of just one number becomes black."""
        numbers = pixels.astype(np.float64)
        if self.percentiles is None:
            black, white = self.black, self.white
        else:
            finite = numbers[np.isfinite(numbers)]
            black, white = np.percentile(finite, self.percentiles) if finite.size else (0.0, 1.0)
        assert black is not None and white is not None
        share = (np.nan_to_num(numbers, nan=black, posinf=white, neginf=black) - black) / ((white - black) or 1.0)
        return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)

    def to_mapping(self) -> dict[str, float | list[float] | None]:
        """Plain values, for the metadata of a weights file."""
        if self.percentiles is not None:
            return {"percentiles": list(self.percentiles)}
        return {"black": self.black, "white": self.white}

    @classmethod
    def from_mapping(cls, mapping: object) -> ImageLevels:
        """
        The inverse of ``to_mapping``.

        Raises:
            ValueError: it is no mapping that ``to_mapping`` returns.
        """
        expected = ValueError(f"image_levels is {str(mapping)[:80]}; expected black and white, or percentiles")
        if not isinstance(mapping, Mapping) or set(mapping) not in ({"black", "white"}, {"percentiles"}):
            raise expected
        values = mapping.get("percentiles", [mapping.get("black"), mapping.get("white")])
        if not isinstance(values, list | tuple) or len(values) != 2 or not all(map(_is_number, values)):
            raise expected
        try:
            low, high = float(values[0]), float(values[1])
            return cls(percentiles=(low, high)) if "percentiles" in mapping else cls(black=low, white=high)
        except (ValueError, OverflowError):
            raise expected from None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

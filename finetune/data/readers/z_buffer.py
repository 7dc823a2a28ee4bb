"""Depth buffers of renderers: numbers between a near and a far plane that are linear in inverse depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from finetune.utils.errors import DataError, RecipeError

# What the number is at the near plane and at the far plane. zero_to_one is what Direct3D and Vulkan write, and what
# glReadPixels gives of OpenGL (PyBullet, CoppeliaSim); one_to_zero is reversed-z (Unreal, Unity); minus_one_to_one are
# OpenGL's normalized device coordinates.
ZBufferRange = Literal["zero_to_one", "one_to_zero", "minus_one_to_one"]
DEFAULT_RANGE: ZBufferRange = "zero_to_one"
_ROUNDING = 1e-6  # of numbers that end at 1, stored as float32
_MOST_OUTSIDE = 0.5  # share of a map's numbers that may be beyond the far plane, as codes for "nothing"


@dataclass(frozen=True, kw_only=True)
class ZBuffer:
    """
    The planes and the numbers of a depth buffer under a perspective projection.

    With n and f for the meters of the two planes, zero_to_one is f / (f - n) * (1 - n / z). The nearness, 1 less that
    number, is 1 at the near plane and 0 at the far plane. It is what one_to_zero stores, where floats are finest, so it
    is what all three become first.

    Attributes:
        near_m: near plane of the renderer's camera, meters.
        far_m: its far plane; infinity where there is none.
        per_unit: stored number times this is the buffer's: 1 / 65535 for 16 bits.
        range: the buffer's numbers at the near and at the far plane.
    """

    near_m: float
    far_m: float
    per_unit: float
    range: ZBufferRange

    def require_options(self) -> None:
        """
        Raises:
            RecipeError: a plane or the unit is out of range.
        """
        if not 0.0 < self.near_m < math.inf:
            raise RecipeError("z_near_m", self.near_m, "meters above 0: the near plane of the renderer's camera")
        if not self.near_m < self.far_m:
            raise RecipeError(
                "z_far_m", self.far_m, f"meters beyond z_near_m, {self.near_m:g}, or .inf for no far plane"
            )
        if not 0.0 < self.per_unit < math.inf:
            raise RecipeError("z_buffer_per_unit", self.per_unit, "a number above 0, such as 1.5259e-5 for 1 / 65535")

    @property
    def nearness_per_unit(self) -> float:
        """Stored number times this, plus ``nearness_offset``, is the nearness."""
        return {
            "zero_to_one": -self.per_unit,
            "one_to_zero": self.per_unit,
            "minus_one_to_one": -self.per_unit / 2,
        }[self.range]

    @property
    def nearness_offset(self) -> float:
        """See ``nearness_per_unit``."""
        return {"zero_to_one": 1.0, "one_to_zero": 0.0, "minus_one_to_one": 0.5}[self.range]

    def to_meters(self, nearness: NDArray[np.floating]) -> NDArray[np.float64]:
        """Depth along the optical axis, meters, of nearnesses above 0: 1 / z is linear in them."""
        at_far = self._share_at_far
        return self.near_m / (at_far + np.asarray(nearness, np.float64) * (1.0 - at_far))

    def stored_number(self, depth_m: float) -> float:
        """The number in a file that becomes this depth, meters."""
        at_far = self._share_at_far
        return self._stored((self.near_m / depth_m - at_far) / (1.0 - at_far))

    def require_numbers(self, nearness: NDArray[np.floating], valid: NDArray[np.bool_], source: str) -> None:
        """
        Args:
            nearness: (H, W), of a depth file.
            valid: (H, W), True where the number is not one of ``invalid`` and the nearness is above 0.
            source: the file.

        Raises:
            DataError: the numbers are none of such a buffer.
        """
        nearest = float(nearness[valid].max()) if valid.any() else 0.0
        beyond = float(np.mean(nearness < -_ROUNDING))
        if nearest <= 1.0 + _ROUNDING and beyond <= _MOST_OUTSIDE:
            return
        outside = nearest if nearest > 1.0 + _ROUNDING else float(nearness.min())
        low, high = sorted(map(self._stored, (0.0, 1.0)))
        raise DataError(
            source,
            f"holds {self._stored(outside):.6g}, but a depth buffer {self.range} has numbers from {low:.6g} to "
            f"{high:.6g}",
            "Set z_buffer_range and z_buffer_per_unit as the renderer writes it (1.5259e-5 for 16 bits), or invalid to "
            "its codes for nothing",
        )

    @property
    def _share_at_far(self) -> float:
        """Near plane over far plane: near_m / z at the far plane."""
        return self.near_m / self.far_m

    def _stored(self, nearness: float) -> float:
        """The number in a file at a nearness: at 1 that of the near plane, at 0 that of the far plane."""
        return (nearness - self.nearness_offset) / self.nearness_per_unit + 0.0  # 0 instead of -0

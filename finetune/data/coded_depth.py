"""Depth as a file stores it, in whole numbers of 16 bits, and what they mean: only what is used becomes meters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

NUMBERS = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthTable:
    """What each number of 16 bits means.

    Attributes:
        meters: (65536,) float32.
        measured: (65536,) bool, True where the number is a measurement.
    """

    meters: NDArray[np.float32]
    measured: NDArray[np.bool_]

    @cached_property
    def measured_m(self) -> NDArray[np.float32]:
        """(65536,) float32 meters, 0 where the number is no measurement."""
        return np.where(self.measured, self.meters, np.float32(0.0))

    @cached_property
    def ranks(self) -> NDArray[np.uint16] | None:
        """
        (65536,): numbers in the order of their depths, which are the numbers themselves, and the largest one for what
        is no measurement; None where a larger number may be a smaller depth, or the largest one is a measurement.
        """
        in_order = self.meters[self.measured]
        if self.measured[-1] or (in_order[1:] < in_order[:-1]).any():
            return None
        return np.where(self.measured, np.arange(NUMBERS), NUMBERS - 1).astype(np.uint16)

    @cached_property
    def stretch(self) -> tuple[int, int] | None:
        """The first and the last measurement, if all between them are measurements."""
        found = np.flatnonzero(self.measured)
        if not len(found) or found[-1] - found[0] + 1 != len(found):
            return None
        return int(found[0]), int(found[-1])

    def changed(
        self,
        change: Callable[[NDArray[np.float32], NDArray[np.bool_]], tuple[NDArray[np.float32], NDArray[np.bool_]]],
    ) -> DepthTable:
        """The table after a change of meters and of what is valid that looks at each pixel by itself."""
        meters, measured = change(self.meters, self.measured)
        return DepthTable(meters=meters, measured=measured)


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedDepth:
    """A depth map that has not become meters yet.

    Attributes:
        numbers: (H, W) uint16, as stored.
        table: what they mean.
    """

    numbers: NDArray[np.uint16]
    table: DepthTable

    def depth_m(self) -> NDArray[np.float32]:
        """(H, W) meters; anything where nothing was measured."""
        return look_up(self.numbers, self.table.meters)

    def valid(self) -> NDArray[np.bool_]:
        """(H, W), True where depth was measured."""
        stretch = self.table.stretch
        if stretch is not None and self.numbers.max(initial=0) <= stretch[1]:
            return self.numbers >= np.uint16(stretch[0])  # a third of the time of a table
        return look_up(self.numbers, self.table.measured.view(np.uint8)).view(np.bool_)

    def window(self, rows: slice, columns: slice) -> CodedDepth:
        """Part of the map."""
        return replace(self, numbers=np.ascontiguousarray(self.numbers[rows, columns]))


_Value = TypeVar("_Value", bound=np.generic)


def look_up(numbers: NDArray[np.uint16], table: NDArray[_Value]) -> NDArray[_Value]:
    """The value of each number, by a table of all; numpy takes five times as long."""
    import cv2

    return cast(NDArray[_Value], cv2.LUT(np.ascontiguousarray(numbers), table.reshape(1, -1)))

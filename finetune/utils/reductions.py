"""Indices that stand for many."""

from __future__ import annotations

import numpy as np


def evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``count`` indices, at equal distances, first and last included."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})

"""Choose a few indices that represent many."""

from __future__ import annotations

import numpy as np


def evenly_spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the indices 0 to ``count`` - 1, equally far apart, the first and the last among them."""
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, most)).round()})

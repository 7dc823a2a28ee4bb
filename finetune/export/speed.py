"""How long predictions take, measured in turn, so that whatever else the machine does slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

ROUNDS = 7


def time_in_turn(runs: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of the fastest call of each, over ``rounds`` rounds after one that is not counted."""
    taken_s: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            taken_s[name].append(time.perf_counter() - started)
    return {name: 1000 * min(values[1:]) for name, values in taken_s.items()}

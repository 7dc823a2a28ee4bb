"""Frames of 112x154 that two single-threaded processes draw in a second, as they are trained on.

    python tests/benchmarks/scenes_speed.py

With all faults of the color camera and 15 % open ground, as in recipes/scenes_tiny_relative.yaml; both processes draw
at once, so that they share what two cores share. Drawn one by one, as a data loader asks for them, and sixteen at once,
as ``Scenes.batch`` has it. Exits 1 where sixteen at once are slower than 50 a second. Takes about ten seconds on two
idle cores; what else runs on them counts against it, and the rate by CPU time tells how much.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Barrier

# Before torch is imported, here and in the processes.
os.environ["OMP_NUM_THREADS"] = "1"

MIN_PER_S = 50.0
PROCESSES = 2
FRAMES = 96  # of each process and way


def drawn(process: int, together: int) -> tuple[float, float]:
    """Seconds that one process takes for its frames, by the clock and of CPU time."""
    from finetune.data.readers.scenes import Scenes

    reader = Scenes(
        count=10**6,
        size=(112, 154),
        outdoors=0.15,
        noise=0.06,
        blur_px=1.0,
        vignette=0.3,
        exposure_stops=0.7,
        tint=0.15,
        jpeg_quality=40,
    )
    started, used = time.perf_counter(), time.process_time()
    for first in range(process * FRAMES, (process + 1) * FRAMES, together):
        reader.batch(range(first, first + together))
    return time.perf_counter() - started, time.process_time() - used


def work(process: int, ready: Barrier, seconds: multiprocessing.Queue[tuple[int, float, float]]) -> None:
    """What each process does: once to warm up, then one by one, then sixteen at once."""
    import torch

    torch.set_num_threads(1)
    drawn(process, 16)
    for together in (1, 16):
        ready.wait()
        seconds.put((together, *drawn(process, together)))


def main() -> int:
    """Print both rates; 1 where the second is below the bound."""
    context = multiprocessing.get_context("spawn")
    ready, seconds = context.Barrier(PROCESSES), context.Queue()
    workers = [context.Process(target=work, args=(process, ready, seconds)) for process in range(PROCESSES)]
    for worker in workers:
        worker.start()
    took = [seconds.get() for _ in range(2 * PROCESSES)]
    for worker in workers:
        worker.join()
    for name, together in (("one by one", 1), ("sixteen at once", 16)):
        slowest, used = (max(row[which] for row in took if row[0] == together) for which in (1, 2))
        rate = PROCESSES * FRAMES / slowest
        print(f"{name}: {rate:.0f} frames/s from {PROCESSES} processes, {PROCESSES * FRAMES / used:.0f} by CPU time")
    if rate >= MIN_PER_S:
        return 0
    print(f"{rate:.1f} frames a second are fewer than {MIN_PER_S:.0f}.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

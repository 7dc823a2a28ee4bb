"""Open a list of one million pairs, and print how long it takes and what memory it costs.

    python tests/benchmarks/million_pairs.py [--frames 1000000]

The list is written to a temporary folder first; no image of it exists, since opening a list looks at none. A process of
its own then makes the reader, asks how long it is, and for the names of the first and the last frame. Exits 1 where
that takes 10 s or its memory peaks above 500 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS, MAX_MB = 10.0, 500.0
CHILD = """
import resource, sys, time
from finetune.data.readers.pairs import Pairs
started = time.perf_counter()
reader = Pairs(root=sys.argv[1], list=sys.argv[2], meters_per_unit=0.001)
reader.check_paths()
count = len(reader)
names = reader.source(0), reader.source(count - 1)
seconds = time.perf_counter() - started
print(count, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def opened(folder: Path, frames: int) -> tuple[int, float, float]:
    """Frames, seconds, and peak memory in MB of the process that opens a list of so many."""
    path = folder / f"{frames}.txt"
    with path.open("w", encoding="utf-8") as file:
        for number in range(frames):
            place = f"scene_{number // 1000:04}/camera_{number % 4}"
            file.write(f"{place}/color/{number:07}.jpg {place}/depth/{number:07}.png\n")
    call = [sys.executable, "-c", CHILD, str(folder), str(path)]
    printed = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    return int(printed[0]), float(printed[1]), float(printed[2])


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        _, _, least_mb = opened(Path(temporary), 1)
        count, seconds, peak_mb = opened(Path(temporary), arguments.frames)
    print(f"{count} pairs: {seconds:.1f} s, peak {peak_mb:.0f} MB, of which {least_mb:.0f} MB are those of one pair")
    return 0 if seconds < MAX_SECONDS and peak_mb < MAX_MB else 1


if __name__ == "__main__":
    sys.exit(main())

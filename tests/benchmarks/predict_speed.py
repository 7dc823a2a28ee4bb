"""Images a second of ``finetune predict`` on a CPU, its use of the cores, and the same of another checkout.

    python tests/benchmarks/predict_speed.py                                # this checkout
    git worktree add /tmp/before COMMIT
    python tests/benchmarks/predict_speed.py --other /tmp/before --turns 3  # both in turns, and whether they agree

A folder of JPEGs of 640x480 is drawn, and weights of vits at 518x518. Each call is the whole command, with its start
and all files that it writes. CPU use is the time of all cores that the process had, by the time that went by. The exit
status is 1 where the ratio or the use is below its limit. Anything else that runs on the machine lowers the use and
makes the ratio noise: call it on a quiet one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LEAST_RATIO, LEAST_USE = 1.25, 0.9


@dataclass(frozen=True, kw_only=True)
class Call:
    """What one call of the command took."""

    seconds: float
    cpu_seconds: float

    def use(self, cores: int) -> float:
        """Share of the cores' time, 1 where all were busy."""
        return self.cpu_seconds / (self.seconds * cores)


def draw_images(folder: Path, count: int) -> None:
    """Smooth colors, as JPEGs of 640x480."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        small = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:04}.jpg"), cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC))


def draw_weights(path: Path, encoder: str) -> None:
    """Weights of a metric model that nothing was trained for."""
    from finetune.data.preprocessing import Preprocessing
    from finetune.models.checkpoints.save import save_native
    from finetune.training.head_init import draw_model

    base = {"source": "drawn", "sha256": "0" * 64, "license": None}
    preprocessing = Preprocessing(input_size=(518, 518)).to_mapping()
    save_native(path, draw_model(encoder, 10.0, 0), {"preprocessing": preprocessing, "base": base})


def call_predict(tree: Path, weights: Path, images: Path, output: Path) -> Call:
    """One call of the command of a checkout.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, str(tree / "finetune" / "predict.py"), str(weights), str(images)]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--output", str(output), "--device", "cpu"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{tree}: the command failed")
    return Call(seconds=time.perf_counter() - began, cpu_seconds=used.ru_utime + used.ru_stime)


def largest_difference(first: Path, second: Path) -> float:
    """Largest relative difference between the meters in two folders."""
    import numpy as np

    pairs = [(np.load(path), np.load(second / path.name)) for path in sorted(first.glob("*.npy"))]
    return max(float((np.abs(own - other) / other).max()) for own, other in pairs)


def main() -> int:
    """Measure, in turns where there are two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", type=Path, metavar="DIR", help="another checkout, called in turns with this one")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--encoder", default="vits")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    trees = {"this": ROOT} | ({"other": arguments.other.resolve()} if arguments.other else {})
    calls: dict[str, list[Call]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        draw_images(place / "images", arguments.images)
        draw_weights(place / "drawn.safetensors", arguments.encoder)
        for turn in range(arguments.turns):
            for name, tree in list(trees.items())[:: -1 if turn % 2 else 1]:
                call = call_predict(tree, place / "drawn.safetensors", place / "images", place / name)
                calls[name].append(call)
                print(
                    f"{name}: {arguments.images / call.seconds:.3f} images/s, "
                    f"{call.cpu_seconds / arguments.images:.2f} s of CPU an image, use of {cores} cores "
                    f"{call.use(cores):.0%}",
                    flush=True,
                )
        use = statistics.median(call.use(cores) for call in calls["this"])
        passed = use >= LEAST_USE
        if arguments.other:
            # Calls of one turn have the machine in the same state.
            pairs = zip(calls["this"], calls["other"], strict=True)
            ratio = statistics.median(other.seconds / own.seconds for own, other in pairs)
            passed = passed and ratio >= LEAST_RATIO
            difference = largest_difference(place / "this", place / "other")
            print(f"ratio {ratio:.3f} (at least {LEAST_RATIO}), largest relative difference {difference:.1e}")
    print(f"use {use:.0%} (at least {LEAST_USE:.0%})")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

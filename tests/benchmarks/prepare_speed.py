"""Prepare frames of 640x480 by the command, and print how many it writes in a second.

    python tests/benchmarks/prepare_speed.py [--frames 288] [--workers 2]

JPEG images and 16-bit depth are made first, with the noise of a camera. The command then prepares 48 of them and all of
them: the difference is what a frame takes without the start and the page. Exits 1 below 15 frames a second.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MIN_RATE = 15.0
FEW = 48  # enough for two processes
HEIGHT, WIDTH = 480, 640


def write_frames(folder: Path, count: int) -> None:
    """Smooth surfaces in millimeters and images of them, with noise and holes."""
    rng = np.random.default_rng(0)
    for name in ("rgb", "depth"):
        (folder / name).mkdir()
    for i in range(count):
        coarse = rng.uniform(500, 6000, (7, 9)).astype(np.float32)
        depth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(300, 8000)
        depth += rng.normal(0, 3, depth.shape)
        depth[rng.random(depth.shape) < 0.02] = 0
        color = cv2.resize(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8), (WIDTH, HEIGHT)).astype(np.float32)
        color += rng.normal(0, 4, color.shape)
        cv2.imwrite(str(folder / "rgb" / f"{i:05}.jpg"), color.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(folder / "depth" / f"{i:05}.png"), depth.astype(np.uint16))


def prepare(folder: Path, frames: int, workers: int) -> tuple[float, float]:
    """Seconds and seconds of CPU of a call that prepares so many frames."""
    words = ("frames", folder / "rgb", folder / "depth", "--sensor", "realsense", "--output", folder / f"out{frames}")
    options = ("--max-frames", frames, "--workers", workers, "--no-check")
    command = [sys.executable, "-m", "finetune", "prepare", *map(str, (*words, *options))]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=288)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        write_frames(Path(name), arguments.frames)
        few, every = (prepare(Path(name), count, arguments.workers) for count in (FEW, arguments.frames))
    seconds, cpu = ((after - before) / (arguments.frames - FEW) for before, after in zip(few, every, strict=True))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{1 / seconds:.1f} frames/s, {1000 * cpu:.0f} ms of CPU a frame (load of the machine {busy:.1f})")
    return int(1 / seconds < MIN_RATE)


if __name__ == "__main__":
    sys.exit(main())

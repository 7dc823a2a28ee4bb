"""Images a second of the whole `train` command with a network that costs next to nothing: how well data reach it.

    DEPTH_SAMPLES=/path/to/samples PYTHONPATH=. python tests/benchmarks/train_command.py [--only nyu_518] [--steps 40]

The command trains on the frames of ``data_path.py`` with one loader worker and one thread. Only the network is another
one: a linear layer of each pixel's three colors in place of encoder and decoder. Normalization, losses, optimizer, log
and the rest stay. Its images a second between logged steps are compared with 1 / (time of a sample), that of this
process making such samples one after the other, before and after the command. At 1 nothing is lost on the way.

On two quiet cores both are times of a clock. Where other programs run, the shares of the cores that worker and trainer
get change, and the ratio says little. So the processor time of an image is printed as well, in the worker and in the
process that trains: the larger of the two bounds a command that has a core for each. Exits 1 where the ratio by the
clock is below its limit; with ``--processor-time`` where that bound is.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import Tensor

from finetune.data.dataloader import collate
from finetune.utils.memory import keep_freed_memory
from tests.benchmarks.data_path import BATCH_SIZE, CASES, FILES, Case, files_reader, make_samples, write_frames

LIMIT = 0.85
_USED = "processor seconds"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """Seconds an image, by the clock and of the processor."""

    clock: float
    processor: float


def time_samples(case: Case, folder: Path) -> Spent:
    """A sample with its share of a batch, made here."""
    samples = make_samples(case, files_reader(case, folder))
    collate(samples.__getitems__(range(BATCH_SIZE)))  # imports, and fills tables
    clock, processor = [], []
    for first in range(0, FILES, BATCH_SIZE):
        began = time.perf_counter(), time.process_time()
        collate(samples.__getitems__(range(first, first + BATCH_SIZE)))
        clock.append((time.perf_counter() - began[0]) / BATCH_SIZE)
        processor.append((time.process_time() - began[1]) / BATCH_SIZE)
    return Spent(clock=statistics.fmean(clock), processor=statistics.fmean(processor))


def write_recipe(case: Case, folder: Path, output: Path, steps: int) -> Path:
    """A recipe whose only validation frame is the first training frame."""
    entry = {
        "reader": "pairs",
        "root": str(folder),
        "image_dir": "color",
        "depth_dir": "depth",
        "meters_per_unit": case.meters_per_unit,
    }
    first = [min(path for path in (folder / part).iterdir()) for part in ("color", "depth")]
    (folder / "first.txt").write_text(" ".join(f"{path.parent.name}/{path.name}" for path in first) + "\n")
    val = {key: value for key, value in entry.items() if not key.endswith("_dir")} | {"list": "first.txt"}
    recipe = {
        "name": case.name,
        "output": str(output),
        "model": {"checkpoint": None, "encoder": "tiny", "max_depth_m": case.max_depth_m, "decoder_init": "scratch"},
        "data": {
            "input_size": case.input_size,
            "train": [entry],
            "val": [val],
            "workers": 1,
            "val_may_repeat_train": True,
            "accept": ["registration", "unit", "max_depth", "sentinel", "constant"],
        },
        "run": {
            "steps": steps,
            "batch_size": BATCH_SIZE,
            "threads": 1,
            "precision": "fp32",
            "log_every_steps": 5,
            "evaluate_every_steps": steps,
            "save_every_steps": steps,
            "trackers": [],
        },
        "export": [],
    }
    path = output / f"{case.name}.yaml"
    path.write_text(json.dumps(recipe))
    return path


def train_stub(recipe: Path) -> int:
    """The command, with a linear layer for a network; prints the processor time of this process and of its children."""
    from finetune.commands import train
    from finetune.models.depth_model import DepthModel

    def forward(self: DepthModel, image: Tensor) -> Tensor:
        last = self.head.last  # three of its weights, and its bias
        assert self.max_depth_m is not None
        return self.max_depth_m * torch.sigmoid(torch.nn.functional.conv2d(image, last.weight[:, :3], last.bias))

    DepthModel.forward = forward  # type: ignore[method-assign]
    status = train.main([str(recipe), "--overwrite"])
    used = [sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(_USED, *used)
    return status


def call_command(recipe: Path) -> tuple[float, float, float]:
    """
    Returns:
        Images a second between logged steps, and processor seconds of the process that trains and of its worker.
    """
    call = [sys.executable, __file__, "--child", str(recipe)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    used = next(line for line in done.stdout.splitlines() if line.startswith(_USED))
    own, worker = map(float, used.removeprefix(_USED).split())
    name = json.loads(recipe.read_text())["name"]
    with (recipe.parent / name / "metrics.csv").open() as file:
        rates = [float(row["images_per_second"]) for row in csv.DictReader(file) if row.get("images_per_second")]
    # The first row begins with the first batch, which has to be waited for.
    return 1 / statistics.fmean(1 / rate for rate in rates[1:]), own, worker


def measure(case: Case, folder: Path, output: Path, steps: int) -> tuple[float, float]:
    """Print the figures of a case; the ratio by the clock, and the one that processor times allow."""
    before = time_samples(case, folder)
    short = call_command(write_recipe(case, folder, output, steps // 4))
    rate, *used = call_command(write_recipe(case, folder, output, steps))
    after = time_samples(case, folder)
    images = BATCH_SIZE * (steps - steps // 4)
    trainer, worker = ((long - brief) / images for long, brief in zip(used, short[1:], strict=True))
    clock = (before.clock + after.clock) / 2
    processor = (before.processor + after.processor) / 2
    ratio, bound = rate * clock, processor / max(trainer, worker)
    print(
        f"{case.name:14}{rate:.1f} images/s, a sample {1000 * clock:.1f} ms: ratio {ratio:.2f} (at least {LIMIT}). "
        f"Processor time of an image: a sample {1000 * processor:.1f} ms, in the worker {1000 * worker:.1f} ms, in the "
        f"process that trains {1000 * trainer:.1f} ms: at most {bound:.2f}",
        flush=True,
    )
    return ratio, bound


def main() -> int:
    """Print the figures of each case; 1 where one is below the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = {case.name: case for case in CASES}
    parser.add_argument("--only", nargs="+", choices=list(cases), default=["kitti_whole", "nyu_518"])
    parser.add_argument("--steps", type=int, default=40, help=f"of {BATCH_SIZE} images")
    parser.add_argument("--processor-time", action="store_true", help="hold the limit by processor time")
    parser.add_argument("--child", help=argparse.SUPPRESS, type=Path)
    arguments = parser.parse_args()
    if arguments.child:
        return train_stub(arguments.child)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()  # as in a worker
    is_low = False
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.only:
            case = cases[name]
            folder = Path(temporary, case.frames)
            if not folder.exists():
                write_frames(case.frames, Path(os.environ["DEPTH_SAMPLES"]).resolve(), folder)
            ratio, bound = measure(case, folder, Path(temporary), arguments.steps)
            is_low |= not (bound if arguments.processor_time else ratio) >= LIMIT
    return int(is_low)


if __name__ == "__main__":
    sys.exit(main())

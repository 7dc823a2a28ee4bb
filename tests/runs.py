"""Training runs, here or as commands in processes of their own, and what they wrote."""

import csv
import os
import sys
from pathlib import Path

from finetune import train
from tests.conftest import ROOT


def launch(recipe: Path, *arguments: str) -> int:
    """Train in this process; the exit status."""
    return train.main([str(recipe), *arguments])


def train_command(recipe: Path, *arguments: str, processes: int = 1) -> list[str]:
    """What a user types, by torchrun where there are several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, str(ROOT / "finetune" / "train.py"), str(recipe), *arguments]


def without_gpu() -> dict[str, str]:
    """The environment for processes that are compared: two of them cannot share one GPU."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv`` without the speed, which no two runs share."""
    with (run / "metrics.csv").open(newline="") as file:
        return [{**row, "images_per_second": ""} for row in csv.DictReader(file)]

"""Training runs, here or as commands in processes of their own, and what they wrote."""

import csv
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from finetune.commands import train
from tests.conftest import ROOT

RECIPE_TEXT = "recipe/text_summary"  # names the folder of its run, so that its content is not compared


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


def logged(run: Path) -> dict[str, list[tuple[int, bytes]]]:
    """All that TensorBoard shows, as its own reader gives it: steps and contents of each tag."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), tensor_size_guidance={"scalars": 0, "images": 0, "text": 0})
    events.Reload()
    return {
        tag: [
            (event.step, b"" if tag == RECIPE_TEXT else event.tensor_proto.SerializeToString())
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
        # The speed is never the same.
        if not tag.endswith("images_per_second")
    }


def require_same(run: Path, other: Path) -> None:
    """Weights, rows, tables and logs."""
    for part in ("last", "best"):
        one, two = (load_file(folder / part / "model.safetensors") for folder in (run, other))
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert rows(run) == rows(other)
    assert (run / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    assert logged(run) == logged(other)

"""What training costs in full, by adapters and of the decoder alone, and print the table of recipes/README.md.

    python tests/benchmarks/training_memory.py [--encoders vits vitl] [--size 252 336] [--batch-size 1]

Each row is a process of its own that trains drawn weights on drawn frames (reader ``scenes``) for ``--steps`` steps
through the train command: trained values and the bytes of the optimizer's state as the resume point holds them, bytes
of the resume point, the most memory the process had (on a GPU, that PyTorch had there), and the median time of a step
without the first two, as a multiple of that of the full run of the same encoder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """\
name: {name}
output: {output}
model: {{checkpoint: {checkpoint}, max_depth_m: 10.0, decoder_init: pretrained, train: {train}}}
data:
  input_size: {size}
  train: [{{reader: scenes, count: 64}}]
  val: [{{reader: scenes, count: 1, seed: 1}}]
  workers: 0
loss: [{{kind: silog}}]
optim: {{warmup_steps: 1}}
run:
  {{steps: {steps}, batch_size: {batch_size}, log_every_steps: 1, evaluate_every_steps: 99, save_every_steps: 99}}
export: []
"""
MODES = {"all": "full", "lora": "LoRA 16", "decoder": "decoder only"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["vits", "vitl"])
    parser.add_argument("--size", nargs=2, type=int, default=[252, 336], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a recipe: train it here and say what it took
    arguments = parser.parse_args()
    if arguments.one:
        return _one(Path(arguments.one))
    print("| encoder | trained | values | optimizer | resume point | peak memory | a step |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for encoder in arguments.encoders:
        full_s = 0.0
        for train, called in MODES.items():
            found = _measured(encoder, train, arguments)
            full_s = full_s or found["step_s"]
            print(
                f"| {encoder} | {called} | {found['values'] / 1e6:.1f} M | {_mb(found['optimizer_bytes'])} | "
                f"{_mb(found['checkpoint_bytes'])} | {_mb(found['peak_bytes'])} | {found['step_s'] / full_s:.2f} |",
                flush=True,
            )
    return 0


def _mb(count: float) -> str:
    return f"{count / 1e6:,.0f} MB"


def _measured(encoder: str, train: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One training run in a process of its own, from drawn weights."""
    from finetune.data.preprocessing import Preprocessing
    from finetune.models.checkpoints.save import save_native
    from finetune.models.depth_model import DepthModel

    with tempfile.TemporaryDirectory() as folder:
        network = DepthModel(encoder, None)
        network.initialise(0)
        checkpoint = Path(folder, "drawn.safetensors")
        size = (arguments.size[0], arguments.size[1])
        base = {"source": "drawn", "sha256": "0" * 64, "license": None}
        save_native(checkpoint, network, {"preprocessing": Preprocessing(input_size=size).to_mapping(), "base": base})
        del network
        recipe = Path(folder, "recipe.yaml")
        recipe.write_text(
            RECIPE.format(
                name="run",
                output=folder,
                checkpoint=checkpoint,
                train=train,
                size=list(size),
                steps=arguments.steps,
                batch_size=arguments.batch_size,
            )
        )
        command = [sys.executable, str(Path(__file__).resolve()), "--one", str(recipe)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, float] = json.loads(ended.stdout.strip().splitlines()[-1])
        return found


def _one(recipe: Path) -> int:
    import resource
    import statistics

    import torch

    from finetune.commands import train

    if train.main([str(recipe)]):
        return 1
    run = recipe.parent / "run"
    (point,) = (run / "checkpoints").glob("step_*")
    states = torch.load(point / "optimizer.bin", map_location="cpu", weights_only=True)["state"].values()
    tensors = [tensor for state in states for tensor in state.values() if tensor.ndim]
    with (run / "metrics.csv").open(newline="") as file:
        speeds = [float(row["images_per_second"]) for row in csv.DictReader(file) if row["images_per_second"]]
    batch_size = json.loads((run / "environment.json").read_text())["total_batch"]
    on_gpu = torch.cuda.is_available()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        json.dumps(
            {
                "values": sum(tensor.numel() for tensor in tensors) / 2,  # AdamW keeps two moments of each
                "optimizer_bytes": sum(tensor.nbytes for tensor in tensors),
                "checkpoint_bytes": sum(path.stat().st_size for path in point.iterdir()),
                "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else resident,
                "step_s": statistics.median(batch_size / speed for speed in speeds[2:]),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

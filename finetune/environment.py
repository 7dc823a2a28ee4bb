"""Where a run runs: the accelerator with its precision and threads, and the record of it all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from finetune.errors import FinetuneError
from finetune.recipe import Recipe, recipe_mapping

PACKAGES = ("finetune", "torch", "accelerate", "timm", "albumentations", "opencv-python-headless", "numpy")

# What every launcher of several processes says to each of them.
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def digest(content: Any) -> str:
    """SHA-256 of plain values, as hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_accelerator(recipe: Recipe) -> tuple[Accelerator, list[str]]:
    """
    Accelerate as the recipe and the launcher say, and the threads of this process.

    Returns:
        The accelerator, and sentences to print.

    Raises:
        FinetuneError: the launcher asks for what has not been run yet, or its processes do not find each other.
    """
    for flag, name in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(flag, "false").lower() in ("true", "1", "yes"):
            raise FinetuneError(f"{name} has not been run with this program; launch with --multi_gpu (DDP) instead.")
    asked = int(os.environ.get("WORLD_SIZE", "1"))
    missing = [name for name in _OF_A_LAUNCHER if name not in os.environ]
    if asked > 1 and missing:
        raise FinetuneError(
            f"The environment says that there are {asked} processes (WORLD_SIZE), but not how they find each other "
            f"({', '.join(missing)}). Launch with torchrun --nproc_per_node or accelerate launch --multi_gpu; for one "
            "process, unset WORLD_SIZE."
        )
    precision, notes = _precision(recipe)
    has_device = torch.cuda.is_available() or torch.backends.mps.is_available()
    accelerator = Accelerator(
        cpu=not has_device,
        mixed_precision={"fp32": "no"}.get(precision, precision),
        # The loader is endless; told otherwise, Accelerate skips optimizer steps at ends that are none.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=recipe.run.accumulate, sync_with_dataloader=False
        ),
    )
    if asked != accelerator.num_processes:
        raise FinetuneError(
            f"The launcher started {asked} processes, but Accelerate sees {accelerator.num_processes}: they would "
            "train apart. Launch with torchrun --nproc_per_node, or accelerate launch --multi_gpu."
        )
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = recipe.run.threads or max(1, _usable_cores() // local_processes)
    # The launcher sets OMP_NUM_THREADS=1, which would leave all cores but one idle on a CPU.
    torch.set_num_threads(threads)
    return accelerator, notes


def try_compiler(device: torch.device) -> None:
    """
    Compile and run a line, so that a machine without a compiler is known before the first step.

    Raises:
        FinetuneError: it cannot.
    """
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:
        raise FinetuneError(
            f"run.compile is true, but nothing can be compiled here ({first_line(error)}). Install a C++ compiler "
            "(apt install g++) and Python's headers (python3-dev), or set run.compile: false."
        ) from error


def first_line(error: BaseException) -> str:
    """Of its text, or its name where there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _usable_cores() -> int:
    # What a container or a scheduler leaves to this process; only Linux says it.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _precision(recipe: Recipe) -> tuple[str, list[str]]:
    """fp32, fp16 or bf16, and what there is to say about it. An explicit value wins over the launcher's."""
    told = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    wanted = recipe.run.precision
    if wanted != "auto":
        contradicts = told not in ("no", wanted)
        return wanted, [f"run.precision {wanted} wins over the launcher's {told}"] if contradicts else []
    if told != "no":
        return told, []
    # bf16 on a CPU can be several times slower than fp32.
    return ("bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"), []


def environment_record(
    recipe: Recipe, accelerator: Accelerator, base_sha256: str | None, total_steps: int
) -> dict[str, Any]:
    """What ``environment.json`` holds."""
    device = accelerator.device
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "precision": recipe.run.precision,
        "seed": recipe.seed,
        "steps": total_steps,
        "total_batch": recipe.run.batch_size * recipe.run.accumulate * accelerator.num_processes,
        "recipe_sha256": digest(recipe_mapping(recipe)),
        "base_sha256": base_sha256,
        "frames": {
            f"data.{part}.{place}": {"count": len(entry.source), "sha256": digest(sources(entry.source))}
            for part, entries in (("train", recipe.data.train), ("val", recipe.data.val))
            for place, entry in enumerate(entries)
        },
    }


def _version(package: str) -> str | None:
    """None for this program run from a clone that was not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def sources(reader: Any) -> list[str]:
    """Of all frames of a reader, none of which is opened."""
    return [reader.source(index) for index in range(len(reader))]


def _git_commit() -> str | None:
    """Of the checkout the program runs from; None when it is not one."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()

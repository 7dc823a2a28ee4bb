"""Where a run runs: the accelerator with its precision and threads, and the record of both."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from finetune.data.reader import Reader, list_sources, try_read
from finetune.data.sample import DepthSample
from finetune.models.arithmetic import allow_tf32, describe_arithmetic, has_native_bf16, prefer_deterministic_kernels
from finetune.recipe.load import recipe_mapping
from finetune.recipe.run_dir import digest
from finetune.recipe.schema import Recipe
from finetune.training.launchers import (
    LAUNCH,
    precision_of_launcher,
    processes_asked_for,
    require_short_temporary_path,
    usable_cores,
    wait_for_main_machine,
)
from finetune.training.trackers import installed_trackers
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.indices import evenly_spread
from finetune.utils.memory import keep_freed_memory
from finetune.utils.text import count_noun

PACKAGES = (
    "finetune",
    "torch",
    "accelerate",
    "peft",
    "timm",
    "albumentations",
    "opencv-python-headless",
    "numpy",
    "safetensors",
)
_FRAMES_HASHED = 8
# What torch warns of an operation, with its name.
_WITHOUT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")


def make_accelerator(recipe: Recipe, *, trains: bool = True) -> tuple[Accelerator, list[str]]:
    """
    Accelerate as the recipe and the launcher say, and the threads and the arithmetic of this process.

    Args:
        recipe: what it leaves open, the launcher decides.
        trains: without it the precision of training does not matter: everything else is calculated in float32.

    Returns:
        The accelerator, and sentences to print.

    Raises:
        FinetuneError: the launcher asks for what has not been run yet, its processes do not find each other, or the
            precision does not exist on this device.
    """
    asked = processes_asked_for()
    if asked > 1:
        wait_for_main_machine()
    if recipe.data.workers:
        require_short_temporary_path()
    precision, notes = _precision(recipe) if trains else ("fp32", [])
    notes += _compiler_of_launcher(recipe)
    allow_tf32(recipe.run.tf32)
    has_device = torch.cuda.is_available() or torch.backends.mps.is_available()
    try:
        accelerator = Accelerator(
            cpu=not has_device,
            mixed_precision={"fp32": "no"}.get(precision, precision),
            log_with=(installed_trackers(recipe) or None) if trains else None,
            dynamo_backend="no",  # else that of the launcher, whatever run.compile says
            # The loader is endless. With sync_with_dataloader Accelerate would take some batch for the last one and
            # skip optimizer steps.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=recipe.run.accumulate, sync_with_dataloader=False
            ),
        )
    except (ValueError, ImportError, RuntimeError, NotImplementedError) as error:
        raise FinetuneError(
            f"Accelerate cannot start as the launcher and run.precision {precision} say ({first_line(error)}). Launch "
            f"one process with finetune train, or several with {LAUNCH}."
        ) from error
    if precision != "fp32" and not accelerator.native_amp:
        raise FinetuneError(
            f"run.precision is {precision}, but nothing is calculated in it on this device "
            f"({accelerator.device.type}). Set run.precision: fp32, or bf16 on a CPU that is good at it."
        )
    if asked != accelerator.num_processes:
        raise FinetuneError(
            f"The launcher started {asked} processes, but Accelerate sees {accelerator.num_processes}: they would "
            f"train apart. Launch with {LAUNCH}."
        )
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE") or "1")
    threads = recipe.run.threads or max(1, usable_cores() // local_processes)
    # The launcher sets OMP_NUM_THREADS=1, which would leave all cores but one idle on a CPU.
    torch.set_num_threads(threads)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator, notes


def try_compiler(
    device: torch.device, asked: str = "run.compile is true", instead: str = "set run.compile: false"
) -> None:
    """
    Compile and run a line, so that a machine without a compiler is known before the first step.

    Args:
        device: to compile for.
        asked, instead: what asked for it, and what to do without a compiler.

    Raises:
        FinetuneError: it cannot.
    """
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
    except Exception as error:
        raise FinetuneError(
            f"{asked}, but nothing can be compiled here ({first_line(error)}). Install a C++ compiler "
            f"(apt install g++) and Python's headers (python3-dev), or {instead}."
        ) from error


def _precision(recipe: Recipe) -> tuple[str, list[str]]:
    """fp32, fp16 or bf16, and what there is to say about it. An explicit value wins over the launcher's."""
    wanted = recipe.run.precision
    if wanted != "auto":
        launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        contradicts = launched not in ("no", wanted)
        notes = [f"run.precision {wanted} wins over the launcher's {launched}"] if contradicts else []
        return wanted, notes + _emulated(wanted)
    launched = precision_of_launcher()
    if launched != "no":
        return launched, _emulated(launched)
    # bf16 on a CPU can be several times slower than fp32; so can it be on a GPU that is older than it.
    if not torch.cuda.is_available():
        return "fp32", []
    if has_native_bf16():
        return "bf16", []
    return "fp32", [f"run.precision auto is fp32: {torch.cuda.get_device_name()} has no bf16; fp16 is faster on it"]


def _emulated(precision: str) -> list[str]:
    if precision != "bf16" or not torch.cuda.is_available() or has_native_bf16():
        return []
    return [
        f"bf16 is emulated on {torch.cuda.get_device_name()}, which is slower than fp32; run.precision fp16 is faster"
    ]


def _compiler_of_launcher(recipe: Recipe) -> list[str]:
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend in ("no", ""):
        return []
    return [f"run.compile {str(recipe.run.compile).lower()} wins over the launcher's dynamo backend {backend}"]


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
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": None if (changed := _git("status", "--porcelain", "-uno")) is None else bool(changed),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "processes": accelerator.num_processes,
        "machines": accelerator.num_processes // int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes)),
        "threads": torch.get_num_threads(),
        "precision": recipe.run.precision,
        "tf32": recipe.run.tf32,
        "arithmetic": describe_arithmetic(device, tf32=recipe.run.tf32, deterministic=recipe.run.deterministic),
        "deterministic": recipe.run.deterministic,
        "seed": recipe.seed,
        "steps": total_steps,
        "total_batch": recipe.run.batch_size * recipe.run.accumulate * accelerator.num_processes,
        "recipe_sha256": digest(recipe_mapping(recipe)),
        "base_sha256": base_sha256,
        "frames": {
            f"data.{part}.{i}": {
                "count": len(entry.source),
                "sha256": digest(list_sources(entry.source)),
                "content_sha256": content_digest(entry.source),
            }
            for part, entries in (("train", recipe.data.train), ("val", recipe.data.val))
            for i, entry in enumerate(entries)
        },
    }


def _version(package: str) -> str | None:
    """None for this program run from a clone that was not installed."""
    try:
        # Our name on PyPI; finetune is another project there.
        return importlib.metadata.version("depth-finetune" if package == "finetune" else package)
    except importlib.metadata.PackageNotFoundError:
        return None


def content_digest(reader: Reader) -> str:
    """SHA-256 of the names of all frames below the folder they share, and of the content of some of them.

    It stays the same when the data are moved.
    """
    names = list_sources(reader)
    try:
        shared = os.path.commonpath(names)
        # With one frame it is the frame itself.
        names = [os.path.relpath(name, shared if len(names) > 1 else Path(shared).parent) for name in names]
    except ValueError:  # names that are no paths of one kind
        pass
    hashed = hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape"))
    for index in evenly_spread(len(reader), _FRAMES_HASHED):
        frame = try_read(reader, index)
        if isinstance(frame, DepthSample):
            for part in (frame.image, np.where(frame.valid, frame.depth_m, 0), frame.valid):
                hashed.update(np.ascontiguousarray(part).data)
            hashed.update(repr(frame.camera).encode())
        else:
            hashed.update(b"unreadable")
    return hashed.hexdigest()


def _git(*arguments: str) -> str | None:
    """What git says of the checkout the program runs from; None when it is not one."""
    package = Path(__file__).resolve().parent
    # GIT_ variables may point to another repository; and another command may want the lock of the index.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    call = partial(subprocess.run, capture_output=True, text=True, check=True, env=environment, errors="replace")
    try:
        # Installed inside another repository, this file is not tracked by it, and its commit is not ours.
        call(["git", "-C", str(package), "ls-files", "--error-unmatch", "--", Path(__file__).name])
        completed = call(["git", "-C", str(package), *arguments])
    except (OSError, subprocess.CalledProcessError):
        return None
    return completed.stdout.strip()


def _cpu_name() -> str:
    """The processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"cpu ({name or platform.processor() or platform.machine()})"


def describe_environment(record: Mapping[str, Any]) -> list[str]:
    """Lines that tell this run from another."""
    packages = ", ".join(f"{name} {record['packages'][name]}" for name in ("torch", "accelerate", "timm"))
    commit = record["git_commit"]
    code = f"commit {commit[:12]}{' with changes' if record['git_changed'] else ''}" if commit else "no checkout"
    frames = ", ".join(
        f"{key} {count_noun(entry['count'], 'frame')} {entry['sha256'][:12]}" for key, entry in record["frames"].items()
    )
    base = record["base_sha256"]
    return [
        f"device {record['device']}, {record['precision']}, {count_noun(record['processes'], 'process')} on "
        f"{count_noun(record['machines'], 'machine')}, {count_noun(record['threads'], 'thread')} each, total batch "
        f"{record['total_batch']}",
        f"arithmetic: {record['arithmetic']}",
        f"python {record['python']}, {packages}, finetune {record['packages']['finetune'] or 'not installed'}, {code}",
        f"seed {record['seed']}, recipe {record['recipe_sha256'][:12]}, base {base[:12] if base else 'none'}, {frames}",
    ]


@contextmanager
def watch_determinism(recipe: Recipe) -> Iterator[set[str]]:
    """
    Ask for deterministic kernels while a run lasts, if the recipe does.

    Gives:
        The operations without a deterministic kernel, added as they run.
    """
    met: set[str] = set()
    if not recipe.run.deterministic:
        yield met
        return
    # cuBLAS reads it when it starts, which is with the first product on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        found = _WITHOUT_DETERMINISTIC.match(str(message))
        if found:
            met.add(found.group(1))
        else:
            shown(message, category, *where, **more)

    shown = warnings.showwarning
    with prefer_deterministic_kernels(), warnings.catch_warnings():
        warnings.filterwarnings("always", message=_WITHOUT_DETERMINISTIC.pattern)
        warnings.showwarning = note
        yield met


DETERMINISTIC_NOTE = (
    "run.deterministic: the same bits again on the same machine with the same versions, threads and processes, but for "
    "operations without a deterministic kernel, which are named at the end of the run; on a GPU the backward of a "
    "bilinear resize is one. Another GPU, or another number of threads or processes, rounds otherwise"
)


def determinism_sentence(met: Collection[str]) -> str:
    """What to say at the end of a run that asked for it."""
    if not met:
        return "run.deterministic: no operation without a deterministic kernel was met"
    return f"run.deterministic: not deterministic were {', '.join(sorted(met))}; a repetition may differ by rounding"

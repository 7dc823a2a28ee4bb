"""What launchers, schedulers and containers say: how many processes there are, and how many cores each may use."""

from __future__ import annotations

import math
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from finetune.training.console import warn
from finetune.utils.errors import FinetuneError

LAUNCH = "torchrun --nproc_per_node=N, or accelerate launch --multi_gpu --num_processes N"
# What every launcher of several processes says to each of them.
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Process counts as MPI launchers name them.
_OF_MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT", *_OF_MPI)
# Modes of Accelerate that this program was never run with.
_NOT_RUN = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
    "ACCELERATE_USE_SAGEMAKER": "SageMaker",
}
PRECISIONS = ("no", "fp32", "fp16", "bf16")
_KNOWN_AFTER_S = 120.0  # containers of a cluster get their names one by one
_ASK_EVERY_S = 2.0


def processes_asked_for() -> int:
    """
    Returns:
        How many processes the launcher started, of which this is one; 1 without a launcher.

    Raises:
        FinetuneError: it asks for what has not been run yet, its processes do not find each other, or what it says
            makes no sense.
    """
    for flag, name in _NOT_RUN.items():
        if os.environ.get(flag, "false").lower() in ("true", "1", "yes", "y", "on", "t"):
            raise FinetuneError(
                f"{name} has not been run with this program ({flag}); launch with --multi_gpu (DDP) instead."
            )
    numbers = {name: _number(name) for name in _NUMBERS if os.environ.get(name)}
    asked = numbers.get("WORLD_SIZE", 1)
    of_mpi = [name for name in _OF_MPI if numbers.get(name, 1) > 1]
    if of_mpi and "WORLD_SIZE" not in numbers:
        raise FinetuneError(
            f"The environment says that there are {numbers[of_mpi[0]]} processes ({of_mpi[0]}), as mpirun and srun do, "
            f"but not WORLD_SIZE and {', '.join(_OF_A_LAUNCHER)}. Launch with {LAUNCH}, or see "
            "recipes/accelerate/slurm.sh."
        )
    missing = [name for name in _OF_A_LAUNCHER if not os.environ.get(name)]
    if asked > 1 and missing:
        raise FinetuneError(
            f"The environment says that there are {asked} processes (WORLD_SIZE), but not how they find each other "
            f"({', '.join(missing)}). Launch with {LAUNCH}; for one process, unset WORLD_SIZE."
        )
    if numbers.get("LOCAL_RANK", -1) >= 0 and "WORLD_SIZE" not in numbers:
        raise FinetuneError(
            "The environment has LOCAL_RANK without WORLD_SIZE, so it is not known how many processes there are. "
            f"Launch with {LAUNCH}; for one process, unset LOCAL_RANK."
        )
    if not 0 <= max(0, numbers.get("RANK", 0)) < asked:
        raise FinetuneError(
            f"The environment has RANK {numbers['RANK']} of WORLD_SIZE {asked}; ranks count from 0. "
            f"Launch with {LAUNCH}."
        )
    devices = torch.cuda.device_count() if asked > 1 and os.environ.get("ACCELERATE_USE_CPU", "false") != "true" else 0
    if devices and numbers["LOCAL_RANK"] >= devices:
        raise FinetuneError(
            f"Process {numbers['LOCAL_RANK']} of this machine has no GPU: {devices} are visible here. Launch at most "
            f"{devices} on each machine (--nproc_per_node, --num_processes), or look at CUDA_VISIBLE_DEVICES."
        )
    return asked


def wait_for_main_machine() -> None:
    """
    Wait until the name of the main process's machine has an address. Torch would wait for many minutes without a word.

    Raises:
        FinetuneError: it still has none after two minutes.
    """
    host = os.environ["MASTER_ADDR"]
    give_up_at = time.monotonic() + _KNOWN_AFTER_S
    said = False
    while True:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no name can be written like this"
        else:
            return
        if time.monotonic() >= give_up_at:
            raise FinetuneError(
                f"The environment's MASTER_ADDR is {host!r}, and this machine finds no address for it ({reason}). Set "
                "it to the name or the IP address by which all machines reach the first one."
            )
        if not said and os.environ["LOCAL_RANK"] == "0":
            warn(f"waiting for the machine {host} (MASTER_ADDR), which has no address yet ({reason})")
        said = True
        time.sleep(_ASK_EVERY_S)


def _number(name: str) -> int:
    text = os.environ[name].strip()
    number = int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else None
    # -1 is how some say that there is none.
    if number is None or number < (1 if name.endswith("_SIZE") or name == "MASTER_PORT" else -1):
        raise FinetuneError(
            f"The environment's {name} is {text!r}; expected a number. Unset it, or launch with {LAUNCH}."
        )
    return number


def precision_of_launcher() -> str:
    """
    What the launcher says of mixed precision: one of ``PRECISIONS``.

    Raises:
        FinetuneError: it asks for another.
    """
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower() or "no"
    if precision not in PRECISIONS:
        raise FinetuneError(
            f"The launcher asks for mixed precision {precision}, which has not been run with this program. "
            "Set run.precision: bf16, fp16 or fp32, or launch with --mixed_precision bf16."
        )
    return precision


def require_short_temporary_path() -> None:
    """
    Loader processes hand over what they read by a socket in the folder for temporary files.

    Raises:
        FinetuneError: its path is longer than a socket's may be.
    """
    folder = tempfile.gettempdir()
    # The longest that multiprocessing makes of it. Linux has room for 108 bytes, with a zero at the end; macOS for 104.
    if len(os.fsencode(f"{folder}/pymp-xxxxxxxx/listener-xxxxxxxx")) >= (104 if sys.platform == "darwin" else 108):
        raise FinetuneError(
            f"{folder}: the path of the folder for temporary files is too long for the sockets by which data.workers "
            "hand over what they read. Set TMPDIR to a shorter one, such as /tmp, or set data.workers=0."
        )


def usable_cores() -> int:
    """
    How many cores this process may keep busy: those that it may run on, and what a container lets it use of them.

    Threads beyond a container's share do not share it: all of them stop until its next period begins.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.floor(min(_quotas(), default=cores))))


def _quotas(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[float]:
    """
    The limits on CPU time of the control groups that this process is in, in cores; only Linux has them.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst, cpu.max, and scheduler/sched-bwc.rst.
    """
    for line in _read(own).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A container may see the name that its group has outside. The group is then the root in here.
        folders = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        for folder in folders:
            for path in (folder / group.strip("/"), *(folder / group.strip("/")).parents):
                if path.is_relative_to(folder):
                    quota, period = _read(path / "cpu.max").split() or ("max", "1")
                    if controllers:
                        quota, period = _read(path / "cpu.cfs_quota_us"), _read(path / "cpu.cfs_period_us")
                    if quota.strip().isdigit() and period.strip().isdigit() and int(period):
                        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""

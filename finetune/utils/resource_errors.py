"""Which errors of libraries mean that the machine ran out of something, and the sentences for them."""

from __future__ import annotations

import errno
import math
import mmap
import shutil
import signal
import threading

import torch
from safetensors import SafetensorError

from finetune.utils.errors import ProcessError, first_line
from finetune.utils.paths import is_folder

_SHARED_MEMORY = "/dev/shm"
_FEW_FILES = 128  # a process that may open fewer has hardly any left for its libraries and pipes
_OF_FILES = (
    "This process may not open more files (Too many open files). Raise the limit (ulimit -n 4096), or set "
    "data.workers=0 or lower."
)
_OF_SHARED_MEMORY = "set data.workers=0 or lower, or give the container more (--shm-size)."


def explain_resource_error(error: Exception, *, of_disk: str, of_memory: str) -> ProcessError | None:
    """
    Args:
        error: what ended the work.
        of_disk, of_memory: what to do where these ran out; sentences.

    Returns:
        The error to raise in its place: a loader's worker or another process of the launch died; memory, shared memory
        or the disk is full; or the system grants no more files, processes or temporary files. None for another.
    """
    if isinstance(error, OSError | SafetensorError) and (scarce := _of_a_process(error)):
        return ProcessError(scarce)
    if isinstance(error, OSError | SafetensorError):
        if not _is_of_a_full_disk(error):
            return None
        if _shared_memory_is_full():
            return ProcessError(f"Shared memory is full ({error}): {_OF_SHARED_MEMORY}")
        return ProcessError(f"The disk is full, or a quota is used up ({error}). {of_disk}")
    told = first_line(error)
    if is_of_another_process(error):
        return ProcessError("Another process of this launch has ended: what it said is the cause.")
    if "Too many open files" in str(error):
        return ProcessError(_OF_FILES)
    # What a worker met comes in its own class, "Caught MemoryError in DataLoader worker process 0".
    if is_of_a_worker(error) or (" in DataLoader worker process " in told and _is_of_memory(error)):
        return worker_died(told)
    if _is_of_memory(error):
        return ProcessError(f"Memory ran out. {of_memory}")
    return None


def is_of_another_process(error: Exception) -> bool:
    """Whether it says that a process which this one works with is gone."""
    # gloo raises a plain RuntimeError; what it says depends on how far the two had come.
    of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    return of_gloo or isinstance(error, torch.distributed.DistError)


def is_of_a_worker(error: Exception) -> bool:
    """Whether it says that a loader's process is gone; PyTorch has no class of its own for that."""
    return isinstance(error, RuntimeError) and str(error).startswith(("DataLoader worker (pid", "Pin memory"))


def _of_a_process(error: OSError | SafetensorError) -> str | None:
    """A sentence where it is not the disk that is short, but what the system grants a process."""
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or "os error 24" in str(error):
        return _OF_FILES
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return (
            f"No folder for temporary files can be written ({first_line(error)}). Set TMPDIR to a folder where this "
            "user may write and there is room."
        )
    if number == errno.EAGAIN:
        return (
            f"No further process can be started ({first_line(error)}): a limit of this user or container "
            "(ulimit -u, --pids-limit) is reached. Set data.workers=0 or lower, or raise it."
        )
    return None


def worker_died(how: str) -> ProcessError:
    """The error to raise when a loader's worker is gone; ``how`` is what told."""
    # PyTorch raises for every worker that dies, in whatever the main thread does then: from now on that is the ending.
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if _files_allowed() < _FEW_FILES:
        return ProcessError(f"A process that reads data died. {_OF_FILES}")
    # PyTorch goes on to say that it does not know why.
    how, *_ = how.partition(". Details are lost")
    return ProcessError(
        f"A process that reads data died ({how.strip().rstrip('.')}). Usually memory, or shared memory in a container, "
        f"is short: {_OF_SHARED_MEMORY}"
    )


def _files_allowed() -> float:
    try:
        import resource
    except ImportError:  # not on Windows
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _is_of_memory(error: Exception) -> bool:
    # Memory on a CPU has no class of PyTorch's, nor has a GPU's that is full when its context or a library's is made.
    told = ("can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in told)
    )


def _shared_memory_is_full() -> bool:
    # What Python makes for its workers there fails as on any disk, and names no file.
    return is_folder(_SHARED_MEMORY) and shutil.disk_usage(_SHARED_MEMORY).free < mmap.PAGESIZE


def _is_of_a_full_disk(error: OSError | SafetensorError) -> bool:
    # safetensors has the system's number only in its text.
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in numbers or any(f"os error {number}" in str(error) for number in numbers)

"""Which errors of libraries mean that the machine ran out of something, and the sentences for them."""

from __future__ import annotations

import errno
import signal
import threading

import torch
from safetensors import SafetensorError

from finetune.errors import ProcessError


def shortage(error: Exception, *, of_disk: str, of_memory: str) -> ProcessError | None:
    """
    Args:
        error: what ended the work.
        of_disk, of_memory: what to do where these ran out; sentences.

    Returns:
        The error to raise in its place: a loader's worker died, memory ran out, or the disk is full; None for another.
    """
    if isinstance(error, OSError | SafetensorError):
        if _is_of_a_full_disk(error):
            return ProcessError(f"The disk is full, or a quota is used up ({error}). {of_disk}")
        return None
    # PyTorch has no class of its own for workers, nor for memory on a CPU.
    told, *_ = str(error).splitlines() or [""]
    # But not "Caught RuntimeError in DataLoader worker process 0", which is a fault of the code that reads.
    if isinstance(error, RuntimeError) and told.startswith(
        ("DataLoader worker (pid", "Caught MemoryError in DataLoader worker", "Pin memory")
    ):
        return worker_died(told)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return ProcessError(f"Memory ran out. {of_memory}")
    return None


def worker_died(how: str) -> ProcessError:
    """The error to raise when a loader's worker is gone; ``how`` is what told."""
    # PyTorch raises for every worker that dies, in whatever the main thread does then: from now on that is the ending.
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # PyTorch goes on to say that it does not know why.
    how, *_ = how.partition(". Details are lost")
    return ProcessError(
        f"A process that reads data died ({how.strip().rstrip('.')}). Usually memory, or shared memory in a container, "
        "is short: set data.workers=0 or lower, or give the container more (--shm-size)."
    )


def _is_of_a_full_disk(error: OSError | SafetensorError) -> bool:
    # safetensors has the system's number only in its text.
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in numbers or any(f"os error {number}" in str(error) for number in numbers)

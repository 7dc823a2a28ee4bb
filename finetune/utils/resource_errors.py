"""Recognize errors of libraries that mean that a resource of the machine ran out, and explain them in a sentence."""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil

import torch
from safetensors import SafetensorError

from finetune.utils.errors import ProcessError, first_line
from finetune.utils.paths import is_folder
from finetune.utils.signals import ignore_dead_workers

_SHARED_MEMORY = "/dev/shm"
_FEW_FILES = 128  # with a lower limit, a process has hardly any files left after its libraries and pipes
_OF_FILES = (
    "This process may not open more files (Too many open files). Raise the limit (ulimit -n 4096), or set "
    "data.workers=0 or lower."
)
_OF_PROCESSES = (
    "No further process can be started ({}): a limit of this user or container (ulimit -u, --pids-limit) is reached. "
    "Set data.workers=0 or lower, or raise it."
)
_OF_SHARED_MEMORY = "set data.workers=0 or lower, or give the container more (--shm-size)."


def explain_resource_error(error: Exception, *, of_disk: str, of_memory: str) -> ProcessError | None:
    """
    Args:
        error: what ended the work.
        of_disk, of_memory: what to do if these ran out; sentences.

    Returns:
        The error to raise instead: a loader's worker or another process of the launch died; memory, shared memory or
        the disk is full; or the system allows no more files, processes or temporary files. None for any other error.
    """
    if isinstance(error, OSError | SafetensorError) and (explained := _explain_process_limit(error)):
        return ProcessError(explained)
    if isinstance(error, OSError | SafetensorError):
        if not _is_full_disk(error):
            return None
        if _shared_memory_is_full():
            return ProcessError(f"Shared memory is full ({error}): {_OF_SHARED_MEMORY}")
        return ProcessError(f"The disk is full, or a quota is used up ({error}). {of_disk}")
    message = first_line(error)
    if is_of_another_process(error):
        return ProcessError("Another process of this launch ended: its message is the cause.")
    if _is_of_files(error):
        return ProcessError(_OF_FILES)
    if "can't start new thread" in str(error):
        return ProcessError(_OF_PROCESSES.format("can't start new thread"))
    # An error in a worker keeps its class; its text begins "Caught MemoryError in DataLoader worker process 0".
    if is_of_a_worker(error) or (" in DataLoader worker process " in message and is_out_of_memory(error)):
        return worker_died(message)
    if is_out_of_memory(error):
        return ProcessError(f"Memory ran out. {of_memory}")
    return None


def is_of_another_process(error: Exception) -> bool:
    """Whether it means that another process of the launch is gone."""
    # gloo raises a plain RuntimeError, whose text depends on what the two processes were doing.
    of_gloo = isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    return of_gloo or isinstance(error, torch.distributed.DistError)


def is_of_a_worker(error: Exception) -> bool:
    """Whether it means that a process of a loader is gone; PyTorch has no class of its own for that."""
    return isinstance(error, RuntimeError) and str(error).startswith(("DataLoader worker (pid", "Pin memory"))


def _explain_process_limit(error: OSError | SafetensorError) -> str | None:
    """A sentence if the limit is not the disk, but what the system allows a process."""
    number = getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or _is_of_files(error):
        return _OF_FILES
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        if _no_file_opens():
            return _OF_FILES  # Python tries to write there, and does not say why it could not
        return (
            f"No folder for temporary files can be written ({first_line(error)}). Set TMPDIR to a folder where this "
            "user may write and there is room."
        )
    if number == errno.EAGAIN:
        return _OF_PROCESSES.format(first_line(error))
    return None


def _is_of_files(error: Exception) -> bool:
    # An error that comes from a worker or a library has the system's words, not its number. "ancdata" is what Python
    # says of a file that another process sent and this one may not open.
    return any(words in str(error) for words in ("Too many open files", "os error 24", "items of ancdata"))


def _no_file_opens() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False


def worker_died(how: str) -> ProcessError:
    """The error to raise when a loader's worker is gone; ``how`` is PyTorch's message."""
    ignore_dead_workers()  # this process is ending
    if _files_allowed() < _FEW_FILES:
        return ProcessError(f"A process that reads data died. {_OF_FILES}")
    # Drop PyTorch's remark that details are lost.
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


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, of the machine or of a GPU."""
    # PyTorch has no class for a CPU out of memory, nor for a GPU that is full when a context is made.
    messages = ("can't allocate memory", "out of memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in messages)
    )


def _shared_memory_is_full() -> bool:
    # Python's own files for its workers fail there as on any disk, and the error names no file.
    return is_folder(_SHARED_MEMORY) and shutil.disk_usage(_SHARED_MEMORY).free < mmap.PAGESIZE


def _is_full_disk(error: OSError | SafetensorError) -> bool:
    # safetensors gives the system's error number only in its text.
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return getattr(error, "errno", None) in numbers or any(f"os error {number}" in str(error) for number in numbers)

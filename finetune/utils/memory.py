"""How this process asks the system for memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """
    Keep memory that is freed for the next sample, or step.

    glibc gives back what is above a threshold, and each sample asks for the same megabytes again: the system then
    clears them page by page, which takes several milliseconds of a sample.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that is possible
    mallopt(_M_TRIM_THRESHOLD, 256 << 20)

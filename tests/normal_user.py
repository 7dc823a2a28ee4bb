"""A user whom folders can be closed to, as they are not to the one with all rights that containers run tests as."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of linux/capability.h: what lets a process pass by the modes of files.
_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


@contextmanager
def as_normal_user() -> Iterator[None]:
    """This thread asks for files by their modes while this lasts, as a process without special rights does."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    # Effective, permitted and inheritable, of capabilities 0 to 31 and of the others.
    before = (ctypes.c_uint32 * 6)()
    _require(libc.capget(header, before))
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(1 << _DAC_OVERRIDE | 1 << _DAC_READ_SEARCH)
    _require(libc.capset(header, without))
    try:
        yield
    finally:
        _require(libc.capset(header, before))


def _require(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder that a normal user may neither list nor enter; in it lie ``file.txt`` and ``folder``."""
    around = Path(tempfile.mkdtemp())
    closed = around / "closed"
    (closed / "folder").mkdir(parents=True)
    (closed / "file.txt").write_text("text")
    closed.chmod(0)
    try:
        yield closed
    finally:
        closed.chmod(0o700)
        shutil.rmtree(around)

"""A file that one process at a time has."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from finetune.utils.errors import FileFault


def open_locked(path: Path, output: Path, doing: str) -> IO[bytes]:
    """
    Args:
        path: the file; it is made if it does not exist.
        output: the folder that the lock is for, named in the error.
        doing: what another process is doing with that folder.

    Returns:
        The file, open to read and to append, with a lock that ends with this process.

    Raises:
        FileFault: another process has it.
        OSError: the file cannot be made.
    """
    file = path.open("ab+")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        fix = "Wait until it ends, or name another --output"
        raise FileFault(output, f"another process is {doing} it", fix) from None
    except (ImportError, OSError):  # not on Windows, and not on every network file system
        pass
    return file

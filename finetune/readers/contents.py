"""The content of files: only regular ones are read, since reading a pipe or a device may never end."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from finetune.errors import DataError, ListError


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """
    A file's content; not by ``cv2.imread``, which cannot open every Unicode path on Windows.

    Raises:
        DataError: it cannot be read, or is no regular file: reading a named pipe never ends.
    """
    require_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def read_text(path: str | os.PathLike[str], fix: str) -> str:
    """
    The text of a list, of intrinsics, or of another small file that a recipe names.

    Raises:
        ListError: it cannot be read, is no regular file, or no UTF-8; with ``fix``.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except DataError as error:
        raise ListError(path, error.found, fix) from None
    except UnicodeDecodeError as error:
        raise ListError(path, f"is not UTF-8 text ({error.reason})", fix) from None


def require_regular(path: str | os.PathLike[str]) -> None:
    """
    Raises:
        DataError: it does not exist, is a pipe, a socket or a device, or has a name that no file can have.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:  # a zero in the name
        raise DataError(path, f"is no name of a file ({error})", "Correct what names it") from None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # of which reading says what it is
        return
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    raise DataError(path, f"is {kind}, and only files are read", "Write what it gives to a file")


def unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    """Of what the system said."""
    if isinstance(error, FileNotFoundError):
        return DataError(path, "does not exist", "Restore it, or correct what names it")
    return DataError(path, f"cannot be read ({error.strerror})", "Make it a file that this user may read")

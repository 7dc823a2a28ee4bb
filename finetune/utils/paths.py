"""Questions about paths that users wrote, which ``pathlib`` answers with an exception for some of them.

``Path.exists`` and its kin raise where a folder on the way may not be entered, where a name is longer than the file
system takes, and where a NUL is in it; ``Path.expanduser`` raises for a user that there is not. To a command all of
these are paths at which nothing can be read, and ``missing`` says why.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_NAME_BYTES = 255  # of a file or folder, on almost every file system
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def expand_path(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` or ``~name`` at its start put in; a name that no user has stays as it is.

    It is the rule for every path of a recipe, of a list and of the command line. Variables of the environment are put
    in where a recipe is read, as ``${NAME}``, and on the command line by the shell.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def is_possible(path: str, longest: int = MAX_NAME_BYTES) -> bool:
    """Whether files can be made at a path: no NUL, no half of a character, no name of more than ``longest`` bytes."""
    try:
        names = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        return False
    return b"\0" not in os.fsencode(path) and max(map(len, names)) <= longest


def path_exists(path: str | os.PathLike[str]) -> bool:
    """Whether anything can be found there."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises without permission


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a regular file can be found there."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises without permission


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder can be found there."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises without permission


def is_link(path: str | os.PathLike[str]) -> bool:
    """Whether a symbolic link stands there, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises without permission


def real_path(path: str | os.PathLike[str]) -> Path:
    """The path with its links followed as far as they lead; absolute, if it can be a path at all."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)


def list_folder(folder: str | os.PathLike[str]) -> list[Path]:
    """
    Args:
        folder: one that a user named.

    Returns:
        What is in it, in the order of its names.

    Raises:
        OSError: it cannot be listed; ``strerror`` says why.
    """
    try:
        return sorted(Path(folder).iterdir())
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(folder)) from None


def make_folder(folder: str | os.PathLike[str]) -> None:
    """
    Raises:
        OSError: the folder, or one on the way to it, cannot be made; ``strerror`` says why.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(folder)) from None


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """
    Args:
        path: one that a user named.

    Returns:
        All of a regular file. A pipe would be waited for, and a device has no end.

    Raises:
        OSError: there is no such file, or it cannot be read; ``strerror`` says why.
    """
    require_regular(path)
    return Path(path).read_bytes()


def require_regular(path: str | os.PathLike[str]) -> None:
    """
    Raises:
        OSError: no regular file can be found at ``path``; ``strerror`` says why.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - takes what Path cannot be made of
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"is {_KINDS.get(kind, 'something else')}, not a file", str(path))


def missing(path: str | os.PathLike[str], what: str = "file") -> str:
    """
    Args:
        path: one at which no such thing was found.
        what: what was looked for, a "file", a "folder", or a "file or folder".

    Returns:
        Why, in words that follow the path and a colon: ``no such file``, ``no permission to look it up in /root``.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - takes what Path cannot be made of
    except PermissionError:
        return f"no permission to look it up in {_closed_folder(Path(path))}"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"no such {what}: a name of it is longer than a file name can be"
        if error.errno == errno.ELOOP:
            return f"no such {what}: its links lead in a circle"
        return f"no such {what}"
    except ValueError:
        return f"no such {what}: it has a character that no path can have"
    if kind == stat.S_IFDIR:
        return f"is a folder, not a {what}"
    return f"is {_KINDS.get(kind, 'a file')}, not a {what}"


def if_closed(path: str | os.PathLike[str]) -> str:
    """What to add to a sentence where nothing was found because nothing may be looked up there; or nothing."""
    why = missing(path)
    return f"; there is {why}" if why.startswith("no permission") else ""


def _closed_folder(path: Path) -> Path:
    """The folder on the way to ``path``, links followed, that may not be entered."""
    parents = [*reversed(real_path(path).parents)]
    return next((parent for parent in parents if not os.access(parent, os.X_OK)), parents[-1] if parents else path)

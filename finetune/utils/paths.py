"""Questions about paths that users wrote; for some of them ``pathlib`` raises instead of answering.

``Path.exists`` and similar methods raise if a folder on the way may not be entered, if a name is too long for the file
system, or if it contains a NUL; ``Path.expanduser`` raises for an unknown user. For a command, nothing can be read at
such a path, and ``missing`` says why.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_NAME_BYTES = 255  # the longest name of a file or folder, on almost every file system
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def expand_path(path: str | os.PathLike[str]) -> Path:
    """
    Replace ``~`` or ``~name`` at the start of a path by the user's home; an unknown user's name stays as it is.

    This applies to every path of a recipe, of a list and of the command line. Environment variables are replaced when a
    recipe is read, as ``${NAME}``, and on the command line by the shell.
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises where there is no such user


def is_possible(path: str, longest: int = MAX_NAME_BYTES) -> bool:
    """Whether a file can have this path: no NUL, no half of a character, no name of more than ``longest`` bytes."""
    try:
        names = os.fsencode(path).split(b"/")
    except UnicodeEncodeError:
        return False
    return b"\0" not in os.fsencode(path) and max(map(len, names)) <= longest


def path_exists(path: str | os.PathLike[str]) -> bool:
    """Whether anything exists there, as far as this user can see."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises without permission


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether it is a regular file, as far as this user can see."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises without permission


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder, as far as this user can see."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises without permission


def is_link(path: str | os.PathLike[str]) -> bool:
    """Whether it is a symbolic link, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises without permission


def real_path(path: str | os.PathLike[str]) -> Path:
    """The absolute path with its links followed as far as they lead; the path itself if it is not possible."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return Path(path)


def list_folder(folder: str | os.PathLike[str]) -> list[Path]:
    """
    Args:
        folder: one that a user named.

    Returns:
        The paths in it, sorted by name.

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
    except FileExistsError:
        # "File exists" would be said of a link that leads nowhere too.
        path = next(
            (path for path in (Path(folder), *Path(folder).parents) if not is_folder(path) and is_link(path)), None
        )
        reason = "a file has its name" if path is None else f"{path} is a link to a folder that is missing"
        raise FileExistsError(errno.EEXIST, reason, str(folder)) from None
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(folder)) from None


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """
    Args:
        path: one that a user named.

    Returns:
        The content of a regular file. Other kinds are refused: reading a pipe may wait, and a device may never end.

    Raises:
        OSError: there is no such file, or it cannot be read; ``strerror`` says why.
    """
    require_regular(path)
    return Path(path).read_bytes()


def read_text(path: str | os.PathLike[str]) -> str:
    """
    As ``read_bytes``, of UTF-8.

    Raises:
        OSError: there is no such file, or it cannot be read; ``strerror`` says why.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8")


def require_regular(path: str | os.PathLike[str]) -> None:
    """
    Raises:
        OSError: there is no regular file at ``path``; ``strerror`` says why.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - takes what Path cannot be made of
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.ENXIO, f"is {_KINDS.get(kind, 'something else')}, not a file", str(path))


def missing(path: str | os.PathLike[str], what: str = "file") -> str:
    """
    Args:
        path: where nothing of the kind was found.
        what: the kind: "file", "folder", or "file or folder".

    Returns:
        The reason, in words that follow the path and a colon: ``no such file``, ``no permission to look it up in
        /root``.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - takes what Path cannot be made of
    except PermissionError:
        return f"no permission to look it up in {_closed_folder(Path(path))}"
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return f"no such {what}: a name in it is longer than a file name can be"
        if error.errno == errno.ELOOP:
            return f"no such {what}: its links lead in a circle"
        return f"no such {what}"
    except ValueError:
        return f"no such {what}: it has a character that no path can have"
    if kind == stat.S_IFDIR:
        return f"is a folder, not a {what}"
    return f"is {_KINDS.get(kind, 'a file')}, not a {what}"


def if_closed(path: str | os.PathLike[str]) -> str:
    """Words to append to a sentence if nothing was found for lack of permission; else empty."""
    why = missing(path)
    return f"; there is {why}" if why.startswith("no permission") else ""


def _closed_folder(path: Path) -> Path:
    """The folder on the way to ``path``, with links followed, that this user may not enter."""
    parents = [*reversed(real_path(path).parents)]
    return next((parent for parent in parents if not os.access(parent, os.X_OK)), parents[-1] if parents else path)

"""Write results whole or not at all: under a hidden name first, then synced to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune.utils.errors import FileFault, FinetuneError
from finetune.utils.paths import MAX_NAME_BYTES, is_folder, is_link

# What to do about a folder, and about a file, that cannot be written.
NAME_A_FOLDER = "Name an --output where this user may write and there is room"
NAME_A_FILE = "Name another file"
# What a file system without fsync returns, as some network file systems do.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


def write_fault(path: Path, reason: str, fix: str = NAME_A_FOLDER) -> FileFault:
    """
    Args:
        path: the file or folder that cannot be written.
        reason: what the system said.
        fix: what to do, without a full stop.

    Returns:
        The error to raise: the one sentence that every command says about it.
    """
    return FileFault(path, f"cannot be written ({reason})", fix)


@contextmanager
def explain_write_errors(path: Path, fix: str = NAME_A_FOLDER) -> Iterator[None]:
    """
    Put this around writing: an error of the disk becomes one sentence.

    Args:
        path: the file or folder that the sentence names.
        fix: what to do, without a full stop.

    Raises:
        FinetuneError: the block raised an ``OSError``, or what a library makes of one.
    """
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:
        reason = write_error_reason(error)
        if reason is None:
            raise
        raise write_fault(path, reason, fix) from error


def write_error_reason(error: Exception) -> str | None:
    """
    What the disk said, if that is what went wrong; None for any other error.

    ``shutil.copytree``, safetensors and torch raise errors of their own, with the system's words or number in the text;
    torch's writer says only that it could not write everything.
    """
    message = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if any(sign in message for sign in (f"os error {number})", f"[Errno {number}]", os.strerror(number))):
            return os.strerror(number)
    if isinstance(error, OSError):
        return error.strerror or message
    of_torch = ("unexpected pos", "failed writing", "file write failed")
    if isinstance(error, RuntimeError) and any(words in message for words in of_torch):
        return os.strerror(errno.ENOSPC)
    return None


def write_output(path: Path, content: str | bytes, fix: str = NAME_A_FOLDER) -> None:
    """
    ``write_file`` for a file that the user named.

    Raises:
        FinetuneError: it cannot be written; says why and ``fix``.
    """
    with explain_write_errors(path, fix):
        write_file(path, content)


def write_file(path: Path, content: str | bytes) -> None:
    """
    Write a file whole or not at all; its folder is made.

    Args:
        path: an existing file stays as it is until the new one is complete.
        content: text is written as UTF-8 with its line ends unchanged. What UTF-8 cannot hold, such as a file name in
            another encoding, is written as ``\\udcff``.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        file.write(data)


@contextmanager
def atomic_write(path: Path, *, ending: str = "", in_folder: bool = False) -> Iterator[Path]:
    """
    Give a hidden path next to ``path`` to write a file or a folder to; it becomes ``path`` when the block ends.

    If the block ends with an error, what it wrote is removed and what was at ``path`` stays. A pipe or a device, such
    as ``/dev/stdout``, is given as it is, to be written directly.

    Args:
        path: its folder is made.
        ending: of the hidden name, for libraries that choose the format by it.
        in_folder: give a path in a hidden folder of its own, for libraries that write other files next to theirs:
            the next write removes what a kill left of those too.

    Raises:
        OSError: it cannot be written.
    """
    if _is_stream(path):
        with _hold_open(path):
            yield path
        return
    # Follow a link: the file it points to is replaced, the link stays.
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = unfinished_name(path, ending)
    # A killed write may have left it. If somebody put a link there, writing through it would empty another file.
    remove(hidden)
    if in_folder:
        hidden.mkdir()
    unfinished = hidden / path.name if in_folder else hidden
    try:
        yield unfinished
        move_into_place(unfinished, path)
    finally:
        # If the disk is gone, this fails too, and must not hide the first error.
        with suppress(OSError):
            remove(hidden)


def unfinished_name(path: Path, ending: str = "") -> Path:
    """The name of a file while it is being written: ``.NAME.writing``, the same for every write."""
    name = f".{path.name}.writing{ending}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        # Long names that begin alike differ in the checksum.
        tail = f".{zlib.crc32(os.fsencode(path.name)):08x}.writing{ending}"
        name = os.fsdecode(os.fsencode(f".{path.name}")[: MAX_NAME_BYTES - len(tail)]) + tail
    return path.with_name(name)


def move_into_place(unfinished: Path, path: Path) -> None:
    """
    Sync a file or a folder and rename it to ``path``: a power cut leaves the old or the new one, never half of it.

    Raises:
        OSError: the disk is full or broken. Some file systems report it only here.
    """
    sync(unfinished)
    if is_folder(unfinished) and is_folder(path):
        # A rename cannot replace a folder that is not empty. Moving it away takes less time than deleting it.
        old = unfinished.with_name(f"{unfinished.name}.old")
        remove(old)
        path.replace(old)
        unfinished.replace(path)
        shutil.rmtree(old)
    else:
        unfinished.replace(path)
    _sync_one(path.parent)


def sync(path: Path) -> None:
    """
    Write a file, or a folder with everything in it, from the system's memory to the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    if is_folder(path):
        for inner in path.iterdir():
            sync(inner)
    _sync_one(path)


def remove(path: Path) -> None:
    """
    Remove a file, a link, or a folder with everything in it, if it exists.

    Raises:
        OSError: it cannot be removed.
    """
    if is_folder(path) and not is_link(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_one(path: Path) -> None:
    if is_link(path) or (os.name == "nt" and is_folder(path)):  # Windows cannot open folders
        return
    # Windows syncs only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _hold_open(stream: Path) -> Iterator[None]:
    """
    Raises:
        OSError: it is a pipe that no process reads. Opening it to write would wait for one, maybe forever.
    """
    if not stat.S_ISFIFO(stream.stat().st_mode):
        yield
        return
    try:
        # Kept open meanwhile: the reader would take its closing for the end.
        descriptor = os.open(stream, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        raise OSError(errno.ENXIO, "no process reads this pipe", str(stream)) from None
    try:
        yield
    finally:
        os.close(descriptor)


def _is_stream(path: Path) -> bool:
    """Whether something exists there that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

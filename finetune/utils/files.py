"""Result files, written whole or not at all: under a hidden name, then to the disk for certain, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune.utils.errors import FinetuneError
from finetune.utils.paths import is_folder, is_link

# The fix where a folder was asked for, and where a file was.
NAME_A_FOLDER = "Name an --output where this user may write and there is room."
NAME_A_FILE = "Name another file."
# What a file system answers that has no fsync, such as some that are mounted over a network.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
MAX_NAME_BYTES = 255  # on almost every file system


@contextmanager
def disk_faults(path: Path, fix: str = NAME_A_FOLDER) -> Iterator[None]:
    """
    Around writing: what the disk refuses becomes one sentence.

    Args:
        path: the file or folder that the sentence names.
        fix: what to do, a sentence.

    Raises:
        FinetuneError: the block raised an ``OSError``, or what a library makes of one.
    """
    try:
        yield
    except FinetuneError:
        raise
    except Exception as error:
        reason = refusal_of_the_disk(error)
        if reason is None:
            raise
        raise FinetuneError(f"{path}: cannot be written ({reason}). {fix}") from error


def refusal_of_the_disk(error: Exception) -> str | None:
    """
    What the disk said, where that is what ended the work; None for another error.

    ``shutil.copytree``, safetensors and torch raise errors of their own, with the system's words or number in the text;
    torch's writer says only that it could not write all.
    """
    told = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if any(sign in told for sign in (f"os error {number})", f"[Errno {number}]", os.strerror(number))):
            return os.strerror(number)
    if isinstance(error, OSError):
        return error.strerror or told
    writers = ("unexpected pos", "failed writing", "file write failed")
    return os.strerror(errno.ENOSPC) if isinstance(error, RuntimeError) and any(w in told for w in writers) else None


def write_file(path: Path, content: str | bytes) -> None:
    """
    Write a file, whole or not at all; its folder is made.

    Args:
        path: of the file; one that is there stays as it is until the new one is complete.
        content: text is written as UTF-8, with its line ends as they are. What UTF-8 cannot hold, such as a file name
            in another encoding, is written as ``\\udcff``.

    Raises:
        OSError: it cannot be written.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with written_aside(path) as unfinished, unfinished.open("wb") as file:
        file.write(data)


@contextmanager
def written_aside(path: Path, *, ending: str = "") -> Iterator[Path]:
    """
    A hidden name beside ``path``, to write a file or a folder to; it becomes ``path`` when the block ends.

    If the block ends with an error, what it wrote is removed and what was at ``path`` stays. A pipe or a device, such
    as ``/dev/stdout``, is given as it is, to be written directly.

    Args:
        path: its folder is made.
        ending: of the hidden name, for libraries that choose the format by it.

    Raises:
        OSError: it cannot be written.
    """
    if _is_stream(path):
        yield path
        return
    # A link goes on pointing to its file, which is replaced.
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_name(path, ending)
    # Left by a kill; or a link that somebody put there, through which another file would be emptied.
    remove(unfinished)
    try:
        yield unfinished
        finish(unfinished, path)
    finally:
        # A second error, of a disk that is gone, must not hide the first.
        with suppress(OSError):
            remove(unfinished)


def unfinished_name(path: Path, ending: str = "") -> Path:
    """The name of a file while it is being written: ``.NAME.writing``. It is the same for every write."""
    name = f".{path.name}.writing{ending}"
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        # The checksum keeps long names apart that begin alike.
        tail = f".{zlib.crc32(os.fsencode(path.name)):08x}.writing{ending}"
        name = os.fsdecode(os.fsencode(f".{path.name}")[: MAX_NAME_BYTES - len(tail)]) + tail
    return path.with_name(name)


def finish(unfinished: Path, path: Path) -> None:
    """
    Sync a file or a folder and give it its name, so that a power cut leaves the old or the new one, never half of it.

    Raises:
        OSError: the disk is full or broken. Some file systems say so only here.
    """
    sync(unfinished)
    if is_folder(unfinished) and is_folder(path):
        # A rename does not replace a folder that holds something. Moving it away takes less time than deleting it.
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
    Bring a file, or a folder with all that is in it, from the system's memory to the disk.

    Raises:
        OSError: the disk is full or broken.
    """
    if is_folder(path):
        for inner in path.iterdir():
            sync(inner)
    _sync_one(path)


def remove(path: Path) -> None:
    """
    Remove a file, a link or a folder with all that is in it, if it is there.

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
    # Windows syncs only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def _is_stream(path: Path) -> bool:
    """Whether something is there that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)

"""A user whom folders can be closed to, as they are not to the one with all rights that containers run tests as."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def as_normal_user() -> Iterator[None]:
    """The process asks for files as a user without special rights while this lasts."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder that a normal user may neither list nor enter; in it lie ``file.txt`` and ``folder``."""
    # Folders of pytest are closed themselves.
    around = Path(tempfile.mkdtemp())
    around.chmod(0o755)
    closed = around / "closed"
    (closed / "folder").mkdir(parents=True)
    (closed / "file.txt").write_text("text")
    closed.chmod(0)
    try:
        yield closed
    finally:
        closed.chmod(0o700)
        shutil.rmtree(around)

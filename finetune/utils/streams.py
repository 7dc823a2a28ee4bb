"""Standard output and error that never end a command: a pipe whose reader is gone, a letter that the locale lacks."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


@contextmanager
def lasting_streams() -> Iterator[None]:
    """
    While this lasts, text that cannot be printed is lost, and no error of printing ends the command.

    ``finetune train ... | head -1`` closes the pipe after a line, but the training goes on for hours. A name that is
    not UTF-8, or not in the locale, is printed as ``\\udcff``. If standard error is closed, its text goes to standard
    output. What a full disk kept of standard output is named at the end: nobody chose to be without it.
    """
    before = sys.stdout, sys.stderr
    nowhere = None
    if sys.stdout is None or sys.stderr is None:
        nowhere = _nowhere()
    # Python uses None for a stream that was closed when it started.
    out: TextIO = nowhere if sys.stdout is None else sys.stdout  # type: ignore[assignment]
    error: TextIO = out if sys.stderr is None else sys.stderr
    for stream in (out, error):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    lasting = _Lasting(out)
    sys.stdout, sys.stderr = lasting, _Lasting(error)
    try:
        yield
    finally:
        sys.stdout.flush()
        if lasting.lost_to:
            print(f"standard output is incomplete: it could not be written ({lasting.lost_to})", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        if nowhere is not None:
            nowhere.close()


class _Lasting:
    """A text stream whose writing never fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost_to = ""  # why text was lost that somebody waits for

    def write(self, text: str) -> int:
        """Write as much as can be written."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        except UnicodeEncodeError:  # a stream that is not Python's own
            return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # On a full disk, later lines may fit again. But a pipe without a reader stays broken, and Python would try to
        # write what is left in the buffer, and fail, once more at exit.
        if error.errno not in (errno.EPIPE, errno.EIO, errno.EBADF):
            self.lost_to = error.strerror or str(error)
        else:
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    """A stream whose text is lost; no file that is opened later gets the number of a closed standard stream."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    return os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace")

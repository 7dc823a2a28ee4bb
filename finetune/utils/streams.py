"""Standard output and error that end no work: a reader that has gone, a letter that a locale lacks, a closed stream."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def lasting_streams() -> Iterator[None]:
    """
    While this lasts, what cannot be printed is lost, and what is printed ends nothing.

    ``finetune train ... | head -1`` closes the pipe after a line, and the hours of training go on; a name that is not
    UTF-8, or not in the locale, is printed as ``\\udcff``; with standard error closed, what is said there comes to
    standard output.
    """
    before = sys.stdout, sys.stderr
    nowhere = None
    if sys.stdout is None or sys.stderr is None:
        nowhere = _nowhere()
    # Python has None for a stream that was closed before it began.
    out: TextIO = nowhere if sys.stdout is None else sys.stdout  # type: ignore[assignment]
    error: TextIO = out if sys.stderr is None else sys.stderr
    for stream in (out, error):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = _Lasting(out), _Lasting(error)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
        if nowhere is not None:
            nowhere.close()


class _Lasting:
    """A stream of text, whose writing never fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        except UnicodeEncodeError:  # of a stream that is not Python's own
            return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        # Of a full disk, later lines may fit again. Nobody comes back to read from a pipe, and what is left in the
        # buffer would be written, and fail, once more when Python ends.
        if error.errno in (errno.EPIPE, errno.EIO, errno.EBADF):
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nowhere() -> TextIO:
    """A stream whose text is lost; the numbers of standard streams that are closed go to no file of ours."""
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        number = os.dup(number)
    return os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace")

"""Capture what decoders written in C write about a file: they write to the stderr of the process only."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from threading import Lock
from typing import IO, TypeVar

_T = TypeVar("_T")
_ONE_AT_A_TIME = Lock()
_STDERR = 2


def capture_messages(decode: Callable[[], _T], own: re.Pattern[str]) -> tuple[_T, list[str]]:
    """
    Decode a file, and keep the messages of its decoder from the terminal.

    Args:
        decode: returns the pixels.
        own: matches the start of each line that the decoder writes; lines that others write meanwhile are passed on.

    Returns:
        What ``decode`` returned, and the decoder's lines; no lines if there is no stderr.
    """
    with _ONE_AT_A_TIME, ExitStack() as stack:
        try:
            file, kept = _divert_stderr(stack)
        except (OSError, ValueError, AttributeError):  # stderr is closed, or there is no room for a temporary file
            stack.close()
            return decode(), []
        try:
            decoded = decode()
        finally:
            lines = _collect_messages(file, kept, own)
    return decoded, lines


def _divert_stderr(stack: ExitStack) -> tuple[IO[bytes], int]:
    """The file that stderr now goes to, and a copy of the descriptor that it had before."""
    sys.stderr.flush()
    file = stack.enter_context(_open_buffer())
    kept = os.dup(_STDERR)
    stack.callback(os.close, kept)
    os.dup2(file.fileno(), _STDERR)
    stack.callback(os.dup2, kept, _STDERR)
    return file, kept


def _open_buffer() -> IO[bytes]:
    """A file without a name, in memory if the system has such files: a temporary file costs a millisecond."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("words"), "w+b")
    return tempfile.TemporaryFile()


def _collect_messages(file: IO[bytes], kept: int, own: re.Pattern[str]) -> list[str]:
    """The decoder's lines; restores stderr and passes all other lines on to it."""
    sys.stderr.flush()
    os.dup2(kept, _STDERR)
    file.seek(0)
    found = []
    for line in file.read().splitlines(keepends=True):
        text = line.decode("utf-8", "replace").strip()
        if own.match(text):
            found.append(text)
        else:
            os.write(_STDERR, line)
    return found

"""What decoders written in C say of a file: to the process' own stderr, and nowhere else."""

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


def with_words(decode: Callable[[], _T], own: re.Pattern[str]) -> tuple[_T, list[str]]:
    """
    Call what decodes a file, and keep what its decoder says from the terminal.

    Args:
        decode: gives the pixels.
        own: fits the beginning of each line that the decoder writes; all other lines, which others write meanwhile, are
            passed on.

    Returns:
        What ``decode`` gave, and the decoder's lines; none where there is no stderr.
    """
    with _ONE_AT_A_TIME, ExitStack() as stack:
        try:
            file, kept = _diverted(stack)
        except (OSError, ValueError, AttributeError):  # it is closed, or there is no room for a temporary file
            stack.close()
            return decode(), []
        try:
            decoded = decode()
        finally:
            lines = _said(file, kept, own)
    return decoded, lines


def _diverted(stack: ExitStack) -> tuple[IO[bytes], int]:
    """The file that stderr now goes to, and a copy of where it went before."""
    sys.stderr.flush()
    file = stack.enter_context(_memory())
    kept = os.dup(_STDERR)
    stack.callback(os.close, kept)
    os.dup2(file.fileno(), _STDERR)
    stack.callback(os.dup2, kept, _STDERR)
    return file, kept


def _memory() -> IO[bytes]:
    """A file of no name, in memory where the system has such files: a temporary one costs a millisecond."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("words"), "w+b")
    return tempfile.TemporaryFile()


def _said(file: IO[bytes], kept: int, own: re.Pattern[str]) -> list[str]:
    """The decoder's lines; stderr goes again where it went, and so do the others."""
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

"""How every command ends: a status, and one sentence instead of a traceback for what a user can cause."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from finetune.utils.errors import DataError, FileFault, FinetuneError, ProcessError
from finetune.utils.files import NAME_A_FILE, write_output
from finetune.utils.signals import Interrupted
from finetune.utils.streams import lasting_streams
from finetune.utils.text import did_you_mean, nearest


def configure_threading() -> None:
    """How threads wait and add, for a command that calculates: before torch is imported, and never over what is set."""
    # Waiting threads that spin take the core from whoever they wait for: with one more busy process on two cores a step
    # took fourteen times as long. It is read when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Threads of MKL add in an order that varies from call to call on some processors; a resumed run would not end with
    # the bits of one that never stopped. It is read at the first product of matrices, and costs a few percent.
    os.environ.setdefault("MKL_CBWR", "AUTO")


@contextmanager
def import_without_gc() -> Iterator[None]:
    """Around those imports of a command that take seconds: without Python's garbage collector, by a third fewer.

    It would walk what is imported again and again, at exit too, and nothing of it is ever garbage.
    """
    first = "torch" not in sys.modules
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
        if first:
            # Out of all later collections. In a process that calls commands again, garbage would stay with it.
            gc.freeze()
            # What is frozen at the end is never freed, and the bindings of triton list all of it on standard error.
            atexit.register(gc.unfreeze)


class CommandParser(argparse.ArgumentParser):
    """Of a command: a wrong call ends as everything wrong does, in a sentence."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2."""
        self.print_usage(sys.stderr)
        perhaps = did_you_mean(self._option_meant(message.removeprefix("unrecognized arguments: ")))
        self.exit(2, f"finetune stopped: {message.rstrip('.')}.{perhaps} {self.prog} --help says more.\n")

    def _option_meant(self, words: str) -> str | None:
        """The option that was probably meant by the first word, if it is written as one."""
        word = words.split(" ")[0].partition("=")[0]
        return nearest(word, list(self._option_string_actions)) if word.startswith("--") else None

    def _print_message(self, message: str, file: Any = None) -> None:
        to_error = file is None or file is sys.stderr
        with lasting_streams():
            super()._print_message(message, sys.stderr if to_error else sys.stdout)


def run_command(
    action: Callable[[], int | None],
    after_interrupt: str = "Go on with --resume.",
    of_memory: str = "Close what else holds memory, and call again.",
) -> int:
    """
    Run a command.

    Args:
        action: the command.
        after_interrupt: what to do once it was interrupted; ends the sentence.
        of_memory: what to do where memory ran out; a sentence.

    Returns:
        Its exit status: 0 done, 1 the data or the result is not acceptable, 2 the call, the recipe or a file it names
        is wrong, 130 interrupted by SIGINT, 143 by SIGTERM.
    """
    with lasting_streams():
        return _run_guarded(action, after_interrupt, of_memory)


def _run_guarded(action: Callable[[], int | None], after_interrupt: str, of_memory: str) -> int:
    try:
        return action() or 0
    except FinetuneError as error:
        return _stopped(error)
    except Interrupted as interrupted:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            name = signal.Signals(interrupted.number).name
            print_error(f"interrupted by {name}. {interrupted.saved or after_interrupt}")
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print_error(f"interrupted. {after_interrupt}")
        return 130
    except Exception as error:
        if _loading_ran_out(error):
            return _stopped(
                ProcessError(
                    "Memory ran out while the program was loaded: this process may not have as much as torch alone "
                    "takes (ulimit -v, a container's limit, or other programs). Raise the limit."
                )
            )
        # Here, because torch takes longer to import than most calls that end with an error.
        from finetune.utils.resource_errors import explain_resource_error

        of_machine = explain_resource_error(error, of_disk="Free space and call again.", of_memory=of_memory)
        short = of_machine or _closed_path(error)
        if short is None:
            raise
        return _stopped(short)


def _loading_ran_out(error: Exception) -> bool:
    """Whether a library could not be loaded for want of memory. To import torch once more would hide that: it says that
    it can be initialized but once."""
    told = ("cannot allocate memory", "failed to map segment", "Cannot allocate memory")
    short = isinstance(error, MemoryError) or any(part in str(error) for part in told)
    # What is half loaded lacks what it sets last.
    return short and not hasattr(sys.modules.get("torch"), "nn")


# What only a path, or who may use it, can be at fault for.
_OF_PATHS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)


def _closed_path(error: Exception) -> FinetuneError | None:
    """The error to raise where the system refused a path that no command has a sentence of its own for."""
    if not isinstance(error, OSError) or error.errno not in _OF_PATHS or error.filename is None:
        return None
    return FileFault(error.filename, str(error.strerror), "Name another path, or let this user read and write there")


def _stopped(error: FinetuneError) -> int:
    # All processes of a launch find the same fault of a recipe; a sample's fault, only the one that read it.
    if isinstance(error, DataError | ProcessError) or os.environ.get("LOCAL_RANK", "0") == "0":
        print_error(str(error))
    return error.exit_status


def write_and_say(path: Path, text: str) -> None:
    """
    Write a file that an option of a command names, and say so.

    Raises:
        FinetuneError: it cannot be written.
    """
    write_output(path, text, NAME_A_FILE)
    print(f"{path} is written")


_MAX_LINES = 40  # what fits a screen


def print_error(sentence: str) -> None:
    """Print why on standard error."""
    lines = sentence.splitlines()
    if len(lines) > 1:
        more = [f"  and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
        lines = [f"{len(lines)} faults", *(f"  {line}" for line in lines[:_MAX_LINES]), *more]
    print("finetune stopped: " + "\n".join(lines), file=sys.stderr, flush=True)

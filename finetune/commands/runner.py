"""How every command runs and ends: with a status, and with one sentence instead of a traceback for user errors."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from finetune.utils.errors import DataError, FileFault, FinetuneError, ProcessError
from finetune.utils.files import NAME_A_FILE, write_output
from finetune.utils.signals import Interrupted, end_workers, ignore_dead_workers
from finetune.utils.streams import lasting_streams
from finetune.utils.text import did_you_mean, nearest

# What commands log goes to standard error; what they print, to standard output, is their result.
LOGGER = logging.getLogger("finetune.commands")
_MAX_LINES = 40  # faults that are printed, so that they fit on a screen
# Errors that only a path, or the permission to use it, can cause.
_PATH_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
    errno.ENXIO,  # a pipe that no process reads, or what should be a file and is none
)


def configure_threading() -> None:
    """Set how threads wait and add, for a command that computes: before torch is imported, keeping what is set."""
    # Waiting threads that spin take the core from the thread they wait for: with one more busy process on two cores, a
    # step took fourteen times as long. Torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # On some processors MKL's threads add in an order that varies from call to call, and a resumed run would not end
    # with the same bits as one that never stopped. MKL reads this at the first matrix product; it costs a few percent.
    os.environ.setdefault("MKL_CBWR", "AUTO")


@contextmanager
def import_without_gc() -> Iterator[None]:
    """
    Put this around imports that take seconds: without Python's garbage collector they take a third less.

    The collector would walk the imported objects again and again, also at exit, and none of them is ever garbage.
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
            # Take them out of all later collections, but only once: what a later command of this process leaves behind
            # may be garbage.
            gc.freeze()
            # Frozen objects are never freed, and at exit the bindings of triton list all of theirs on standard error.
            atexit.register(gc.unfreeze)


class CommandParser(argparse.ArgumentParser):
    """The parser of a command: a wrong call ends in one sentence, and ``--help`` ends with an example."""

    def __init__(self, *, prog: str, description: str | None, example: str) -> None:
        """
        Args:
            prog: ``finetune NAME``.
            description: what the command does.
            example: a call that works in a clone of the repository.
        """
        super().__init__(prog=prog, description=description)
        self.example = example

    def format_help(self) -> str:
        """The text of ``--help``; the example stays on one line, to be copied."""
        return f"{super().format_help()}\nexample:\n  {self.example}\n"

    def error(self, message: str) -> NoReturn:
        """Explain what is wrong with the call and end with exit status 2."""
        self.print_usage(sys.stderr)
        perhaps = did_you_mean(self._option_meant(message.removeprefix("unrecognized arguments: ")))
        self.exit(2, f"finetune stopped: {message.rstrip('.')}.{perhaps} {self.prog} --help says more.\n")

    def _option_meant(self, words: str) -> str | None:
        """The option that the first of ``words`` is probably meant to be; None if it is not written like an option."""
        word = words.split(" ")[0].partition("=")[0]
        if not word.startswith("--") or word in self._option_string_actions:
            return None  # the sentence begins with an option that there is
        return nearest(word, list(self._option_string_actions))

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override]
        to_error = file is None or file is sys.stderr
        with lasting_streams():
            super()._print_message(message, sys.stderr if to_error else sys.stdout)


class _StandardErrorHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # sys.stderr of this moment: lasting_streams puts another one there while a command runs.
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def _log_to_standard_error() -> Iterator[None]:
    """Show ``LOGGER`` on standard error, from later processes of a launch with their number."""
    rank = int(os.environ.get("RANK") or 0)
    handler = _StandardErrorHandler()
    handler.setFormatter(logging.Formatter(f"[process {rank}] %(message)s" if rank else "%(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.propagate = True


def run_command(
    action: Callable[[], int | None],
    after_interrupt: str = "Go on with --resume.",
    of_memory: str = "Close what else holds memory, and call again.",
) -> int:
    """
    Run a command.

    Args:
        action: the command.
        after_interrupt: what to do after an interrupt; ends the sentence.
        of_memory: what to do if memory runs out; a sentence.

    Returns:
        Its exit status: 0 done, 1 the data or the result is not acceptable, 2 the call, the recipe or a file it names
        is wrong, 130 interrupted by SIGINT, 143 by SIGTERM.
    """
    with lasting_streams(), _log_to_standard_error(), _quiet_resource_errors():
        return _run_guarded(action, after_interrupt, of_memory)


def _run_guarded(action: Callable[[], int | None], after_interrupt: str, of_memory: str) -> int:
    try:
        return action() or 0
    except FinetuneError as error:
        stopped = error
    except Interrupted as interrupted:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            name = signal.Signals(interrupted.number).name
            print_error(f"interrupted by {name}. {interrupted.saved or after_interrupt}")
        return 128 + interrupted.number
    except KeyboardInterrupt:
        print_error(f"interrupted. {after_interrupt}")
        return 130
    except Exception as error:
        ignore_dead_workers()  # they would raise while this error is explained
        explained = _explain(error, of_memory)
        if explained is None:
            raise
        stopped = explained
    status = _exit_status(stopped)
    if isinstance(stopped, ProcessError):
        # A loader that could not be made prints a traceback when it is freed, which is held back only until the command
        # returns: free it now, with the frames of the error that hold it.
        stopped.__traceback__ = stopped.__cause__ = stopped.__context__ = None
        gc.collect()
    return status


def _explain(error: Exception, of_memory: str) -> FinetuneError | None:
    """The sentence about an error that this machine or a path caused; None for an error of the program."""
    if _import_ran_out_of_memory(error):
        return ProcessError(
            "Memory ran out while the program was loaded: this process may not have as much as torch alone takes "
            "(ulimit -v, a container's limit, or other programs). Raise the limit."
        )
    # Imported here, because torch takes longer to import than most calls that end with an error.
    from finetune.utils.resource_errors import explain_resource_error

    resource_error = explain_resource_error(error, of_disk="Free space and call again.", of_memory=of_memory)
    return resource_error or _path_error(error)


@contextmanager
def _quiet_resource_errors() -> Iterator[None]:
    """
    While this lasts, resource errors that end a thread, or an object that is freed, print no traceback.

    The main thread meets the same limit, or misses what the thread should have done, and says so in a sentence.
    """
    of_threads, of_freed = threading.excepthook, sys.unraisablehook

    def hear_thread(failed: threading.ExceptHookArgs) -> None:
        if not _is_explained(failed.exc_value):
            of_threads(failed)

    def hear_freed(failed: sys.UnraisableHookArgs) -> None:
        # PyTorch frees an iterator whose workers could not be started as if all had been.
        half_made = isinstance(failed.exc_value, AttributeError) and "DataLoaderIter.__del__" in repr(failed.object)
        if not half_made and not _is_explained(failed.exc_value):
            of_freed(failed)

    threading.excepthook, sys.unraisablehook = hear_thread, hear_freed
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = of_threads, of_freed


def _is_explained(error: BaseException | None) -> bool:
    if "torch" not in sys.modules:
        return False
    from finetune.utils.resource_errors import explain_resource_error

    return isinstance(error, Exception) and explain_resource_error(error, of_disk="", of_memory="") is not None


def _import_ran_out_of_memory(error: Exception) -> bool:
    """
    Whether a library could not be loaded because memory was short.

    Importing torch a second time would hide that: it only says that it can be initialized once.
    """
    messages = ("cannot allocate memory", "failed to map segment", "Cannot allocate memory")
    out_of_memory = isinstance(error, MemoryError) or any(message in str(error) for message in messages)
    # A module that is only half loaded lacks what it sets last.
    return out_of_memory and not hasattr(sys.modules.get("torch"), "nn")


def _path_error(error: Exception) -> FinetuneError | None:
    """The error to raise if the system refused a path and no command has a sentence of its own for that."""
    if isinstance(error, FileNotFoundError) and _has_lost_its_folder():
        return FinetuneError("The current folder was deleted, and with it every path that starts in it. Enter another.")
    if not isinstance(error, OSError) or error.errno not in _PATH_ERRORS or error.filename is None:
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    return FileFault(path, str(error.strerror), "Name another path, or let this user read and write there")


def _has_lost_its_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return True
    return False


def _exit_status(error: FinetuneError) -> int:
    """The exit status of ``error``, which is printed."""
    if isinstance(error, ProcessError):
        ignore_dead_workers()
        end_workers()
    # All processes of a launch find the same fault of a recipe, but only one of them reads a given sample.
    if isinstance(error, DataError | ProcessError) or os.environ.get("LOCAL_RANK", "0") == "0":
        print_error(str(error))
    return error.exit_status


def print_error(sentence: str) -> None:
    """Print why the command stopped, on standard error."""
    lines = sentence.splitlines()
    # Indented lines belong to the first one; others are faults of their own.
    if any(not line.startswith("  ") for line in lines[1:]):
        more = [f"  and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
        lines = [f"{len(lines)} faults", *(f"  {line}" for line in lines[:_MAX_LINES]), *more]
    print("finetune stopped: " + "\n".join(lines), file=sys.stderr, flush=True)


def write_and_say(path: Path, text: str) -> None:
    """
    Write a file that an option of a command names, and say so.

    Raises:
        FinetuneError: it cannot be written.
    """
    write_output(path, text, NAME_A_FILE)
    print(f"{path} is written")

"""Load and write frames in several processes, which end with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar, cast

from finetune.utils.errors import ProcessError

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")
_FEW = 24  # with fewer tasks, starting a process takes longer than the work
MAX_WORKERS = 8


def default_workers() -> int:
    """As many as this process has cores, up to ``MAX_WORKERS``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MAX_WORKERS, cores)


def run_tasks(work: Callable[[_Task], _Done], tasks: Sequence[Callable[[], _Task]], workers: int) -> Iterator[_Done]:
    """
    Args:
        work: what to do; it is pickled once for each process.
        tasks: make the tasks, each at the moment when it is handed out; in order, so that a process that reads a video
            reads on.
        workers: number of processes.

    Returns:
        The results, as they come.

    Raises:
        ProcessError: a process was killed.
        Exception: whatever ``work`` raised first.
    """
    workers = min(workers, len(tasks) // _FEW)
    if workers < 2:
        for make in tasks:
            yield work(make())
        return
    # Each process is to compute on one core, and OpenBLAS reads this when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    pool = ProcessPoolExecutor(workers, get_context("spawn"), partial(_start_worker, work))
    try:
        yield from _keep_busy(pool, tasks, 2 * workers)
    except BrokenProcessPool:
        # A signal to all processes of a job ends the workers first: wait for the one that this process gets.
        time.sleep(0.2)
        raise ProcessError(
            "A process that writes frames died, usually because memory is short. Call again with --workers 1, which "
            "goes on."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _keep_busy(pool: ProcessPoolExecutor, tasks: Sequence[Callable[[], object]], ahead: int) -> Iterator[_Done]:
    """The results, while at most ``ahead`` tasks wait or run."""
    running: set[Future[object]] = set()
    for make in tasks:
        with _signals_held():
            running.add(pool.submit(_work, make()))
        if len(running) >= ahead:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (cast(_Done, future.result()) for future in done)
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        yield from (cast(_Done, future.result()) for future in done)


@contextmanager
def _signals_held() -> Iterator[None]:
    """
    Put this around what starts a process: Ctrl-C, which the terminal sends to all, reaches only the main process.

    A process that is started has the mask of the one that starts it, and needs seconds to set its own.
    """
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_WORK: Callable[[Any], Any] | None = None  # of this process; any task, any result


def _start_worker(work: Callable[[_Task], _Done]) -> None:
    """Prepare a process: it leaves Ctrl-C to the main one, computes on one core, and ends with the main one."""
    global _WORK
    import cv2

    _WORK = work
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: object) -> object:
    assert _WORK is not None, "set when the process started"
    return _WORK(task)

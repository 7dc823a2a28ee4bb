"""What a machine ran out of, distinguished from other errors, and said in a sentence by every command."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from torch._utils import ExceptionWrapper  # what a loader's process hands its errors over in
from torch.utils.data import DataLoader, Dataset

from finetune.commands.runner import run_command
from finetune.data.dataloader import init_worker
from finetune.utils.resource_errors import explain_resource_error

WITH_LITTLE_SHARED_MEMORY = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=256k none /dev/shm && exec "$@"']


class OfAnAccelerator(RuntimeError):
    """As PyTorch's AcceleratorError, which its older versions do not have."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk is full"),
        (MemoryError(), "Memory ran out. Wait."),
        (torch.OutOfMemoryError("CUDA out of memory."), "Memory ran out. Wait."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "Memory ran out. Wait."),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "died (DataLoader worker (pid 7) is"),
        (OfAnAccelerator("CUDA error: out of memory\nCUDA kernel errors might be"), "Memory ran out. Wait."),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "Memory ran out. Wait."),
        (RuntimeError("Pin memory thread exited unexpectedly"), "A process that reads data died (Pin memory thread"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "may not open more files (Too many open files). Raise the limit",
        ),
        (RuntimeError("unable to open shared memory object: Too many open files (24)"), "may not open more files"),
        (SafetensorError("I/O error: Too many open files (os error 24)"), "may not open more files"),
        # Handed over by a worker, an OSError has no number.
        (
            OSError("Caught OSError in DataLoader worker process 0.\nOSError: [Errno 24] Too many open files"),
            "may not open more files",
        ),
        (RuntimeError("received 0 items of ancdata"), "may not open more files"),
        (RuntimeError("can't start new thread"), "No further process can be started (can't start new thread)"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "temporary files can be written"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "No further process can be started"),
        (
            RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer"),
            "its message is the cause",
        ),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), "Another process of this launch"),
    ],
)
def test_what_a_machine_lacks_is_known_by_its_errors(error: Exception, said: str) -> None:
    found = explain_resource_error(error, of_disk="Free some.", of_memory="Wait.")
    assert found is not None and said in str(found)
    assert ("Free some." in str(found)) == ("disk" in said)


@pytest.mark.parametrize("fault", [MemoryError("no room"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_memory_that_a_reader_s_process_finds_short_is_that_of_readers(fault: Exception) -> None:
    with pytest.raises(type(fault)) as caught:
        ExceptionWrapper((type(fault), fault, None), where="in DataLoader worker process 0").reraise()
    found = str(explain_resource_error(caught.value, of_disk="", of_memory="Take smaller steps."))
    assert found.startswith(
        f"A process that reads data died (Caught {type(fault).__name__} in DataLoader worker process 0)"
    )
    assert "data.workers=0" in found and "smaller steps" not in found


@pytest.mark.slow
def test_full_shared_memory_is_not_called_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0 if path == "/dev/shm" else 10**9))
    found = str(
        explain_resource_error(OSError(errno.ENOSPC, "No space left on device"), of_disk="Free some.", of_memory="")
    )
    assert found.startswith("Shared memory is full (") and found.endswith("(--shm-size).")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback"),
        NotImplementedError("a RuntimeError by descent"),
        ValueError("No space left on device"),
    ],
)
def test_faults_of_the_code_are_not_taken_for_it(error: Exception) -> None:
    assert explain_resource_error(error, of_disk="", of_memory="") is None

    def action() -> None:
        raise error

    with pytest.raises(type(error)):
        run_command(action)


def test_a_worker_that_dies_where_few_files_may_be_opened_died_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    died = RuntimeError("DataLoader worker (pid 7) exited unexpectedly")
    monkeypatch.setattr("resource.getrlimit", lambda _: (24, 4096))
    assert "may not open more files" in str(explain_resource_error(died, of_disk="", of_memory=""))
    monkeypatch.setattr("resource.getrlimit", lambda _: (4096, 4096))
    assert "may not open more files" not in str(explain_resource_error(died, of_disk="", of_memory=""))


def test_what_pytorch_does_not_know_of_a_worker_is_left_out() -> None:
    message = "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost due to multiprocessing."
    found = str(explain_resource_error(RuntimeError(message), of_disk="", of_memory=""))
    assert "(DataLoader worker (pid 7) exited unexpectedly with exit code 1)." in found


def test_any_command_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def action() -> None:
        raise MemoryError

    assert run_command(action) == 1
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: Memory ran out. ") and said.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("[Errno 12] Cannot allocate memory"),
    ],
)
def test_memory_that_ends_while_torch_is_loaded_is_told_without_torch(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half loaded; to import it again would raise "torch can only be initialized once".
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.setitem(sys.modules, "finetune.utils.resource_errors", None)

    def action() -> None:
        raise error

    assert run_command(action) == 1
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: Memory ran out while the program was loaded") and said.count("\n") == 1


def test_temporary_files_are_not_blamed_where_no_file_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    error = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    monkeypatch.setattr("os.open", refuse)
    assert "may not open more files" in str(explain_resource_error(error, of_disk="", of_memory=""))


def test_a_thread_that_meets_a_limit_leaves_the_word_to_the_main_thread(capsys: pytest.CaptureFixture[str]) -> None:
    too_many = OSError(errno.EMFILE, "Too many open files")

    def fail() -> None:
        raise too_many

    def action() -> None:
        writer = threading.Thread(target=fail)
        writer.start()
        writer.join()
        raise too_many

    assert run_command(action) == 1
    said = capsys.readouterr().err
    assert said.startswith("finetune stopped: This process may not open more files") and said.count("\n") == 1


def test_an_iterator_whose_second_worker_does_not_start_is_freed_without_a_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = BaseProcess.start, list[BaseProcess]()

    def start_one(process: BaseProcess) -> None:
        if started:
            raise OSError(errno.EMFILE, "Too many open files")
        started.append(process)
        start(process)

    monkeypatch.setattr(BaseProcess, "start", start_one)

    def action() -> None:
        next(iter(DataLoader(_FailingSharer(), num_workers=2)))

    assert run_command(action) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "Warning" not in line]
    assert said[-1].startswith("finetune stopped: This process may not open more files")
    assert not any("Traceback" in line or "ignored" in line for line in said)


class _FailingSharer(Dataset[int]):
    """Fails as the thread does by which a worker hands over its files."""

    def __getitem__(self, _: int) -> int:
        error = OSError(errno.EMFILE, "Too many open files")
        sys.excepthook(OSError, error, None)
        return 1

    def __len__(self) -> int:
        return 1


def test_a_worker_whose_thread_cannot_hand_over_files_ends_in_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    loader = DataLoader(_FailingSharer(), num_workers=1, worker_init_fn=init_worker)
    assert run_command(lambda: next(iter(loader))) == 1
    said = capfd.readouterr().err
    assert "could not hand it over: [Errno 24] Too many open files" in said and "Traceback" not in said


def test_after_its_sentence_a_command_does_not_hear_of_workers_that_die() -> None:
    before = signal.signal(signal.SIGCHLD, lambda *_: None)

    def action() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    try:
        assert run_command(action) == 1
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [24, 44, 56, 60, 64])
def test_few_files_end_a_training_in_a_sentence(limit: int, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    keys = ["data.workers=6", "run.steps=4", "optim.warmup_steps=1", f"output={tmp_path}"]
    command = [sys.executable, "-m", "finetune", "train", "recipes/room_tiny.yaml", *keys]
    ran = subprocess.run(
        ["bash", "-c", f'ulimit -n {limit}; exec "$@"', "-", *command],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    # How many files a worker holds is a race: where the limit is just not met, the training is done.
    if ran.returncode:
        assert ran.returncode == 1
        stopped = ran.stderr.splitlines()[-1]
        assert stopped.startswith("finetune stopped: ") and "may not open more files" in stopped, ran.stderr
        assert ran.stderr.count("finetune stopped: ") == 1, ran.stderr


@pytest.mark.slow
def test_full_shared_memory_ends_a_command_instead_of_hanging_it(tmp_path: Path) -> None:
    allowed = subprocess.run([*WITH_LITTLE_SHARED_MEMORY, "-", "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"needs a mount of its own: {allowed.stderr.strip()}")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "finetune", "train", "recipes/room_tiny.yaml", f"output={tmp_path}"]
    ran = subprocess.run(
        [*WITH_LITTLE_SHARED_MEMORY, "-", *command, "data.workers=1", "run.threads=1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 1
    (stopped,) = [line for line in ran.stderr.splitlines() if line.startswith("finetune stopped: ")]
    assert stopped.startswith("finetune stopped: A process that reads data died (")
    assert "data.workers=0" in stopped and "--shm-size" in stopped
    assert "could not hand it over" in ran.stderr and "Traceback" not in ran.stderr

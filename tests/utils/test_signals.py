"""Runs as processes that are asked to end, or killed, and go on as if they had not been."""

import multiprocessing
import os
import random
import signal
import socket
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from finetune.utils.manifest import verify_manifest
from finetune.utils.signals import Interrupted, Interrupts, end_workers
from tests.conftest import ROOT, write_recipe
from tests.runs import require_same, rows, train_command, without_gpu

STEPS = "run.steps=12"


def start(recipe: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    # A shell lets its background jobs ignore Ctrl-C, and what they start inherits that.
    return subprocess.Popen(
        train_command(recipe, *arguments, processes=processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        # What it says is waited for, and a pipe would hold it back.
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until ``metrics.csv`` has a row of at least that step."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if last_step(run) >= step:
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()}")


@pytest.fixture(scope="module")
def straight(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    process = start(write_recipe(folder, frames), STEPS, "data.workers=1")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return folder / "runs" / "small"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves_and_the_run_goes_on(
    recipe: Path, tmp_path: Path, straight: Path, number: signal.Signals, status: int
) -> None:
    run = tmp_path / "runs" / "small"
    process = start(recipe, STEPS, "data.workers=1")
    wait_for_step(process, run, 2)
    # To the group, as a terminal and a scheduler send it: the workers get it as well.
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"interrupted by {number.name}. {run}/checkpoints/step_" in said
    assert "go on with --resume" in said
    assert "Traceback" not in said
    process = start(recipe, STEPS, "data.workers=1", "--resume")
    assert process.wait(timeout=180) == 0
    process.communicate()
    require_same(run, straight)


def test_a_signal_told_twice_is_one_and_a_later_one_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    ended: list[int] = []
    monkeypatch.setattr("finetune.utils.signals.time.monotonic", lambda: now[0])
    monkeypatch.setattr("finetune.utils.signals.os._exit", ended.append)
    with Interrupts() as interrupts:
        interrupts.patient = True
        # The scheduler's own, the launcher's, and one of another kind that a launcher makes of it.
        for number, seconds in ((signal.SIGTERM, 0.0), (signal.SIGTERM, 0.1), (signal.SIGINT, 4.8)):
            now[0] += seconds
            os.kill(os.getpid(), number)
            assert (interrupts.number, ended) == (signal.SIGTERM, [])
        now[0] += 0.2
        os.kill(os.getpid(), signal.SIGINT)
        assert ended == [128 + signal.SIGINT]


def test_a_closed_standard_error_does_not_lose_the_resume_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("finetune.utils.signals.os.write", closed)
    with Interrupts() as interrupts:
        interrupts.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.number == signal.SIGTERM


@pytest.mark.slow
def test_two_processes_end_together_when_one_of_them_is_told_to(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"
    # In the middle of a step of many micro-batches, in each of which both could wait for the other for ever.
    arguments = ["run.steps=500", "run.accumulate=50", "run.batch_size=1", "run.save_every_steps=500", "run.threads=1"]
    process = start(recipe, *arguments, "run.log_every_steps=1", "run.evaluate_every_steps=500", processes=2)
    wait_for_step(process, run, 1)
    trained = [one for one in psutil.Process(process.pid).children(recursive=True) if "train.py" in str(one.cmdline())]
    second = next(process for process in trained if process.environ().get("RANK") == "1")
    second.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    (saved,) = (run / "checkpoints").iterdir()
    assert f"finetune stopped: interrupted by SIGTERM. {saved} is saved: go on with --resume." in errors
    step = verify_manifest(saved)["step"]
    assert isinstance(step, int) and step >= 1
    assert "gloo" not in said + errors


@pytest.mark.slow
def test_machines_without_a_shared_disk_are_told_before_anything_is_written(recipe: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for rank in ("0", "1"):
        # The same words, and another place on each of them.
        here = tmp_path / rank
        here.mkdir()
        ranks = {"RANK": rank, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "PYTHONPATH": str(ROOT)}
        command = train_command(recipe, "output=runs", "run.steps=2", "run.threads=1")
        processes.append(
            subprocess.Popen(
                command,
                cwd=here,
                env={**without_gpu(), **together, **ranks},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    for _, errors in ended:
        assert "what the main process writes there is not seen by process 1 on " in errors
        assert "on one disk that they share" in errors and "Traceback" not in errors
    assert not any((tmp_path / rank / "runs" / "small").exists() for rank in ("0", "1"))


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(recipe: Path, tmp_path: Path, straight: Path) -> None:
    run = tmp_path / "runs" / "small"
    process = start(recipe, STEPS, "data.workers=1")
    wait_for_step(process, run, 8)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    process = start(recipe, STEPS, "data.workers=1", "--resume")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    require_same(run, straight)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ten_kills_at_random_moments_leave_the_same_weights(recipe: Path, tmp_path: Path, processes: int) -> None:
    # Long enough that it cannot end before the tenth kill: four wait for a resume point, at most 20 steps away, six for
    # at most 30 steps.
    arguments = ["run.steps=300", "run.evaluate_every_steps=20", "run.log_every_steps=1", "run.threads=1"]
    arguments += ["data.workers=1", "run.batch_size=1", "export=[]"]
    whole = start(recipe, *arguments, "name=straight", processes=processes)
    _, said = whole.communicate(timeout=400)
    assert whole.returncode == 0, said
    run, generator, moments = tmp_path / "runs" / "small", random.Random(processes), []
    for kill in range(10):
        process = start(recipe, *arguments, "--resume", processes=processes)
        wait_until_it_runs(process)
        since = time.time()
        if kill % 3 == 0:
            wait_for_a_write(process, run, since)
        else:
            # In steps first: in a fixed time a slow machine comes to the same step again and again. Often beyond the
            # next resume point: a run that never came so far would be killed in the same few steps ten times.
            wait_for_step(process, run, last_step(run) + generator.randint(1, 30))
            time.sleep(generator.uniform(0.0, 0.3))
        moments.append(("write" if writes(run, since) else "step", last_step(run)))
        assert process.poll() is None, process.communicate()
        kill_all(process)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    process = start(recipe, *arguments, "--resume", processes=processes)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert len(set(moments)) > 3, moments
    assert "write" in {kind for kind, _ in moments}, moments
    require_same(run, tmp_path / "runs" / "straight")


def wait_until_it_runs(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("to "):
            return
    raise AssertionError(f"it never ran: {process.communicate()}")


def wait_for_a_write(process: subprocess.Popen[str], run: Path, since: float) -> None:
    """Until a resume point is half written, or the run has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None and not writes(run, since):
        time.sleep(0.001)


def writes(run: Path, since: float) -> bool:
    """Whether a resume point is being written; what an earlier kill left is older than ``since``."""
    return any(path.stat().st_mtime > since for path in run.glob("checkpoints/.writing_*") if path.exists())


def last_step(run: Path) -> int:
    """Of ``metrics.csv`` while it is written; -1 before its first row."""
    if not (run / "metrics.csv").exists():
        return -1
    return max((int(row["step"]) for row in rows(run) if row["step"].isdigit()), default=-1)


def kill_all(process: subprocess.Popen[str]) -> None:
    """Kill it with all that it started: torchrun gives its processes sessions of their own."""
    launcher = psutil.Process(process.pid)
    stopped: set[psutil.Process] = set()
    # A process that is stopped starts no other, which would live on.
    while new := {launcher, *launcher.children(recursive=True)} - stopped:
        for started in new:
            with suppress(psutil.NoSuchProcess):
                started.suspend()
        stopped |= new
    for started in stopped:
        with suppress(psutil.NoSuchProcess):
            started.kill()


def test_before_anybody_looks_a_signal_ends_at_once() -> None:
    with pytest.raises(Interrupted) as stopped, Interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stopped.value.number == signal.SIGTERM


def test_a_signal_that_came_too_late_for_the_loop_is_obeyed_after_it() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        interrupts.patient = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.number == signal.SIGTERM
        with pytest.raises(Interrupted):
            interrupts.obey()
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            interrupts.patient = True
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.number == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_processes_that_read_data_are_ended_before_the_last_sentence() -> None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    end_workers()
    assert child.exitcode == -signal.SIGKILL

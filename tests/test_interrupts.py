"""Runs as processes that are told to end, or killed, and go on as if they had not been."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune.console import Interrupted
from finetune.interrupts import Interrupts
from tests.conftest import CHECKPOINT, RECIPE, ROOT

STEPS = "run.steps=12"


def start(recipe: Path, *arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(ROOT / "finetune" / "train.py"), str(recipe), *arguments]
    # A shell lets its background jobs ignore Ctrl-C, and what they start inherits that.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Until ``metrics.csv`` has a row of at least that step."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if any(int(row["step"]) >= step for row in rows(run)):
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {process.communicate()}")


def rows(run: Path) -> list[dict[str, str]]:
    """Rows of ``metrics.csv`` without their speed."""
    try:
        with (run / "metrics.csv").open(newline="") as file:
            return [{**row, "images_per_second": ""} for row in csv.DictReader(file) if row["step"].isdigit()]
    except FileNotFoundError:
        return []


def logged(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Scalars of TensorBoard as it shows them, and at which steps texts and pictures stand."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in tags["scalars"]
        if not tag.endswith("images_per_second")
    }
    found |= {tag: [(event.step, 0.0) for event in events.Images(tag)] for tag in tags["images"]}
    return found | {tag: [(event.step, 0.0) for event in events.Tensors(tag)] for tag in tags["tensors"]}


def require_same(run: Path, other: Path) -> None:
    for part in ("last", "best"):
        one, two = (load_file(folder / part / "model.safetensors") for folder in (run, other))
        assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert rows(run) == rows(other)
    assert (run / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    assert logged(run) == logged(other)


@pytest.fixture(scope="module")
def straight(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    (folder / "small.yaml").write_text(RECIPE.format(output=folder, checkpoint=CHECKPOINT, root=frames))
    process = start(folder / "small.yaml", STEPS, "data.workers=1")
    _, said = process.communicate(timeout=180)
    assert process.returncode == 0, said
    return folder / "small"


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


def test_a_second_signal_stops_at_once(recipe: Path, tmp_path: Path) -> None:
    # A step that lasts: the second signal must not wait for its end.
    process = start(recipe, "run.steps=500", "run.accumulate=100", "run.log_every_steps=1")
    wait_for_step(process, tmp_path / "runs" / "small", 1)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=5)
    assert process.returncode == 143


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
    # Long enough that it cannot end before the tenth kill.
    arguments = ["run.steps=600", "run.evaluate_every_steps=30", "run.log_every_steps=1", "run.threads=1"]
    arguments += ["data.workers=1", "run.batch_size=1", "export=[]"]
    whole = start(recipe, *arguments, "name=straight", processes=processes)
    _, said = whole.communicate(timeout=400)
    assert whole.returncode == 0, said
    run, generator, moments = tmp_path / "runs" / "small", random.Random(processes), []
    for kill in range(10):
        process = start(recipe, *arguments, "--resume", processes=processes)
        wait_until_it_runs(process)
        if kill % 3 == 0:
            wait_for_a_write(process, run)
        else:
            time.sleep(generator.uniform(0.0, 1.0))
        moments.append("write" if list(run.glob("checkpoints/.writing_*")) else f"step {last_step(run)}")
        assert process.poll() is None, process.communicate()
        # The launcher first, so that it cannot clean up; its processes have groups of their own.
        os.killpg(process.pid, signal.SIGKILL)
        kill_what_is_left(process.pid)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    process = start(recipe, *arguments, "--resume", processes=processes)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert len(set(moments)) > 3, moments
    assert "write" in moments, moments
    require_same(run, tmp_path / "runs" / "straight")


def wait_until_it_runs(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if ": step " in line:
            return
    raise AssertionError(f"it never ran: {process.communicate()}")


def wait_for_a_write(process: subprocess.Popen[str], run: Path) -> None:
    """Until a resume point is half written, or the run has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None and not list(run.glob("checkpoints/.writing_*")):
        time.sleep(0.001)


def last_step(run: Path) -> int:
    return max((int(row["step"]) for row in rows(run)), default=-1)


def kill_what_is_left(session: int) -> None:
    """Kill every process of the session, whatever group it moved to."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            os.kill(int(folder.name), signal.SIGKILL)


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

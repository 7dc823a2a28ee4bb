"""What ``--resume`` goes on from, what it refuses, and that a run ends as if it had never stopped."""

import json
import os
import random
import resource
import shutil
import signal
from dataclasses import asdict
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from finetune.data.reader import BadSamples
from finetune.recipe.run_dir import RunFolder
from finetune.training import validation
from finetune.training.bad_samples import BadSampleWatch
from finetune.training.checkpointing import ResumePoints, ResumeState
from finetune.training.monitors import Monitors
from finetune.training.run import Run
from finetune.training.run_log import LogEntry
from finetune.training.trainer import Trainer
from finetune.utils.manifest import MANIFEST_FILE, has_checksums, verify_manifest, write_manifest
from finetune.utils.plain import PlainValue
from tests.conftest import ended_run, moved_run
from tests.normal_user import as_normal_user
from tests.runs import launch, require_same, rows


@pytest.mark.parametrize(
    ("ended", "workers"),
    [
        pytest.param("finished", 0, marks=pytest.mark.slow),
        ("finished", 1),
        pytest.param("averaged", 0, marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_never_stopped(request: pytest.FixtureRequest, ended: str, workers: int) -> None:
    finished = request.getfixturevalue(ended)
    weights, table = finished / "last" / "model.safetensors", finished / "evaluation.json"
    before = rows(finished), load_file(weights), table.read_text()
    shutil.rmtree(finished / "checkpoints" / "step_00000006")
    (finished / "checkpoints" / ".writing_00000006").mkdir()
    for name in ("last", "evaluation.json", "export"):
        path = finished / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    assert launch(finished / "recipe.yaml", "--resume", f"data.workers={workers}") == 0
    assert rows(finished) == before[0]
    after = load_file(weights)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before[1].items())
    assert table.read_text() == before[2]


@pytest.mark.parametrize(
    ("damaged", "how"),
    [
        ("model.safetensors", "half zeros"),
        pytest.param("optimizer.bin", "one bit", marks=pytest.mark.slow),
        pytest.param("random_states_0.pkl", "half zeros", marks=pytest.mark.slow),
    ],
)
def test_a_damaged_resume_point_is_left_out_and_the_one_before_goes_on(
    averaged: Path, damaged: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(averaged / "last" / "model.safetensors")
    path = averaged / "checkpoints" / "step_00000006" / damaged
    content = path.read_bytes()
    half = len(content) // 2
    spoiled = {
        "half zeros": content[:half] + bytes(len(content) - half),
        "one bit": content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :],
    }
    path.write_bytes(spoiled[how])
    capsys.readouterr()
    assert launch(averaged / "recipe.yaml", "--resume") == 0
    said = capsys.readouterr().out
    assert f"step_00000006 is left out: it is damaged ({damaged} " in said
    assert "resumed at step 3 of 6" in said
    after = load_file(averaged / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert (averaged / "checkpoints" / "step_00000006" / damaged).stat().st_size == len(content)


@pytest.fixture(scope="session")
def averaged_once(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ended_run(tmp_path_factory.mktemp("averaged"), frames, "optim.ema_decay=0.9", "export=[]")


@pytest.fixture
def averaged(averaged_once: Path, tmp_path: Path) -> Path:
    """A finished run with an average of the weights, to be damaged."""
    return moved_run(averaged_once, tmp_path / "runs")


def test_without_a_whole_resume_point_it_stops(averaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (averaged / "checkpoints").iterdir():
        (path / "optimizer.bin").unlink()
    assert launch(averaged / "recipe.yaml", "--resume") == 2
    said = capsys.readouterr().err
    assert "step_00000006 is left out" in said and "step_00000003 is left out" in said
    assert "optimizer.bin is missing" in said
    assert "--overwrite" in said
    assert len(said.splitlines()) == 1


def test_a_resume_point_that_may_not_be_read_is_not_called_damaged(
    averaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = sorted((averaged / "checkpoints").iterdir())
    for path in closed:
        path.chmod(0)
    try:
        with as_normal_user():
            assert launch(averaged / "recipe.yaml", "--resume") == 2
    finally:
        for path in closed:
            path.chmod(0o700)
    said = capsys.readouterr().err
    assert f"step_00000006 is left out: it cannot be read (no permission to read {MANIFEST_FILE})" in said


@pytest.mark.slow
def test_a_resume_point_of_another_recipe_is_left_out(averaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = averaged / "checkpoints" / "step_00000006"
    state = verify_manifest(newest)
    (newest / MANIFEST_FILE).unlink()
    write_manifest(newest, {**state, "recipe_sha256": "0" * 64})
    assert launch(averaged / "recipe.yaml", "--resume") == 0
    said = capsys.readouterr().out
    assert "step_00000006 is left out: it is of another recipe" in said
    assert "resumed at step 3 of 6" in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": None},
        {"step": -1},
        {"unlogged": 3},
        {"bad_samples": {"count": "many"}},
        {"alarms": []},
        {"alarms": {"since": 1}},
        {"pending": 7},
        {"evaluation_due": "never"},
    ],
    ids=str,
)
def test_a_resume_point_that_says_nonsense_under_a_true_seal_is_left_out(
    tmp_path: Path, wrong: dict[str, PlainValue]
) -> None:
    monitors = Monitors(metric="abs_rel", max_depth_m=10.0, warmup_steps=0)
    right = ResumeState(
        step=6,
        unlogged={"loss": 0.5},
        bad_samples=BadSamples(),
        alarms=monitors.state(),
        evaluation_due=True,
        pending=[LogEntry("train/loss", 0.5, "loss")],
        recipe_sha256="0",
    )
    points = resume_points(tmp_path)
    write_manifest(tmp_path, asdict(right))
    assert points.load(tmp_path) == right
    (tmp_path / MANIFEST_FILE).unlink()
    write_manifest(tmp_path, {**asdict(right), **wrong})
    said = points.load(tmp_path)
    assert isinstance(said, str) and said.startswith("it is damaged (")


def resume_points(folder: Path) -> ResumePoints:
    """Those of a run of 6 steps whose recipe has the digest 0, without a model to load."""
    accelerator: Any = SimpleNamespace(load_state=lambda path: None)
    return ResumePoints(accelerator=accelerator, folder=RunFolder(folder), total_steps=6, recipe_sha256="0", keep=2)


def as_an_older_version_left_it(run: Path) -> None:
    """Change a run folder into what a version wrote that had fewer keys, no checksums and no digest of the content."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    del recipe["run"]["tf32"], recipe["evaluation"]["choose_on"], recipe["data"]["image_black"]
    for entry in (*recipe["data"]["train"], *recipe["data"]["val"]):
        del entry["depth_is"], entry["allow_8_bit"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    record = json.loads((run / "environment.json").read_text())
    del record["tf32"]
    for frames in record["frames"].values():
        del frames["content_sha256"]
    (run / "environment.json").write_text(json.dumps(record))
    for point in (run / "checkpoints").iterdir():
        content = verify_manifest(point)
        del content["evaluation_due"], content["pending"]
        (point / MANIFEST_FILE).unlink()
        sizes = {path.name: path.stat().st_size for path in sorted(point.iterdir())}
        (point / MANIFEST_FILE).write_text(json.dumps({**content, "recipe_sha256": "0" * 64, "bytes": sizes}))


@pytest.mark.slow
def test_a_run_of_an_older_version_goes_on_and_its_points_are_said_to_be_known_by_size_alone(
    averaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(averaged / "last" / "model.safetensors")
    as_an_older_version_left_it(averaged)
    newest = averaged / "checkpoints" / "step_00000006" / "optimizer.bin"
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    assert launch(averaged / "recipe.yaml", "--resume", "run.tf32=true") == 2
    assert "the run was made with another run.tf32. Resume with" in capsys.readouterr().err
    assert launch(averaged / "recipe.yaml", "--resume") == 0
    said = capsys.readouterr().out
    assert "step_00000006 is left out: it is damaged (optimizer.bin has " in said
    assert "step_00000003 is of an older version, which wrote no checksums" in said
    assert "resumed at step 3 of 6" in said
    after = load_file(averaged / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert has_checksums(averaged / "checkpoints" / "step_00000006")


def spoil(folder: Path, draw: random.Random) -> str:
    """Spoil one file of a resume point as a power cut or a bad disk does; its name."""
    path = draw.choice(sorted(folder.iterdir()))
    content = bytearray(path.read_bytes())
    first, last = sorted(draw.sample(range(len(content) + 1), 2))
    how = draw.choice(["cut", "zeros", "bit"])
    if how == "cut":
        del content[first:]
    elif how == "zeros" and any(content[first:last]):
        content[first:last] = bytes(last - first)
    else:
        content[min(first, len(content) - 1)] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return path.name


@pytest.mark.slow
def test_forty_power_cuts_leave_no_resume_point_that_is_accepted_and_the_same_bits(
    averaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(averaged / "last" / "model.safetensors")
    newest, whole, draw = averaged / "checkpoints" / "step_00000006", tmp_path / "whole", random.Random(0)
    shutil.copytree(newest, whole)
    names = set()
    for cut in range(40):
        name = spoil(newest, draw)
        names.add(name)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            verify_manifest(newest)
        if cut % 8 == 0:
            shutil.rmtree(averaged / "last")
            capsys.readouterr()
            assert launch(averaged / "recipe.yaml", "--resume") == 0
            assert "step_00000006 is left out: it is damaged" in capsys.readouterr().out
            after = load_file(averaged / "last" / "model.safetensors")
            assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
        shutil.rmtree(newest)
        shutil.copytree(whole, newest)
    assert names == {path.name for path in whole.iterdir()}


LONG_STEPS = ("run.batch_size=1", "run.accumulate=3", "run.save_every_steps=6", "export=[]")


@pytest.mark.slow
def test_a_signal_at_any_moment_saves_first_and_the_run_ends_in_the_same_bits(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(recipe, *LONG_STEPS, "name=straight") == 0
    points = tmp_path / "runs" / "small" / "checkpoints"
    for (place, what), call, saved, due in (
        # The second micro-batch of the second step: the step is left undone.
        ((Trainer, "_backward"), 5, 1, False),
        # The end of the third step, which goes on to be evaluated.
        ((BadSampleWatch, "require_few"), 2, 3, True),
        # That evaluation, by which the next launch begins; and that of the last step.
        ((validation, "evaluate"), 1, 3, True),
        ((validation, "evaluate"), 2, 6, True),
    ):
        with pytest.MonkeyPatch.context() as patch:
            tell_at(patch, place, what, call)
            assert launch(recipe, *LONG_STEPS, "--resume") == 143
        assert f"step_{saved:08d} is saved: go on with --resume" in capsys.readouterr().err
        assert verify_manifest(points / f"step_{saved:08d}")["evaluation_due"] == due
        assert max(path.name for path in points.iterdir()) == f"step_{saved:08d}"
    assert launch(recipe, *LONG_STEPS, "--resume") == 0
    require_same(tmp_path / "runs" / "small", tmp_path / "runs" / "straight")


def tell_at(patch: pytest.MonkeyPatch, place: object, what: str, call: int) -> None:
    """Have a scheduler tell the process to end in some call of a function, twice, as with a launcher between them."""
    watched, calls = getattr(place, what), count(1)

    def calling(*arguments: object, **options: object) -> object:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return watched(*arguments, **options)

    patch.setattr(place, what, calling)


def test_a_signal_within_the_first_step_leaves_nothing_to_go_on_from(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backward = Trainer._backward

    def interrupt_and_go_back(trainer: Trainer, *arguments: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return backward(trainer, *arguments)

    monkeypatch.setattr(Trainer, "_backward", interrupt_and_go_back)
    assert launch(recipe, *LONG_STEPS) == 130
    assert "No step was taken yet: --resume begins again" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "small" / "checkpoints").exists()


@pytest.mark.slow
def test_a_full_disk_loses_no_older_resume_point(
    averaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(averaged / "checkpoints" / "step_00000006")
    # A limit on the size of files stops a write half way, as a full disk does: the first that is PyTorch's own.
    point = averaged / "checkpoints" / "step_00000003"
    smallest = sum((point / name).stat().st_size for name in ("model.safetensors", "optimizer.bin")) // 2
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    save = Run.save_checkpoint

    def save_on_a_full_disk(run: Run) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (smallest, before[1]))
        try:
            save(run)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(Run, "save_checkpoint", save_on_a_full_disk)
    assert launch(averaged / "recipe.yaml", "--resume") == 1
    said = capsys.readouterr().err
    # PyTorch's own words are "unexpected pos 4096 vs 3990".
    assert "step_00000006: cannot be written (No space left on device). " in said
    assert "go on with --resume: the earlier resume points are whole" in said
    assert "Traceback" not in said
    assert [path.name for path in (averaged / "checkpoints").iterdir()] == ["step_00000003"]
    monkeypatch.undo()
    assert launch(averaged / "recipe.yaml", "--resume") == 0


@pytest.mark.slow
def test_a_run_killed_before_its_first_resume_point_adds_nothing_twice(finished: Path) -> None:
    before = rows(finished)
    shutil.rmtree(finished / "checkpoints")
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert rows(finished) == before


@pytest.mark.slow
def test_resuming_a_finished_run_ends_as_it_did_and_a_lost_best_comes_back(finished: Path) -> None:
    before = (finished / "evaluation.json").read_text()
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert (finished / "evaluation.json").read_text() == before
    shutil.rmtree(finished / "best")
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert (finished / "best" / "model.safetensors").exists()
    assert launch(finished / "recipe.yaml", "--resume", "run.steps=5") == 2


@pytest.mark.slow
def test_resuming_on_another_file_list_is_refused(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(frames, folder)
    arguments = (f"data.train.0.root={folder}", f"data.val.0.root={folder}", "run.steps=2")
    assert launch(recipe, *arguments) == 0
    (folder / "train.txt").write_text("00.jpg 00.png\n01.jpg 01.png\n")
    assert launch(recipe, *arguments, "--resume") == 2
    said = "since the run began, data.train.0 (10 frames then, 2 now, of other names or content) changed, so its"
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_moved_with_its_data_and_with_a_cut_best_a_run_goes_on(
    averaged: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_file(averaged / "last" / "model.safetensors")
    shutil.rmtree(averaged / "checkpoints" / "step_00000006")
    best = averaged / "best" / "model.safetensors"
    best.write_bytes(best.read_bytes()[:1000])
    # Another disk for the run, another for its data; and the folder is said by a path from here.
    shutil.move(averaged, tmp_path / "scratch" / "small")
    data = shutil.copytree(frames, tmp_path / "staged")
    recipe = tmp_path / "scratch" / "small" / "recipe.yaml"
    monkeypatch.chdir(tmp_path)
    arguments = ("output=scratch", f"data.train.0.root={data}", f"data.val.0.root={data}")
    assert launch(recipe, *arguments, "--resume") == 0
    said = capsys.readouterr().out
    assert "resumed at step 3 of 6" in said and "left out" not in said
    assert "model.safetensors is damaged (" in said and "the next evaluation writes it again" in said
    after = load_file(tmp_path / "scratch" / "small" / "last" / "model.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_resume_and_overwrite_exclude_each_other(recipe: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        launch(recipe, "--resume", "--overwrite")
    assert stopped.value.code == 2


def test_a_folder_with_a_run_and_a_resume_with_another_recipe_are_refused(
    finished: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(recipe) == 2
    assert "--resume" in capsys.readouterr().err
    assert launch(recipe, "--resume", "optim.lr=1e-3") == 2
    assert "optim.lr" in capsys.readouterr().err

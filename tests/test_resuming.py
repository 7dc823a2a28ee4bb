"""What ``--resume`` goes on from, what it refuses, and that a run ends as if it had never stopped."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.loop import Run
from tests.conftest import ended_run, moved_run
from tests.runs import launch, rows


@pytest.mark.parametrize(("ended", "workers"), [("finished", 0), ("finished", 1), ("averaged", 0)])
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


@pytest.mark.parametrize("damaged", ["model.safetensors", "run_state.json", "optimizer.bin", "average.safetensors"])
@pytest.mark.parametrize("how", ["cut", "garbled"])
def test_a_damaged_resume_point_is_left_out_and_the_one_before_goes_on(
    averaged: Path, damaged: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_file(averaged / "last" / "model.safetensors")
    path = averaged / "checkpoints" / "step_00000006" / damaged
    content = path.read_bytes()
    path.write_bytes(content[:20] if how == "cut" else b"<" * len(content))
    capsys.readouterr()
    assert launch(averaged / "recipe.yaml", "--resume") == 0
    said = capsys.readouterr().out
    assert "step_00000006 is left out: it is damaged (" in said
    assert "step 3 of 6" in said
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


def test_a_resume_point_of_another_recipe_is_left_out(averaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = averaged / "checkpoints" / "step_00000006"
    state = json.loads((newest / "run_state.json").read_text())
    (newest / "run_state.json").write_text(json.dumps({**state, "recipe_sha256": "0" * 64}))
    assert launch(averaged / "recipe.yaml", "--resume") == 0
    said = capsys.readouterr().out
    assert "step_00000006 is left out: it is of another recipe" in said
    assert "step 3 of 6" in said


def test_a_full_disk_loses_no_older_resume_point(
    averaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(averaged / "checkpoints" / "step_00000006")
    # A limit on the size of files stops a write half way, as a full disk does, with a number of its own.
    smallest = (averaged / "checkpoints" / "step_00000003" / "optimizer.bin").stat().st_size // 2
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
    assert "step_00000006 cannot be written" in said
    assert "--resume" in said
    assert "Traceback" not in said
    assert [path.name for path in (averaged / "checkpoints").iterdir()] == ["step_00000003"]
    monkeypatch.undo()
    assert launch(averaged / "recipe.yaml", "--resume") == 0


def test_a_run_killed_before_its_first_resume_point_adds_nothing_twice(finished: Path) -> None:
    before = rows(finished)
    shutil.rmtree(finished / "checkpoints")
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert rows(finished) == before


def test_resuming_a_finished_run_ends_as_it_did_and_a_lost_best_comes_back(finished: Path) -> None:
    before = (finished / "evaluation.json").read_text()
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert (finished / "evaluation.json").read_text() == before
    shutil.rmtree(finished / "best")
    assert launch(finished / "recipe.yaml", "--resume") == 0
    assert (finished / "best" / "model.safetensors").exists()
    assert launch(finished / "recipe.yaml", "--resume", "run.steps=5") == 2


def test_resuming_on_another_file_list_is_refused(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(frames, folder)
    arguments = (f"data.train.0.root={folder}", f"data.val.0.root={folder}", "run.steps=2")
    assert launch(recipe, *arguments) == 0
    (folder / "train.txt").write_text("00.jpg 00.png\n01.jpg 01.png\n")
    assert launch(recipe, *arguments, "--resume") == 2
    assert "frames.data.train.0" in capsys.readouterr().err


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

"""Rows, panels and tables of a run in Weights & Biases and MLflow: by stubs here, and by both libraries in .ci/run."""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from finetune.commands import train
from finetune.recipe.load import load_recipe
from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import Recipe
from finetune.training import recipe_check, trackers
from finetune.training.trackers import Trackers, describe_trackers, require_trackers
from finetune.utils.errors import FinetuneError

NAMED = "run.trackers=[tensorboard, wandb, mlflow]"


class StubTracker:
    """What Accelerate calls a tracker; it keeps what it gets."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.name, self.options = name, options
        self.calls: list[tuple[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.tracker = SimpleNamespace(
            info=SimpleNamespace(run_id=options.get("run_id") or "made"),
            define_metric=lambda name, step_metric: self.calls.append(("axis", (name, step_metric))),
        )

    def store_init_configuration(self, values: dict[str, object]) -> None:
        self.calls.append(("config", values))

    def log(self, values: dict[str, object], step: int | None = None) -> None:
        self.calls.append(("row", (step, values)))

    def log_images(self, values: dict[str, object], commit: bool) -> None:
        self.calls.append(("images", (commit, values)))

    def log_artifact(self, path: str, artifact_path: str | None) -> None:
        self.files[f"{artifact_path}/{Path(path).name}" if artifact_path else Path(path).name] = Path(path).read_bytes()

    def finish(self) -> None:
        self.calls.append(("finish", None))

    def named(self, kind: str) -> list[Any]:
        return [value for name, value in self.calls if name == kind]


class StubAccelerator:
    """Begins the stubs, as Accelerate does its own trackers."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.trackers: list[StubTracker] = []

    def init_trackers(self, project: str, init_kwargs: dict[str, dict[str, Any]]) -> None:
        self.trackers = [StubTracker(name, init_kwargs[name]) for name in self.names]

    def get_tracker(self, name: str) -> StubTracker:
        return next(tracker for tracker in self.trackers if tracker.name == name)


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules in place of the libraries."""
    found = {name: ModuleType(name) for name in ("wandb", "mlflow")}
    for name, module in found.items():
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, origin="stub")
        monkeypatch.setitem(sys.modules, name, module)
    vars(found["wandb"])["Table"] = lambda columns, data: (columns, data)
    vars(found["mlflow"])["set_tracking_uri"] = lambda uri: vars(found["mlflow"]).__setitem__("uri", uri)
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    return found


@pytest.fixture
def tracked(recipe: Path) -> Recipe:
    return load_recipe(recipe, [NAMED])


def begin(recipe: Recipe, folder: Path) -> tuple[Trackers, StubTracker, StubTracker]:
    accelerator: Any = StubAccelerator("wandb", "mlflow")
    begun = Trackers(accelerator, recipe, RunFolder(folder))
    return begun, accelerator.get_tracker("wandb"), accelerator.get_tracker("mlflow")


def test_rows_panels_and_tables_reach_each(tracked: Recipe, tmp_path: Path, stubs: dict[str, ModuleType]) -> None:
    begun, wandb, mlflow = begin(tracked, tmp_path)
    # Nothing is sent anywhere, and all of it is in the run folder.
    assert (wandb.options["mode"], wandb.options["dir"]) == ("offline", str(tmp_path))
    assert vars(stubs["mlflow"])["uri"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert mlflow.options["logging_dir"] == (tmp_path / "mlflow").as_uri()
    assert wandb.named("axis") == [("*", "step")]
    (config,) = mlflow.named("config")
    assert (config["model.max_depth_m"], config["loss.1.kind"], config["run.steps"]) == (10.0, "l1", 6)
    panel = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    begun.log_row(40, {"train/loss": 0.5}, {"validation/7": panel})
    assert wandb.named("images") == [(False, {"validation/7": [panel]})]
    assert wandb.named("row") == [(None, {"train/loss": 0.5, "step": 40})]
    assert mlflow.named("row") == [(40, {"train/loss": 0.5})]
    assert mlflow.files.pop("validation/7/step_000040.png").startswith(b"\x89PNG")
    begun.log_table("evaluation_table", ["row", "abs_rel"], [["finetuned", 0.25]], 41)
    begun.log_text("warnings", "far too few", 41)
    assert wandb.named("row")[1:] == [
        (None, {"evaluation_table": (["row", "abs_rel"], [["finetuned", 0.25]]), "step": 41}),
        (None, {"warnings": (["text"], [["far too few"]]), "step": 41}),
    ]
    assert mlflow.files == {
        "evaluation_table.csv": b"row,abs_rel\nfinetuned,0.25\n",
        "warnings/step_000041.txt": b"far too few\n",
    }
    begun.close()
    begun.close()
    assert len(wandb.named("finish")) == len(mlflow.named("finish")) == 1
    assert "MLFLOW_TRACKING_URI" not in os.environ and vars(stubs["mlflow"])["uri"] is None


@pytest.mark.usefixtures("stubs")
def test_a_resumed_launch_goes_on_with_the_same_runs(
    tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, wandb, _ = begin(tracked, tmp_path)
    begun.close()
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": wandb.options["id"], "mlflow": "made"}
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    _, again, mlflow = begin(tracked, tmp_path)
    assert (again.options["id"], again.options["resume"], again.options["mode"]) == (
        wandb.options["id"],
        "allow",
        "online",
    )
    assert mlflow.options == {"run_name": "small", "run_id": "made"}
    assert not again.named("config") and not mlflow.named("config")  # MLflow refuses to change what a run began with
    said = describe_trackers(tracked, RunFolder(tmp_path))
    assert [line.partition(": ")[0] for line in said] == ["watch it", "wandb", "mlflow"]
    assert "sync" not in said[1] and "http://127.0.0.1:1" in said[2]


@pytest.mark.usefixtures("stubs")
def test_a_tracker_that_fails_does_not_cost_the_run(
    tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, wandb, mlflow = begin(tracked, tmp_path)
    warned: list[str] = []
    monkeypatch.setattr(trackers, "warn", warned.append)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("the server is gone")

    monkeypatch.setattr(wandb, "log", fail)
    for step in (1, 2):
        begun.log_row(step, {"train/loss": 0.5}, {})
    assert warned == ["warning: wandb gets no more rows (the server is gone); the run goes on"]
    assert [step for step, _ in mlflow.named("row")] == [1, 2]
    monkeypatch.setattr(StubAccelerator, "init_trackers", fail)
    with pytest.raises(FinetuneError, match=r"^command line: run\.trackers: wandb or mlflow cannot begin \(the server"):
        begin(tracked, tmp_path)


def test_what_is_not_installed_is_said_before_the_first_step(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder of that name, which wandb makes wherever it runs, is no library.
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    found = trackers.find_spec
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "mlflow" else found(name))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    sentence = "run.trackers names wandb, which is not installed. Install it: pip install -e '.[wandb]'"
    assert train.main([str(recipe), NAMED]) == 2
    said = capsys.readouterr().err
    assert sentence in said and sentence.replace("wandb", "mlflow") in said
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(recipe_check, "_try_model", lambda *_: None)
    checked = recipe_check.check_recipe(load_recipe(recipe, ["run.trackers=[wandb]"]), str(recipe), step=False)
    assert [finding.key for finding in checked.findings if sentence in finding.evidence] == ["run.trackers"]
    require_trackers(load_recipe(recipe, []))
    with pytest.raises(FinetuneError, match=r"expected each once, such as \[tensorboard, wandb\]"):
        load_recipe(recipe, ["run.trackers=[wandb, wandb]"])


@pytest.mark.slow
def test_a_run_in_both_is_the_same_run(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    mlflow = pytest.importorskip("mlflow")
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    assert train.main([str(recipe), "name=plain", "run.trackers=[]"]) == 0
    assert train.main([str(recipe), "name=both", NAMED, "run.steps=6"]) == 0
    assert train.main([str(recipe), "name=both", NAMED, "run.steps=8", "--resume"]) == 0
    plain, both = tmp_path / "runs" / "plain", tmp_path / "runs" / "both"
    assert not (plain / "tensorboard").exists() and not (plain / "trackers.json").exists()
    ours, theirs = (load_file(run / "checkpoints" / "step_00000006" / "model.safetensors") for run in (plain, both))
    assert all((ours[name] == theirs[name]).all() for name in ours)
    runs = json.loads((both / "trackers.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{both}/mlflow.db")
    history = client.get_metric_history(runs["mlflow"], "train/loss")
    assert [row.step for row in history] == [2, 4, 6, 8]
    assert client.get_run(runs["mlflow"]).data.params["model.max_depth_m"] == "10.0"
    kept = {file.path for file in client.list_artifacts(runs["mlflow"])}
    assert {"evaluation", "evaluation_table.csv", "recipe", "validation"} <= kept
    assert len(list(both.glob("wandb/offline-run-*"))) == 2
    assert all(runs["wandb"] in path.name for path in both.glob("wandb/offline-run-*"))
    assert list(both.glob("wandb/offline-run-*/files/media/images/validation/*.png"))
    assert list(both.glob("wandb/offline-run-*/files/media/table/evaluation_table_*.json"))

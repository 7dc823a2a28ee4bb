"""A run's rows, panels and tables in Weights & Biases and MLflow, next to TensorBoard, by Accelerate's trackers.

Both keep what they get in the run folder, and nothing is sent anywhere: Weights & Biases is offline unless the user's
``WANDB_MODE`` says otherwise, and MLflow writes a database of its own unless ``MLFLOW_TRACKING_URI`` names a server.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from finetune.recipe.load import recipe_mapping
from finetune.recipe.run_dir import RunFolder
from finetune.recipe.schema import Recipe
from finetune.training.console import warn
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.paths import is_file

WANDB, MLFLOW = "wandb", "mlflow"
OFFLINE = "offline"
# In the run folder: which run of each tracker this one is, so that a resumed launch goes on with it.
TRACKERS_FILE = "trackers.json"
MLFLOW_DATABASE, MLFLOW_FILES = "mlflow.db", "mlflow"
# Projects of Weights & Biases and experiments of MLflow hold runs; ours, unless the environment names another.
PROJECT = "depth-finetune"
_MLFLOW_URI = "MLFLOW_TRACKING_URI"
# Weights & Biases orders rows by a count of its own, which only grows; a resumed run writes some steps again.
_STEP = "step"


def other_trackers(recipe: Recipe) -> list[str]:
    """The trackers of a recipe that Accelerate runs. TensorBoard is written by ``RunLog`` itself."""
    return [name for name in recipe.run.trackers if name in (WANDB, MLFLOW)]


def installed_trackers(recipe: Recipe) -> list[str]:
    """As ``other_trackers``, but for those that are not installed: of them Accelerate warns in words of its own."""
    return [name for name in other_trackers(recipe) if _is_installed(name)]


def _is_installed(name: str) -> bool:
    # A folder of that name in the current one, such as wandb makes, is found too, as a package without a file.
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def require_trackers(recipe: Recipe) -> None:
    """
    Raises:
        FinetuneError: a tracker is not installed; every one of them.
    """
    missing = [name for name in other_trackers(recipe) if not _is_installed(name)]
    if missing:
        raise FinetuneError(
            "\n".join(
                f"{recipe.where('run.trackers')}: run.trackers names {name}, which is not installed. Install it: "
                f"pip install -e '.[{name}]', or leave it out."
                for name in missing
            )
        )


def describe_trackers(recipe: Recipe, folder: RunFolder) -> list[str]:
    """Where each tracker keeps what it gets, a sentence each."""
    notes = []
    if "tensorboard" in recipe.run.trackers:
        notes.append(f"watch it: tensorboard --logdir {shlex.quote(str(folder.tensorboard))}")
    if WANDB in recipe.run.trackers:
        mode = os.environ.get("WANDB_MODE", OFFLINE)
        send = "; to send it, call wandb sync on the folder in there" if mode == OFFLINE else ""
        notes.append(f"wandb: {mode} (WANDB_MODE), in {folder.path / 'wandb'}{send}")
    if MLFLOW in recipe.run.trackers:
        uri = os.environ.get(_MLFLOW_URI) or _own_uri(folder)
        notes.append(f"mlflow: {uri}; to look at it: mlflow ui --backend-store-uri {shlex.quote(uri)}")
    return notes


def _own_uri(folder: RunFolder) -> str:
    """The database of a run folder. MLflow no longer takes a folder of plain files."""
    return f"sqlite:///{folder.path.absolute() / MLFLOW_DATABASE}"


class Trackers:
    """What is logged, for the trackers that still work; only the main process has one."""

    def __init__(self, accelerator: Accelerator, recipe: Recipe, folder: RunFolder) -> None:
        """
        Raises:
            FinetuneError: one cannot begin.
        """
        self._accelerator = accelerator
        self._names = other_trackers(recipe)
        self._uses_own_uri = False
        if not self._names:
            return
        known = _read_runs(folder.path / TRACKERS_FILE)
        runs = {name: known.get(name, "") for name in self._names}
        if WANDB in runs:
            runs[WANDB] = runs[WANDB] or secrets.token_hex(4)
        try:
            options = self._options(recipe, folder, runs)
            with _quiet("alembic", "mlflow", "wandb"):
                project = os.environ.get("WANDB_PROJECT", PROJECT)
                # Accelerate gives each tracker the one project name; MLflow's own variable goes before it.
                accelerator.init_trackers(project, init_kwargs=options)
                for name in [name for name in self._names if not known.get(name)]:
                    self._tracker(name).store_init_configuration(_flatten(recipe_mapping(recipe)))
        except Exception as error:
            named = " or ".join(self._names)
            self.close()
            raise FinetuneError(
                f"{recipe.where('run.trackers')}: run.trackers: {named} cannot begin "
                f"({first_line(error)}). Fix that, or leave it out; a resumed run goes on with the run of the tracker "
                f"that {folder.path / TRACKERS_FILE} names."
            ) from error
        if WANDB in runs:
            self._tracker(WANDB).tracker.define_metric("*", step_metric=_STEP)
        if MLFLOW in runs:
            runs[MLFLOW] = self._tracker(MLFLOW).tracker.info.run_id
        folder.write_json(TRACKERS_FILE, {**known, **runs})

    def log_row(self, step: int, values: Mapping[str, float], panels: Mapping[str, NDArray[np.uint8]]) -> None:
        """
        Args:
            step: of the run.
            values: by the names that TensorBoard shows.
            panels: (H, W, 3) uint8, RGB, by name.
        """

        def log_wandb(tracker: Any) -> None:
            if panels:
                tracker.log_images({name: [panel] for name, panel in panels.items()}, commit=False)
            tracker.log({**values, _STEP: step})

        def log_mlflow(tracker: Any) -> None:
            tracker.log({name: float(value) for name, value in values.items()}, step=step)
            for name, panel in panels.items():
                encoded = cv2.imencode(".png", panel[..., ::-1])[1].tobytes()
                _log_file(tracker, f"{name}/step_{step:06d}.png", encoded)

        self._each(log_wandb, log_mlflow)

    def log_text(self, name: str, text: str, step: int) -> None:
        """A text; in MLflow a file."""
        self._each(
            lambda tracker: tracker.log({**_wandb_table(name, ["text"], [[text]]), _STEP: step}),
            lambda tracker: _log_file(tracker, f"{name}/step_{step:06d}.txt", f"{text}\n".encode()),
        )

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[str | float]], step: int) -> None:
        """A table; in MLflow a CSV file."""
        lines = [",".join(map(str, row)) for row in (columns, *rows)]
        self._each(
            lambda tracker: tracker.log({**_wandb_table(name, columns, rows), _STEP: step}),
            lambda tracker: _log_file(tracker, f"{name}.csv", "\n".join([*lines, ""]).encode()),
        )

    def close(self) -> None:
        """Finish the runs; a second call does nothing."""
        for tracker in self._accelerator.trackers:
            with suppress(Exception):  # one that could not begin, or whose server is gone
                tracker.finish()
        self._names = []
        self._accelerator.trackers.clear()
        if self._uses_own_uri:
            self._uses_own_uri = False
            import mlflow

            mlflow.set_tracking_uri(None)
            os.environ.pop(_MLFLOW_URI, None)

    def _options(self, recipe: Recipe, folder: RunFolder, runs: Mapping[str, str]) -> dict[str, dict[str, object]]:
        """What each tracker is begun with. It imports MLflow, which sets up its own log as it is imported."""
        options: dict[str, dict[str, object]] = {}
        if WANDB in runs:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            options[WANDB] = {
                "name": recipe.name,
                "dir": str(folder.path),
                "id": runs[WANDB],
                "resume": "allow",
                "mode": os.environ.get("WANDB_MODE", OFFLINE),
                "settings": {"console": "off", "silent": True},
            }
        if MLFLOW in runs:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            options[MLFLOW] = {"run_name": recipe.name, "run_id": runs[MLFLOW] or None}
            import mlflow

            if not os.environ.get(_MLFLOW_URI):
                self._uses_own_uri = True
                mlflow.set_tracking_uri(_own_uri(folder))
                options[MLFLOW]["logging_dir"] = (folder.path.absolute() / MLFLOW_FILES).as_uri()
        return options

    def _tracker(self, name: str) -> Any:
        return self._accelerator.get_tracker(name)

    def _each(self, log_wandb: Callable[[Any], None], log_mlflow: Callable[[Any], None]) -> None:
        """Log to each tracker. One that fails is left out from then on: it must not cost the run."""
        for name in list(self._names):
            try:
                (log_wandb if name == WANDB else log_mlflow)(self._tracker(name))
            except Exception as error:  # noqa: BLE001  each library has errors of its own
                self._names.remove(name)
                warn(f"warning: {name} gets no more rows ({first_line(error)}); the run goes on")


def _read_runs(path: Path) -> dict[str, str]:
    """Tracker -> the run of an earlier launch; empty where there was none, or the file was changed by hand."""
    if not is_file(path):
        return {}
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
    return {}


def _wandb_table(name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, object]:
    import wandb

    return {name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}


def _log_file(tracker: Any, name: str, content: bytes) -> None:
    """Keep a file with a run of MLflow; ``name`` may have folders."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        parent = str(Path(name).parent)
        tracker.log_artifact(str(path), artifact_path=None if parent == "." else parent)


def _flatten(values: object, prefix: str = "") -> dict[str, object]:
    """Dotted keys -> plain values, as trackers list them."""
    if isinstance(values, Mapping):
        items: list[tuple[object, object]] = list(values.items())
    elif isinstance(values, list | tuple) and any(isinstance(value, Mapping) for value in values):
        items = list(enumerate(values))
    else:
        return {prefix: str(values) if isinstance(values, list | tuple) or values is None else values}
    found: dict[str, object] = {}
    for key, value in items:
        found |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Hide what libraries log about their own work."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

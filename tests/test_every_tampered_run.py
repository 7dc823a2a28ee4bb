"""A run folder whose files somebody, or a disk, has changed: what goes on from it ends in words or goes on."""

import json
import os
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from finetune.commands import compare
from finetune.data.reader import BadSamples
from finetune.evaluation.results import Evaluated
from finetune.recipe.run_dir import RunFolder, require_same_run
from finetune.training.checkpointing import ResumePoints, ResumeState
from finetune.training.monitors import Monitors
from finetune.training.run_log import LogEntry, MetricsLog
from finetune.training.validation import Validator
from finetune.utils.errors import FinetuneError
from finetune.utils.manifest import MANIFEST_FILE, write_manifest

ODD: list[Any] = [None, -1, 10**40, 1e308, float("nan"), "", "x", "9" * 5000, [], {}, [[[]]], {"a": {}}, True]


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


def spoiled(content: bytes, draw: random.Random) -> bytes:
    """The bytes cut, overwritten or repeated somewhere."""
    first, last = sorted(draw.sample(range(len(content) + 1), 2))
    middle = draw.choice([b"", bytes(last - first), draw.randbytes(last - first), content[first:last] * 2])
    return content[:first] + middle + content[last:]


def with_an_odd_value(content: Any, draw: random.Random) -> Any:
    """Plain values with one of them, at any depth, become another kind of thing."""
    inside = content
    while isinstance(inside, dict | list) and inside:
        key = draw.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
        if not isinstance(inside[key], dict | list) or draw.random() < 0.3:
            inside[key] = draw.choice(ODD)
            break
        inside = inside[key]
    return content


@pytest.fixture
def run(finished_once: Path, tmp_path: Path) -> RunFolder:
    """Of a run that has ended, without what takes time to copy."""
    target = tmp_path / "small"
    shutil.copytree(
        finished_once / "small", target, ignore=shutil.ignore_patterns("export", "last", "tensorboard", "optimizer.bin")
    )
    return RunFolder(target)


@pytest.mark.parametrize("name", ["recipe.yaml", "environment.json"])
def test_what_a_resumption_is_held_against(run: RunFolder, name: str) -> None:
    path, draw = run.path / name, random.Random(name)
    record, content = json.loads(run.environment.read_text()), path.read_bytes()
    recipe = yaml.safe_load(run.recipe.read_text())
    require_same_run(run, recipe, record)
    whole = 0
    for turn in range(12):
        if turn % 2 and name.endswith("json"):
            path.write_text(json.dumps(with_an_odd_value(json.loads(content), draw)))
        else:
            path.write_bytes(spoiled(content, draw))
        try:
            require_same_run(run, recipe, record)
            whole += 1
        except FinetuneError as error:
            assert str(run.path) in str(error) and "\n" not in str(error)
    assert whole < 12
    for depth in (2000, 100_000) if name.endswith("json") else (1500,):
        path.write_text(f"a: {deep(depth)}" if name.endswith("yaml") else f'{{"frames": {deep(depth)}}}')
        with pytest.raises(FinetuneError, match="damaged"):
            require_same_run(run, recipe, record)


def test_the_rows_so_far(run: RunFolder) -> None:
    path, draw = run.path / "metrics.csv", random.Random(0)
    content = path.read_bytes()
    for _ in range(60):
        path.write_bytes(spoiled(content, draw))
        MetricsLog(run, ["loss"], from_step=6).write(7, {"loss": 1.0})
        assert path.read_text().endswith("7,1.0\n")


def test_what_a_resume_point_says(tmp_path: Path) -> None:
    monitors = Monitors(metric="abs_rel", max_depth_m=10.0, warmup_steps=0)
    state = monitors.state()
    kept = asdict(
        ResumeState(
            step=6,
            unlogged={"loss": 0.5},
            bad_samples=BadSamples(count=1, named=["a"]),
            alarms=replace(state, standing={"a": "b"}, history=[Evaluated(step=1, value=1.0, loss=0.1)]),
            evaluation_due=True,
            pending=[LogEntry("train/loss", 0.5, "loss")],
            recipe_sha256="0",
        )
    )
    accelerator: Any = SimpleNamespace(load_state=lambda path: None)
    points = ResumePoints(accelerator=accelerator, folder=RunFolder(tmp_path), total_steps=6, recipe_sha256="0", keep=2)
    draw = random.Random(1)
    write_manifest(tmp_path, kept)
    content = (tmp_path / MANIFEST_FILE).read_bytes()
    for turn in range(200):
        (tmp_path / MANIFEST_FILE).unlink()
        if turn % 2:
            # With checksums that are right.
            write_manifest(tmp_path, with_an_odd_value(json.loads(json.dumps(kept)), draw))
        else:
            (tmp_path / MANIFEST_FILE).write_bytes(spoiled(content, draw))
        try:
            loaded = points.load(tmp_path)
        except FinetuneError as error:
            assert "Raise run.steps" in str(error)
        else:
            if isinstance(loaded, str):
                assert loaded.startswith(("it is damaged (", "it is of another recipe"))
            else:
                # Nothing that a step or a log would stumble over.
                assert 0 <= loaded.step <= 6
                assert all(isinstance(value, float) for value in loaded.unlogged.values())
                monitors.restore(loaded.alarms)
                monitors.note_step(1.0, 1.0)
                monitors.sentences()


def test_the_best_weights_so_far(run: RunFolder) -> None:
    draw, content = random.Random(2), run.best.read_bytes()
    head = int.from_bytes(content[:8], "little") + 8
    for turn in range(40):
        spoil = spoiled(content[:head], draw) + content[head:] if turn % 2 else content[: draw.randrange(len(content))]
        run.best.write_bytes(spoil)
        stand_in: Any = SimpleNamespace(folder=run, metric="abs_rel")
        notes = Validator.find_best(stand_in)
        assert stand_in.best is not None or notes[0].startswith(f"{run.best} is damaged (")


def test_what_two_runs_are_compared_by(run: RunFolder, finished_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(3)
    for name in ("environment.json", "evaluation.json", "metrics.csv", "recipe.yaml"):
        path = run.path / name
        content = path.read_bytes()
        for turn in range(6):
            if turn % 2 and name.endswith("json"):
                path.write_text(json.dumps(with_an_odd_value(json.loads(content), draw)))
            else:
                path.write_bytes(spoiled(content, draw))
            call = [str(run.path), str(finished_once / "small"), "--html", str(run.path.parent / "page.html")]
            assert compare.main(call) in (0, 1, 2)
            assert "Traceback" not in capsys.readouterr().err
        path.unlink()
        os.mkfifo(path)  # nobody writes into it: who reads it waits without end
        assert compare.main(call) in (0, 1, 2)
        path.unlink()
        path.write_bytes(content)

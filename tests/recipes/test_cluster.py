"""The files for clusters, run with a stand-in for each engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from finetune.commands.label import make_parser
from tests.small_models import write_model

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "recipes" / "cluster"


def run_with_stand_in(program: str, script: list[str], folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a script with a program in its place that prints its arguments, one a line."""
    folder.mkdir(exist_ok=True)
    stand_in = folder / program
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **variables}
    return subprocess.run(["bash", *script], env=environment, capture_output=True, text=True, check=False)


def understood(words: list[str]) -> dict[str, Any]:
    """What ``finetune label`` understands of them."""
    return vars(make_parser().parse_args(words))


def test_a_task_of_a_slurm_array_labels_its_part(tmp_path: Path) -> None:
    script = [str(CLUSTER / "label_array.sh"), "teacher.pth", "a b.png", "--output", "out"]
    array = {"SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_COUNT": "8"}
    ended = run_with_stand_in("python", script, tmp_path / "bin", SLURM_ARRAY_TASK_ID="3", **array)
    assert ended.returncode == 0, ended.stderr
    launched, *words = ended.stdout.splitlines()
    assert launched == "finetune/label.py" and (ROOT / launched).is_file()
    call = understood(words)
    assert call["shard"] == (3, 8) and call["paths"] == [Path("a b.png")] and call["model"] == "teacher.pth"
    array["SLURM_ARRAY_TASK_MIN"] = "1"  # --array=1-7 would leave the first part
    ended = run_with_stand_in("python", script, tmp_path / "bin", SLURM_ARRAY_TASK_ID="3", **array)
    assert ended.returncode == 2 and not ended.stdout
    assert ended.stderr == "the array is 1 to 7, of 8: write --array=0-N\n"


def test_a_machine_of_skypilot_labels_its_part_with_all_its_gpus(tmp_path: Path) -> None:
    task = yaml.safe_load((CLUSTER / "label_sky.yaml").read_text())
    assert task["num_nodes"] > 1 and {"setup", "run", "envs", "file_mounts", "resources"} <= set(task)
    of_sky = {"SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "4", "SKYPILOT_NUM_GPUS_PER_NODE": "2"}
    ended = run_with_stand_in("torchrun", ["-c", task["run"]], tmp_path / "bin", **task["envs"], **of_sky)
    assert ended.returncode == 0, ended.stderr
    processes, launched, *words = ended.stdout.splitlines()
    assert processes == "--nproc_per_node=2" and (ROOT / launched).is_file()
    call = understood(words)
    assert call["shard"] == (1, 4) and call["model"] == task["envs"]["TEACHER"]
    # What it reads and writes is in the buckets that are mounted.
    mounted = [Path(folder) for folder in task["file_mounts"]]
    assert call["paths"] == mounted[:1] and mounted[1] in call["output"].parents


class Parts:
    """What ``ray.data.range`` gives: batches of numbers, one after the other in this process."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map_batches(self, function: type, *, batch_size: int, concurrency: int, num_gpus: int) -> Parts:
        assert batch_size == 1 and concurrency > 1 and num_gpus == 1
        self.results = [function()({"id": np.array([number])}) for number in range(self.count)]
        return self

    def take_all(self) -> list[dict[str, object]]:
        return [{name: values[0] for name, values in batch.items()} for batch in self.results]


def test_the_page_of_ray_data_labels_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (CLUSTER / "README.md").read_text(), flags=re.S)
    assert len(code.splitlines()) <= 22
    ray = ModuleType("ray")
    monkeypatch.setattr(
        ray, "data", SimpleNamespace(range=lambda count, override_num_blocks: Parts(count)), raising=False
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    teacher = write_model(tmp_path / "teacher.safetensors", None)
    for old, new in (
        ('"depth-anything/Depth-Anything-V2-Large"', repr(str(teacher))),
        ("/shared/images", str(ROOT / "data" / "room" / "val.txt")),
        ("/shared/pseudo", str(tmp_path / "pseudo")),
        ("PARTS, CALL = 64,", "PARTS, CALL = 2,"),
    ):
        assert old in code
        code = code.replace(old, new)
    exec(compile(code, "label_ray.py", "exec"), {"__name__": "__main__"})
    images = len((ROOT / "data" / "room" / "val.txt").read_text().splitlines())
    assert f'"labels": {images},' in (tmp_path / "pseudo" / "labels.json").read_text()


def test_every_link_of_the_page_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (CLUSTER / "README.md").read_text())
    assert links and all((CLUSTER / link).is_file() for link in links)

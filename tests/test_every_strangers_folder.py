"""Folders as other people keep them, each trained for some steps by the real command, from a recipe of a few lines."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CHECKPOINT, ROOT

RECIPE = """\
name: {name}
output: {output}
model: {{checkpoint: {checkpoint}, max_depth_m: {max_depth_m}}}
data:
  input_size: [84, 112]
  train: [{entry}]
  val: [{entry}]
  val_may_repeat_train: true
  workers: 1
loss: [{{kind: silog}}]
optim: {{lr: 1.0e-4, lr_decoder: 5.0e-4, warmup_steps: 2}}
run: {{steps: 20, batch_size: 2, threads: 1}}
"""
# Folder -> the keys of its entry besides the root, and the farthest depth.
FOLDERS = {
    "tum_rgbd": ("reader: tum", 10.0),
    "ycb_video": ("reader: pairs, list: {folder}/list.txt, meters_per_unit: 0.0001", 3.0),
    "realsense_room": (
        "reader: pairs, image_dir: color, depth_dir: depth, sensor: realsense, intrinsics: cam_params_realsense.json",
        10.0,
    ),
    "redwood_icl": ("reader: pairs, image_dir: color, depth_dir: depth, meters_per_unit: 0.001", 10.0),
    "arkit_lidar": ("reader: pairs, list: {folder}/list.txt, sensor: arkit, reduce_image: true", 10.0),
}
LISTS = {"ycb_video": "000001-color.png 000001-depth.png\n", "arkit_lidar": "image.jpg arkit_depth.png\n"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_it_trains_from_a_few_lines(name: str, tmp_path: Path) -> None:
    if "DEPTH_SAMPLES" not in os.environ:
        pytest.skip("DEPTH_SAMPLES is not set")
    root = Path(os.environ["DEPTH_SAMPLES"]).resolve() / name
    keys, max_depth_m = FOLDERS[name]
    (tmp_path / "list.txt").write_text(LISTS.get(name, ""))
    entry = f"{{root: {root}, {keys.format(folder=tmp_path)}}}"
    text = RECIPE.format(name=name, output=tmp_path, checkpoint=CHECKPOINT, max_depth_m=max_depth_m, entry=entry)
    assert len(text.splitlines()) <= 15
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    ended = subprocess.run(
        [sys.executable, str(ROOT / "finetune" / "train.py"), str(recipe)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((tmp_path / name / "evaluation.json").read_text())[0]["rows"]
    assert all(math.isfinite(value) for row in rows.values() for value in row.values())
    assert rows["finetuned"]["abs_rel"] < rows["constant_median"]["abs_rel"]

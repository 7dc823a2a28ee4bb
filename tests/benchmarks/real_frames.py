"""Fine-tune on real RGB-D frames by the command that users type, and print the table.

    DEPTH_SAMPLES=/path/to/samples python tests/benchmarks/real_frames.py [key=value ...] [--seeds 0 1 2] [--steps 300]

``realsense_lab_seq`` is split by place: five equal runs of consecutive frames, the middle two of each are validation,
the frame on either side of them is left out, so no validation frame has a neighbour in training. Then 20 steps on
``tum_rgbd``, ``nyu`` and ``kitti_depth``, whose two or so frames only show that the files are read as they are.
Exits 1 where AbsRel of ``finetuned`` is above 0.14 for a seed of ``realsense_lab_seq``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_ABS_REL = 0.14

RECIPE = """\
name: {name}
output: {output}
model: {{checkpoint: {checkpoint}, max_depth_m: {max_depth_m}}}
data:
  input_size: {input_size}
  train: [{train}]
  val: [{val}]
loss: [{{kind: silog}}, {{kind: l1, weight: 0.1}}]
optim: {{lr: 1.0e-4, lr_decoder: 5.0e-4, warmup_steps: 10}}
run: {{steps: 300, batch_size: 4, evaluate_every_steps: 150, save_every_steps: 300}}
export: []
"""


def split_by_place(lines: list[str]) -> tuple[list[str], list[str]]:
    """Lines of consecutive frames -> training and validation lines."""
    train, val = [], []
    for run in range(5):
        part = lines[len(lines) * run // 5 : len(lines) * (run + 1) // 5]
        middle = len(part) // 2
        val += part[middle - 1 : middle + 1]
        train += part[: middle - 2] + part[middle + 2 :]
    return train, val


def write_lab_recipe(samples: Path, folder: Path) -> Path:
    """The recipe for the RealSense sequence, with its two lists, in ``folder``."""
    root = samples / "realsense_lab_seq"
    frames = sorted(path.stem for path in (root / "depth").glob("*.png"))
    for name, stems in zip(("train", "val"), split_by_place(frames), strict=True):
        (folder / f"{name}.txt").write_text("".join(f"rgb/{stem}.jpg depth/{stem}.png\n" for stem in stems))
    entry = f"reader: pairs, root: {root}, meters_per_unit: 0.001"
    return write_recipe(
        folder,
        "realsense_lab_seq",
        train=f"{{{entry}, list: {folder}/train.txt}}",
        val=f"{{{entry}, list: {folder}/val.txt}}",
        input_size="[112, 154]",
        max_depth_m=10.0,
    )


def write_short_recipes(samples: Path, folder: Path) -> list[Path]:
    """Recipes for the samples of a few frames, which train and validate on the same ones."""
    (folder / "tum.txt").write_text("rgb/TUM_color.png depth/TUM_depth.png\n")
    tum = f"reader: pairs, root: {samples}/tum_rgbd, list: {folder}/tum.txt, meters_per_unit: 0.0002"
    nyu = f"reader: nyuv2, root: {samples}/nyu/sync, list: {samples}/nyu/bts_style_subset.txt"
    kitti = f"reader: kitti, root: {samples}/kitti_depth, list: eigen_style_subset.txt"
    entries = {
        "tum_rgbd": (f"{{{tum}}}", "[112, 154]", 10.0),
        "nyu": (f"{{{nyu}}}", "[112, 154]", 10.0),
        "kitti_depth": (f"{{{kitti}}}", "[112, 364]", 80.0),
    }
    return [
        write_recipe(folder, name, train=entry, val=entry, input_size=size, max_depth_m=max_depth_m)
        for name, (entry, size, max_depth_m) in entries.items()
    ]


def write_recipe(folder: Path, name: str, *, train: str, val: str, input_size: str, max_depth_m: float) -> Path:
    """A recipe of at most 15 lines."""
    path = folder / f"{name}.yaml"
    text = RECIPE.format(
        name=name,
        output=folder / "runs",
        checkpoint=ROOT / "data" / "tiny_relative.safetensors",
        max_depth_m=max_depth_m,
        input_size=input_size,
        train=train,
        val=val,
    )
    assert len(text.splitlines()) <= 15
    path.write_text(text)
    return path


def run(recipe: Path, name: str, overrides: list[str]) -> dict[str, dict[str, float]]:
    """Train by the real command, under this name; the rows of its table."""
    # The name stands last, so that no override takes the run elsewhere.
    words = [str(ROOT / "finetune" / "train.py"), str(recipe), *overrides, f"name={name}"]
    subprocess.run([sys.executable, *words], check=True)
    (table,) = json.loads((recipe.parent / "runs" / name / "evaluation.json").read_text())
    return table["rows"]


def main() -> int:
    """Run all and print AbsRel of each row; 1 where a seed is beyond the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for the RealSense recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_intermixed_args()
    samples = Path(os.environ["DEPTH_SAMPLES"]).resolve()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lab = write_lab_recipe(samples, folder)
        by_seed = {
            f"realsense_lab_seq, seed {seed}": run(
                lab, f"seed{seed}", [f"run.steps={arguments.steps}", *arguments.overrides, f"seed={seed}"]
            )
            for seed in arguments.seeds
        }
        short = {
            f"{recipe.stem}, 20 steps": run(recipe, recipe.stem, ["run.steps=20", "data.val_may_repeat_train=true"])
            for recipe in write_short_recipes(samples, folder)
        }
    for name, rows in {**by_seed, **short}.items():
        print(f"{name:28}" + "".join(f"  {row} {values['abs_rel']:.4f}" for row, values in rows.items()))
    # Not `above the bound`: a NaN is neither above nor below.
    beyond = [name for name, rows in by_seed.items() if not rows["finetuned"]["abs_rel"] <= MAX_ABS_REL]
    for name in beyond:
        print(f"{name}: AbsRel of finetuned is not at most {MAX_ABS_REL:.2f}.", file=sys.stderr)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())

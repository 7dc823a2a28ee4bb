"""Measure what mixing, LoRA and a frozen encoder keep of the base, and print the table for recipes/README.md.

    DEPTH_SAMPLES=/path/to/samples python -m tests.benchmarks.retention --results runs/retention.jsonl

The embedded checkpoint is fine-tuned on the real frames of ``real_frames.py`` (by its recipe and split) in four ways:
every weight; every weight with a tenth of the samples from drawn worlds that retention does not ask about; adapters;
and decoder and head alone. ``evaluation.retention: default`` compares ``best/`` with the base. All else is the same but
the learning rate of adapters, which start at 0.

Every finished run is a line of ``--results``, so the same call goes on where it was stopped; name another file after a
change of the code. One process of one thread, one run after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from finetune.commands.runner import configure_threading
from tests.benchmarks.real_frames import write_lab_recipe
from tests.benchmarks.result_lines import add_result_line, read_result_lines

# Samples of drawn worlds among all of a run.
MIXED_SHARE = 0.1
WAYS: dict[str, dict[str, Any]] = {
    "every weight": {},
    "every weight, 10 % drawn frames": {"mix": True},
    "LoRA (`train: lora`)": {"model": {"train": "lora"}, "optim": {"lr": 5e-4}},
    "decoder only (`train: decoder`)": {"model": {"train": "decoder"}},
}
# Not the seed of the frames that retention asks about, nor of those that the checkpoint was trained on.
DRAWN = {"reader": "scenes", "seed": 5, "count": 10_000, "size": [112, 154], "outdoors": 0.2, "noise": 0.02}


def write_variant(lab: Path, way: str, seed: int, steps: int) -> Path:
    """The lab's recipe, changed in one way, next to it."""
    recipe = yaml.safe_load(lab.read_text())
    changes = dict(WAYS[way])
    if changes.pop("mix", False):
        recipe["data"]["train"][0]["weight"] = 1 - MIXED_SHARE
        recipe["data"]["train"].append(DRAWN | {"weight": MIXED_SHARE})
    for section, values in changes.items():
        recipe[section] |= values
    recipe |= {"name": f"{list(WAYS).index(way)}_{seed}", "seed": seed, "evaluation": {"retention": "default"}}
    recipe["data"]["workers"] = 0
    recipe["run"] |= {"steps": steps, "evaluate_every_steps": steps // 2, "save_every_steps": steps, "threads": 1}
    recipe["run"]["trackers"] = []
    path = lab.with_name(f"{recipe['name']}.yaml")
    path.write_text(yaml.safe_dump(recipe))
    return path


def train(path: Path) -> dict[str, float]:
    """Train in this process; AbsRel on the lab's validation frames, and what was kept."""
    from finetune.recipe.load import load_recipe
    from finetune.recipe.run_dir import EVALUATION_FILE
    from finetune.training.run_training import run_training

    recipe = load_recipe(path)
    run_training(recipe, resume=False, overwrite=True)
    (table,) = json.loads((Path(recipe.output) / recipe.name / EVALUATION_FILE).read_text())
    (kept,) = table["retention"]
    found = {"abs_rel": table["rows"]["finetuned"]["abs_rel"]}
    for network in ("base", "finetuned"):
        found[f"{network}_ordering"] = 100 * kept[network]["ordering"]["accuracy"]
        found[f"{network}_general_abs_rel"] = kept[network]["abs_rel"]
    return found


def read_results(path: Path) -> dict[tuple[str, int, int], dict[str, float]]:
    """Finished runs by way, seed and steps."""
    return {(row["way"], row["seed"], row["steps"]): row["found"] for row in read_result_lines(path)}


def cell(values: Sequence[float], digits: int) -> str:
    """Mean over the seeds, and half of what lies between the least and the greatest."""
    return f"{statistics.mean(values):.{digits}f} ±{(max(values) - min(values)) / 2:.{digits}f}"


def table(found: dict[tuple[str, int, int], dict[str, float]], seeds: Sequence[int], steps: int) -> str:
    """Markdown, a row a way, after that of the base."""
    base = found[next(iter(WAYS)), seeds[0], steps]
    lines = [
        "| trained | AbsRel, lab | general ordering, % | general AbsRel, aligned |",
        "| --- | --- | --- | --- |",
        f"| nothing (base) | | {base['base_ordering']:.1f} | {base['base_general_abs_rel']:.4f} |",
    ]
    for way in WAYS:
        rows = [found[way, seed, steps] for seed in seeds]
        cells = [
            cell([row[key] for row in rows], digits)
            for key, digits in (("abs_rel", 4), ("finetuned_ordering", 1), ("finetuned_general_abs_rel", 4))
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines")
    arguments = parser.parse_args()
    configure_threading()
    found = read_results(arguments.results)
    with tempfile.TemporaryDirectory() as folder:
        lab = write_lab_recipe(Path(os.environ["DEPTH_SAMPLES"]).resolve(), Path(folder))
        for seed, way in product(arguments.seeds, WAYS):
            if (way, seed, arguments.steps) in found:
                continue
            begun = time.monotonic()
            row = train(write_variant(lab, way, seed, arguments.steps))
            found[way, seed, arguments.steps] = row
            add_result_line(arguments.results, {"way": way, "seed": seed, "steps": arguments.steps, "found": row})
            print(f"{way}, seed {seed}: {row} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(table(found, arguments.seeds, arguments.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())

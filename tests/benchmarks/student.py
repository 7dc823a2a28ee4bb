"""Measure what a student gains from labels that a teacher of ten measured frames gives to frames without any.

    DEPTH_SAMPLES=/path/to/samples python -m tests.benchmarks.student --results runs/student/results.jsonl

Of the 41 training frames of ``realsense_lab_seq``, split by place as in ``real_frames.py``, ten have measured depth,
two of each place. The others are images, and where a row says so, 200 random measured pixels each. Every row starts
from the embedded relative checkpoint and takes equal steps of equal batches. An entry weighs as much as it has frames,
so that each frame is seen as often. The teacher of a seed is the result of its first row. AbsRel is that of the last
step: no row is chosen on the frames that it is scored on.

| row | labels of the 31 other frames |
| --- | --- |
| measured_10 | none: these frames are not used |
| pseudo | the teacher's |
| anchored | the teacher's, anchored to the 200 pixels by ``finetune label --anchor sparse`` |
| sparse | the 200 pixels |
| both | those of ``anchored``, and as often the 200 pixels |
| measured_41 | all that was measured: the ceiling |

A finished row is a line of ``--results``, and is not run again. Exits 1 where a bound is missed: ``anchored`` closes at
least 40 % of the gap between measured_10 and measured_41, and is not worse than ``sparse``; ``pseudo`` is at most 2 %
worse than measured_10; anchoring takes at least 15 % off the AbsRel of the labels themselves.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.commands.runner import configure_threading
from tests.benchmarks.real_frames import write_lab_recipe, write_recipe
from tests.benchmarks.result_lines import add_result_line, read_result_lines

INPUT_SIZE = "[84, 112]"  # all of a frame of 240x320, in six by eight patches
ROWS = ("measured_10", "pseudo", "anchored", "sparse", "both", "measured_41")
LABELED = ("pseudo", "anchored")
FRAMES_OF_A_PLACE, MEASURED_OF_A_PLACE = 8, (1, 6)
POINTS = 200
METERS_PER_UNIT = 0.001
MIN_GAP_CLOSED, MAX_PSEUDO, MAX_LABELS = 0.4, 1.02, 0.85


def choose_measured(lines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines of the training frames, place by place -> those with measured depth, and the others."""
    places = len(lines) // FRAMES_OF_A_PLACE
    chosen = {FRAMES_OF_A_PLACE * place + frame for place in range(places) for frame in MEASURED_OF_A_PLACE}
    return [lines[i] for i in sorted(chosen)], [line for i, line in enumerate(lines) if i not in chosen]


class Lab:
    """The lab frames of one seed: lists, recipes, sparse depth and labels, in a folder of their own."""

    def __init__(self, samples: Path, folder: Path, seed: int, steps: int) -> None:
        self._folder, self._seed, self._steps = folder / f"seed{seed}_{steps}", seed, steps
        self._folder.mkdir(parents=True, exist_ok=True)
        self._root = samples / "realsense_lab_seq"
        write_lab_recipe(samples, self._folder)
        lines = (self._folder / "train.txt").read_text().splitlines()
        self._measured, self._others = choose_measured(lines)
        (self._folder / "measured.txt").write_text("".join(f"{line}\n" for line in self._measured))
        self._images = self._folder / "others.txt"
        self._images.write_text("".join(f"{self._root / line.split()[0]}\n" for line in self._others))
        self._write_sparse()

    def run_row(self, row: str) -> dict[str, Any]:
        """Train a row; its last AbsRel, and the curve of it and of the loss."""
        if row in (*LABELED, "both"):
            for name in LABELED:
                self._label(name)
        run = self._train(row)
        with (run / "metrics.csv").open(newline="") as file:
            logged = list(csv.DictReader(file))
        (table,) = json.loads((run / "evaluation.json").read_text())
        return {
            "abs_rel": table["rows"]["last"]["abs_rel"],
            "curve": [(int(line["step"]), float(line["val_abs_rel"])) for line in logged if line["val_abs_rel"]],
            "last_loss": statistics.mean([float(line["loss"]) for line in logged if line["loss"]][-5:]),
            **(self._score_labels(row) if row in LABELED else {}),
        }

    def _score_labels(self, row: str) -> dict[str, float]:
        """AbsRel of labels where all of the two folders have some, mean over the frames; and the share that has."""
        errors, shares = [], []
        for line in self._others:
            stem = Path(line).stem
            depth_m = _read_depth_m(self._root / line.split()[1])
            labels = {name: self._read_label(self._folder / "labels" / name, stem) for name in LABELED}
            scored = (depth_m > 0) & np.logical_and.reduce([label_m > 0 for label_m in labels.values()])
            if scored.any():
                errors.append(float(np.mean(np.abs(labels[row] - depth_m)[scored] / depth_m[scored])))
            shares.append(float(scored.sum() / (depth_m > 0).sum()))
        return {"labels_abs_rel": statistics.mean(errors), "labels_share": statistics.mean(shares)}

    def _write_sparse(self) -> None:
        """The 200 pixels of each of the other frames, as depth maps that are 0 elsewhere."""
        folder = self._folder / "sparse"
        folder.mkdir(exist_ok=True)
        for number, line in enumerate(self._others):
            depth = _read_numbers(self._root / line.split()[1])
            measured = np.flatnonzero(depth)
            kept = np.random.default_rng((self._seed, number)).choice(measured, POINTS, replace=False)
            sparse = np.zeros_like(depth)
            sparse.flat[kept] = depth.flat[kept]
            cv2.imwrite(str(folder / f"{Path(line).stem}.png"), sparse)
        pairs = (f"{self._root / line.split()[0]} {folder / Path(line).stem}.png" for line in self._others)
        (self._folder / "sparse.txt").write_text("".join(f"{pair}\n" for pair in pairs))

    def _label(self, row: str) -> None:
        """Label the other frames by the teacher; a folder that is there stays."""
        from finetune.commands.label import main as label

        teacher, output = self._folder / "runs" / "measured_10" / "last", self._folder / "labels" / row
        words = [str(teacher), str(self._images), "--output", str(output)]
        if row == "anchored":
            words += ["--anchor", "sparse", "--recipe", str(self._write_recipe("sparse"))]
        if label(words) != 0:
            raise SystemExit(f"finetune label {' '.join(words)} failed")

    def _write_recipe(self, row: str) -> Path:
        """The recipe of a row. Its entries weigh as much as they have frames."""
        of_samples = f"reader: pairs, root: {self._root}, meters_per_unit: {METERS_PER_UNIT}"
        of_labels = f"reader: pseudo, root: {self._folder}/labels"
        measured = f"{{{of_samples}, list: {self._folder}/measured.txt, weight: {len(self._measured)}}}"
        sparse = f"reader: pairs, root: /, list: {self._folder}/sparse.txt, meters_per_unit: {METERS_PER_UNIT}"
        anchored = f"{of_labels}/anchored"
        others: dict[str, tuple[str, ...]] = {
            "sparse": (sparse,),
            # In a trial on training frames, the 15 % of pixels below 0.9 were twice as far off as the others. Anchoring
            # leaves pixels out by itself.
            "pseudo": (f"{of_labels}/pseudo, min_confidence: 0.9",),
            "anchored": (anchored,),
            "both": (anchored, sparse),
        }
        entries = others.get(row, ())
        train = f"{{{of_samples}, list: {self._folder}/train.txt}}" if row == "measured_41" else measured
        for entry in entries:
            train += f", {{{entry}, weight: {len(self._others) / len(entries)}}}"
        return write_recipe(
            self._folder,
            row,
            train=train,
            val=f"{{{of_samples}, list: {self._folder}/val.txt}}",
            input_size=INPUT_SIZE,
            max_depth_m=10.0,
        )

    def _train(self, row: str) -> Path:
        """The run folder."""
        from finetune.recipe.load import load_recipe
        from finetune.training.run_training import run_training

        settings = {
            "seed": self._seed,
            "run.steps": self._steps,
            "run.evaluate_every_steps": max(1, self._steps // 4),
            "run.save_every_steps": self._steps,
            "run.trackers": "[]",
            "run.threads": 1,
            "data.workers": 0,
        }
        recipe = load_recipe(self._write_recipe(row), [f"{key}={value}" for key, value in settings.items()])
        run_training(recipe, resume=False, overwrite=True)
        return self._folder / "runs" / row

    def _read_label(self, folder: Path, stem: str) -> NDArray[np.float64]:
        """(H, W) meters; 0 where there is no label."""
        with (folder / "labels.csv").open(newline="") as file:
            (row,) = [row for row in csv.DictReader(file) if Path(row["image"]).stem == stem]
        if row["refused"]:
            return np.zeros(_read_depth_m(self._root / "depth" / f"{stem}.png").shape)
        return _read_numbers(folder / row["label"]).astype(np.float64) * float(row["unit"])


def _read_depth_m(path: Path) -> NDArray[np.float64]:
    return _read_numbers(path).astype(np.float64) * METERS_PER_UNIT


def _read_numbers(path: Path) -> NDArray[np.uint16]:
    numbers = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert numbers is not None, path
    return numbers.astype(np.uint16)


def mean_of(results: Sequence[dict[str, Any]], row: str, measure: str = "abs_rel") -> float:
    """The mean over the seeds; NaN where there is none."""
    values = [result[measure] for result in results if result["row"] == row and measure in result]
    return statistics.mean(values) if values else math.nan


def find_misses(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The bounds that the means over the seeds miss; what was not measured misses its bound."""
    mean = {row: mean_of(results, row) for row in ROWS}
    gap, closed = mean["measured_10"] - mean["measured_41"], mean["measured_10"] - mean["anchored"]
    # Not `below the bound`: a NaN is neither above nor below.
    if not (gap > 0 and closed >= MIN_GAP_CLOSED * gap):
        share = 100 * closed / gap if gap else math.nan
        yield f"anchored closes {share:.0f} % of the gap of {gap:.4f}; the bound is {100 * MIN_GAP_CLOSED:.0f} %"
    if not mean["anchored"] <= mean["sparse"]:
        yield f"anchored {mean['anchored']:.4f} is worse than sparse {mean['sparse']:.4f}"
    if not mean["pseudo"] <= MAX_PSEUDO * mean["measured_10"]:
        yield f"pseudo {mean['pseudo']:.4f} is above {MAX_PSEUDO} times measured_10 {mean['measured_10']:.4f}"
    plain, anchored = (mean_of(results, row, "labels_abs_rel") for row in ("pseudo", "anchored"))
    if not anchored <= MAX_LABELS * plain:
        yield f"anchored labels {anchored:.4f} are above {MAX_LABELS} times the teacher's {plain:.4f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    configure_threading()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_result_lines(given.results)
    done = [result for result in done if result["steps"] == given.steps and result["seed"] in given.seeds]
    samples, folder = Path(os.environ["DEPTH_SAMPLES"]).resolve(), given.results.parent.absolute()
    for seed in given.seeds:
        lab = Lab(samples, folder, seed, given.steps)
        for row in ROWS:
            if any(result["seed"] == seed and result["row"] == row for result in done):
                continue
            done.append({"row": row, "seed": seed, "steps": given.steps, **lab.run_row(row)})
            add_result_line(given.results, done[-1])
    for row in ROWS:
        values = [result["abs_rel"] for result in done if result["row"] == row]
        spread = f"{min(values):.4f} to {max(values):.4f}, {len(values)} seeds"
        labels = mean_of(done, row, "labels_abs_rel")
        of_labels = "" if math.isnan(labels) else f"; its labels {labels:.4f}"
        print(f"{row:12} AbsRel {mean_of(done, row):.4f} ({spread}){of_labels}")
    misses = list(find_misses(done))
    for miss in misses:
        print(f"missed: {miss}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())

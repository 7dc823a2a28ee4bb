"""Measure what canonical labels and zoom give at lenses that were not trained on.

    DEPTH_SAMPLES=/path/to/samples python -m tests.benchmarks.lenses --results runs/lenses.jsonl [--seeds 0 1 2]

**Drawn**: rooms of varied size by the script of ``data/room``, of each the first view with nothing nearer than 0.4 m
and something farther than 2.5 m, as there; cameras at 0.4 to 1.8 m, ``--frames`` frames a lens at three focal lengths;
tested on other rooms at 0.75 and 1.35 times the median focal length. The frames are drawn once, next to ``--results``.
**Real**: the frames of ``realsense_lab_seq``, split by place as in ``real_frames.py``; tested as they are and zoomed
1.4 times.

Each is trained by a plain recipe and by one with ``data.camera.mode: canonical`` and ``augment.zoom: [1.0, 1.6]``, in
equal steps. A finished run is a line of ``--results``, and is not run again. Prints AbsRel and |median log ratio| of
each test, mean and range over the seeds, and the loss of the last two tenths of the steps, which shows whether it is
flat.

Exits 1 where canonical labels miss what they should give: drawn, |median log ratio| at most half and AbsRel at most 85
% of the plain recipe's; real, AbsRel at most 85 % and |median(target / prediction) - 1| at most 0.06 when zoomed, and
AbsRel at most 10 % more as they are.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.commands.runner import configure_threading
from tests.benchmarks.real_frames import ROOT, write_lab_recipe
from tests.benchmarks.result_lines import add_result_line, read_result_lines

INPUT_SIZE = (112, 154)
FOCALS = (0.85, 1.0, 1.2)  # times the median, of the lenses that are trained on
TESTS = (0.75, 1.35)
TEST_FRAMES = 40
# A zoom of 1.6 of such a frame is about as sharp as the network's size.
FRAME_SIZE = (180, 240)
MEDIAN_HFOV_DEG = 60.0
CAMERA_HEIGHT_M, CAMERA_HEIGHT_VARIES_M = 1.1, 0.7
FIRST_ROOM = 1000  # far from those of data/room
NEAREST_MM, FARTHEST_MM = 400, 2500  # a frame has nothing nearer, and something farther
VIEWS = 50  # one of which has to be so, in each room
REAL_ZOOM = 1.4
ARMS = {"plain": (), "canonical": ("data.camera.mode=canonical", "augment.zoom=[1.0, 1.6]")}
DRAWN = """\
name: drawn
output: {output}
model: {{checkpoint: {checkpoint}, max_depth_m: 12.0}}
data:
  input_size: [{height}, {width}]
  train: [{train}]
  val: [{val}]
loss: [{{kind: silog, lam: 0.15}}, {{kind: log_l1, weight: 0.5}}]
optim: {{lr: 1.0e-4, lr_decoder: 3.0e-4, warmup_steps: 20, ema_decay: 0.98}}
run: {{batch_size: 4, log_every_steps: 10, evaluate_every_steps: 100000, save_every_steps: 100000}}
export: []
"""


def draw_view(script: Any, room: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """The first view of a room that shows more than what is right before the camera."""
    for view in range(VIEWS):
        image, counts = script.draw_frame(room, view)
        measured = counts[counts > 0]
        if measured.size and measured.min() >= NEAREST_MM and measured.max() > FARTHEST_MM:
            return image, counts
    raise SystemExit(f"room {room}: none of {VIEWS} views has nothing nearer than 0.4 m and something beyond 2.5 m")


def draw_lens(folder: Path, factor: float, rooms: range) -> None:
    """Write one view of each room through a lens so many times as long as the median, as ``data/room/make.py`` does."""
    if (folder / "list.txt").is_file():
        return
    spec = importlib.util.spec_from_file_location("make_room", ROOT / "data" / "room" / "make.py")
    assert spec is not None and spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    height, width = FRAME_SIZE
    focal_px = factor * width / 2 / math.tan(math.radians(MEDIAN_HFOV_DEG) / 2)
    script.HEIGHT, script.WIDTH = height, width
    script.HEIGHT_M, script.HEIGHT_VARIES_M = CAMERA_HEIGHT_M, CAMERA_HEIGHT_VARIES_M
    script.INTRINSICS = {
        "width": width,
        "height": height,
        "fx": focal_px,
        "fy": focal_px,
        "cx": (width - 1) / 2,
        "cy": (height - 1) / 2,
    }
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = [script.write_frame(folder, i, *draw_view(script, room)) for i, room in enumerate(rooms)]
    (folder / "intrinsics.json").write_text(json.dumps(script.INTRINSICS))
    (folder / "list.txt").write_text("".join(lines))


def write_drawn_recipe(folder: Path, frames: int) -> Path:
    """The recipe for drawn rooms, and its frames; validation frames are of the two lenses that are not trained on."""
    entries: dict[str, list[str]] = {"train": [], "val": []}
    room = FIRST_ROOM
    for part, factors, count in (("train", FOCALS, frames), ("val", TESTS, TEST_FRAMES)):
        for factor in factors:
            root = folder / f"rooms_{part}_{factor}_{count}"
            draw_lens(root, factor, range(room, room + count))
            room += count
            entries[part].append(
                f"{{reader: pairs, root: {root}, list: list.txt, meters_per_unit: 0.001, intrinsics: intrinsics.json}}"
            )
    height, width = INPUT_SIZE
    text = DRAWN.format(
        output=folder / "runs",
        checkpoint=ROOT / "data" / "tiny_relative.safetensors",
        height=height,
        width=width,
        train=", ".join(entries["train"]),
        val=", ".join(entries["val"]),
    )
    path = folder / "drawn.yaml"
    path.write_text(text)
    return path


def train(path: Path, name: str, overrides: Sequence[str]) -> tuple[Path, list[float]]:
    """The run folder, and the logged losses."""
    from finetune.recipe.load import load_recipe
    from finetune.training.run_training import run_training

    recipe = load_recipe(path, [*overrides, f"name={name}"])
    run_training(recipe, resume=False, overwrite=True)
    folder = Path(recipe.output) / name
    with (folder / "metrics.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    return folder, losses


def score_drawn(folder: Path, path: Path) -> dict[str, dict[str, float]]:
    """AbsRel and |median log ratio| at each lens that was not trained on."""
    from finetune.inference.predictor import load_model
    from finetune.recipe.load import load_recipe
    from finetune.training.evaluate import evaluate_model

    (table, *_), _ = evaluate_model(load_recipe(path), load_model(folder / "last"))
    found = {}
    for i, factor in enumerate(TESTS):
        logs = [image.mean_logs["finetuned"] for image in table.images if image.number // TEST_FRAMES == i]
        abs_rel = table.entries[f"data.val.{i}"].rows["finetuned"]["abs_rel"]
        found[f"drawn at {factor} f"] = {"abs_rel": abs_rel, "log_ratio": abs(statistics.median(logs))}
    return found


def score_real(folder: Path, path: Path) -> dict[str, dict[str, float]]:
    """AbsRel and |median log ratio| as the frames are, and zoomed."""
    from finetune.inference.predictor import load_model
    from finetune.recipe.load import load_recipe
    from finetune.training.focal_sweep import sweep_focal_lengths

    points = {
        point.zoom: point for point in sweep_focal_lengths(load_recipe(path, WITH_LENS), load_model(folder / "last"))
    }
    return {
        f"real at {zoom} f": {"abs_rel": points[zoom].abs_rel, "log_ratio": abs(math.log(points[zoom].median_ratio))}
        for zoom in (1.0, REAL_ZOOM)
    }


# The frames' own intrinsics, below the root of the entry.
WITH_LENS = tuple(f"data.{part}.0.intrinsics=intrinsics.json" for part in ("train", "val"))


def run_one(data: str, arm: str, seed: int, steps: int, frames: int, folder: Path) -> dict[str, object]:
    """One run and its scores."""
    real = data == "real"
    path = write_lab_recipe(Path(os.environ["DEPTH_SAMPLES"]), folder) if real else write_drawn_recipe(folder, frames)
    overrides = [*ARMS[arm], f"seed={seed}", f"run.steps={steps}", "run.epochs=null", *(WITH_LENS if real else ())]
    run, losses = train(path, f"{data}_{arm}_{seed}", overrides)
    tenth = max(1, len(losses) // 10)
    score: Callable[[Path, Path], dict[str, dict[str, float]]] = score_real if real else score_drawn
    return {
        "data": data,
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "last_losses": [statistics.mean(losses[-2 * tenth : -tenth]), statistics.mean(losses[-tenth:])],
        "scores": score(run, path),
    }


def summarize(results: Sequence[dict[str, object]]) -> Iterator[tuple[str, str, str, list[float]]]:
    """(test, arm, measure, values over the seeds)."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for result in results:
        scores = result["scores"]
        assert isinstance(scores, dict)
        for test, values in scores.items():
            for measure, value in values.items():
                found.setdefault((test, str(result["arm"]), measure), []).append(value)
    for (test, arm, measure), values in found.items():
        yield test, arm, measure, values


def find_misses(results: Sequence[dict[str, object]]) -> Iterator[str]:
    """What canonical labels should give and do not."""
    mean = {(test, arm, measure): statistics.mean(values) for test, arm, measure, values in summarize(results)}
    limits: dict[str, dict[str, float]] = {
        f"drawn at {factor} f": {"abs_rel": 0.85, "log_ratio": 0.5} for factor in TESTS
    }
    limits |= {f"real at {REAL_ZOOM} f": {"abs_rel": 0.85}, "real at 1.0 f": {"abs_rel": 1.1}}
    for test, measures in limits.items():
        for measure, limit in measures.items():
            plain, canonical = mean.get((test, "plain", measure)), mean.get((test, "canonical", measure))
            if plain is not None and canonical is not None and canonical > limit * plain:
                yield f"{test}: {measure} {canonical:.4f} is {canonical / plain:.2f} times {plain:.4f}, limit {limit}"
    bias = mean.get((f"real at {REAL_ZOOM} f", "canonical", "log_ratio"))
    if bias is not None and math.expm1(bias) > 0.06:
        yield f"real at {REAL_ZOOM} f: the median of target / prediction is {math.expm1(bias):.3f} from 1, limit 0.06"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--data", nargs="+", choices=("drawn", "real"), default=["drawn", "real"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--frames", type=int, default=300)
    given = parser.parse_args()
    configure_threading()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    done = read_result_lines(given.results)
    for data in given.data:
        for seed in given.seeds:
            for arm in ARMS:
                key = {"data": data, "arm": arm, "seed": seed, "steps": given.steps}
                if any(all(result[name] == value for name, value in key.items()) for result in done):
                    continue
                done.append(run_one(data, arm, seed, given.steps, given.frames, given.results.parent.absolute()))
                add_result_line(given.results, done[-1])
    for test, arm, measure, values in summarize(done):
        spread = f"{min(values):.4f} to {max(values):.4f}"
        print(f"{test:16} {arm:10} {measure:10} {statistics.mean(values):.4f} ({spread}, {len(values)} seeds)")
    for result in done:
        print(f"{result['data']} {result['arm']} seed {result['seed']}: last losses {result['last_losses']}")
    misses = list(find_misses(done))
    for miss in misses:
        print(f"missed: {miss}")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())

"""Compare ``decoder_init`` scratch, pretrained and calibrated, and print the table of recipes/README.md.

    DEPTH_SAMPLES=/path/to/samples python -m tests.benchmarks.decoder_init --results runs/decoder_init.jsonl

On ``data/room`` (by the recipe ``room_tiny``) and on the real frames of ``real_frames.py`` (by its recipe and split),
with 10, 25 and all training frames: AbsRel on the validation frames at the start, after a sixth, after half and after
all of ``--steps``. Each (data, frames, init) runs at every one of ``--rates`` with the first of ``--seeds``; the rate
whose last AbsRel is least is the best, and the other seeds run at that rate alone. All else is as the recipes say, but
the size of the input and the batch, the same for both.

Every finished run is a line of ``--results``, found again by all that decides it: recipe, bytes of the frames, bytes of
the checkpoint. So the same call goes on where it was stopped. The code is no part of that: name another file after a
change that matters; a call that meets lines of other code says so. Runs go in ``--processes`` at a time on
``--threads`` each: at this size a second thread saves a third of the time of a step at best, a second process half.

Exits 1 where ``calibrated`` does not reach in half of the steps what ``scratch`` ends at, or does not end at least a
fifth lower. Nothing is interpolated.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import math
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from finetune.commands.runner import configure_threading
from tests.benchmarks.real_frames import ROOT, write_lab_recipe

MAX_OF_SCRATCH = 0.8
# Measured at 112x154 in batches of 4, two processes of one thread each on two cores of an AMD EPYC.
SECONDS_A_RUN, SECONDS_A_STEP = 9.0, 0.23


@dataclass(frozen=True, kw_only=True)
class Group:
    """What one row of the table is about; ``frames`` is a number of training frames, or ``all``."""

    data: str
    frames: str
    init: str


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One run: its recipe with ``key=value``, and what it is found by."""

    group: Group
    rate: float
    seed: int
    recipe: Path
    overrides: tuple[str, ...]
    key: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the frames of one data set are, and the recipe that trains on them."""

    recipe: Path
    root: Path
    train: Path
    val: Path


def sources(names: Sequence[str], folder: Path) -> dict[str, Source]:
    """The data sets asked for; those of the samples get their recipe and lists in ``folder``."""
    found = {}
    if "room" in names:
        room = ROOT / "data" / "room"
        recipe = ROOT / "recipes" / "room_tiny.yaml"
        found["room"] = Source(recipe=recipe, root=room, train=room / "train.txt", val=room / "val.txt")
    if "lab" in names:
        samples = Path(os.environ["DEPTH_SAMPLES"]).resolve()
        recipe = write_lab_recipe(samples, folder)
        root = samples / "realsense_lab_seq"
        found["lab"] = Source(recipe=recipe, root=root, train=folder / "train.txt", val=folder / "val.txt")
    return found


def write_sublist(source: Source, frames: str, path: Path) -> Path:
    """Evenly spread lines of the training list."""
    from finetune.utils.indices import evenly_spread

    lines = source.train.read_text().splitlines()
    chosen = lines if frames == "all" else [lines[place] for place in evenly_spread(len(lines), int(frames))]
    path.write_text("".join(f"{line}\n" for line in chosen))
    return path


class Preparation:
    """Runs from what the command line says."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments = arguments
        self._folder = folder
        self._sources = sources(arguments.data, folder)
        self._checkpoint_sha256 = hashlib.sha256(arguments.checkpoint.read_bytes()).hexdigest()
        self._lists = {
            (data, frames): write_sublist(source, frames, folder / f"{data}_{frames}.txt")
            for (data, source), frames in product(self._sources.items(), arguments.frames)
        }
        self._frames_sha256 = {
            name: _digest_of_frames(self._sources[name[0]], path) for name, path in self._lists.items()
        }

    def __call__(self, group: Group, rate: float, seed: int) -> Prepared:
        """The run, by its recipe and key."""
        from finetune.recipe.load import load_recipe

        source = self._sources[group.data]
        overrides = self._overrides(group, rate, seed)
        recipe = load_recipe(source.recipe, overrides)
        key = self._key(recipe, group)
        return Prepared(
            group=group, rate=rate, seed=seed, recipe=source.recipe, overrides=(*overrides, f"name={key}"), key=key
        )

    def _overrides(self, group: Group, rate: float, seed: int) -> list[str]:
        arguments, source = self._arguments, self._sources[group.data]
        height, width = arguments.input_size
        overrides = [
            f"output={self._folder / 'runs'}",
            f"seed={seed}",
            f"model.checkpoint={arguments.checkpoint}",
            f"model.decoder_init={group.init}",
            f"data.input_size=[{height}, {width}]",
            f"data.train.0.root={source.root}",
            f"data.train.0.list={self._lists[group.data, group.frames]}",
            f"data.val.0.root={source.root}",
            f"data.val.0.list={source.val}",
            # The process is one of several: its data is read in it.
            "data.workers=0",
            f"optim.lr={arguments.encoder_rate}",
            f"optim.lr_decoder={rate}",
            f"run.steps={arguments.steps}",
            f"run.batch_size={arguments.batch_size}",
            f"run.threads={arguments.threads}",
            f"run.evaluate_every_steps={arguments.steps // 6}",
            f"run.save_every_steps={arguments.steps}",
            "export=[]",
        ]
        # A trial of a few steps is shorter than the recipe's warm-up.
        return overrides if arguments.steps >= 300 else [*overrides, f"optim.warmup_steps={arguments.steps // 15}"]

    def _key(self, recipe: Any, group: Group) -> str:
        """Digest of all that decides a run: paths and threads are left out, what lies there is not."""
        from finetune.recipe.load import recipe_mapping
        from finetune.recipe.run_dir import digest

        mapping: dict[str, Any] = recipe_mapping(recipe)
        for path in ("name", "output", "run.threads", "model.checkpoint"):
            *parents, last = path.split(".")
            section = mapping
            for parent in parents:
                section = section[parent]
            section.pop(last)
        for entry in (*mapping["data"]["train"], *mapping["data"]["val"]):
            for path in ("root", "list"):
                entry.pop(path)
        frames = self._frames_sha256[group.data, group.frames]
        return digest({"recipe": mapping, "frames": frames, "checkpoint": self._checkpoint_sha256})[:24]


def _digest_of_frames(source: Source, train: Path) -> str:
    """SHA-256 over names and bytes of the frames of both lists."""
    found = hashlib.sha256()
    for path in (train, source.val):
        found.update(path.read_bytes())
        for name in path.read_text().split():
            found.update((source.root / name).read_bytes())
    return found.hexdigest()


def digest_of_code() -> str:
    """SHA-256 over the package, shortened: what the lines of a file of results were made by."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "finetune").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


class Results:
    """Lines of a file, one a finished run, by its key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, dict[str, Any]] = {}
        if path.exists():
            # The last line of a call that was killed may be half a line; its run is not finished then.
            for line in path.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    row = json.loads(line)
                    self._rows[row["key"]] = row

    def __contains__(self, run: Prepared) -> bool:
        return run.key in self._rows

    def __getitem__(self, run: Prepared) -> dict[str, Any]:
        return self._rows[run.key]

    def add(self, run: Prepared, abs_rel: dict[int, float], seconds: float, code: str) -> None:
        """Keep a finished run, here and on disk."""
        row = {"key": run.key, **vars(run.group), "lr_decoder": run.rate, "seed": run.seed}
        row |= {"abs_rel": {str(step): value for step, value in abs_rel.items()}, "seconds": seconds, "code": code}
        self._rows[run.key] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A line of its own, even after half a line.
        text = self._path.read_text() if self._path.exists() else ""
        with self._path.open("a") as file:
            file.write(("" if text.endswith("\n") or not text else "\n") + json.dumps(row) + "\n")


def train(run: Prepared, marks: Sequence[int]) -> tuple[dict[int, float], float]:
    """
    Train in this process.

    Returns:
        AbsRel at each of the steps ``marks``, infinite from where the loss was no longer finite; and seconds.
    """
    from finetune.recipe.load import load_recipe
    from finetune.training.run_training import run_training
    from finetune.utils.errors import FinetuneError, ProcessError, ResultError

    recipe = load_recipe(run.recipe, run.overrides)
    folder = Path(recipe.output) / recipe.name
    started, said = time.perf_counter(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            run_training(recipe, resume=False, overwrite=True)
    except FinetuneError as error:
        if not isinstance(error, ResultError) or isinstance(error, ProcessError):
            # Our errors do not survive the way to another process.
            raise RuntimeError(f"{run}: {error}") from None
    with (folder / "metrics.csv").open() as file:
        scores = {int(row["step"]): float(row["val_abs_rel"]) for row in csv.DictReader(file) if row["val_abs_rel"]}
    shutil.rmtree(folder)
    return {step: scores.get(step, math.inf) for step in marks}, time.perf_counter() - started


class Progress:
    """What is left, in runs and time."""

    def __init__(self, left: int, steps: int, processes: int) -> None:
        self._left = left
        self._processes = processes
        self._seconds: list[float] = []
        guess = SECONDS_A_RUN + SECONDS_A_STEP * steps
        minutes = guess * left / processes / 60
        print(
            f"{left} runs to do, about {guess:.0f} s each, {processes} at a time: about {minutes:.0f} min", flush=True
        )

    def finished(self, run: Prepared, abs_rel: dict[int, float], seconds: float) -> None:
        """Say what a run came to."""
        self._seconds.append(seconds)
        self._left -= 1
        minutes = statistics.mean(self._seconds) * self._left / self._processes / 60
        values = " ".join(f"{value:.4f}" for value in abs_rel.values())
        group = f"{run.group.data} {run.group.frames} {run.group.init}"
        print(
            f"{group}, rate {shown(run.rate)}, seed {run.seed}: {values} ({seconds:.0f} s); "
            f"{self._left} left, about {minutes:.0f} min",
            flush=True,
        )


class Bench:
    """Runs what is not in the results yet, several at a time."""

    def __init__(self, arguments: argparse.Namespace, prepared: Preparation, results: Results) -> None:
        self._arguments = arguments
        self._prepared = prepared
        self._results = results
        self._code = digest_of_code()
        self.marks = [0, arguments.steps // 6, arguments.steps // 2, arguments.steps]

    def best_rates(self, groups: Sequence[Group]) -> dict[Group, float]:
        """Of each group, the rate with the least last AbsRel for the first seed; all have to be finished."""
        return {group: min(self._arguments.rates, key=partial(self._end, group)) for group in groups}

    def run(self, groups: Sequence[Group]) -> dict[Group, float]:
        """All that the table needs; the best rate of each group."""
        arguments = self._arguments
        firsts = [self._first(group, rate) for group, rate in product(groups, arguments.rates)]
        others = len(groups) * (len(arguments.seeds) - 1)
        missing = [run for run in firsts if run not in self._results]
        if not missing:
            others = sum(run not in self._results for run in self._others(groups))
        progress = Progress(len(missing) + others, arguments.steps, arguments.processes)
        self._warn_of_other_code(firsts)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(arguments.processes, mp_context=context) as pool:
            self._finish(missing, pool, progress)
            self._finish([run for run in self._others(groups) if run not in self._results], pool, progress)
        return self.best_rates(groups)

    def scores(self, group: Group, rate: float) -> dict[int, list[float]]:
        """AbsRel of each seed, by step."""
        rows = [self._results[self._prepared(group, rate, seed)]["abs_rel"] for seed in self._arguments.seeds]
        return {mark: [row[str(mark)] for row in rows] for mark in self.marks}

    def _first(self, group: Group, rate: float) -> Prepared:
        return self._prepared(group, rate, self._arguments.seeds[0])

    def _end(self, group: Group, rate: float) -> float:
        return self._results[self._first(group, rate)]["abs_rel"][str(self.marks[-1])]

    def _others(self, groups: Sequence[Group]) -> list[Prepared]:
        best = self.best_rates(groups)
        return [self._prepared(group, best[group], seed) for group, seed in product(groups, self._arguments.seeds[1:])]

    def _finish(self, runs: Iterable[Prepared], pool: ProcessPoolExecutor, progress: Progress) -> None:
        futures = {pool.submit(train, run, self.marks): run for run in runs}
        try:
            for future in as_completed(futures):
                run = futures[future]
                abs_rel, seconds = future.result()
                self._results.add(run, abs_rel, seconds, self._code)
                progress.finished(run, abs_rel, seconds)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

    def _warn_of_other_code(self, runs: Iterable[Prepared]) -> None:
        found = [self._results[run] for run in runs if run in self._results]
        others = sum(row["code"] != self._code for row in found)
        if others:
            print(f"{others} of {len(found)} finished runs are of other code: name another --results if that matters")


def shown(rate: float) -> str:
    """A learning rate as recipes write it: 2.5e-4."""
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def cell(values: Sequence[float]) -> str:
    """Mean over the seeds, and half of what lies between the least and the greatest, in thousandths."""
    spread = (max(values) - min(values)) / 2
    return f"{statistics.mean(values):.3f} ±{1000 * spread:.0f}" if math.isfinite(spread) else "diverges"


def table(bench: Bench, best: dict[Group, float]) -> str:
    """Markdown, a row a group."""
    lines = [
        f"| data | frames | `decoder_init` | rate | {' | '.join(f'{mark}' for mark in bench.marks)} |",
        f"| --- | --- | --- | --- |{' --- |' * len(bench.marks)}",
    ]
    for group, rate in best.items():
        cells = [cell(values) for values in bench.scores(group, rate).values()]
        lines.append(f"| {group.data} | {group.frames} | {group.init} | {shown(rate)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(bench: Bench, best: dict[Group, float]) -> list[tuple[str, bool]]:
    """A sentence for each (data, frames), and whether calibrated keeps what it promises, by means over the seeds."""
    said = []
    for group, rate in best.items():
        scratch = Group(data=group.data, frames=group.frames, init="scratch")
        if group.init != "calibrated" or scratch not in best:
            continue
        ours, theirs = bench.scores(group, rate), bench.scores(scratch, best[scratch])
        _, _, half, last = bench.marks
        at_half, at_end, to_beat = (statistics.mean(values) for values in (ours[half], ours[last], theirs[last]))
        quick, low = at_half <= to_beat, at_end <= MAX_OF_SCRATCH * to_beat
        said.append(
            (
                f"{group.data}, {group.frames} frames: scratch ends at {to_beat:.4f}; calibrated is at {at_half:.4f} "
                f"in half of the steps ({'reached' if quick else 'not reached'}) and ends at {at_end:.4f}, "
                f"{at_end / to_beat:.2f} of scratch ({'at' if low else 'not at'} most {MAX_OF_SCRATCH})",
                quick and low,
            )
        )
    return said


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("room", "lab"), default=["room", "lab"])
    parser.add_argument("--inits", nargs="+", default=["scratch", "pretrained", "calibrated"])
    parser.add_argument("--frames", nargs="+", default=["10", "25", "all"], help="training frames; a number, or all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.5e-4, 5e-4, 1e-3], help="of decoder and head")
    parser.add_argument("--encoder-rate", type=float, default=1e-4)
    parser.add_argument("--steps", type=int, default=300, help="a multiple of 6")
    parser.add_argument("--input-size", type=int, nargs=2, default=[112, 154], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "data" / "tiny_relative.safetensors")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--results", type=Path, help="JSON lines; default: a temporary file")
    arguments = parser.parse_args()
    if arguments.steps < 18 or arguments.steps % 6:
        parser.error(f"--steps is {arguments.steps}; expected a multiple of 6, 18 or more")
    arguments.checkpoint = arguments.checkpoint.resolve()
    return arguments


def main() -> int:
    """Run what is missing, print the table and what it says; 1 where calibrated does not keep its promise."""
    arguments = parsed()
    configure_threading()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        results = Results(arguments.results or folder / "results.jsonl")
        bench = Bench(arguments, Preparation(arguments, folder), results)
        groups = [
            Group(data=data, frames=frames, init=init)
            for data, frames, init in product(arguments.data, arguments.frames, arguments.inits)
        ]
        best = bench.run(groups)
        height, width = arguments.input_size
        seeds = ", ".join(map(str, arguments.seeds))
        print(
            f"\nValidation AbsRel after that many steps, {height}x{width}, batches of {arguments.batch_size}: mean "
            f"over seeds {seeds} ± half their range in thousandths. The rate of decoder and head is the best of "
            f"{', '.join(map(shown, arguments.rates))} for seed {arguments.seeds[0]} by its last AbsRel; the other "
            f"seeds ran at that rate alone.\n\n{table(bench, best)}\n"
        )
        said = verdicts(bench, best)
        for sentence, _ in said:
            print(sentence)
    return 0 if all(kept for _, kept in said) else 1


if __name__ == "__main__":
    sys.exit(main())

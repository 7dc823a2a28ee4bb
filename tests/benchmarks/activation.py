"""Compare ``model.activation`` sigmoid and exp, and print a table.

    DEPTH_SAMPLES=/path/to/samples python -m tests.benchmarks.activation --results runs/activation.jsonl

On ``data/room`` (by the recipe ``room_tiny``) and on the real frames of ``real_frames.py`` (by its recipe and split):
AbsRel and RMSE on the validation frames at the calibrated start and at the end, for each of ``--seeds``. All else is as
the recipes say, but the size of the input, the batch and the steps, the same for both.

Every finished run is a line of ``--results``, so the same call goes on where it was stopped. Exits 1 where exp has the
lower mean AbsRel at the end on each data set: then the default should be another one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

from finetune.commands.runner import configure_threading
from tests.benchmarks.decoder_init import Source, cell, sources
from tests.benchmarks.result_lines import add_result_line, read_result_lines

ACTIVATIONS = ("sigmoid", "exp")
# Row of evaluation.json, metric.
COLUMNS = (
    ("calibrated_start", "abs_rel"),
    ("finetuned", "abs_rel"),
    ("calibrated_start", "rmse"),
    ("finetuned", "rmse"),
)


class Case(NamedTuple):
    """One run."""

    data: str
    activation: str
    seed: int


def train(case: Case, source: Source, arguments: argparse.Namespace, folder: Path) -> list[float]:
    """The numbers of ``COLUMNS`` of a run in this process."""
    from finetune.recipe.load import load_recipe
    from finetune.training.run_training import run_training

    height, width = arguments.input_size
    overrides = [
        f"name={'_'.join(map(str, case))}",
        f"output={folder}",
        f"seed={case.seed}",
        f"model.checkpoint={arguments.checkpoint}",
        f"model.activation={case.activation}",
        "model.decoder_init=calibrated",
        f"data.input_size=[{height}, {width}]",
        f"data.train.0.root={source.root}",
        f"data.train.0.list={source.train}",
        f"data.val.0.root={source.root}",
        f"data.val.0.list={source.val}",
        "data.workers=0",
        f"run.steps={arguments.steps}",
        f"run.batch_size={arguments.batch_size}",
        f"run.evaluate_every_steps={arguments.steps}",
        f"run.save_every_steps={arguments.steps}",
        f"run.threads={arguments.threads}",
        "export=[]",
    ]
    recipe = load_recipe(source.recipe, overrides)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run_training(recipe, resume=False, overwrite=True)
    (table,) = json.loads((Path(recipe.output) / recipe.name / "evaluation.json").read_text())
    return [float(table["rows"][row][metric]) for row, metric in COLUMNS]


def read_results(path: Path, settings: str) -> dict[Case, list[float]]:
    """The finished runs with these settings."""
    found: dict[Case, list[float]] = {}
    for row in read_result_lines(path):
        if row["settings"] == settings:
            found[Case(*row["case"])] = row["numbers"]
    return found


def format_table(results: Mapping[Case, Sequence[float]], data: Sequence[str], seeds: Sequence[int]) -> str:
    """Markdown: means over the seeds ± half their range, in thousandths."""
    lines = [
        "| data | `activation` | AbsRel, start | AbsRel, end | RMSE, start | RMSE, end |",
        f"| --- | --- |{' --- |' * len(COLUMNS)}",
    ]
    for name, activation in product(data, ACTIVATIONS):
        numbers = zip(*(results[Case(name, activation, seed)] for seed in seeds), strict=True)
        lines.append(f"| {name} | {activation} | {' | '.join(cell(values) for values in numbers)} |")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, print the table; 1 where exp is better on each data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=("room", "lab"), default=["room", "lab"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--input-size", type=int, nargs=2, default=[112, 154], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path, default=Path("data/tiny_relative.safetensors"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines")
    arguments = parser.parse_args()
    arguments.checkpoint = arguments.checkpoint.resolve()
    configure_threading()
    settings = json.dumps([arguments.steps, arguments.input_size, arguments.batch_size, str(arguments.checkpoint)])
    results = read_results(arguments.results, settings)
    with tempfile.TemporaryDirectory() as name:
        found = sources(arguments.data, Path(name))
        for case in (Case(*parts) for parts in product(arguments.data, ACTIVATIONS, arguments.seeds)):
            if case not in results:
                results[case] = train(case, found[case.data], arguments, Path(name) / "runs")
                row = {"case": list(case), "settings": settings, "numbers": results[case]}
                add_result_line(arguments.results, row)
            print(*case, *(f"{number:.4f}" for number in results[case]), flush=True)
    print(format_table(results, arguments.data, arguments.seeds))
    ends = {
        (data, activation): statistics.mean(results[Case(data, activation, seed)][1] for seed in arguments.seeds)
        for data, activation in product(arguments.data, ACTIVATIONS)
    }
    return int(all(ends[data, "exp"] < ends[data, "sigmoid"] for data in arguments.data))


if __name__ == "__main__":
    sys.exit(main())

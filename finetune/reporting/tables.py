"""What stands in ``evaluation.json``, ``metrics.csv`` and ``environment.json``, as parts of a page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS, is_better
from finetune.reporting.charts import Line, line_chart
from finetune.reporting.page import escaped, table
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.paths import is_file

ROWS_EXPLAINED = (
    "constant_median answers the median depth of the training frames everywhere, best_constant the depth with the "
    "least AbsRel on them; base_fitted_scale is the checkpoint that training began with, with the one scale and the "
    "one shift in inverse depth (of a metric checkpoint the one scale in depth) that have the least AbsRel on the "
    "training frames; calibrated_start is the network before step 1, its last layer solved for on the training frames; "
    "finetuned is best/, last the network after the last step."
)


def score_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """
    Args:
        rows: row -> metric -> value, as in ``evaluation.json``.

    Returns:
        A table with the best value of each metric in bold.
    """
    best: dict[str, float] = {}
    for scores in rows.values():
        for metric, value in scores.items():
            best[metric] = value if is_better(metric, value, best.get(metric)) else best[metric]
    heads = ["", *(metric_head(metric) for metric in METRICS)]
    return table(
        heads,
        [
            [f"<code>{escaped(row)}</code>", *(_cell(scores[metric], best[metric]) for metric in METRICS)]
            for row, scores in rows.items()
        ],
    )


def error_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The absolute error of an image in millimeters, from row -> ``mean``, ``median``, ``p90``."""
    heads = ["|error| of an image, mm", "mean ↓", "median ↓", "90th percentile ↓"]
    return table(
        heads,
        [[f"<code>{escaped(row)}</code>", *(f"{one:.1f}" for one in errors.values())] for row, errors in rows.items()],
    )


def metric_head(metric: str) -> str:
    """Its name, and whether lower or higher is better."""
    return f"{metric} {'↑' if metric in HIGHER_IS_BETTER else '↓'}"


def _cell(value: float, best: float) -> str:
    return f"<b>{value:.4f}</b>" if value == best else f"{value:.4f}"


def protocol_line(evaluation: Mapping[str, Any]) -> str:
    """All settings of the protocol and the counts, as a paragraph."""
    settings = dict(evaluation["protocol"])
    name = settings.pop("name")
    counts = {key: f"{evaluation[key]:,}" for key in ("images_used", "images_skipped", "pixels_used")}
    told = " · ".join(f"<code>{escaped(key)}</code> {escaped(value)}" for key, value in _plain(settings | counts))
    return f'<p class="soft long"><strong>protocol {escaped(name)}</strong> · {told}</p>'


def _plain(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, bool):
            yield key, "yes" if value else "no"
        else:
            yield key, f"{value:g}" if isinstance(value, float) else str(value)


# What reading or drawing content raises that no run has written.
_STRANGE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


@contextmanager
def of_a_run(path: Path, fix: str) -> Iterator[None]:
    """
    Around reading and drawing a file of a run folder, which people and full disks change.

    Args:
        path: of the file.
        fix: what to do, without a full stop.

    Raises:
        FinetuneError: it cannot be read, or holds what no run writes.
    """
    try:
        yield
    except FinetuneError:
        raise
    except (*_STRANGE, csv.Error, yaml.YAMLError) as error:
        unreadable = isinstance(error, OSError | UnicodeError | json.JSONDecodeError | yaml.YAMLError)
        what = "cannot be read" if unreadable else "holds what no run writes"
        raise FinetuneError(f"{path} {what} ({type(error).__name__}: {first_line(error)[:100]}). {fix}.") from error


def parsed(path: Path) -> Any:
    """What a JSON or YAML file of a run folder holds; within ``of_a_run``."""
    text = path.read_text(encoding="utf-8")
    return yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)


def read_environment(path: Path) -> dict[str, Any]:
    """
    Args:
        path: of ``environment.json``.

    Returns:
        What it holds, which ``environment_facts`` can tell; nothing where there is no such file. Within ``of_a_run``.
    """
    if not is_file(path):
        return {}
    record = parsed(path)
    if not isinstance(record, dict):
        raise ValueError("no record of a run")
    environment_facts(record)
    return record


def read_metrics(path: Path) -> dict[str, list[float]]:
    """
    Args:
        path: of ``metrics.csv``.

    Returns:
        Column -> one number a row, NaN where it is empty; nothing where there is no such file. Within ``of_a_run``.

    Raises:
        ValueError: there is no column of steps, or a row has more columns than the head.
    """
    if not is_file(path):
        return {}
    columns: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "step" not in names or len(set(names)) < len(names):
            raise ValueError("its head has no column step, or one name twice")
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more columns than the head")
            for name, value in row.items():
                columns.setdefault(name, []).append(_number(value))
    return columns


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def curves(runs: Mapping[str, Mapping[str, Sequence[float]]], baselines: Mapping[str, Mapping[str, float]]) -> str:
    """
    Args:
        runs: name -> columns of its ``metrics.csv``. One run has each term of its loss as a curve, several have one
            curve each.
        baselines: row -> metric -> value, dashed lines in the charts of metrics.

    Returns:
        Charts of loss and validation metrics.
    """
    charts = []
    if len(runs) == 1:
        (columns,) = runs.values()
        terms = [name for name in columns if name == "loss" or name.startswith("loss_")]
        lines = [
            Line(name=name.replace("loss_", ""), xs=columns["step"], ys=columns[name], color=place, dashed=place > 0)
            for place, name in enumerate(terms)
        ]
        charts.append(line_chart("training loss, and its terms", lines, x_name="step", from_zero=True))
    else:
        charts.append(_of_runs("training loss", runs, "loss", {}))
    for metric in ("abs_rel", "rmse", "silog", "delta1"):
        of_rows = {row: scores[metric] for row, scores in baselines.items() if metric in scores}
        charts.append(_of_runs(f"validation {metric_head(metric)}", runs, f"val_{metric}", of_rows))
    charts.append(_of_runs("learning rate of decoder and head", runs, "lr_decoder", {}))
    return f'<div class="charts">{"".join(charts)}</div>'


def _of_runs(
    title: str, runs: Mapping[str, Mapping[str, Sequence[float]]], column: str, rows: Mapping[str, float]
) -> str:
    """A column of each run, and rows that do not change as dashed lines as long as the longest."""
    drawn = {name: columns for name, columns in runs.items() if column in columns}
    lines = [
        Line(name=name, xs=columns["step"], ys=columns[column], color=place)
        for place, (name, columns) in enumerate(drawn.items())
    ]
    if lines:
        ends = [min(min(line.xs) for line in lines), max(max(line.xs) for line in lines)]
        lines += [
            Line(name=row, xs=ends, ys=[value, value], color=len(runs) + place, dashed=True)
            for place, (row, value) in enumerate(rows.items())
        ]
    return line_chart(title, lines, x_name="step")


def environment_facts(record: Mapping[str, Any]) -> dict[str, object]:
    """What of ``environment.json`` tells where a run came from; what is missing is left out by the page."""
    commit = record.get("git_commit")
    packages = {name: version for name, version in (record.get("packages") or {}).items() if version}
    told = ("finetune", "torch", "accelerate", "timm", "numpy")
    return {
        "device": record.get("device"),
        "precision": record.get("precision"),
        "processes": record.get("processes"),
        "steps": record.get("steps"),
        "images a step": record.get("total_batch"),
        "seed": record.get("seed"),
        "frames": ", ".join(f"{key} {one['count']:,}" for key, one in (record.get("frames") or {}).items()),
        "commit": f"{commit[:12]}{' with changes' if record.get('git_changed') else ''}" if commit else None,
        "versions": ", ".join(
            [
                *([f"python {record['python']}"] if record.get("python") else []),
                *(f"{name} {packages[name]}" for name in told if name in packages),
                *([f"CUDA {record['cuda']}"] if record.get("cuda") else []),
            ]
        ),
        "platform": record.get("platform"),
        "command": " ".join(record.get("command") or []),
        "base weights, SHA-256": (record.get("base_sha256") or "")[:12],
        "recipe, SHA-256": (record.get("recipe_sha256") or "")[:12],
    }

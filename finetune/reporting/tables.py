"""Reads ``evaluation.json``, ``metrics.csv`` and ``environment.json``, and makes parts of a page of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, cast

import yaml

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS, TITLES, UNITS, is_better
from finetune.reporting.charts import Chart, Line, make_line_chart
from finetune.reporting.page import Cell, Table
from finetune.utils.errors import FinetuneError, first_line
from finetune.utils.paths import is_file, read_text, require_regular

ROWS_EXPLAINED = (
    "constant_median is the median depth of the training frames, for every pixel. best_constant is the one depth with "
    "the least AbsRel on the training frames. base_fitted_scale is the checkpoint before training, with the scale and "
    "the shift in inverse depth (for a metric checkpoint: the scale in depth) that have the least AbsRel on the "
    "training frames. calibrated_start is the network before step 1, its last layer fitted to the training frames. "
    "finetuned is best/, last is the network after the last step."
)


@dataclass(frozen=True, kw_only=True)
class ProtocolLine:
    """The protocol of a table: its name, and each setting and count as text."""

    name: str
    settings: Sequence[tuple[str, str]]


class EvaluationRecord(TypedDict, total=False):
    """One protocol's object in ``evaluation.json``, as far as pages show it; ``alarms`` is there after a run."""

    protocol: Required[Mapping[str, object]]
    rows: Required[Mapping[str, Mapping[str, float]]]
    images_used: Required[int]
    images_skipped: Required[int]
    pixels_used: Required[int]
    alarms: Sequence[str]


class FramesRecord(TypedDict):
    """The frames of one entry of the recipe in ``environment.json``."""

    count: int
    sha256: str


class EnvironmentRecord(TypedDict, total=False):
    """``environment.json``, as far as pages show it; a run of an older version may lack any key."""

    device: str
    precision: str
    processes: int
    steps: int
    total_batch: int
    seed: int
    frames: Mapping[str, FramesRecord]
    git_commit: str
    git_changed: bool
    python: str
    cuda: str
    packages: Mapping[str, str]
    platform: str
    command: Sequence[str]
    base_sha256: str
    recipe_sha256: str


def make_score_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
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
    return Table(
        heads=["", *(label_metric(metric) for metric in METRICS)],
        rows=[
            [Cell(text=row, code=True), *(make_score_cell(scores[metric], best[metric]) for metric in METRICS)]
            for row, scores in rows.items()
        ],
    )


def make_score_cell(value: float, best: float) -> Cell:
    """A score with four decimals, bold where it is the best."""
    return Cell(text=f"{value:.4f}", bold=value == best)


def make_error_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """The absolute error of an image in millimeters, from row -> ``mean``, ``median``, ``p90``."""
    return Table(
        heads=["|error| of an image, mm", "mean ↓", "median ↓", "90th percentile ↓"],
        rows=[
            [Cell(text=row, code=True), *(Cell(text=f"{error:.1f}") for error in errors.values())]
            for row, errors in rows.items()
        ],
    )


def label_metric(metric: str) -> str:
    """Its name as people write it, its unit, and whether lower or higher is better."""
    unit = f", {UNITS[metric]}" if metric in UNITS else ""
    return f"{TITLES[metric]}{unit} {'↑' if metric in HIGHER_IS_BETTER else '↓'}"


def describe_protocol(
    protocol: Mapping[str, object], *, images_used: int, images_skipped: int, pixels_used: int
) -> ProtocolLine:
    """All settings of a protocol, and over how many images and pixels it was applied."""
    settings = {key: _format_setting(value) for key, value in protocol.items() if key != "name"}
    counts = {"images_used": images_used, "images_skipped": images_skipped, "pixels_used": pixels_used}
    settings |= {key: f"{count:,}" for key, count in counts.items()}
    return ProtocolLine(name=str(protocol["name"]), settings=list(settings.items()))


def describe_recorded_protocol(record: EvaluationRecord) -> ProtocolLine:
    """The same, of an object of ``evaluation.json``."""
    return describe_protocol(
        record["protocol"],
        images_used=record["images_used"],
        images_skipped=record["images_skipped"],
        pixels_used=record["pixels_used"],
    )


def _format_setting(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


# Errors from reading or drawing a file that no run wrote.
_CONTENT_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


@contextmanager
def name_run_file(path: Path, fix: str) -> Iterator[None]:
    """
    Put this around code that reads and draws a file of a run folder: people edit such files, and a full disk cuts them.

    Args:
        path: of the file.
        fix: what to do, without a full stop.

    Raises:
        FinetuneError: the file cannot be read, or holds something that no run writes; it names the file.
    """
    try:
        yield
    except FinetuneError:
        raise
    except (*_CONTENT_ERRORS, csv.Error, yaml.YAMLError) as error:
        unreadable = isinstance(error, OSError | UnicodeError | json.JSONDecodeError | yaml.YAMLError)
        what = "cannot be read" if unreadable else "has content that no run writes"
        raise FinetuneError(f"{path} {what} ({type(error).__name__}: {first_line(error)[:100]}). {fix}.") from error


def parse_run_file(path: Path) -> object:
    """The content of a JSON or YAML file of a run folder; call it within ``name_run_file``."""
    text = read_text(path)
    content: object = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    return content


def read_environment(path: Path) -> EnvironmentRecord:
    """
    Call it within ``name_run_file``.

    Args:
        path: of ``environment.json``.

    Returns:
        Its content, from which ``collect_environment_facts`` is known to work; empty where there is no such file.

    Raises:
        ValueError: the content is no record of a run.
    """
    if not is_file(path):
        return {}
    content = parse_run_file(path)
    if not isinstance(content, dict):
        raise ValueError("no record of a run")
    record = cast(EnvironmentRecord, content)
    collect_environment_facts(record)
    return record


def read_metrics(path: Path) -> dict[str, list[float]]:
    """
    Call it within ``name_run_file``.

    Args:
        path: of ``metrics.csv``.

    Returns:
        Column -> one number for each row, NaN where the cell is empty; empty where there is no such file.

    Raises:
        ValueError: the column of steps is missing, or a row has more columns than the head.
    """
    if not is_file(path):
        return {}
    columns: dict[str, list[float]] = {}
    require_regular(path)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        if "step" not in names or len(set(names)) < len(names):
            raise ValueError("its head has no column step, or one name twice")
        for row in reader:
            if None in row:
                raise ValueError(f"line {reader.line_num} has more columns than the head")
            for name, value in row.items():
                columns.setdefault(name, []).append(_parse_number(value))
    return columns


def _parse_number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def draw_curves(
    runs: Mapping[str, Mapping[str, Sequence[float]]], baselines: Mapping[str, Mapping[str, float]]
) -> list[Chart]:
    """
    Args:
        runs: name -> columns of its ``metrics.csv``. A single run shows each term of its loss as a curve; several runs
            show one curve each.
        baselines: row -> metric -> value, dashed lines in the charts of metrics.

    Returns:
        Charts of loss, validation metrics and learning rate, as far as there are columns for them.
    """
    charts = []
    if len(runs) == 1:
        (columns,) = runs.values()
        terms = [name for name in columns if name == "loss" or name.startswith("loss_")]
        lines = [
            Line(name=name.replace("loss_", ""), xs=columns["step"], ys=columns[name], color=i, dashed=i > 0)
            for i, name in enumerate(terms)
        ]
        charts.append(make_line_chart("training loss, and its terms", lines, x_name="step", from_zero=True))
    else:
        charts.append(_draw_column("training loss", runs, "loss", {}))
    for metric in ("abs_rel", "rmse", "silog", "delta1"):
        levels = {row: scores[metric] for row, scores in baselines.items() if metric in scores}
        charts.append(_draw_column(f"validation {label_metric(metric)}", runs, f"val_{metric}", levels))
    charts.append(_draw_column("learning rate of decoder and head", runs, "lr_decoder", {}))
    return [chart for chart in charts if chart]


def _draw_column(
    title: str, runs: Mapping[str, Mapping[str, Sequence[float]]], column: str, levels: Mapping[str, float]
) -> Chart | None:
    """A column of each run, and constant levels as dashed lines as long as the longest run."""
    drawn = {name: columns for name, columns in runs.items() if column in columns}
    lines = [
        Line(name=name, xs=columns["step"], ys=columns[column], color=i)
        for i, (name, columns) in enumerate(drawn.items())
    ]
    if lines:
        ends = [min(min(line.xs) for line in lines), max(max(line.xs) for line in lines)]
        lines += [
            Line(name=row, xs=ends, ys=[value, value], color=len(runs) + i, dashed=True)
            for i, (row, value) in enumerate(levels.items())
        ]
    return make_line_chart(title, lines, x_name="step")


def collect_environment_facts(record: EnvironmentRecord) -> dict[str, object]:
    """Facts of ``environment.json`` that say where a run came from; a fact that is missing is None or empty."""
    commit = record.get("git_commit")
    frames = record.get("frames") or {}
    packages = {name: version for name, version in (record.get("packages") or {}).items() if version}
    shown = ("finetune", "torch", "accelerate", "timm", "numpy")
    versions = [
        *([f"python {record['python']}"] if record.get("python") else []),
        *(f"{name} {packages[name]}" for name in shown if name in packages),
        *([f"CUDA {record['cuda']}"] if record.get("cuda") else []),
    ]
    return {
        "device": record.get("device"),
        "precision": record.get("precision"),
        "processes": record.get("processes"),
        "steps": record.get("steps"),
        "images a step": record.get("total_batch"),
        "seed": record.get("seed"),
        "frames": ", ".join(f"{key} {entry['count']:,}" for key, entry in frames.items()),
        "commit": f"{commit[:12]}{' with changes' if record.get('git_changed') else ''}" if commit else None,
        "versions": ", ".join(versions),
        "platform": record.get("platform"),
        "command": " ".join(record.get("command") or []),
        "base weights, SHA-256": (record.get("base_sha256") or "")[:12],
        "recipe, SHA-256": (record.get("recipe_sha256") or "")[:12],
    }

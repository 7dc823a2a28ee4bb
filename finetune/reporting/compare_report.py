"""Several runs on one page: their tables, their curves, and the differences of their recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS, TITLES
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, METRICS_FILE, RECIPE_FILE, differing_keys
from finetune.reporting.page import Cell, Table, render_template
from finetune.reporting.tables import (
    ROWS_EXPLAINED,
    EnvironmentRecord,
    EvaluationRecord,
    ProtocolLine,
    collect_environment_facts,
    describe_recorded_protocol,
    draw_curves,
    label_metric,
    make_score_cell,
    make_score_table,
    name_run_file,
    parse_run_file,
    read_environment,
    read_metrics,
)
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import if_closed, is_file, real_path

_LEAVE_OUT = "Leave its run out"
_BASELINES = ("constant_median", "best_constant", "base_fitted_scale", "calibrated_start")
# Facts of an environment that the differences of the recipes show already, or that always differ.
_ALWAYS_DIFFERENT = ("command", "recipe, SHA-256", "seed", "steps")


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """The files of a run that has ended.

    Attributes:
        name: the shortest ending of its path that no other run of the page has.
        recipe: as plain values.
        environment: of ``environment.json``.
        evaluations: of ``evaluation.json``, one a protocol.
        metrics: columns of ``metrics.csv``.
    """

    name: str
    recipe: Mapping[str, object]
    environment: EnvironmentRecord
    evaluations: Sequence[EvaluationRecord]
    metrics: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Tables of the same protocol and images, so that their rows may be compared.

    Attributes:
        title: names the protocol.
        members: each run with its table.
    """

    title: str
    members: Sequence[tuple[EndedRun, EvaluationRecord]]


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """The table of a group as the page shows it."""

    title: str
    scores: Table
    protocol: ProtocolLine


@dataclass(frozen=True, kw_only=True)
class _RunTables:
    """All tables of a run as the page shows them; ``alarms`` belong to a table."""

    name: Cell
    tables: Sequence[tuple[Table, ProtocolLine, Sequence[str]]]


def read_runs(paths: Sequence[Path]) -> list[EndedRun]:
    """
    Args:
        paths: run folders.

    Raises:
        FinetuneError: a folder is named twice, is no run folder, or its run has not ended.
    """
    resolved = [real_path(path) for path in paths]
    for i, path in enumerate(resolved):
        if path in resolved[:i]:
            raise FinetuneError(f"{paths[i]} is named twice. Name each run once.")
    return [_read_run(path, name) for path, name in zip(paths, _shorten_paths(resolved), strict=True)]


def _shorten_paths(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as few as keep all of them different."""
    longest = max(len(path.parts) for path in paths)
    endings = ([str(Path(*path.parts[-count:])) for path in paths] for count in range(1, longest + 1))
    return next(names for names in endings if len(set(names)) == len(names))


def _read_run(path: Path, name: str) -> EndedRun:
    if not is_file(path / RECIPE_FILE):
        closed = if_closed(path / RECIPE_FILE)
        fix = "Ask for the right to read it" if closed else "Name a folder that a run wrote"
        raise FinetuneError(f"{path} is no run folder: it has no {RECIPE_FILE}{closed}. {fix}.")
    if not is_file(path / EVALUATION_FILE):
        raise FinetuneError(
            f"{path} has no {EVALUATION_FILE}: its run has not ended. Continue it with --resume, or leave it out."
        )
    # Each file is drawn once here: an error then names the file, which it could not on a page of many runs.
    with name_run_file(path / RECIPE_FILE, _LEAVE_OUT):
        recipe = parse_run_file(path / RECIPE_FILE)
        if not isinstance(recipe, Mapping):
            raise ValueError("no recipe")
        differing_keys(recipe, {})
    with name_run_file(path / ENVIRONMENT_FILE, _LEAVE_OUT):
        environment = read_environment(path / ENVIRONMENT_FILE)
    run = EndedRun(name=name, recipe=recipe, environment=environment, evaluations=(), metrics={})
    with name_run_file(path / EVALUATION_FILE, _LEAVE_OUT):
        records = cast(Iterable[EvaluationRecord], parse_run_file(path / EVALUATION_FILE))
        run = replace(run, evaluations=list(records))
        if not run.evaluations:
            raise ValueError("no table")
        format_comparison([run])
        _make_run_tables(run, 0)
        _make_comparisons([run])
    with name_run_file(path / METRICS_FILE, f"{_LEAVE_OUT}, or move the file away to compare the tables alone"):
        run = replace(run, metrics=read_metrics(path / METRICS_FILE))
        draw_curves({name: run.metrics}, {})
    return run


def format_comparison(runs: Sequence[EndedRun]) -> str:
    """A line for each run and protocol, for the terminal."""
    width = max(len(run.name) for run in runs)
    lines = [f"{'':{width}}" + "".join(f"{TITLES[name]:>10}" for name in METRICS)]
    for group in _group_tables(runs):
        lines.append(group.title)
        for run, evaluation in group.members:
            scores = evaluation["rows"][_get_own_row(evaluation)]
            lines.append(f"{run.name:{width}}" + "".join(f"{scores[name]:>10.4f}" for name in METRICS))
    return "\n".join(lines)


def render_comparison(runs: Sequence[EndedRun]) -> str:
    """One self-contained page about the runs."""
    comparisons = _make_comparisons(runs)
    return render_template(
        "compare.html",
        title=f"{len(runs)} runs compared",
        names=[run.name for run in runs],
        comparisons=comparisons,
        incomparable=len(comparisons) > len(runs[0].evaluations),
        rows_explained=ROWS_EXPLAINED,
        curves=draw_curves({run.name: run.metrics for run in runs}, {}),
        recipe_differences=_list_recipe_differences(runs),
        environment_differences=_list_environment_differences(runs),
        runs=[_make_run_tables(run, i) for i, run in enumerate(runs)],
    )


def _group_tables(runs: Sequence[EndedRun]) -> Iterator[_Group]:
    """The tables of all runs, those of the same protocol and images in one group."""
    groups: dict[str, list[tuple[EndedRun, EvaluationRecord]]] = {}
    scored = [_get_scored_frames(run) for run in runs]
    # By content, wherever the files lie; runs of older versions know only the digest of their lists.
    has_content = all("content_sha256" in entry for frames in scored for entry in frames.values())
    digest = "content_sha256" if has_content else "sha256"
    for run, frames in zip(runs, scored, strict=True):
        data = {key: [entry.get("count"), entry.get(digest)] for key, entry in frames.items()}
        for evaluation in run.evaluations:
            counts = [evaluation["images_used"], evaluation["images_skipped"], evaluation["pixels_used"]]
            same = json.dumps([evaluation["protocol"], counts, data], sort_keys=True)
            groups.setdefault(same, []).append((run, evaluation))
    for members in groups.values():
        evaluation = members[0][1]
        title = f"protocol {evaluation['protocol']['name']}, {evaluation['images_used']:,} images"
        yield _Group(title=title, members=members)


def _get_scored_frames(run: EndedRun) -> dict[str, Mapping[str, object]]:
    """What the record of a run says of each entry of ``data.val``."""
    frames = run.environment.get("frames") or {}
    return {
        key: entry if isinstance(entry, Mapping) else {"sha256": entry}
        for key, entry in frames.items()
        if key.startswith("data.val")
    }


def _get_own_row(evaluation: EvaluationRecord) -> str:
    """The row that the run is about: the one of its weights."""
    rows = list(evaluation["rows"])
    return "finetuned" if "finetuned" in rows else rows[-1]


def _make_comparisons(runs: Sequence[EndedRun]) -> list[_Comparison]:
    """For each group the rows of the runs, the best bold, then the baselines that all of its runs share."""
    colors = {run.name: i for i, run in enumerate(runs)}
    comparisons = []
    for group in _group_tables(runs):
        rows = {run.name: evaluation["rows"][_get_own_row(evaluation)] for run, evaluation in group.members}
        best = {metric: _choose_best(metric, [scores[metric] for scores in rows.values()]) for metric in METRICS}
        lines = [
            [
                Cell(text=name, color=colors[name]),
                *(make_score_cell(scores[metric], best[metric]) for metric in METRICS),
            ]
            for name, scores in rows.items()
        ]
        first = group.members[0][1]
        for row in _BASELINES:
            found = {json.dumps(evaluation["rows"].get(row)) for _, evaluation in group.members}
            if len(found) == 1 and (scores := first["rows"].get(row)):
                lines.append([Cell(text=row, code=True), *(Cell(text=f"{scores[metric]:.4f}") for metric in METRICS)])
        comparisons.append(
            _Comparison(
                title=group.title,
                scores=Table(heads=["", *map(label_metric, METRICS)], rows=lines),
                protocol=describe_recorded_protocol(first),
            )
        )
    return comparisons


def _choose_best(metric: str, values: Sequence[float]) -> float:
    return max(values) if metric in HIGHER_IS_BETTER else min(values)


def _list_recipe_differences(runs: Sequence[EndedRun]) -> Table | None:
    """Keys whose values are not the same in all recipes; None where there are none."""
    keys = dict.fromkeys(key for run in runs[1:] for key in differing_keys(runs[0].recipe, run.recipe))
    rows = [
        [Cell(text=key, code=True), *(_make_value_cell(_find_value(run.recipe, key)) for run in runs)] for key in keys
    ]
    return Table(heads=["", *(run.name for run in runs)], rows=rows, kind="text") if rows else None


def _list_environment_differences(runs: Sequence[EndedRun]) -> Table | None:
    """Facts that are not the same in all environments; None where there are none."""
    facts = [collect_environment_facts(run.environment) for run in runs]
    names = [name for name in dict.fromkeys(name for found in facts for name in found) if name not in _ALWAYS_DIFFERENT]
    rows = [
        [Cell(text=name), *(_make_value_cell(found.get(name)) for found in facts)]
        for name in names
        if len({str(found.get(name)) for found in facts}) > 1
    ]
    return Table(heads=["", *(run.name for run in runs)], rows=rows, kind="text") if rows else None


def _find_value(recipe: object, key: str) -> object:
    """The value at a dotted key; None where the recipe has no such key."""
    for part in key.split("."):
        if isinstance(recipe, list):
            recipe = recipe[int(part)]
        else:
            recipe = recipe.get(part) if isinstance(recipe, Mapping) else None
    return recipe


def _make_value_cell(value: object) -> Cell:
    return Cell(text="–" if value is None else str(value))


def _make_run_tables(run: EndedRun, color: int) -> _RunTables:
    """Every table of a run, with its protocol and its warnings."""
    return _RunTables(
        name=Cell(text=run.name, color=color),
        tables=[
            (
                make_score_table(evaluation["rows"]),
                describe_recorded_protocol(evaluation),
                [str(warning) for warning in evaluation.get("alarms", ())],
            )
            for evaluation in run.evaluations
        ],
    )

"""Runs beside each other on one page: their tables, their curves, and what differs in their recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS
from finetune.recipe.run_dir import ENVIRONMENT_FILE, EVALUATION_FILE, METRICS_FILE, RECIPE_FILE, differing_keys
from finetune.reporting import charts
from finetune.reporting.charts import COLORS
from finetune.reporting.page import contents, document, escaped, paragraph, section, table
from finetune.reporting.tables import (
    ROWS_EXPLAINED,
    curves,
    environment_facts,
    metric_head,
    of_a_run,
    parsed,
    protocol_line,
    read_environment,
    read_metrics,
    score_table,
)
from finetune.utils.errors import FinetuneError
from finetune.utils.paths import is_file, real_path

_LEAVE_OUT = "Leave its run out"
_BASELINES = ("constant_median", "best_constant", "base_fitted_scale", "calibrated_start")


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """What a run that has ended wrote down.

    Attributes:
        name: the shortest ending of its path that no other run of the page has.
        recipe: as plain values.
        environment: of ``environment.json``.
        evaluations: of ``evaluation.json``, one a protocol.
        metrics: columns of ``metrics.csv``.
    """

    name: str
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Sequence[float]]


def read_runs(paths: Sequence[Path]) -> list[EndedRun]:
    """
    Args:
        paths: run folders.

    Raises:
        FinetuneError: a folder is named twice, is no run folder, or its run has not ended.
    """
    whole = [real_path(path) for path in paths]
    for place, path in enumerate(whole):
        if path in whole[:place]:
            raise FinetuneError(f"{paths[place]} is named twice. Name each run once.")
    return [_read_run(path, name) for path, name in zip(paths, _names(whole), strict=True)]


def _names(whole: Sequence[Path]) -> list[str]:
    """As many of the last parts of the paths as tell all of them apart."""
    most = max(len(path.parts) for path in whole)
    endings = ([str(Path(*path.parts[-count:])) for path in whole] for count in range(1, most + 1))
    return next(names for names in endings if len(set(names)) == len(names))


def _read_run(path: Path, name: str) -> EndedRun:
    if not is_file(path / RECIPE_FILE):
        raise FinetuneError(f"{path} is no run folder: it has no {RECIPE_FILE}. Name a folder that a run wrote.")
    if not is_file(path / EVALUATION_FILE):
        raise FinetuneError(
            f"{path} has no {EVALUATION_FILE}: its run has not ended. Go on with it by --resume, or leave it out."
        )
    recipe, evaluations = path / RECIPE_FILE, path / EVALUATION_FILE
    environment, metrics = path / ENVIRONMENT_FILE, path / METRICS_FILE
    # Each is drawn once here, so that what cannot be drawn is named before the page is made of many.
    with of_a_run(recipe, _LEAVE_OUT):
        of_recipe = parsed(recipe)
        if not isinstance(of_recipe, Mapping):
            raise ValueError("no recipe")
        differing_keys(of_recipe, {})
    with of_a_run(environment, _LEAVE_OUT):
        of_environment = read_environment(environment)
    run = EndedRun(name=name, recipe=of_recipe, environment=of_environment, evaluations=(), metrics={})
    with of_a_run(evaluations, _LEAVE_OUT):
        run = replace(run, evaluations=list(parsed(evaluations)))
        if not run.evaluations:
            raise ValueError("no table")
        as_text([run])
        _tables([run])
        _side_by_side([run])
    with of_a_run(metrics, f"{_LEAVE_OUT}, or move the file away to compare the tables alone"):
        run = replace(run, metrics=read_metrics(metrics))
        curves({name: run.metrics}, {})
    return run


def as_text(runs: Sequence[EndedRun]) -> str:
    """A line a run and protocol, for the terminal."""
    width = max(len(run.name) for run in runs)
    lines = [f"{'':{width}}" + "".join(f"{name:>10}" for name in METRICS)]
    for title, members in _groups(runs):
        lines.append(title)
        for run, evaluation in members:
            scores = evaluation["rows"][_own_row(evaluation)]
            lines.append(f"{run.name:{width}}" + "".join(f"{scores[name]:>10.4f}" for name in METRICS))
    return "\n".join(lines)


def compare_page(runs: Sequence[EndedRun]) -> str:
    """One self-contained page about the runs."""
    sections = {
        "Side by side": _side_by_side(runs),
        "Curves": [curves({run.name: run.metrics for run in runs}, {})],
        "What differs": _differences(runs),
        "Tables": [_tables(runs)],
    }
    body = [
        paragraph(", ".join(run.name for run in runs), "verdict"),
        contents(sections),
        *(section(title, *parts) for title, parts in sections.items()),
    ]
    return document(f"{len(runs)} runs compared", "\n".join(body), style=charts.STYLE + _STYLE)


def _groups(runs: Sequence[EndedRun]) -> Iterator[tuple[str, list[tuple[EndedRun, Mapping[str, Any]]]]]:
    """Title, and runs with their tables, of those tables whose protocol and images are the same."""
    groups: dict[str, list[tuple[EndedRun, Mapping[str, Any]]]] = {}
    for run in runs:
        data = {key: one for key, one in (run.environment.get("frames") or {}).items() if key.startswith("data.val")}
        for evaluation in run.evaluations:
            counts = [evaluation[key] for key in ("images_used", "images_skipped", "pixels_used")]
            alike = json.dumps([evaluation["protocol"], counts, data], sort_keys=True)
            groups.setdefault(alike, []).append((run, evaluation))
    for members in groups.values():
        evaluation = members[0][1]
        yield f"protocol {evaluation['protocol']['name']}, {evaluation['images_used']:,} images", members


def _own_row(evaluation: Mapping[str, Any]) -> str:
    """The row that the run is about: the one of its weights."""
    rows = list(evaluation["rows"])
    return "finetuned" if "finetuned" in rows else rows[-1]


def _side_by_side(runs: Sequence[EndedRun]) -> list[str]:
    parts = []
    groups = list(_groups(runs))
    for title, members in groups:
        rows = {run.name: evaluation["rows"][_own_row(evaluation)] for run, evaluation in members}
        best = {metric: _best(metric, [scores[metric] for scores in rows.values()]) for metric in METRICS}
        lines = [
            [_named(name, runs), *(_cell(scores[metric], best[metric]) for metric in METRICS)]
            for name, scores in rows.items()
        ]
        for row in _BASELINES:
            found = {json.dumps(evaluation["rows"].get(row)) for _, evaluation in members}
            if len(found) == 1 and (scores := members[0][1]["rows"].get(row)):
                lines.append([f"<code>{row}</code>", *(f"{scores[metric]:.4f}" for metric in METRICS)])
        parts += [f"<h3>{escaped(title)}</h3>", table(["", *map(metric_head, METRICS)], lines)]
        parts.append(protocol_line(members[0][1]))
    if len(groups) > len(runs[0].evaluations):
        parts.append(
            paragraph("Tables under different headings are of another protocol or other images: they do not compare.")
        )
    return [*parts, paragraph(ROWS_EXPLAINED, "soft")]


def _best(metric: str, values: Sequence[float]) -> float:
    return max(values) if metric in HIGHER_IS_BETTER else min(values)


def _cell(value: float, best: float) -> str:
    return f"<b>{value:.4f}</b>" if value == best else f"{value:.4f}"


def _named(name: str, runs: Sequence[EndedRun]) -> str:
    """The run in the color of its curves."""
    color = [run.name for run in runs].index(name) % COLORS
    return f'<span class="key" style="--key: var(--c{color})"></span>{escaped(name)}'


def _differences(runs: Sequence[EndedRun]) -> list[str]:
    """Keys of the recipes, and facts of the environments, that are not the same in all runs."""
    heads = ["", *(run.name for run in runs)]
    keys = dict.fromkeys(key for run in runs[1:] for key in differing_keys(runs[0].recipe, run.recipe))
    lines = [[f"<code>{escaped(key)}</code>", *(escaped(_shown(_at(run.recipe, key))) for run in runs)] for key in keys]
    told = [environment_facts(run.environment) for run in runs]
    names = [name for name in dict.fromkeys(name for one in told for name in one) if name not in _ALWAYS_APART]
    places = [
        [escaped(name), *(escaped(_shown(one.get(name))) for one in told)]
        for name in names
        if len({str(one.get(name)) for one in told}) > 1
    ]
    return [
        "<h3>Recipe</h3>",
        table(heads, lines, kind="text") if lines else paragraph("The recipes are the same."),
        "<h3>Environment</h3>",
        table(heads, places, kind="text") if places else paragraph("The environments are the same."),
    ]


# Told by the recipe already, or by it alone.
_ALWAYS_APART = ("command", "recipe, SHA-256", "seed", "steps")


def _at(recipe: Any, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for part in key.split("."):
        if isinstance(recipe, list):
            recipe = recipe[int(part)]
        else:
            recipe = recipe.get(part) if isinstance(recipe, Mapping) else None
    return recipe


def _shown(value: object) -> str:
    return "–" if value is None else str(value)


def _tables(runs: Sequence[EndedRun]) -> str:
    """Every table of every run, with its protocol."""
    cards = []
    for run in runs:
        parts = [f"<h3>{_named(run.name, runs)}</h3>"]
        for evaluation in run.evaluations:
            parts += [score_table(evaluation["rows"]), protocol_line(evaluation)]
            parts += [paragraph(alarm) for alarm in evaluation.get("alarms", ())]
        cards.append(f'<div class="run">{"".join(parts)}</div>')
    return f'<div class="runs">{"".join(cards)}</div>'


_STYLE = """
.runs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 560px), 1fr)); gap: 1rem 2rem; }
.run { min-width: 0; } .key { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px;
  background: var(--key); margin-right: .5rem; vertical-align: baseline; }
.legend .key { height: 0; border-radius: 0; background: none; vertical-align: middle; margin-right: .4rem; }
table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 26rem; }
table.text thead th { text-align: left; white-space: normal; overflow-wrap: anywhere; }
"""

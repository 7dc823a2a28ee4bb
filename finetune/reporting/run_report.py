"""``report.html``: one run, or one evaluation, on a page to look at."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.metrics import HIGHER_IS_BETTER
from finetune.evaluation.results import NEAR_RANGE_M, Chosen, Evaluation
from finetune.recipe.load import recipe_text
from finetune.recipe.run_dir import ENVIRONMENT_FILE, METRICS_FILE
from finetune.recipe.schema import Recipe
from finetune.reporting import charts
from finetune.reporting.charts import Bars, bar_chart, histogram
from finetune.reporting.frames import DepthCounts, ShownFrame, ShownFrames, reduced, worst_and_best
from finetune.reporting.images import ERROR_COLORS, colored
from finetune.reporting.page import (
    contents,
    document,
    escaped,
    facts,
    folded,
    paragraph,
    picture,
    preformatted,
    section,
    table,
)
from finetune.reporting.tables import (
    ROWS_EXPLAINED,
    curves,
    environment_facts,
    error_table,
    metric_head,
    of_a_run,
    protocol_line,
    read_environment,
    read_metrics,
    score_table,
)
from finetune.reporting.verdicts import Verdict
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import is_folder

OF_A_KIND = 6  # frames among the worst, the best and the evenly picked
COUNTED_FRAMES = 24  # over so many evenly picked ones goes what the charts of depth say
_WIDTH_PX, _WIDE_PX = 440, 660  # of a picture, and of one in two columns
_WIDE_ASPECT = 2.0  # wider frames have two columns
_BINS = 60
_PICTURE_BYTES = 7_000_000  # all pictures together, of the 8 MB that a page may have


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """What a page is made of.

    Attributes:
        title: of the page.
        model: a run folder or weights file, as a user types it; None where only predictions are there.
        recipe: as it ran, YAML.
        recipe_file: where it stands, as a user types it.
        metric: by which frames are ranked.
        kind: ``metric`` or ``relative``, of the model.
        evaluations: a table each; the frames are those of the first.
        frames: of ``data.val``.
        monitors: sentences of those that stood at the end of a run; None where nothing ran.
        found: what the first table means.
        environment: of ``environment.json``; empty where nothing was trained.
        metrics: columns of ``metrics.csv``; empty where there are none.
        files: what was written besides, weights and exports, name -> path.
        claims: arguments of ``load_model`` that a file which cannot say what it is was read with.
        overrides: of the recipe file, ``key=value``.
    """

    title: str
    model: str | None
    recipe: str
    recipe_file: str
    metric: str
    kind: str
    evaluations: Sequence[Evaluation]
    frames: ShownFrames
    monitors: Sequence[str] | None = None
    found: Sequence[Verdict] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kept:
    """A frame at the size of the page."""

    frame: ShownFrame
    errors_m: Mapping[str, NDArray[np.float32]]
    scores: Mapping[str, float]


def page_content(
    title: str,
    model: str | None,
    recipe: Recipe,
    recipe_file: str,
    evaluations: Sequence[Evaluation],
    frames: ShownFrames,
    *,
    monitors: Sequence[str] | None = None,
    found: Sequence[Verdict] = (),
    files: Mapping[str, Path] | None = None,
    claims: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> PageContent:
    """What the page of a model is made of; where the model is a run folder, with what the run wrote down."""
    folder = Path(model) if model and is_folder(model) else None
    environment: dict[str, Any] = {}
    metrics: dict[str, list[float]] = {}
    if folder:
        move_away = "Move it away: the page is then made without it"
        with of_a_run(folder / ENVIRONMENT_FILE, move_away):
            environment = read_environment(folder / ENVIRONMENT_FILE)
        with of_a_run(folder / METRICS_FILE, move_away):
            metrics = read_metrics(folder / METRICS_FILE)
            curves({"finetuned": metrics}, {})
    return PageContent(
        title=title,
        model=model,
        recipe=recipe_text(recipe),
        recipe_file=recipe_file,
        metric=recipe.evaluation.best,
        kind=recipe.model.head,
        evaluations=evaluations,
        frames=frames,
        monitors=monitors,
        found=found,
        environment=environment,
        metrics=metrics,
        files={name: str(path) for name, path in (files or {}).items()},
        claims=claims or {},
        overrides=overrides,
    )


def report_page(content: PageContent) -> str:
    """
    Returns:
        The page, below 8 MB.

    Raises:
        FinetuneError: a frame cannot be read.
    """
    mappings = [evaluation.to_mapping() for evaluation in content.evaluations]
    chosen = _chosen(content)
    kept, counts = _looked_at(content, chosen)
    sections = {
        "Verdict": _verdict(content.found),
        "Alarms": _alarms(content.monitors),
        "Table": _tables(mappings),
        "Curves": _curves(content, mappings[0]["rows"]),
        "Distances": _depths(content, counts),
        "Validation images": _frames(content, chosen, kept),
        "Use the weights": _use(content),
        "What ran": _what_ran(content),
    }
    there = {title: parts for title, parts in sections.items() if parts}
    body = [_head(content), contents(there), *(section(title, *parts) for title, parts in there.items())]
    return document(content.title, "\n".join(body), style=charts.STYLE + _STYLE, script=_SCRIPT)


def _head(content: PageContent) -> str:
    """The three numbers that people ask for first, beside what costs nothing."""
    rows = content.evaluations[0].rows
    own = _own_row(content)
    cards = []
    for metric in dict.fromkeys((content.metric, "abs_rel", "rmse", "delta1")):
        others = " · ".join(
            f"{row} {rows[row][metric]:.4f}"
            for row in ("calibrated_start", "base_fitted_scale", "best_constant")
            if row in rows
        )
        unit = " m" if metric == "rmse" else ""
        cards.append(
            f'<div class="card"><div class="soft">{escaped(metric_head(metric))}</div>'
            f'<div class="number">{rows[own][metric]:.4f}{unit}</div><div class="soft">{escaped(others)}</div></div>'
        )
    protocol = content.evaluations[0].protocol.name
    images = content.evaluations[0].images_used
    return (
        paragraph(f"{own}, protocol {protocol}, over {images:,} validation images".capitalize(), "verdict")
        + f'<div class="cards">{"".join(cards)}</div>'
    )


def _own_row(content: PageContent) -> str:
    """The row that the page is about, the last that frames have."""
    return list(content.frames.rows)[-1]


def _verdict(found: Sequence[Verdict]) -> list[str]:
    """What the table means and what to try next."""
    if not found:
        return []
    lines = [
        f"<li>{escaped(one.found[:1].upper() + one.found[1:])}.<br>"
        f'<span class="soft">Next: {escaped(one.try_next)}.</span></li>'
        for one in found
    ]
    return [f'<ul class="findings">{"".join(lines)}</ul>']


def _alarms(monitors: Sequence[str] | None) -> list[str]:
    if monitors is None:
        return []
    if not monitors:
        return [paragraph("None stood at the end.")]
    lines = "".join(f'<li class="warn">{escaped(alarm)}</li>' for alarm in monitors)
    return [f'<ul class="findings">{lines}</ul>']


def _tables(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for mapping in mappings:
        if len(mappings) > 1:
            parts.append(f"<h3>{escaped(mapping['protocol']['name'])}</h3>")
        parts += [score_table(mapping["rows"]), protocol_line(mapping)]
        if "chosen" in mapping:
            parts.append(paragraph(f"{Chosen(**mapping['chosen'])}.", "soft"))
        if mapping["protocol"]["max_depth_m"] <= NEAR_RANGE_M:
            parts.append(error_table(mapping["errors_mm"]))
        for name, entry in mapping.get("entries", {}).items():
            parts.append(f"<h3><code>{escaped(name)}</code>, {entry['images_used']:,} images</h3>")
            parts.append(
                score_table(entry["rows"]) if entry["rows"] else paragraph("No image has a pixel that counts.")
            )
    return [*parts, paragraph(ROWS_EXPLAINED, "soft")]


def _curves(content: PageContent, rows: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not content.metrics:
        return []
    chosen = content.evaluations[0].chosen
    # The curves are over the frames that choose, and a level line must be over the same.
    alike = chosen is None or chosen.shown
    constant = {row: rows[row] for row in ("best_constant", "base_fitted_scale") if row in rows and alike}
    return [curves({"finetuned": content.metrics}, constant)]


def _chosen(content: PageContent) -> dict[str, list[int]]:
    """Title -> numbers of the frames below it, each below one title; of few frames all are there."""
    own = _own_row(content)
    scores = [(one.number, one.rows[own][content.metric]) for one in content.evaluations[0].images]
    count = min(OF_A_KIND, -(-len(scores) // 3))
    worst, best = worst_and_best(scores, count, higher_is_better=content.metric in HIGHER_IS_BETTER)
    best = [number for number in best if number not in worst]
    others = [number for number, _ in scores if number not in (*worst, *best)]
    even = [others[place] for place in evenly_spread(len(others), OF_A_KIND)] if others else []
    return {title: found for title, found in (("Worst", worst), ("Best", best), ("Evenly picked", even)) if found}


def _looked_at(content: PageContent, chosen: Mapping[str, Sequence[int]]) -> tuple[dict[int, _Kept], DepthCounts]:
    """The chosen frames, small, and the depth of evenly picked ones; each is asked for once."""
    scores = {
        one.number: {row: one.rows[row][content.metric] for row in content.frames.rows}
        for one in content.evaluations[0].images
    }
    numbers = list(scores)
    to_count = {numbers[place] for place in evenly_spread(len(numbers), COUNTED_FRAMES)}
    to_keep = {number for shown in chosen.values() for number in shown}
    counts = DepthCounts(max_depth_m=content.frames.protocol.max_depth_m)
    kept = {}
    for number in sorted(to_count | to_keep):
        frame = content.frames[number]
        if number in to_count:
            counts.add(frame)
        if number in to_keep:
            smaller, errors_m = reduced(frame, _WIDE_PX if _is_wide(frame) else _WIDTH_PX)
            kept[number] = _Kept(frame=smaller, errors_m=errors_m, scores=scores[number])
    return kept, counts


def _is_wide(frame: ShownFrame) -> bool:
    height, width = frame.target_m.shape
    return width >= _WIDE_ASPECT * height


def _depths(content: PageContent, counts: DepthCounts) -> list[str]:
    """Error by distance and the histograms."""
    evaluation = content.evaluations[0]
    of_rows = {row: evaluation.bins[row] for row in content.frames.rows}
    places = [place for place, one in enumerate(of_rows[_own_row(content)]) if one["pixels"]]
    bins = [of_rows[_own_row(content)][place] for place in places]
    names = [f"{one['from_m']:g}–{one['to_m']:g}" for one in bins]
    drawn = []
    for key, title in (("abs_rel", "mean |error| / measured depth"), ("mean_error_m", "mean |error|, meters")):
        groups = [
            Bars(name=row, values=[found[place][key] for place in places], color=_color(content, row))
            for row, found in of_rows.items()
        ]
        drawn.append(
            bar_chart(f"{title}, by measured distance, over the pixels of all images", names, groups, x_name="meters")
        )
    edges, measured, predicted = counts.shares(_BINS)
    outlines = [
        Bars(name=f"predicted, {row}", values=shares, color=_color(content, row)) for row, shares in predicted.items()
    ]
    title = f"depth, share of pixels of {counts.frames:,} evenly picked images"
    drawn.append(histogram(title, edges, ("measured", measured), outlines, x_name="meters"))
    heads = ["meters", "pixels", *(f"{name}, {row}" for row in of_rows for name in ("relative", "meters"))]
    lines = [
        [
            escaped(name),
            f"{one['pixels']:,}",
            *(f"{found[place][key]:.4f}" for found in of_rows.values() for key in ("abs_rel", "mean_error_m")),
        ]
        for place, name, one in zip(places, names, bins, strict=True)
    ]
    return [f'<div class="charts">{"".join(drawn)}</div>', table(heads, lines)]


def _color(content: PageContent, row: str) -> int:
    """The fine-tuned row has the first color everywhere."""
    return 0 if row == _own_row(content) else 1 + list(content.frames.rows).index(row)


def _frames(content: PageContent, chosen: Mapping[str, Sequence[int]], kept: Mapping[int, _Kept]) -> list[str]:
    max_depth_m = content.frames.protocol.max_depth_m
    far_m = _end_of_colors([one.frame.target_m[one.frame.usable] for one in kept.values()], 99, max_depth_m)
    own = _own_row(content)
    most_error_m = _end_of_colors([one.errors_m[own][one.frame.usable] for one in kept.values()], 95, max_depth_m)
    shown = sum(map(len, chosen.values()))
    pictures = shown * (2 + 2 * len(content.frames.rows))
    most_bytes = _PICTURE_BYTES // pictures
    cells = {number: _cells(one, far_m, most_error_m, most_bytes) for number, one in kept.items()}
    parts = [
        paragraph(
            f"Ranked by {content.metric} of the row {_own_row(content)}; each switch shows it too. One color range for "
            "all. Gray was not measured or, in errors, does not count under the protocol.",
            "soft",
        ),
        f'<div class="legends">{_legend("depth, meters", far_m)}'
        f"{_legend('|error|, meters', most_error_m, ERROR_COLORS)}</div>",
        _switch(list(content.frames.rows), "all", "In all frames", {}) if len(content.frames.rows) > 1 else "",
    ]
    turn = 0
    for title, numbers in chosen.items():
        parts.append(f"<h3>{escaped(title)}</h3>")
        for number in numbers:
            parts.append(_frame(content, kept[number], number, f"frame{turn}", cells[number]))
            turn += 1
    return parts


def _end_of_colors(values_m: Sequence[NDArray[np.float32]], percentile: float, max_depth_m: float) -> float:
    """A round number of meters below which lie so many of all values."""
    most_m = float(np.percentile(np.concatenate(values_m), percentile))
    power = 10.0 ** math.floor(math.log10(max(most_m, 1e-6)))
    rounded = next(factor * power for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= most_m * 0.999)
    return float(min(rounded, max_depth_m))


def _cells(one: _Kept, far_m: float, most_error_m: float, most_bytes: int) -> str:
    """image | measured | predicted | error, the last two for each row."""
    frame = one.frame

    def cell(pixels: NDArray[np.uint8], name: str, kind: str = "") -> str:
        shown = picture(pixels, f"{name}: {frame.source}", most_bytes=most_bytes)
        return f'<figure class="cell {kind}">{shown}<figcaption>{escaped(name)}</figcaption></figure>'

    cells = [
        cell(frame.image, "image"),
        cell(colored(frame.target_m, 0.0, far_m, frame.measured), "measured"),
    ]
    for place, (row, pred_m) in enumerate(frame.predictions.items()):
        cells.append(cell(colored(pred_m, 0.0, far_m), f"predicted, {row}", f"answer{place}"))
    for place, (row, error_m) in enumerate(one.errors_m.items()):
        shown = colored(error_m, 0.0, most_error_m, frame.usable, ERROR_COLORS)
        cells.append(cell(shown, f"error, {row}", f"answer{place}"))
    return f'<div class="cells{" two" if _is_wide(frame) else ""}">{"".join(cells)}</div>'


def _frame(content: PageContent, one: _Kept, number: int, name: str, cells: str) -> str:
    rows = list(content.frames.rows)
    scores = {row: f"{one.scores[row]:.4f}" for row in rows}
    switch = (
        _switch(rows, name, f"Answer shown for image {number}", scores)
        if len(rows) > 1
        else f"<span>{escaped(content.metric)} {scores[rows[0]]}</span>"
    )
    source = f'<span class="soft">image {number}: {escaped(one.frame.source)}</span>'
    return f'<article class="frame"><div class="above">{switch}{source}</div>{cells}</article>'


def _switch(rows: Sequence[str], name: str, said: str, scores: Mapping[str, str]) -> str:
    """Radio buttons: the arrow keys move between them wherever a browser runs, without a script."""
    choices = []
    for place, row in enumerate(rows):
        checked = " checked" if place == len(rows) - 1 else ""
        score = f" <small>{escaped(scores[row])}</small>" if row in scores else ""
        choices.append(
            f'<label><input type="radio" name="{name}" value="{place}"{checked}>'
            f"<span>{escaped(row)}{score}</span></label>"
        )
    told = "".join(choices)
    if name == "all":
        # It needs the script, which shows it.
        return f'<fieldset class="switch" id="all" hidden><legend>{escaped(said)}</legend>{told}</fieldset>'
    return f'<fieldset class="switch"><legend class="unseen">{escaped(said)}</legend>{told}</fieldset>'


def _legend(name: str, high: float, colors: int | None = None) -> str:
    shares = np.linspace(0.0, 1.0, 256)[None].repeat(16, 0)
    bar = colored(shares, 0.0, 1.0) if colors is None else colored(shares, 0.0, 1.0, colors=colors)
    marks = "".join(f"<span>{value:.3g}</span>" for value in np.linspace(0.0, high, 6))
    alt = f"color bar of {name}, from 0 to {high:g}"
    return (
        f'<figure class="colors">{picture(bar, alt, most_bytes=20_000)}<div class="marks">{marks}</div>'
        f"<figcaption>{escaped(name)}</figcaption></figure>"
    )


def _use(content: PageContent) -> list[str]:
    """Commands, with the paths in them, from the folder they hold for."""
    if content.model is None:
        return []
    unit = "depth in meters" if content.kind == "metric" else "inverse depth"
    path = Path(content.model)
    exported = path / "export" / f"{path.name}.onnx" if is_folder(path) else f"{path.stem}.onnx"
    claims = [word for name, value in content.claims.items() for word in (_FLAGS[name], _typed(value))]
    again = [content.model, *claims, "--recipe", content.recipe_file, *content.overrides]
    commands = [
        _line("cd", Path.cwd()),
        f"# {unit} of your own images",
        _line("finetune", "predict", content.model, "PHOTOS", *claims, "--output", "predicted"),
        "# the table above, again",
        _line("finetune", "evaluate", *again),
        "# the weights in another format, compared when they are written",
        _line("finetune", "export", content.model, *claims, "--to", "onnx", "--output", exported),
    ]
    arguments = ", ".join([repr(content.model), *(f"{name}={value!r}" for name, value in content.claims.items())])
    python = [
        "import cv2, finetune",
        f"model = finetune.load_model({arguments})",
        'image = cv2.imread("photo.jpg")[..., ::-1]  # RGB',
        f"depth = model.predict(image)  # (H, W) float32, {unit}",
    ]
    return [
        *([facts(content.files)] if content.files else []),
        preformatted("commands", "\n".join(commands)),
        preformatted("in Python", "\n".join(python)),
    ]


def _line(*words: object) -> str:
    return shlex.join(map(str, words))


# Of the commands, for the arguments of ``load_model``.
_FLAGS = {"kind": "--kind", "max_depth_m": "--max-depth", "version": "--version", "input_size": "--input-size"}


def _typed(value: object) -> object:
    """A claim as it is typed on the command line; a size is HEIGHTxWIDTH there."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value


def _what_ran(content: PageContent) -> list[str]:
    told = {"model": content.model, **environment_facts(content.environment)}
    return [facts(told), folded(f"Recipe: {content.recipe_file}", content.recipe)]


_STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 220px), 1fr)); gap: .8rem;
  margin: .8rem 0; }
.card { background: var(--card); border-radius: 8px; padding: .7rem 1rem; }
.card .number { font-size: 1.9rem; line-height: 1.25; font-weight: 600; font-variant-numeric: tabular-nums; }
.legends { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: .6rem 2rem;
  margin: .8rem 0; }
.colors img { height: 12px; border-radius: 2px; } .marks { display: flex; justify-content: space-between;
  font-size: .78rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.frame { margin: 0 0 1.5rem; } .above { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1rem;
  margin-bottom: .4rem; } .above .soft { overflow-wrap: anywhere; min-width: 0; }
.cells { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem .6rem; }
.cells.two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
@media (max-width: 760px) { .cells { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .cells.two { grid-template-columns: minmax(0, 1fr); } }
.switch { display: inline-flex; flex-wrap: wrap; align-items: center; gap: .3rem; border: 0; margin: 0; padding: 0;
  min-width: 0; }
.switch[hidden] { display: none; } .switch legend { float: left; padding: 0 .6rem 0 0; font-size: .9rem; }
.switch input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.switch span { display: inline-block; cursor: pointer; padding: .2rem .75rem; border: 1px solid var(--line);
  border-radius: 999px; font-size: .86rem; line-height: 1.5; }
.switch small { color: var(--soft); font-size: .92em; font-variant-numeric: tabular-nums; }
.switch input:checked + span { background: var(--bar); border-color: var(--bar); color: var(--paper); }
.switch input:checked + span small { color: inherit; }
.switch input:focus-visible + span { outline: 2px solid var(--ink); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.frame:has(input[value="0"]:checked) .answer1, .frame:has(input[value="1"]:checked) .answer0 { display: none; }
"""
_SCRIPT = """
const all = document.getElementById("all");
if (all) {
  all.hidden = false;
  all.addEventListener("change", event => {
    for (const one of document.querySelectorAll(`.frame input[value="${event.target.value}"]`)) one.checked = true;
  });
}
"""

"""``report.html``: one run, or one evaluation, on a page to look at."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.evaluation.results import NEAR_RANGE_M, Evaluation
from finetune.evaluation.retention import Retention
from finetune.evaluation.risk_coverage import RiskCoverage
from finetune.recipe.load import recipe_text
from finetune.recipe.run_dir import ENVIRONMENT_FILE, METRICS_FILE
from finetune.recipe.schema import Recipe
from finetune.reporting.charts import COLORS, Bars, Chart, Line, make_bar_chart, make_histogram, make_line_chart
from finetune.reporting.frames import DepthCounts, ShownFrames
from finetune.reporting.gallery import choose_frames, make_gallery, read_frames
from finetune.reporting.page import Cell, Table, render_template
from finetune.reporting.tables import (
    ROWS_EXPLAINED,
    EnvironmentRecord,
    ProtocolLine,
    collect_environment_facts,
    describe_protocol,
    draw_curves,
    label_metric,
    make_error_table,
    make_score_table,
    name_run_file,
    read_environment,
    read_metrics,
)
from finetune.reporting.verdicts import Verdict
from finetune.utils.kinds import IN_WORDS, Kind
from finetune.utils.paths import is_folder

_BINS = 60  # bars in the histogram of depth


@dataclass(frozen=True, kw_only=True)
class PageContent:
    """Everything that a page shows.

    Attributes:
        title: heading of the page.
        model: a run folder or weights file, as a user types it; None for predictions from files.
        recipe: as it ran, in YAML.
        recipe_file: its path, as a user types it.
        metric: frames are ranked by it.
        kind: of the model.
        evaluations: one for each protocol; the frames are those of the first.
        frames: of ``data.val``.
        monitors: sentences of the monitors that were active at the end of a run; None where nothing ran.
        found: what the first table means.
        environment: of ``environment.json``; empty where nothing was trained.
        metrics: columns of ``metrics.csv``; empty where there are none.
        files: name -> path of the weights and exports that a run wrote.
        model_options: arguments of ``load_model`` that a user gave because the file does not say what it holds.
        overrides: ``key=value`` words that change the recipe file.
        focal_sweep: focal length at the network's size (None where unknown), its factor, and AbsRel.
        confidence: what the disagreement with the mirrored image says about errors; None where it was not measured.
        kept: what the model kept of its base on general data; empty where it was not measured.
    """

    title: str
    model: str | None
    recipe: str
    recipe_file: str
    metric: str
    kind: Kind
    evaluations: Sequence[Evaluation]
    frames: ShownFrames
    monitors: Sequence[str] | None = None
    found: Sequence[Verdict] = ()
    environment: EnvironmentRecord = field(default_factory=EnvironmentRecord)
    metrics: Mapping[str, Sequence[float]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    model_options: Mapping[str, object] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    focal_sweep: Sequence[tuple[float | None, float, float]] = ()
    confidence: RiskCoverage | None = None
    kept: Sequence[Retention] = ()


@dataclass(frozen=True, kw_only=True)
class _Card:
    """A large number at the top, and the baselines' values."""

    metric: str
    value: str
    others: str


@dataclass(frozen=True, kw_only=True)
class _EntryTable:
    """The table of one entry of ``data.val``; None where no image has a pixel that counts."""

    name: str
    images: str
    scores: Table | None


@dataclass(frozen=True, kw_only=True)
class _ProtocolTables:
    """What the page shows of one protocol.

    Attributes:
        title: "" where there is a single protocol.
        scores: row by metric.
        protocol: all its settings.
        chosen: how the weights were chosen; "" where that is unknown.
        errors: in millimeters; None where the range is too long for them.
        entries: of each entry of ``data.val``, where there are several; then of each focal length at the network's
            size, where there are several.
    """

    title: str
    scores: Table
    protocol: ProtocolLine
    chosen: str
    errors: Table | None
    entries: Sequence[_EntryTable]


@dataclass(frozen=True, kw_only=True)
class _Use:
    """Lines that use the weights, with the paths in them, for the current folder."""

    files: Mapping[str, str]
    commands: str
    python: str


def collect_page_content(
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
    model_options: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
    focal_sweep: Sequence[tuple[float | None, float, float]] = (),
    confidence: RiskCoverage | None = None,
    kept: Sequence[Retention] = (),
) -> PageContent:
    """What the page of a model is made of. A model that is a run folder adds the curves and environment of the run."""
    folder = Path(model) if model and is_folder(model) else None
    environment = EnvironmentRecord()
    metrics: dict[str, list[float]] = {}
    if folder:
        move_away = "Move it away: the page is then made without it"
        with name_run_file(folder / ENVIRONMENT_FILE, move_away):
            environment = read_environment(folder / ENVIRONMENT_FILE)
        with name_run_file(folder / METRICS_FILE, move_away):
            metrics = read_metrics(folder / METRICS_FILE)
            draw_curves({"finetuned": metrics}, {})
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
        model_options=model_options or {},
        overrides=overrides,
        focal_sweep=focal_sweep,
        confidence=confidence,
        kept=kept,
    )


def render_report_page(content: PageContent) -> str:
    """
    Returns:
        The page, below 8 MB.

    Raises:
        FinetuneError: a frame cannot be read.
    """
    evaluation = content.evaluations[0]
    rows = list(content.frames.rows)
    chosen = choose_frames(evaluation.images, rows[-1], content.metric)
    kept, counts = read_frames(content.frames, evaluation.images, content.metric, chosen)
    headline = f"{rows[-1]}, protocol {evaluation.protocol.name}, over {evaluation.images_used:,} validation images"
    return render_template(
        "run.html",
        title=content.title,
        headline=headline.capitalize(),
        cards=_make_cards(content),
        verdicts=[(verdict.found[:1].upper() + verdict.found[1:], verdict.try_next) for verdict in content.found],
        monitors=content.monitors,
        tables=[_make_tables(found, len(content.evaluations) > 1) for found in content.evaluations],
        rows_explained=ROWS_EXPLAINED,
        curves=_draw_run_curves(content),
        sweep=_draw_sweep(content),
        confidence=_draw_confidence(content),
        retention=_make_retention_tables(content),
        distance_charts=[*_draw_errors(content), _draw_depth(content, counts)],
        distance_table=_make_distance_table(content),
        gallery=make_gallery(
            chosen, kept, rows=rows, metric=content.metric, max_depth_m=content.frames.protocol.max_depth_m
        ),
        use=_write_use(content),
        facts={"model": content.model, **collect_environment_facts(content.environment)},
        recipe_file=content.recipe_file,
        recipe=content.recipe,
    )


def _get_own_row(content: PageContent) -> str:
    """The row that the page is about: the last one that frames have."""
    return list(content.frames.rows)[-1]


def _make_cards(content: PageContent) -> list[_Card]:
    """The numbers that people ask for first, next to the rows that cost nothing."""
    rows = content.evaluations[0].rows
    value = rows[_get_own_row(content)]
    free = [row for row in ("calibrated_start", "base_fitted_scale", "best_constant") if row in rows]
    return [
        _Card(
            metric=label_metric(metric),
            value=f"{value[metric]:.4f}",
            others=" · ".join(f"{row} {rows[row][metric]:.4f}" for row in free),
        )
        for metric in dict.fromkeys((content.metric, "abs_rel", "rmse", "delta1"))
    ]


def _make_tables(evaluation: Evaluation, named: bool) -> _ProtocolTables:
    """``named``: whether the tables have the protocol's name as their title."""
    return _ProtocolTables(
        title=evaluation.protocol.name if named else "",
        scores=make_score_table(evaluation.rows),
        protocol=describe_protocol(
            evaluation.protocol.to_mapping(),
            images_used=evaluation.images_used,
            images_skipped=evaluation.images_skipped,
            pixels_used=evaluation.pixels_used,
        ),
        chosen=f"{evaluation.chosen}." if evaluation.chosen else "",
        errors=make_error_table(evaluation.errors_mm) if evaluation.protocol.max_depth_m <= NEAR_RANGE_M else None,
        entries=[
            _EntryTable(
                name=name, images=f"{entry.images_used:,}", scores=make_score_table(entry.rows) if entry.rows else None
            )
            for name, entry in (*evaluation.entries.items(), *evaluation.lenses.items())
        ],
    )


def _draw_confidence(content: PageContent) -> Chart | None:
    """AbsRel by the share of pixels that are left out; None where it was not measured."""
    found = content.confidence
    if found is None:
        return None
    left_out = [1 - coverage for coverage in found.coverages]
    lines = [
        Line(name="by disagreement with the mirrored image", xs=left_out, ys=found.risk, color=0),
        Line(name="by the errors themselves (oracle)", xs=left_out, ys=found.oracle, color=1, dashed=True),
        Line(name="at random", xs=left_out, ys=found.random, color=2, dashed=True),
    ]
    title = (
        f"AbsRel of the pixels that are kept; area above the oracle {found.ause:.4f}, at random {found.ause_random:.4f}"
    )
    return make_line_chart(title, lines, x_name="share of the pixels that is left out", from_zero=True)


def _make_retention_tables(content: PageContent) -> list[tuple[str, Table]]:
    """What was measured on, and base and model on it, for each kind of general data."""
    heads = ["", "general ordering, % ↑", "AbsRel after alignment ↓"]
    found = []
    for kept in content.kept or ():
        rows = [
            [
                Cell(text=row, code=True),
                Cell(text=f"{100 * score.pairs.accuracy:.1f}"),
                Cell(text="–" if score.abs_rel is None else f"{score.abs_rel:.4f}"),
            ]
            for row, score in (("base", kept.base), (_get_own_row(content), kept.finetuned))
        ]
        found.append((kept.describe_data(), Table(heads=heads, rows=rows)))
    return found


def _draw_sweep(content: PageContent) -> Chart | None:
    """AbsRel by focal length; None without a sweep."""
    if not content.focal_sweep:
        return None
    known = all(focal_px is not None for focal_px, _, _ in content.focal_sweep)
    xs = [focal_px if known and focal_px is not None else factor for focal_px, factor, _ in content.focal_sweep]
    line = Line(name=_get_own_row(content), xs=xs, ys=[abs_rel for *_, abs_rel in content.focal_sweep], color=0)
    x_name = "focal length at the network's size, pixels" if known else "times the focal length of the frames"
    title = "AbsRel of the same frames, cropped and resized to other focal lengths; the measured meters stay"
    return make_line_chart(title, [line], x_name=x_name, from_zero=True)


def _draw_run_curves(content: PageContent) -> list[Chart]:
    if not content.metrics:
        return []
    rows, chosen = content.evaluations[0].rows, content.evaluations[0].chosen
    # The curves are over the frames that choose the weights, so a baseline must be over the same frames.
    comparable = chosen is None or chosen.shown
    levels = {row: rows[row] for row in ("best_constant", "base_fitted_scale") if row in rows and comparable}
    return draw_curves({"finetuned": content.metrics}, levels)


def _get_filled_bins(content: PageContent) -> dict[str, list[Mapping[str, float | None]]]:
    """Row -> its bins of measured distance, as far as they have pixels."""
    bins = {row: content.evaluations[0].bins[row] for row in content.frames.rows}
    filled = [i for i, found in enumerate(bins[_get_own_row(content)]) if found["pixels"]]
    return {row: [found[i] for i in filled] for row, found in bins.items()}


def _name_bins(bins: Sequence[Mapping[str, float | None]]) -> list[str]:
    return [f"{found['from_m']:g}–{found['to_m']:g}" for found in bins]


def _draw_errors(content: PageContent) -> list[Chart]:
    """Errors by measured distance, relative and in meters."""
    bins = _get_filled_bins(content)
    names = _name_bins(bins[_get_own_row(content)])
    charts = []
    for key, title in (("abs_rel", "mean |error| / measured depth"), ("mean_error_m", "mean |error|, meters")):
        bars = [
            Bars(name=row, values=[in_bin[key] for in_bin in found], color=_choose_color(content, row))
            for row, found in bins.items()
        ]
        charts.append(
            make_bar_chart(
                f"{title}, by measured distance, over the pixels of all images", names, bars, x_name="meters"
            )
        )
    return [chart for chart in charts if chart]


def _draw_depth(content: PageContent, counts: DepthCounts) -> Chart:
    """Histograms of measured and predicted depth."""
    edges, measured, predicted = counts.shares(_BINS)
    return make_histogram(
        f"depth, share of pixels of {counts.frames:,} evenly picked images",
        edges,
        Bars(name="measured", values=measured, color=COLORS - 1),
        [
            Bars(name=f"predicted, {row}", values=shares, color=_choose_color(content, row))
            for row, shares in predicted.items()
        ],
        x_name="meters",
    )


def _make_distance_table(content: PageContent) -> Table:
    """The numbers of the charts of errors."""
    bins = _get_filled_bins(content)
    own = bins[_get_own_row(content)]
    rows = [
        [
            Cell(text=name),
            Cell(text=f"{own[i]['pixels']:,}"),
            *(Cell(text=f"{found[i][key]:.4f}") for found in bins.values() for key in ("abs_rel", "mean_error_m")),
        ]
        for i, name in enumerate(_name_bins(own))
    ]
    units = ("relative", "meters")
    return Table(heads=["meters", "pixels", *(f"{unit}, {row}" for row in bins for unit in units)], rows=rows)


def _choose_color(content: PageContent, row: str) -> int:
    """The page's own row has the first color in every chart."""
    return 0 if row == _get_own_row(content) else 1 + list(content.frames.rows).index(row)


def _write_use(content: PageContent) -> _Use | None:
    """None where there are only predictions and no model."""
    if content.model is None:
        return None
    unit = IN_WORDS[content.kind]
    path = Path(content.model)
    exported = path / "export" / f"{path.name}.onnx" if is_folder(path) else f"{path.stem}.onnx"
    model_options = [
        word for name, value in content.model_options.items() for word in (_FLAGS[name], _spell_option(value))
    ]
    again = [content.model, *model_options, "--recipe", content.recipe_file, *content.overrides]
    commands = [
        _join_words("cd", Path.cwd()),
        f"# {unit} of your own images",
        _join_words("finetune", "predict", content.model, "PHOTOS", *model_options, "--output", "predicted"),
        "# the table above, again",
        _join_words("finetune", "evaluate", *again),
        "# the weights in another format, compared when they are written",
        _join_words("finetune", "export", content.model, *model_options, "--to", "onnx", "--output", exported),
    ]
    arguments = ", ".join(
        [repr(content.model), *(f"{name}={value!r}" for name, value in content.model_options.items())]
    )
    python = [
        "import cv2, finetune",
        f"model = finetune.load_model({arguments})",
        'image = cv2.imread("photo.jpg")[..., ::-1]  # RGB',
        f"depth = model.predict(image)  # (H, W) float32, {unit}",
    ]
    return _Use(files=content.files, commands="\n".join(commands), python="\n".join(python))


def _join_words(*words: object) -> str:
    """A command line that a shell reads as these words."""
    return shlex.join(map(str, words))


# Arguments of ``load_model`` -> options of the commands.
_FLAGS = {"kind": "--kind", "max_depth_m": "--max-depth", "version": "--version", "input_size": "--input-size"}


def _spell_option(value: object) -> object:
    """A claim as the command line takes it: a size is HEIGHTxWIDTH there."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else value

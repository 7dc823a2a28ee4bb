"""The tables of an evaluation as text for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from finetune.evaluation.metrics import HIGHER_IS_BETTER, METRICS, TITLES, UNITS
from finetune.evaluation.results import NEAR_RANGE_M, UNALIGNED, Evaluation
from finetune.utils.text import count_noun

_GAP = "   "  # between tables that share their lines
ROW_MEANINGS = {
    "constant_median": "the median depth of the training frames, for every pixel",
    "best_constant": "the one depth with the least AbsRel on the training frames",
    "base": "the checkpoint before training",
    "base_fitted_scale": "the checkpoint before training, its scale and shift fitted",
    "calibrated_start": "the network before step 1, its last layer fitted",
    "finetuned": "the model that is evaluated; of a run, its weights in best/",
    "last": "the network after the last step of the run",
    "predictions": "the files of --predictions",
}
_UNALIGNED_MEANING = "the row of that name without the protocol's alignment"


@dataclass(frozen=True, kw_only=True)
class _Table:
    """
    One titled table.

    Attributes:
        title: what its columns are, with their unit.
        heads: name of each column.
        cells: row -> a text for each column.
    """

    title: str
    heads: Sequence[str]
    cells: Mapping[str, Sequence[str]]

    def lines(self) -> list[str]:
        """Title, heads and rows, all of one width, without the names of the rows."""
        columns = list(zip(self.heads, *self.cells.values(), strict=True))
        # The mark of the best is after its number, so that the last digits of a column are below each other.
        padded = [[text if text.endswith("*") else f"{text} " for text in column] for column in columns]
        widths = [max(map(len, column)) for column in padded]
        lines = [
            " ".join(f"{text:>{width}}" for text, width in zip(line, widths, strict=True))
            for line in zip(*padded, strict=True)
        ]
        width = max(len(self.title), len(lines[0]))
        return [f"{line:{width}}" for line in (self.title, *lines)]


def format_evaluations(evaluations: Sequence[Evaluation], columns: int | None = None) -> str:
    """
    Args:
        evaluations: of one model, one or more protocols.
        columns: as of ``format_evaluation``.

    Returns:
        The tables of each protocol, and once what the rows are and how the weights were chosen.
    """
    legend = "\n".join(["rows:", *_row_meanings(evaluations)])
    chosen = [f"{evaluations[0].chosen}."] if evaluations[0].chosen else []
    return "\n\n".join(
        [*(format_evaluation(evaluation, columns) for evaluation in evaluations), "\n".join([legend, *chosen])]
    )


def format_evaluation(evaluation: Evaluation, columns: int | None = None) -> str:
    """
    Args:
        evaluation: the tables under one protocol.
        columns: how wide the text may be, so that tables share lines or follow each other; None: the terminal's width.

    Returns:
        The protocol with its counts, then the tables. A ``*`` marks the best value of a column where there are several
        rows.
    """
    columns = columns or shutil.get_terminal_size().columns
    best = "* best of its column. " if len(evaluation.rows) > 1 else ""
    counts = f"{count_noun(evaluation.images_used, 'image')} used, {evaluation.images_skipped} skipped"
    head = f"{evaluation.protocol}; {counts}, {count_noun(evaluation.pixels_used, 'pixel')}"
    tables = [*_metric_tables(evaluation.rows), *_near_errors(evaluation), *_by_distance(evaluation)]
    legend = f"{best}deltaN: share of pixels within a factor of 1.25^N."
    silog = "SILog (times 100)" if evaluation.protocol.settings.silog == "standard" else "SILog"
    units = f"No unit: RMSElog and {silog} by natural, log10 by decimal logarithms."
    blocks = [f"{head}\n{legend}\n{units}", *_arranged(tables, columns)]
    lenses = {f"focal length {name} at the network's size": lens for name, lens in evaluation.lenses.items()}
    for name, entry in (*evaluation.entries.items(), *lenses.items()):
        blocks.append(f"{name}: {count_noun(entry.images_used, 'image')} used, {entry.images_skipped} skipped")
        blocks += _arranged(_metric_tables(entry.rows), columns) if entry.rows else []
    return "\n\n".join(blocks)


def _metric_tables(rows: Mapping[str, Mapping[str, float]]) -> Iterator[_Table]:
    """Errors and shares apart: the best of an error is its lowest value, that of a share its highest."""
    errors = [metric for metric in METRICS if metric not in HIGHER_IS_BETTER]
    shares = [metric for metric in METRICS if metric in HIGHER_IS_BETTER]
    for title, metrics, higher in (
        ("error, lower is better", errors, False),
        ("share, higher is better", shares, True),
    ):
        values = {row: [scores[metric] for metric in metrics] for row, scores in rows.items()}
        heads = [f"{TITLES[metric]} {UNITS[metric]}" if metric in UNITS else TITLES[metric] for metric in metrics]
        yield _Table(title=title, heads=heads, cells=_cells(values, 4, higher=higher))


def _near_errors(evaluation: Evaluation) -> Iterator[_Table]:
    """The absolute error in millimeters, where the range is so near that millimeters mean something."""
    if evaluation.protocol.max_depth_m <= NEAR_RANGE_M and _stated_rows(evaluation):
        errors = {row: list(evaluation.errors_mm[row].values()) for row in _stated_rows(evaluation)}
        yield _Table(
            title="|error| of an image, mm",
            heads=("mean", "median", "p90"),
            cells=_cells(errors, 1, higher=False),
        )


def _by_distance(evaluation: Evaluation) -> Iterator[_Table]:
    """AbsRel in each bin of measured distance where there are pixels."""
    bins = {row: evaluation.bins[row] for row in _stated_rows(evaluation)}
    if not bins:
        return
    first = next(iter(bins.values()))
    filled = [i for i, found in enumerate(first) if found["pixels"]]
    # Images differ in what they see of a distance, so a mean over images would be one over few pixels at times.
    values = {row: [found[i]["abs_rel"] or 0.0 for i in filled] for row, found in bins.items()}
    heads = [f"{first[i]['from_m']:g}-{first[i]['to_m']:g} m" for i in filled]
    yield _Table(
        title="AbsRel by measured distance, over the pixels of all images",
        heads=heads,
        cells=_cells(values, 4, higher=False),
    )


def _stated_rows(evaluation: Evaluation) -> list[str]:
    """The rows with distances and errors, as the protocol states them: none of those without its alignment."""
    return [row for row in evaluation.rows if row in evaluation.bins and not row.endswith(UNALIGNED)]


def _cells(rows: Mapping[str, Sequence[float]], decimals: int, *, higher: bool) -> dict[str, list[str]]:
    """Numbers as text, the best of each column marked; values that read the same are all the best."""
    texts = {row: [f"{value:.{decimals}f}" for value in values] for row, values in rows.items()}
    if len(rows) == 1:
        return texts
    best = [(max if higher else min)(column, key=float) for column in zip(*texts.values(), strict=True)]
    return {
        row: [f"{text}*" if text == of_column else text for text, of_column in zip(line, best, strict=True)]
        for row, line in texts.items()
    }


def _arranged(tables: Iterable[_Table], columns: int) -> list[str]:
    """The tables as blocks of lines: those of the same rows share a block where ``columns`` allows."""
    blocks: list[list[str]] = []
    rows: list[str] = []
    for table in tables:
        lines = table.lines()
        if blocks and rows == list(table.cells):
            joined = [f"{line}{_GAP}{added}" for line, added in zip(blocks[-1], lines, strict=True)]
            if max(len(line.rstrip()) for line in joined) <= columns:
                blocks[-1] = joined
                continue
        rows = list(table.cells)
        width = max(len(row) for row in rows)
        blocks.append([f"{row:{width}} {line}" for row, line in zip(("", "", *rows), lines, strict=True)])
    return ["\n".join(line.rstrip() for line in block) for block in blocks]


def _row_meanings(evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """One line for each row whose meaning is known."""
    rows = list(dict.fromkeys(row for evaluation in evaluations for row in evaluation.rows))
    meanings = dict(ROW_MEANINGS)
    if evaluations[0].protocol.kind != "metric":
        meanings["base_fitted_scale"] = meanings["base"]  # left to the protocol to align
    elif "base" in rows:  # a metric checkpoint
        meanings["base_fitted_scale"] = "that checkpoint with one scale fitted to the training frames"
    width = max(len(row) for row in rows)
    for row in rows:
        meaning = _UNALIGNED_MEANING if row.endswith(UNALIGNED) else meanings.get(row)
        if meaning:
            yield f"  {row:{width}}  {meaning}"

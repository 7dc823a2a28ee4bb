"""The result of a check: a table for the terminal, JSON, and one page that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.registration import find_edges
from finetune.data.checks.summary import Checked, Summary
from finetune.data.sample import DepthSample
from finetune.reporting.charts import Bars, Chart, make_bar_chart
from finetune.reporting.page import Cell, Picture, Table, make_picture, render_template
from finetune.utils.text import meters, percent

_WIDTH_PX = 480  # width of a picture on the page
_MAX_BYTES = 100_000  # size of a picture
_HEADS = (
    "entry",
    "frames",
    "looked at",
    "height x width",
    "focal px",
    "valid",
    "1 %",
    "median",
    "95 %",
    "99.5 %",
    "largest",
)
_SHOWN_PERCENTILES = ("1", "50", "95", "99.5", "100")


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """What the page shows of an entry of the recipe.

    Attributes:
        key: dotted; the heading.
        table: sizes and depths.
        chart: histogram of measured depth; None where nothing is measured.
        pictures: depth edges over the images that they fit least, and the name of each sample.
    """

    key: str
    table: Table
    chart: Chart | None
    pictures: Sequence[tuple[Picture, str]]


def format_check(checked: Checked) -> str:
    """Entries, findings and the verdict, for the terminal."""
    findings = [f"{finding.severity.upper():5} {finding.name}: {finding.sentence()}" for finding in checked.findings]
    return "\n".join([*_format_entries(checked), "", *findings, *checked.notes, "", format_verdict(checked)])


def _format_entries(checked: Checked) -> Iterator[str]:
    rows = [_HEADS, *(_list_cells(summary) for summary in checked.summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        yield "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])


def _list_cells(summary: Summary) -> tuple[str, ...]:
    """The cells of an entry, as many as there are heads."""
    depths = [meters(summary.percentiles_m[name]) if summary.percentiles_m else "-" for name in _SHOWN_PERCENTILES]
    sizes = ", ".join(summary.sizes) if len(summary.sizes) < 3 else f"{len(summary.sizes)} sizes"
    counts = str(summary.frames), str(summary.looked_at)
    return summary.key, *counts, sizes, _format_focal(summary), percent(summary.valid_share), *depths


def _format_focal(summary: Summary) -> str:
    """The focal length at the network's size: one number, or the least and the most."""
    if summary.focal_px is None:
        return "-"
    least, _, most = (f"{focal_px:.0f}" for focal_px in summary.focal_px)
    return least if least == most else f"{least}-{most}"


def format_verdict(checked: Checked) -> str:
    """The last line: whether to launch."""
    stops, warnings = (sum(finding.severity == name for finding in checked.findings) for name in ("stop", "warn"))
    to_look_at = f"{warnings} warning{'' if warnings == 1 else 's'} to look at"
    if stops:
        problems = f"{stops} problem{'' if stops == 1 else 's'} to fix before a run"
        return f"{checked.recipe}: {problems}, {to_look_at}"
    return f"{checked.recipe}: no problems found" + (f", {to_look_at}" if warnings else "")


def format_check_json(checked: Checked) -> str:
    """Everything but the pictures, as JSON."""
    content = {
        "recipe": checked.recipe,
        "verdict": format_verdict(checked),
        "findings": [finding.to_mapping() for finding in checked.findings],
        "entries": [asdict(summary) for summary in checked.summaries],
        "notes": checked.notes,
        "step": checked.step,
    }
    return json.dumps(content, indent=2) + "\n"


def render_check_page(checked: Checked) -> str:
    """One self-contained page: findings, histograms, and depth edges drawn over the samples they fit least."""
    return render_template(
        "check.html",
        title=f"Check of {checked.recipe}",
        verdict=format_verdict(checked),
        findings=checked.findings,
        entries=[_make_entry(summary, checked.worst.get(summary.key, [])) for summary in checked.summaries],
        notes=checked.notes,
    )


def _make_entry(summary: Summary, worst: Sequence[DepthSample]) -> _Entry:
    return _Entry(
        key=summary.key,
        table=Table(heads=_HEADS, rows=[[Cell(text=text) for text in _list_cells(summary)]]),
        chart=_draw_histogram(summary),
        pictures=[
            (
                make_picture(
                    draw_edges(sample), f"{sample.source}: depth edges in red over the image", max_bytes=_MAX_BYTES
                ),
                sample.source,
            )
            for sample in worst
        ],
    )


def _draw_histogram(summary: Summary) -> Chart | None:
    """Measured depth in bins of equal ratio; None where nothing is measured."""
    if not summary.counts:
        return None
    total = sum(summary.counts)
    return make_bar_chart(
        f"measured depth of {summary.key}, % of pixels in bins of equal ratio",
        [_format_edge(edge) for edge in summary.bin_edges_m[:-1]],
        [Bars(name="measured", values=[100 * count / total for count in summary.counts], color=0)],
        x_name="meters, from",
    )


def _format_edge(edge_m: float) -> str:
    """Three digits, but never 1.35e+03: such labels are so wide that they overlap."""
    return f"{edge_m:.0f}" if edge_m >= 999.5 else f"{edge_m:.3g}"


def draw_edges(sample: DepthSample) -> NDArray[np.uint8]:
    """
    Returns:
        (h, w, 3), RGB: the image in gray with jumps of depth in red. Where depth has no edges, measured pixels are
        tinted instead.
    """
    image = sample.full_image()
    edges = find_edges(image, sample.depth_m, sample.valid)
    size = (_WIDTH_PX, max(1, round(image.shape[0] * _WIDTH_PX / image.shape[1])))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    picture = np.repeat((gray * 0.8 + 40).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if edges is None:
        measured = cv2.resize(sample.valid.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        picture[measured] = picture[measured] // 2 + np.array([90, 20, 0], dtype=np.uint8)
        return picture
    mask = np.zeros(edges.color.shape, dtype=np.uint8)
    mask[edges.rows, edges.columns] = 1
    picture[cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0] = (230, 40, 30)
    return picture

"""What a check found, as a table for the terminal, as JSON, and as one page that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.checks.registration import find_edges
from finetune.data.checks.summary import Checked, Summary
from finetune.data.sample import DepthSample
from finetune.reporting import charts
from finetune.reporting.page import document, escaped, paragraph, picture, section, table
from finetune.utils.text import meters, percent

_WIDTH_PX = 480  # of a picture on the page
_MAX_BYTES = 100_000  # of one


def as_text(checked: Checked) -> str:
    """Entries, findings and the verdict, for the terminal."""
    return "\n".join([*_entry_lines(checked), "", *_finding_lines(checked), *checked.notes, "", verdict(checked)])


def _entry_lines(checked: Checked) -> Iterator[str]:
    heads = ("entry", "frames", "looked at", "height x width", "valid", "1 %", "median", "95 %", "99.5 %", "largest")
    rows = [heads, *(_row(summary) for summary in checked.summaries)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(heads))]
    for row in rows:
        yield "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )


def _row(summary: Summary) -> tuple[str, ...]:
    depths = [meters(summary.percentiles_m[name]) if summary.percentiles_m else "-" for name in _SHOWN]
    sizes = ", ".join(summary.sizes) if len(summary.sizes) < 3 else f"{len(summary.sizes)} sizes"
    return summary.key, str(summary.frames), str(summary.looked_at), sizes, percent(summary.valid_share), *depths


_SHOWN = ("1", "50", "95", "99.5", "100")


def _finding_lines(checked: Checked) -> Iterator[str]:
    for finding in checked.findings:
        yield f"{finding.severity.upper():5} {finding.name}: {finding.sentence()}"


def verdict(checked: Checked) -> str:
    """The last line: whether to launch."""
    counts = {name: sum(finding.severity == name for finding in checked.findings) for name in ("stop", "warn")}
    if counts["stop"]:
        return f"{checked.recipe}: {counts['stop']} finding(s) stop a run, {counts['warn']} to look at"
    if counts["warn"]:
        return f"{checked.recipe}: nothing stops a run; {counts['warn']} finding(s) to look at"
    return f"{checked.recipe}: nothing stops a run"


def as_json(checked: Checked) -> str:
    """Everything but pictures."""
    content = {
        "recipe": checked.recipe,
        "verdict": verdict(checked),
        "findings": [finding.to_mapping() for finding in checked.findings],
        "entries": [asdict(summary) for summary in checked.summaries],
        "notes": checked.notes,
        "step": checked.step,
    }
    return json.dumps(content, indent=2) + "\n"


def as_page(checked: Checked) -> str:
    """One self-contained page: findings, histograms, and depth edges drawn over the samples they fit least."""
    findings = "".join(
        f'<li class="{finding.severity}"><b>{finding.severity}</b> '
        f"<code>{escaped(finding.key or finding.name)}</code> {escaped(finding.evidence)}."
        + (f" <i>{escaped(finding.way_on)}.</i>" if finding.way_on else "")
        + "</li>"
        for finding in checked.findings
    )
    entries = [_entry_section(summary, checked.worst.get(summary.key, [])) for summary in checked.summaries]
    notes = "".join(f"<li>{escaped(note)}</li>" for note in checked.notes)
    body = [
        paragraph(verdict(checked), "verdict"),
        f'<ul class="findings">{findings}</ul>',
        *entries,
        section("Checkpoint", f'<ul class="findings">{notes}</ul>'),
    ]
    return document(f"Check of {checked.recipe}", "\n".join(body), style=charts.STYLE)


def _entry_section(summary: Summary, worst: list[DepthSample]) -> str:
    heads = ("entry", "frames", "looked at", "height x width", "valid", "1 %", "median", "95 %", "99.5 %", "largest")
    pictures = "".join(
        f"<figure>{_edges(sample)}<figcaption>{escaped(sample.source)}</figcaption></figure>" for sample in worst
    )
    parts = [table(heads, [[escaped(cell) for cell in _row(summary)]]), _histogram(summary)]
    if worst:
        parts += [
            paragraph("Depth edges (red) over the images they fit least:"),
            f'<div class="pictures">{pictures}</div>',
        ]
    return section(summary.key, *parts)


def _edges(sample: DepthSample) -> str:
    alt = f"{sample.source}: depth edges in red over the image"
    return picture(edges_over(sample), alt, most_bytes=_MAX_BYTES)


def _histogram(summary: Summary) -> str:
    """Measured depth, at equal ratios."""
    if not summary.counts:
        return paragraph("Nothing is measured.")
    whole = sum(summary.counts)
    edges = summary.bin_edges_m
    shares = [100 * count / whole for count in summary.counts]
    drawn = charts.bar_chart(
        f"measured depth of {summary.key}, % of pixels in bins of equal ratio",
        [f"{edge:.3g}" for edge in edges[:-1]],
        [charts.Bars(name="measured", values=shares, color=0)],
        x_name="meters, from",
    )
    return f'<div class="charts">{drawn}</div>'


def edges_over(sample: DepthSample) -> NDArray[np.uint8]:
    """
    Returns:
        (h, w, 3), RGB: the image, grayed, with what lies at a jump of depth in red; where depth has no edges, what is
        measured tinted.
    """
    edges = find_edges(sample.image, sample.depth_m, sample.valid)
    size = (_WIDTH_PX, max(1, round(sample.image.shape[0] * _WIDTH_PX / sample.image.shape[1])))
    picture = cv2.resize(sample.image, size, interpolation=cv2.INTER_AREA)
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

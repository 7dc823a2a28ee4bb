"""What a check found, as a table for the terminal, as JSON, and as one page that opens without a network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.checking import Checked, Summary
from finetune.errors import FinetuneError
from finetune.evidence.registration import find_edges
from finetune.sample import DepthSample

_WIDTH_PX = 480  # of a picture on the page


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
    depths = [f"{summary.percentiles_m[name]:.3g} m" if summary.percentiles_m else "-" for name in _SHOWN]
    sizes = ", ".join(summary.sizes) if len(summary.sizes) < 3 else f"{len(summary.sizes)} sizes"
    return summary.key, str(summary.frames), str(summary.looked_at), sizes, f"{summary.valid_share:.0%}", *depths


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


def write(path: Path, content: str) -> None:
    """
    Raises:
        FinetuneError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise FinetuneError(f"{path}: cannot be written ({error.strerror}). Name another file.") from error


def as_page(checked: Checked) -> str:
    """One self-contained page: findings, histograms, and depth edges drawn over the samples they fit least."""
    findings = "".join(
        f'<li class="{finding.severity}"><b>{finding.severity}</b> '
        f"<code>{html.escape(finding.key or finding.name)}</code> {html.escape(finding.evidence)}."
        + (f" <i>{html.escape(finding.fix)}.</i>" if finding.fix else "")
        + "</li>"
        for finding in checked.findings
    )
    entries = "".join(_entry_section(summary, checked.worst.get(summary.key, [])) for summary in checked.summaries)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in checked.notes)
    title = html.escape(f"Check of {checked.recipe}")
    return _PAGE.format(
        title=title,
        verdict=html.escape(verdict(checked)),
        findings=findings,
        entries=entries,
        notes=notes,
        style=_STYLE,
    )


def _entry_section(summary: Summary, worst: list[DepthSample]) -> str:
    head = ("frames", "looked at", "height x width", "valid", "1 %", "median", "95 %", "99.5 %", "largest")
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _row(summary)[1:])
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    pictures = "".join(
        f'<figure><img src="data:image/jpeg;base64,{_jpeg(edges_over(sample))}" alt="{html.escape(sample.source)}: '
        f'depth edges in red over the image"><figcaption>{html.escape(sample.source)}</figcaption></figure>'
        for sample in worst
    )
    return (
        f"<section><h2><code>{html.escape(summary.key)}</code></h2>"
        f'<div class="wide"><table><tr>{heads}</tr><tr>{cells}</tr></table></div>'
        f"{_histogram(summary)}<p>Depth edges (red) over the images they fit least:</p>"
        f'<div class="pictures">{pictures}</div></section>'
    )


def _histogram(summary: Summary) -> str:
    """Measured depth, at equal ratios, as SVG."""
    if not summary.counts:
        return "<p>Nothing is measured.</p>"
    most, count = max(summary.counts), len(summary.counts)
    bars = "".join(
        f'<rect x="{place * 600 / count:.1f}" y="{100 - 96 * value / most:.1f}" width="{600 / count - 1:.1f}" '
        f'height="{96 * value / most:.1f}"><title>{summary.bin_edges_m[place]:.3g} to '
        f"{summary.bin_edges_m[place + 1]:.3g} m: {value / sum(summary.counts):.1%}</title></rect>"
        for place, value in enumerate(summary.counts)
    )
    labels = "".join(
        f'<text x="{place * 600 / count:.0f}" y="116" text-anchor="{anchor}">{summary.bin_edges_m[place]:.3g} m</text>'
        for place, anchor in ((0, "start"), (count // 2, "middle"), (count, "end"))
    )
    return (
        f'<svg viewBox="0 0 600 120" role="img" aria-label="measured depth of {html.escape(summary.key)}: histogram">'
        f"{bars}{labels}</svg>"
    )


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


def _jpeg(picture: NDArray[np.uint8]) -> str:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return base64.b64encode(data.tobytes()).decode()


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --paper: #fff; --line: #d5dae0; --soft: #5b6570; --bar: #2f6fb3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #16191d; --line: #3a4149; --soft: #9aa5b1; --bar: #6aa6e0; }
}
body { margin: 0 auto; max-width: 1100px; padding: 1rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
ul { padding: 0; list-style: none; }
li { border-left: 4px solid var(--line); padding: .3rem .8rem; margin: .5rem 0; overflow-wrap: anywhere; }
li.stop { border-color: #c62828; } li.warn { border-color: #d98e04; }
li b { text-transform: uppercase; font-size: .8em; }
.verdict { font-weight: 600; } .wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
svg { width: 100%; max-width: 700px; margin: 1rem 0; } rect { fill: var(--bar); }
text { fill: var(--soft); font-size: 12px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; border-radius: 4px; }
figcaption { font-size: .8rem; color: var(--soft); overflow-wrap: anywhere; }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1><p class="verdict">{verdict}</p>
<ul>{findings}</ul>{entries}<h2>Checkpoint</h2><ul>{notes}</ul>
</body></html>
"""

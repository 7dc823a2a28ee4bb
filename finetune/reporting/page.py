"""Pages that open without a network: one file with its style, its script and its pictures in it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Tried in turn until a picture is small enough; after the last it loses a quarter of its sides instead.
_QUALITIES = (86, 65, 40)
_MIN_SIDE_PX = 16  # a picture is not reduced below it
# What the page may load: nothing from anywhere. A mistake in it can then not call out either.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def escaped(text: object) -> str:
    """As it stands in HTML, in an attribute too."""
    return html.escape(str(text))


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """
    Args:
        title: plain text, the heading too.
        body: HTML below the heading.
        style: CSS besides what all pages share.
        script: JavaScript that runs once the page is read.

    Returns:
        The whole page.
    """
    code = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escaped(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n'
        f"<body>\n<h1>{escaped(title)}</h1>\n{body}\n{code}</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Parts below a heading of the second order, which is plain text, and by which ``contents`` finds it."""
    return f'<section id="{_anchor(title)}">\n<h2>{escaped(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def contents(titles: Iterable[str]) -> str:
    """Links to the sections of these titles."""
    links = "".join(f'<a href="#{_anchor(title)}">{escaped(title)}</a>' for title in titles)
    return f'<nav aria-label="sections">{links}</nav>'


def _anchor(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())


def paragraph(text: str, kind: str = "") -> str:
    """Plain text as a paragraph."""
    return f"<p{_class(kind)}>{escaped(text)}</p>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """
    Args:
        heads: plain text, one a column.
        rows: HTML of each cell; the first of a row names it.
        kind: class of the element.

    Returns:
        A table that scrolls within itself where the screen is narrow, by keys too.
    """
    head = "".join(f'<th scope="col">{escaped(one)}</th>' for one in heads)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="table"><table{_class(kind)}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Mapping[str, object]) -> str:
    """Names and what belongs to them; what is None or empty is left out."""
    told = {name: value for name, value in pairs.items() if value not in (None, "")}
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in told.items())
        + "</dl>"
    )


def preformatted(name: str, text: str) -> str:
    """Text as it is, in a box that scrolls, by keys too; ``name`` says what it is to those who do not see it."""
    return f'<pre tabindex="0" role="group" aria-label="{escaped(name)}">{escaped(text)}</pre>'


def folded(title: str, text: str) -> str:
    """Preformatted text behind a line to open it with."""
    return f"<details><summary>{escaped(title)}</summary>{preformatted(title, text)}</details>"


def picture(pixels: NDArray[np.uint8], alt: str, *, most_bytes: int) -> str:
    """
    Args:
        pixels: (H, W, 3), RGB.
        alt: what is to be seen, for those who do not see it.
        most_bytes: of the file within the page; it is coarser where more would be needed.

    Returns:
        An ``img``.
    """
    height, width = pixels.shape[:2]
    return (
        f'<img src="{data_uri(pixels, most_bytes)}" width="{width}" height="{height}" alt="{escaped(alt)}" '
        'decoding="async">'
    )


def data_uri(pixels: NDArray[np.uint8], most_bytes: int) -> str:
    """(H, W, 3) RGB as WebP in a URI of about ``most_bytes`` characters at most."""
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    while True:
        for quality in _QUALITIES:
            done, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
            assert done
            # Base64 writes three bytes as four characters.
            if len(data) * 4 <= most_bytes * 3:
                break
        if len(data) * 4 <= most_bytes * 3 or min(bgr.shape[:2]) * 3 < 4 * _MIN_SIDE_PX:
            return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
        bgr = cv2.resize(bgr, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def _class(kind: str) -> str:
    return f' class="{escaped(kind)}"' if kind else ""


_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --soft: #56606b; --paper: #fff; --card: #f5f7f9; --line: #d5dae0;
  --bar: #2f6fb3; --good: #1f7a45; --stop: #c62828; --warn: #b37400;
  --c0: #2f6fb3; --c1: #d1700f; --c2: #1f8a5b; --c3: #a3479c;
  --c4: #8a6d1a; --c5: #c23b55; --c6: #3f8f9e; --c7: #6b6f76; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9ea9b5; --paper: #14171b; --card: #1d2227; --line: #3a4149;
    --bar: #6aa6e0; --good: #62c48d; --stop: #ff7b72; --warn: #e3a52c;
    --c0: #6aa6e0; --c1: #f09a4a; --c2: #55c596; --c3: #d685d0;
    --c4: #cdb15a; --c5: #f2808f; --c6: #6fc3d1; --c7: #a7adb5; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1360px; padding: 1rem clamp(.8rem, 2vw, 1.6rem) 3rem; font: 16px/1.5 system-ui,
  sans-serif; color: var(--ink); background: var(--paper); -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .6rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; max-width: 75ch; overflow-wrap: anywhere; } .soft { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .8rem 0 0; font-size: .9rem; }
a { color: var(--bar); } .long { max-width: 120ch; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .85rem; }
pre { margin: .4rem 0; padding: .7rem .9rem; background: var(--card); border-radius: 6px; overflow-x: auto; }
summary { cursor: pointer; padding: .3rem 0; }
ul.findings { padding: 0; list-style: none; }
ul.findings li { border-left: 4px solid var(--line); padding: .3rem .8rem; margin: .5rem 0; overflow-wrap: anywhere; }
ul.findings li.stop { border-color: var(--stop); } ul.findings li.warn { border-color: var(--warn); }
ul.findings li b { text-transform: uppercase; font-size: .8em; }
.verdict { font-weight: 600; } .wide { overflow-x: auto; margin: .6rem 0; }
:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } thead th { color: var(--soft); font-size: .82rem; }
th:first-child { text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 400; } td b, th b { font-weight: 700; } td b { color: var(--good); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); gap: .5rem 1.4rem;
  margin: .6rem 0; }
.facts dt { color: var(--soft); font-size: .8rem; } .facts dd { margin: 0; overflow-wrap: anywhere; font-size: .92rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; } svg text { fill: var(--soft); font-size: 11.5px; }
figure { margin: 0; min-width: 0; } img { display: block; width: 100%; height: auto; border-radius: 4px; }
figcaption { font-size: .82rem; color: var(--soft); overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 1rem; }
"""

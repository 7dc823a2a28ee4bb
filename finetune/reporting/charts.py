"""Curves and bars as SVG within a page; colors are the page's, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from finetune.reporting.page import escaped

COLORS = 8  # ``--c0`` to ``--c7`` of a page
# In units of the drawing, which at 390 and at 1440 pixels are nearly pixels.
_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34
_MAX_POINTS = 400  # of a curve; a longer one is averaged down to as many
_MAX_LABELS = 8  # below the places of a bar chart
_MARKED_POINTS = 30  # up to so many are drawn as dots as well


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve.

    Attributes:
        name: in the legend.
        xs, ys: as many of each; what is not finite is left out.
        color: from 0 to ``COLORS`` - 1.
        dashed: of what is constant, or of a lesser kind.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A number for each place of a bar chart; None leaves a gap.

    Attributes:
        name: in the legend.
        values: one a place.
        color: from 0 to ``COLORS`` - 1.
    """

    name: str
    values: Sequence[float | None]
    color: int


def line_chart(title: str, lines: Sequence[Line], *, x_name: str, from_zero: bool = False) -> str:
    """
    Args:
        title: what is drawn, with its unit.
        lines: at least one; those without a finite point are left out.
        x_name: below the axis.
        from_zero: whether the vertical axis begins at 0.

    Returns:
        A ``figure``, or nothing where no line has a point.
    """
    drawn = [(line, points) for line in lines if (points := thinned(line.xs, line.ys))]
    if not drawn:
        return ""
    xs, ys = zip(*(point for _, points in drawn for point in points), strict=True)
    across = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.0 if from_zero else min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    parts = [*_horizontal_lines(up), *_marks_below(across, x_name)]
    for line, points in drawn:
        places = [f"{across(x):.1f},{up(y):.1f}" for x, y in points]
        dash = ' stroke-dasharray="5 4"' if line.dashed else ""
        color = f"var(--c{line.color % COLORS})"
        parts.append(
            f'<polyline points="{" ".join(places)}" fill="none" stroke="{color}" stroke-width="1.8" '
            f'stroke-linejoin="round"{dash}/>'
        )
        if len(points) <= _MARKED_POINTS and not line.dashed:
            parts += [
                _dot(place, color, f"{line.name}: {y:.4g} at {x:g}")
                for place, (x, y) in zip(places, points, strict=True)
            ]
    keys = [(line.name, line.color, line.dashed) for line, _ in drawn]
    said = "; ".join(f"{line.name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for line, points in drawn)
    return _figure(title, said, parts, keys)


def bar_chart(title: str, places: Sequence[str], groups: Sequence[Bars], *, x_name: str) -> str:
    """
    Args:
        title: what is drawn, with its unit.
        places: labels of the places, as many as each group has values.
        groups: drawn beside each other at every place.
        x_name: below the axis.

    Returns:
        A ``figure``, or nothing where there is no value.
    """
    values = [value for group in groups for value in group.values if value is not None]
    if not values:
        return ""
    up = _Axis(0.0, max(values), _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    wide = (_WIDTH - _LEFT - _RIGHT) / len(places)
    bar = 0.8 * wide / len(groups)
    parts = _horizontal_lines(up)
    every = -(-len(places) // _MAX_LABELS)
    for place, label in enumerate(places):
        left = _LEFT + place * wide
        if place % every == 0:
            parts.append(_text(left + wide / 2, _HEIGHT - _BOTTOM + 14, label, "middle"))
        for turn, group in enumerate(groups):
            value = group.values[place]
            if value is not None:
                parts.append(
                    f'<rect x="{left + 0.1 * wide + turn * bar:.1f}" y="{up(value):.1f}" width="{0.92 * bar:.1f}" '
                    f'height="{up(0.0) - up(value):.1f}" fill="var(--c{group.color % COLORS})">'
                    f"<title>{escaped(f'{group.name}, {label}: {value:.4g}')}</title></rect>"
                )
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, x_name, "middle"))
    said = "; ".join(
        f"{group.name} " + ", ".join("none" if value is None else f"{value:.3g}" for value in group.values)
        for group in groups
    )
    return _figure(title, f"at {', '.join(places)}: {said}", parts, [(one.name, one.color, False) for one in groups])


def histogram(
    title: str, edges: Sequence[float], filled: tuple[str, Sequence[float]], outlines: Sequence[Bars], *, x_name: str
) -> str:
    """
    Args:
        title: what is drawn.
        edges: of the bins, one more than there are values.
        filled: name and share of each bin that is drawn as an area.
        outlines: what is drawn over it as steps.
        x_name: below the axis.

    Returns:
        A ``figure``.
    """
    name, shares = filled
    most = max([*shares, *(value or 0.0 for one in outlines for value in one.values)])
    across = _Axis(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.0, 100 * most, _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    parts = [*_horizontal_lines(up, "%"), *_marks_below(across, x_name)]
    parts.append(f'<path d="{_steps(edges, shares, across, up, closed=True)}" fill="var(--c7)" opacity="0.45"/>')
    for one in outlines:
        steps = _steps(edges, [value or 0.0 for value in one.values], across, up)
        parts.append(f'<path d="{steps}" fill="none" stroke="var(--c{one.color % COLORS})" stroke-width="1.6"/>')
    keys = [(name, 7, False), *((one.name, one.color, False) for one in outlines)]
    modes = "; ".join(
        f"{of} most often from {edges[peak]:.3g} to {edges[peak + 1]:.3g}"
        for of, values in (filled, *((one.name, [value or 0.0 for value in one.values]) for one in outlines))
        for peak in [max(range(len(values)), key=values.__getitem__)]
    )
    return _figure(title, modes, parts, keys)


def thinned(xs: Sequence[float], ys: Sequence[float], most: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """The finite points; where there are more than ``most``, means of neighbors, of about as many each."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(points) <= most:
        return points
    ends = [len(points) * place // most for place in range(most + 1)]
    groups = [points[start:end] for start, end in pairwise(ends)]
    return [(math.fsum(x for x, _ in one) / len(one), math.fsum(y for _, y in one) / len(one)) for one in groups]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within the range, at equal distances of 1, 2 or 5 times a power of ten."""
    distance = (high - low) / most
    power = 10.0 ** math.floor(math.log10(distance))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= distance * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


class _Axis:
    """Values to places of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float, *, pad: float = 0.0) -> None:
        if not high > low:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        more = pad * (high - low)
        self.low, self.high = low - more if low else low, high + more
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)


def _horizontal_lines(up: _Axis, unit: str = "") -> list[str]:
    parts = []
    for value in ticks(up.low, up.high):
        at = f"{up(value):.1f}"
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="var(--line)"/>')
        parts.append(_text(_LEFT - 6, up(value) + 4, f"{value:.4g}{unit}", "end"))
    return parts


def _marks_below(across: _Axis, name: str) -> list[str]:
    marks = [
        _text(across(value), _HEIGHT - _BOTTOM + 14, f"{value:.4g}", "middle")
        for value in ticks(across.low, across.high)
    ]
    return [*marks, _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, name, "middle")]


def _steps(edges: Sequence[float], shares: Sequence[float], across: _Axis, up: _Axis, *, closed: bool = False) -> str:
    path = [f"M{across(edges[0]):.1f} {up(0):.1f}"]
    for share, end in zip(shares, edges[1:], strict=True):
        path.append(f"V{up(100 * share):.1f}H{across(end):.1f}")
    return "".join([*path, f"V{up(0):.1f}", "Z" if closed else ""])


def _dot(place: str, color: str, said: str) -> str:
    x, y = place.split(",")
    return f'<circle cx="{x}" cy="{y}" r="2.6" fill="{color}"><title>{escaped(said)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(text)}</text>'


def _figure(title: str, said: str, parts: Iterable[str], keys: Sequence[tuple[str, int, bool]]) -> str:
    """A drawing below its title, with what it says in words for those who do not see it, and a legend."""
    legend = "".join(
        f'<li><span class="key{" dashed" if dashed else ""}" style="--key: var(--c{color % COLORS})"></span>'
        f"{escaped(name)}</li>"
        for name, color, dashed in keys
    )
    return (
        f'<figure class="chart"><figcaption>{escaped(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escaped(f"{title}: {said}")}">'
        f'{"".join(parts)}</svg><ul class="legend">{legend}</ul></figure>'
    )


STYLE = """
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1.4rem 1.6rem; }
.chart figcaption { color: var(--ink); font-size: .92rem; margin-bottom: .2rem; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1rem; list-style: none; margin: .2rem 0 0; padding: 0 0 0 .4rem;
  font-size: .82rem; color: var(--soft); }
.legend li { overflow-wrap: anywhere; } .legend .key { display: inline-block; width: 1.1rem; vertical-align: middle;
  border-top: 3px solid var(--key); margin-right: .4rem; } .legend .dashed { border-top-style: dashed; }
"""

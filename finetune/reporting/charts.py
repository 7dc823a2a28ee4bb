"""Curves and bars: what to draw where. ``templates/charts.html`` turns it into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

COLORS = 8  # a page has the colors ``--c0`` to ``--c7``; color 8 is color 0 again
# Units of the drawing; on screens of 390 and 1440 pixels a unit is about a pixel.
_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34
_MAX_POINTS = 400  # a longer curve is averaged down to this many points
_MAX_LABELS = 8  # labels below a bar chart
_MARKED_POINTS = 30  # a curve of at most this many points also has a dot on each


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve, in the units of its data.

    Attributes:
        name: for the legend.
        xs, ys: equally many; points that are not finite are left out.
        color: number of a page color.
        dashed: for constants and for curves of lesser weight.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One number for each group of a bar chart; None leaves a gap.

    Attributes:
        name: for the legend.
        values: one for each group.
        color: number of a page color.
    """

    name: str
    values: Sequence[float | None]
    color: int


@dataclass(frozen=True, kw_only=True)
class Label:
    """Text in a drawing; ``anchor`` says which end of it is at x."""

    x: float
    y: float
    text: str
    anchor: Literal["middle", "end"] = "middle"


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A point of a curve; ``tip`` is shown when the mouse is on it."""

    x: float
    y: float
    tip: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve in units of the drawing."""

    points: Sequence[tuple[float, float]]
    color: int
    dashed: bool
    dots: Sequence[Dot]


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A bar in units of the drawing; ``tip`` is shown when the mouse is on it."""

    x: float
    y: float
    width: float
    height: float
    color: int
    tip: str


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Shares of a histogram in units of the drawing: it starts at (x, y) and goes up or down, then right, each time.

    Attributes:
        x, y: left end of the base line.
        corners: height of each step, and where it ends on the right.
        color: number of a page color.
        filled: an area instead of a line.
    """

    x: float
    y: float
    corners: Sequence[tuple[float, float]]
    color: int
    filled: bool = False


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend."""

    name: str
    color: int
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its title and legend.

    Attributes:
        title: what is drawn, with its unit.
        summary: the drawing in words, for readers who cannot see it.
        legend: one entry for each curve or row of bars.
        grid: heights of the horizontal lines.
        labels: numbers and names at the axes.
        curves, bars, steps: what is drawn, in this order.
    """

    title: str
    summary: str
    legend: Sequence[Key]
    grid: Sequence[float]
    labels: Sequence[Label]
    curves: Sequence[Curve] = ()
    bars: Sequence[Rectangle] = ()
    steps: Sequence[Steps] = ()

    # The template draws by these.
    width: ClassVar[int] = _WIDTH
    height: ClassVar[int] = _HEIGHT
    left: ClassVar[int] = _LEFT
    right: ClassVar[int] = _WIDTH - _RIGHT


def make_line_chart(title: str, lines: Sequence[Line], *, x_name: str, from_zero: bool = False) -> Chart | None:
    """
    Args:
        title: what is drawn, with its unit.
        lines: at least one; lines without a finite point are left out.
        x_name: below the axis.
        from_zero: whether the vertical axis begins at 0.

    Returns:
        The chart, or None where no line has a point.
    """
    drawn = [(line, points) for line in lines if (points := average_down(line.xs, line.ys))]
    if not drawn:
        return None
    xs, ys = zip(*(point for _, points in drawn for point in points), strict=True)
    across = _Axis(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.0 if from_zero else min(ys), max(ys), _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    grid, labels = _label_heights(up)
    summary = "; ".join(f"{line.name} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for line, points in drawn)
    return Chart(
        title=title,
        summary=summary,
        legend=[Key(name=line.name, color=line.color, dashed=line.dashed) for line, _ in drawn],
        grid=grid,
        labels=[*labels, *_label_widths(across), _name_axis(x_name)],
        curves=[_place_curve(line, points, across, up) for line, points in drawn],
    )


def _place_curve(line: Line, points: Sequence[tuple[float, float]], across: _Axis, up: _Axis) -> Curve:
    placed = [(across(x), up(y)) for x, y in points]
    has_dots = len(points) <= _MARKED_POINTS and not line.dashed
    dots = [
        Dot(x=at_x, y=at_y, tip=f"{line.name}: {y:.4g} at {x:g}")
        for (at_x, at_y), (x, y) in zip(placed, points, strict=True)
    ]
    return Curve(points=placed, color=line.color, dashed=line.dashed, dots=dots if has_dots else [])


def make_bar_chart(title: str, groups: Sequence[str], rows: Sequence[Bars], *, x_name: str) -> Chart | None:
    """
    Args:
        title: what is drawn, with its unit.
        groups: labels of the groups, as many as each row has values.
        rows: in every group the bars of these rows are next to each other.
        x_name: below the axis.

    Returns:
        The chart, or None where there is no value.
    """
    values = [value for row in rows for value in row.values if value is not None]
    if not values:
        return None
    up = _Axis(0.0, max(values), _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    group_width = (_WIDTH - _LEFT - _RIGHT) / len(groups)
    bar_width = 0.8 * group_width / len(rows)
    grid, labels = _label_heights(up)
    bars = []
    every = -(-len(groups) // _MAX_LABELS)
    for i, group in enumerate(groups):
        left = _LEFT + i * group_width
        if i % every == 0:
            labels.append(Label(x=left + group_width / 2, y=_HEIGHT - _BOTTOM + 14, text=group))
        for j, row in enumerate(rows):
            value = row.values[i]
            if value is not None:
                bars.append(
                    Rectangle(
                        x=left + 0.1 * group_width + j * bar_width,
                        y=up(value),
                        width=0.92 * bar_width,
                        height=up(0.0) - up(value),
                        color=row.color,
                        tip=f"{row.name}, {group}: {value:.4g}",
                    )
                )
    summary = "; ".join(
        f"{row.name} " + ", ".join("none" if value is None else f"{value:.3g}" for value in row.values) for row in rows
    )
    return Chart(
        title=title,
        summary=f"at {', '.join(groups)}: {summary}",
        legend=[Key(name=row.name, color=row.color) for row in rows],
        grid=grid,
        labels=[*labels, _name_axis(x_name)],
        bars=bars,
    )


def make_histogram(title: str, edges: Sequence[float], area: Bars, outlines: Sequence[Bars], *, x_name: str) -> Chart:
    """
    Args:
        title: what is drawn.
        edges: edges of the bins, one more than there are values.
        area: share of each bin, drawn as a filled area.
        outlines: drawn over the area as steps.
        x_name: below the axis.
    """
    shares = {row.name: [value or 0.0 for value in row.values] for row in (area, *outlines)}
    across = _Axis(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0.0, 100 * max(max(values) for values in shares.values()), _HEIGHT - _BOTTOM, _TOP, pad=0.04)
    grid, labels = _label_heights(up, "%")
    peaks = {name: max(range(len(values)), key=values.__getitem__) for name, values in shares.items()}
    return Chart(
        title=title,
        summary="; ".join(
            f"{name} most often from {edges[peak]:.3g} to {edges[peak + 1]:.3g}" for name, peak in peaks.items()
        ),
        legend=[Key(name=row.name, color=row.color) for row in (area, *outlines)],
        grid=grid,
        labels=[*labels, *_label_widths(across), _name_axis(x_name)],
        steps=[
            Steps(
                x=across(edges[0]),
                y=up(0),
                corners=[
                    (up(100 * share), across(end)) for share, end in zip(shares[row.name], edges[1:], strict=True)
                ],
                color=row.color,
                filled=row is area,
            )
            for row in (area, *outlines)
        ],
    )


def average_down(xs: Sequence[float], ys: Sequence[float], max_points: int = _MAX_POINTS) -> list[tuple[float, float]]:
    """The finite points. More than ``max_points`` are grouped with their neighbors, and each group is its mean."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
    if len(points) <= max_points:
        return points
    ends = [len(points) * i // max_points for i in range(max_points + 1)]
    groups = [points[start:end] for start, end in pairwise(ends)]
    return [
        (math.fsum(x for x, _ in group) / len(group), math.fsum(y for _, y in group) / len(group)) for group in groups
    ]


def choose_ticks(low: float, high: float, max_intervals: int = 5) -> list[float]:
    """Round numbers within the range, at equal distances of 1, 2 or 5 times a power of ten."""
    distance = (high - low) / max_intervals
    power = 10.0 ** math.floor(math.log10(distance))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= distance * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


class _Axis:
    """Turns a value into a coordinate of the drawing."""

    def __init__(self, low: float, high: float, start: float, end: float, *, pad: float = 0.0) -> None:
        if not high > low:
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        more = pad * (high - low)
        self.low, self.high = low - more if low else low, high + more
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)


def _label_heights(up: _Axis, unit: str = "") -> tuple[list[float], list[Label]]:
    """Heights of the horizontal lines, and the number at the left of each."""
    values = choose_ticks(up.low, up.high)
    labels = [Label(x=_LEFT - 6, y=up(value) + 4, text=f"{value:.4g}{unit}", anchor="end") for value in values]
    return [up(value) for value in values], labels


def _label_widths(across: _Axis) -> list[Label]:
    """The numbers below the drawing."""
    values = choose_ticks(across.low, across.high)
    return [Label(x=across(value), y=_HEIGHT - _BOTTOM + 14, text=f"{value:.4g}") for value in values]


def _name_axis(name: str) -> Label:
    """The name of the horizontal axis, below its numbers."""
    return Label(x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 4, text=name)

import re

import pytest

from finetune.reporting.charts import (
    Bars,
    Chart,
    Line,
    average_down,
    choose_ticks,
    make_bar_chart,
    make_histogram,
    make_line_chart,
)
from tests.reporting.macros import render_macro


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 40.0, [0.0, 10.0, 20.0, 30.0, 40.0]),
        (0.146, 0.177, [0.15, 0.16, 0.17]),
        (-3.0, 2.0, [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]),
    ],
)
def test_ticks_by_hand(low: float, high: float, expected: list[float]) -> None:
    assert choose_ticks(low, high) == pytest.approx(expected)


def test_a_long_curve_is_averaged_down() -> None:
    assert average_down([0, 1, 2, 3], [0.0, 4.0, 2.0, 8.0], max_points=2) == [(0.5, 2.0), (2.5, 5.0)]
    assert average_down([0, 1, 2], [1.0, float("nan"), float("inf")]) == [(0.0, 1.0)]
    assert len(average_down(range(100_000), [1.0] * 100_000)) == 400


def draw(chart: Chart | None) -> str:
    assert chart is not None
    return render_macro("charts.html", "show_chart", chart)


def placed_points(chart: Chart | None) -> list[tuple[float, float]]:
    (points,) = re.findall(r'polyline points="([^"]*)"', draw(chart))
    return [tuple(map(float, point.split(","))) for point in points.split()]  # type: ignore[misc]


def test_a_curve_lies_where_its_numbers_do() -> None:
    (left, bottom), (middle, top), (right, _) = placed_points(
        make_line_chart(
            "loss", [Line(name="a", xs=[0, 1, 2], ys=[0.0, 1.0, 0.5], color=0)], x_name="step", from_zero=True
        )
    )
    # The drawing is 400 x 230 with margins of 46, 10, 12 and 34; above the largest value are 4 % of the range.
    assert (left, middle, right) == (46.0, 218.0, 390.0)
    assert (bottom, top) == (196.0, pytest.approx(12 + 184 * 0.04 / 1.04, abs=0.1))


def test_one_value_that_never_changes_is_drawn() -> None:
    assert (
        len(placed_points(make_line_chart("a", [Line(name="a", xs=[5, 5], ys=[0.0, 0.0], color=0)], x_name="step")))
        == 2
    )


def test_nothing_finite_is_no_chart() -> None:
    assert make_line_chart("a", [Line(name="a", xs=[1], ys=[float("nan")], color=0)], x_name="step") is None
    assert make_bar_chart("a", ["x"], [Bars(name="a", values=[None], color=0)], x_name="m") is None


def test_bars_say_their_numbers_and_leave_gaps() -> None:
    drawn = draw(
        make_bar_chart("error", ["0-1", "1-2"], [Bars(name="<base>", values=[0.25, None], color=1)], x_name="m")
    )
    assert drawn.count("<rect") == 1
    assert "<title>&lt;base&gt;, 0-1: 0.25</title>" in drawn
    assert 'aria-label="error: at 0-1, 1-2: &lt;base&gt; 0.25, none"' in drawn


def test_a_histogram_says_where_most_is() -> None:
    drawn = draw(
        make_histogram(
            "depth", [0.0, 1.0, 2.0], Bars(name="measured", values=[0.25, 0.75], color=7), [], x_name="meters"
        )
    )
    assert "measured most often from 1 to 2" in drawn
    # 75 % reach 4 % of the range below the top; the bins end in the middle and at the right.
    assert "V137.0H218.0V19.1H390.0V196.0Z" in drawn

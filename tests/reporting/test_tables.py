import math
from pathlib import Path

import pytest

from finetune.evaluation.metrics import METRICS
from finetune.reporting.tables import (
    collect_environment_facts,
    describe_recorded_protocol,
    draw_curves,
    make_score_table,
    read_metrics,
)
from tests.reporting.macros import render_macro


def test_the_best_of_each_metric_is_bold() -> None:
    table = make_score_table({"base": dict.fromkeys(METRICS, 0.5), "finetuned": dict.fromkeys(METRICS, 0.25)})
    found = render_macro("parts.html", "show_table", table)
    base, finetuned = found.split("<tr>")[2:]
    assert finetuned.count("<b>0.2500</b>") == 6
    assert base.count("<b>0.5000</b>") == 3  # of the deltas more is better
    assert found.count("↑") == 3 and found.count("↓") == 6


def test_every_setting_of_a_protocol_is_told() -> None:
    settings = {"name": "a<b", "max_depth_m": 80.0, "flip": True, "crop": "garg"}
    counts = {"images_used": 652, "images_skipped": 45, "pixels_used": 1234567}
    said = render_macro(
        "parts.html",
        "show_protocol",
        describe_recorded_protocol({"protocol": settings, **counts}),  # type: ignore[typeddict-item]
    )
    for part in ("a&lt;b", "</code> 80 ", "</code> yes ", "</code> garg ", "</code> 652 ", "</code> 45 ", "1,234,567"):
        assert part in said


def test_empty_cells_are_not_numbers(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == {}
    path.write_text("step,loss,val_rmse\n0,,0.5\n10,0.25,\n20,0.125")
    found = read_metrics(path)
    assert found["step"] == [0.0, 10.0, 20.0]
    assert math.isnan(found["loss"][0]) and found["loss"][1:] == [0.25, 0.125]
    assert found["val_rmse"][0] == 0.5 and all(map(math.isnan, found["val_rmse"][1:]))


@pytest.mark.parametrize("runs", [1, 2])
def test_columns_that_there_are_become_charts(runs: int) -> None:
    columns = {"step": [0.0, 1.0], "loss": [1.0, 0.5], "loss_l1": [0.5, 0.25], "val_abs_rel": [0.3, 0.2]}
    charts = draw_curves({str(run): columns for run in range(runs)}, {"base_fitted_scale": {"abs_rel": 0.25}})
    drawn = render_macro("charts.html", "show_charts", charts)
    # One run: the loss and its term, the metric and the dashed base. Several: one curve each and the base.
    assert drawn.count("<polyline") == (4 if runs == 1 else 5)
    assert drawn.count("<figure") == 2


def test_an_environment_without_anything_is_no_fault() -> None:
    assert not any(collect_environment_facts({}).values())

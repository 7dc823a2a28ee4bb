import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from finetune.data.checks.findings import Finding
from finetune.data.checks.summary import Checked, Summary
from finetune.reporting.check_report import draw_edges, format_check, format_verdict, render_check_page
from tests.browser import chromium, require_sound, require_valid
from tests.synthetic import tilted_plane

NOTHING = Summary(
    key="data.train.0",
    frames=2,
    looked_at=2,
    sizes={"4x6": 1, "8x6": 1},
    valid_share=0.0,
    percentiles_m={},
    bin_edges_m=[],
    counts=[],
)


MEASURED = {"1": 1.0, "50": 2.0, "95": 4.0, "99.5": 8.0, "100": 8.0}


def test_the_verdict_counts() -> None:
    def found(*severities: str) -> Checked:
        findings = [Finding(severity=severity, name="unit", key="", evidence="") for severity in severities]  # type: ignore[arg-type]
        return Checked(recipe="x.yaml", findings=findings)

    assert format_verdict(found("note")) == "x.yaml: no problems found"
    assert format_verdict(found("warn", "note")) == "x.yaml: no problems found, 1 warning to look at"
    stopped = format_verdict(found("stop", "stop", "warn"))
    assert stopped == "x.yaml: 2 problems to fix before a run, 1 warning to look at"


def test_an_entry_without_measurement_has_its_row() -> None:
    checked = Checked(recipe="x.yaml", summaries=[NOTHING])
    row = "data.train.0       2          2        4x6, 8x6         -     0%    -       -     -       -        -"
    assert row in format_check(checked)
    assert "No pixel has a measured depth." in render_check_page(checked)


def test_focal_lengths_are_one_number_or_their_ends() -> None:
    for focal_px, shown in (((150.9, 151.2, 151.4), "151"), ((150.9, 170.0, 210.0), "151-210")):
        checked = Checked(recipe="x.yaml", summaries=[replace(NOTHING, focal_px=focal_px)])
        assert f"4x6, 8x6  {shown:>8}     0%" in format_check(checked)


def test_depth_of_a_wrong_unit_has_labels_that_do_not_overlap() -> None:
    edges = [541.0, 999.6, 1345.6, 12345.0]
    page = render_check_page(
        Checked(recipe="x.yaml", summaries=[replace(NOTHING, bin_edges_m=edges, counts=[1, 2, 1])])
    )
    assert re.findall(r'text-anchor="middle">([^<]*)</text>', page) == ["541", "1000", "1346", "meters, from"]


def test_without_notes_on_the_checkpoint_there_is_no_section_for_them() -> None:
    assert "Checkpoint" not in render_check_page(Checked(recipe="x.yaml"))
    assert "<h2>Checkpoint</h2>" in render_check_page(Checked(recipe="x.yaml", notes=["native"]))


def test_what_a_page_says_is_escaped() -> None:
    finding = Finding(severity="stop", name="files", key="data.train.0", evidence="<script>a&b", fix="write <it>")
    page = render_check_page(Checked(recipe="<x>.yaml", findings=[finding]))
    assert "<script>" not in page and "&lt;script&gt;a&amp;b" in page
    assert "<x>" not in page


def test_a_browser_likes_the_page(tmp_path: Path) -> None:
    measured = replace(NOTHING, bin_edges_m=[1.0, 2.0, 4.0, 8.0], counts=[1, 2, 1], percentiles_m=MEASURED)
    page = render_check_page(Checked(recipe="x.yaml", summaries=[measured], worst={measured.key: [tilted_plane()]}))
    require_valid(page)
    assert "at 1, 2, 4: measured 25, 50, 25" in page
    (tmp_path / "check.html").write_text(page, encoding="utf-8")
    with chromium() as browser:
        require_sound(browser, tmp_path / "check.html")


def test_edges_are_red_over_the_grayed_image() -> None:
    sample = tilted_plane(height=240, width=320)
    sample.depth_m[:, 160:] = 9.0
    picture = draw_edges(sample)
    assert picture.shape == (360, 480, 3)
    red = (picture == np.array([230, 40, 30])).all(axis=2)
    assert 236 <= np.flatnonzero(red.any(axis=0)).min() <= np.flatnonzero(red.any(axis=0)).max() <= 244
    gray = picture[~red]
    assert (gray[:, 0] == gray[:, 1]).all()

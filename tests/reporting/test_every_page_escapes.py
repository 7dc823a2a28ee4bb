"""Names that look like HTML are shown as text on every kind of page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetune.data.checks.findings import Finding
from finetune.data.checks.summary import Checked, Summary
from finetune.evaluation.results import EntryEvaluation
from finetune.reporting.check_report import render_check_page
from finetune.reporting.compare_report import read_runs, render_comparison
from finetune.reporting.frames import ShownFrame
from finetune.reporting.run_report import render_report_page
from finetune.reporting.verdicts import Verdict
from tests.browser import require_valid
from tests.reporting.test_compare_report import written
from tests.reporting.test_run_report import METRICS, Planes, content
from tests.synthetic import tilted_plane

RECIPE_NAME = "<script>alert(1)</script>"
FILE_NAME = "a&b \"><img src=x onerror='alert(1)'>.png"


class Elements(HTMLParser):
    """The elements of a page, their attributes, and its text as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


class SlyPlanes(Planes):
    """Frames whose files have a sly name."""

    def __getitem__(self, number: int) -> ShownFrame:
        return replace(super().__getitem__(number), source=FILE_NAME)


def make_run_page(tmp_path: Path, rows: tuple[str, ...]) -> str:
    frames = SlyPlanes(rows)
    plain = content(frames, images=3)
    row = {"finetuned": dict.fromkeys(METRICS, 0.5)}
    entry = EntryEvaluation(rows=row, images_used=1, images_skipped=0, pixels_used=9)
    return render_report_page(
        replace(
            plain,
            title=f"Run {RECIPE_NAME}",
            model=FILE_NAME,
            recipe=f"name: {RECIPE_NAME}\n",
            recipe_file=FILE_NAME,
            evaluations=[replace(plain.evaluations[0], entries={FILE_NAME: entry})],
            monitors=[FILE_NAME],
            found=[Verdict(found=FILE_NAME, try_next=RECIPE_NAME)],
            environment={"device": RECIPE_NAME, "command": ["train", FILE_NAME]},
            metrics={"step": [0.0, 1.0], "loss": [1.0, 0.5], f"loss_{RECIPE_NAME}": [1.0, 0.5]},
            files={RECIPE_NAME: FILE_NAME},
            model_options={"kind": RECIPE_NAME},
            overrides=[f"name={RECIPE_NAME}"],
        )
    )


def make_check_page(tmp_path: Path) -> str:
    sample = replace(tilted_plane(), source=FILE_NAME)
    summary = Summary(
        key=RECIPE_NAME,
        frames=1,
        looked_at=1,
        sizes={FILE_NAME: 1},
        valid_share=1.0,
        percentiles_m=dict.fromkeys(("1", "50", "95", "99.5", "100"), 1.0),
        bin_edges_m=[1.0, 2.0],
        counts=[1],
    )
    finding = Finding(severity="warn", name="unit", key=FILE_NAME, evidence=RECIPE_NAME, fix=FILE_NAME)
    checked = Checked(recipe=FILE_NAME, findings=[finding], summaries=[summary], notes=[RECIPE_NAME])
    return render_check_page(replace(checked, worst={summary.key: [sample]}))


def make_comparison(tmp_path: Path) -> str:
    # A folder's name cannot hold the slash of a closing tag.
    paths = [written(tmp_path / FILE_NAME, 0.75), written(tmp_path / "b", 0.125)]
    (paths[0] / "recipe.yaml").write_text(f"name: {RECIPE_NAME}\n")
    evaluations = json.loads((paths[0] / "evaluation.json").read_text())
    evaluations[0]["alarms"] = [RECIPE_NAME]
    evaluations[0]["rows"][RECIPE_NAME] = evaluations[0]["rows"]["finetuned"]
    evaluations[0]["protocol"] |= {"name": RECIPE_NAME, RECIPE_NAME: FILE_NAME}
    (paths[0] / "evaluation.json").write_text(json.dumps(evaluations))
    (paths[0] / "environment.json").write_text(json.dumps({"device": RECIPE_NAME, "platform": FILE_NAME}))
    return render_comparison(read_runs(paths))


@pytest.mark.parametrize(
    ("make_page", "scripts"),
    [
        pytest.param(lambda path: make_run_page(path, ("base_fitted_scale", "finetuned")), 1, id="run"),
        pytest.param(lambda path: make_run_page(path, ("finetuned",)), 1, id="evaluation"),
        pytest.param(make_check_page, 0, id="check"),
        pytest.param(make_comparison, 0, id="compare"),
    ],
)
def test_sly_names_are_text(tmp_path: Path, make_page: Callable[[Path], str], scripts: int) -> None:
    page = make_page(tmp_path)
    require_valid(page)
    elements = Elements(page)
    assert sum(tag == "script" for tag, _ in elements.found) == scripts
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in elements.found if tag == "img")
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert RECIPE_NAME in elements.text and FILE_NAME in elements.text
    # No value is escaped twice either.
    assert not re.search(r"&(lt|gt|amp|quot|#\d+);", elements.text)

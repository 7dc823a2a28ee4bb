"""The page of a run: what is on it, how large it is, and how it behaves in a browser."""

import base64
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from finetune.commands import train
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import EntryEvaluation, Evaluation, ScoredImage
from finetune.reporting.frames import ShownFrame, ShownFrames
from finetune.reporting.gallery import choose_color_end
from finetune.reporting.images import ERROR_COLORS, colorize
from finetune.reporting.run_report import PageContent, render_report_page
from finetune.training import run_training
from tests.browser import chromium, opened, require_sound, require_valid
from tests.synthetic import tilted_plane

PROTOCOL = Protocol(name="plain", min_depth_m=0.001, max_depth_m=10.0)
ROWS = ("constant_median", "base_fitted_scale", "finetuned")
METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")


class Planes:
    """Frames of a plane: the base is twice as far as it is, the fine-tuned model a tenth."""

    def __init__(
        self, rows: Sequence[str] = ROWS[1:], *, size: tuple[int, int] = (48, 64), noise: bool = False
    ) -> None:
        self.rows = dict.fromkeys(rows)
        self.protocol = PROTOCOL
        self.asked: list[int] = []
        self._size = size
        self._noise = noise

    def __getitem__(self, number: int) -> ShownFrame:
        self.asked.append(number)
        height, width = self._size
        sample = tilted_plane(height, width, near_m=1.0, far_m=4.0)
        factors = dict(zip(self.rows, (2.0, 1.1), strict=False))
        predictions: dict[str, Any] = {row: sample.depth_m * factor for row, factor in factors.items()}
        usable = sample.valid.copy()
        usable[:4] = False
        image = sample.image
        if self._noise:
            generator = np.random.default_rng(number)
            image = generator.integers(0, 256, image.shape, dtype=np.uint8)
            predictions = {row: generator.uniform(0.1, 4.0, self._size) for row in self.rows}
        return ShownFrame(
            source=f"depth/<{number}>.png",
            image=image,
            target_m=sample.depth_m if not self._noise else predictions[next(iter(self.rows))],
            measured=usable,
            usable=usable,
            predictions=predictions,
        )


def one_bin(from_m: float, to_m: float, error: float | None) -> dict[str, float | None]:
    pixels = 0 if error is None else 1234
    return {"from_m": from_m, "to_m": to_m, "pixels": pixels, "abs_rel": error, "mean_error_m": error and 3 * error}


def content(frames: Planes, images: int = 20, **changed: Any) -> PageContent:
    rows = [row for row in ROWS if row == "constant_median" or row in frames.rows]
    table = {row: dict.fromkeys(METRICS, 0.5 / (place + 1)) for place, row in enumerate(rows)}
    evaluation = Evaluation(
        protocol=PROTOCOL,
        rows=table,
        images_used=images,
        images_skipped=1,
        pixels_used=2816 * images,
        errors_mm={row: {"mean": 123.4, "median": 56.7, "p90": 345.6} for row in rows},
        bins={row: [one_bin(1.0, 2.0, 0.5 / (place + 1)), one_bin(2.0, 3.0, None)] for place, row in enumerate(rows)},
        # Frame 3 k scores k / 100, so that the worst of 20 are 57, 54 and so on, and the best 0, 3 and so on.
        images=[
            ScoredImage(3 * k, 2816, {row: dict.fromkeys(METRICS, k / 100) for row in rows}, {}, {}, {})
            for k in range(images)
        ],
    )
    steps = [float(step) for step in range(0, 50, 10)]
    return replace(
        PageContent(
            title="Run <x>",
            model="runs/room & co",
            recipe="name: <x>\n",
            recipe_file="runs/room & co/recipe.yaml",
            metric="abs_rel",
            kind="metric",
            evaluations=[evaluation],
            frames=cast(ShownFrames, frames),
            metrics={"step": steps, "loss": [0.5, 0.4, 0.3, 0.25, 0.2], "val_abs_rel": [0.4, 0.3, 0.2, 0.2, 0.1]},
        ),
        **changed,
    )


def numbers_below(page: str) -> dict[str, list[int]]:
    """Heading -> numbers of the frames below it."""
    parts = re.split(r"<h3>(Worst|Best|Evenly picked)</h3>", page)[1:]
    return {
        title: [int(number) for number in re.findall(r">image (\d+): depth/", part)]
        for title, part in zip(parts[::2], parts[1::2], strict=True)
    }


def test_six_of_each_kind_and_each_frame_is_asked_for_once() -> None:
    frames = Planes()
    page = render_report_page(content(frames, images=40))
    assert numbers_below(page) == {
        "Worst": [117, 114, 111, 108, 105, 102],
        "Best": [0, 3, 6, 9, 12, 15],
        "Evenly picked": [18, 33, 51, 66, 84, 99],
    }
    assert sorted(set(frames.asked)) == sorted(frames.asked)
    assert "depth, share of pixels of 24 evenly picked images" in page


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, {"Worst": [0]}),
        (2, {"Worst": [3], "Best": [0]}),
        (5, {"Worst": [12, 9], "Best": [0, 3], "Evenly picked": [6]}),
        (8, {"Worst": [21, 18, 15], "Best": [0, 3, 6], "Evenly picked": [9, 12]}),
    ],
)
def test_of_few_images_each_is_there_once(images: int, expected: dict[str, list[int]]) -> None:
    page = render_report_page(content(Planes(), images=images))
    require_valid(page)
    assert numbers_below(page) == expected


def test_where_more_is_better_the_worst_have_the_least() -> None:
    found = numbers_below(render_report_page(content(Planes(), metric="delta1")))
    assert found["Worst"] == [0, 3, 6, 9, 12, 15]
    assert found["Best"] == [57, 54, 51, 48, 45, 42]


def test_everything_is_on_it_and_escaped() -> None:
    environment = {
        "device": "NVIDIA H100",
        "git_commit": "0123456789abcdef",
        "git_changed": True,
        "python": "3.11.7",
        "packages": {"torch": "2.8.0", "peft": "0.15"},
        "command": ["train", "x.yaml"],
    }
    page = render_report_page(
        content(
            Planes(),
            monitors=["warning at step 9, overfitting: a < b."],
            environment=environment,
            files={"export, official": "runs/room & co/export/room.pth"},
        )
    )
    require_valid(page)
    assert "<x>" not in page and "name: &lt;x&gt;" in page
    for said in (
        "warning at step 9, overfitting: a &lt; b.",
        "NVIDIA H100",
        "0123456789ab with changes",
        "python 3.11.7, torch 2.8.0",
        "runs/room &amp; co/export/room.pth",
        "<code>max_depth_m</code> 10",
        "<code>images_skipped</code> 1",
        "finetune predict &#39;runs/room &amp; co&#39; PHOTOS --output predicted",
        "finetune evaluate &#39;runs/room &amp; co&#39; --recipe &#39;runs/room &amp; co/recipe.yaml&#39;",
        "load_model(&#39;runs/room &amp; co&#39;)",
        "validation AbsRel ↓",
        "RMSE, m ↓",
    ):
        assert said in page, said
    assert page.count('<div class="number">0.1667</div>') == 3
    # No such folder exists, so the name is taken for that of a file.
    assert "--output &#39;room &amp; co.onnx&#39;" in page
    assert "depth in meters of your own images" in page
    # A bin without a pixel is left out; the constant is in the table alone.
    (cells,) = re.findall(r'<th scope="row">1–2</th>(.*?)</tr>', page)
    assert re.findall(r"<td>(.*?)</td>", cells) == ["1,234", "0.2500", "0.7500", "0.1667", "0.5000"]
    assert "2–3" not in page
    assert page.count("<td>123.4</td><td>56.7</td><td>345.6</td>") == 3


@pytest.mark.parametrize(("monitors", "said"), [(None, False), ([], True)])
def test_that_there_was_no_warning_is_said_of_a_run_alone(monitors: list[str] | None, said: bool) -> None:
    page = render_report_page(content(Planes(), images=2, monitors=monitors))
    assert ("No warning was active at the end of the run." in page) == said


def test_tables_of_several_protocols_have_their_names_above() -> None:
    one = content(Planes(), images=2)
    page = render_report_page(replace(one, evaluations=[*one.evaluations, *one.evaluations]))
    require_valid(page)
    assert page.count("<h3>plain</h3>") == 2
    assert "<h3>plain</h3>" not in render_report_page(one)


def test_each_entry_has_its_table_and_one_without_pixels_says_so() -> None:
    one = content(Planes(), images=2)
    rows = {"finetuned": dict.fromkeys(METRICS, 0.4321)}
    entries = {
        "data.val.0": EntryEvaluation(rows=rows, images_used=7, images_skipped=0, pixels_used=99),
        "data.val.1": EntryEvaluation(rows={}, images_used=0, images_skipped=3, pixels_used=0),
    }
    page = render_report_page(replace(one, evaluations=[replace(one.evaluations[0], entries=entries)]))
    require_valid(page)
    first, second = re.findall(r"<h3><code>data\.val\.\d</code>, (\d) images</h3>(.*?)(?=<h3>|</section>)", page, re.S)
    assert (first[0], second[0]) == ("7", "0")
    assert "0.4321" in first[1] and "No image has a pixel that counts." not in first[1]
    assert "No image has a pixel that counts." in second[1]


def test_a_relative_model_is_told_to_answer_inverse_depth() -> None:
    page = render_report_page(content(Planes(), images=2, kind="relative"))
    assert "inverse depth of your own images" in page and "depth in meters of" not in page


def test_the_fine_tuned_row_has_the_first_color_and_errors_have_colors_of_their_own() -> None:
    page = render_report_page(content(Planes(), images=2))
    chart = page.partition("mean |error|, meters, by measured distance")[2].partition("</figure>")[0]
    assert re.findall(r"--key: var\(--c(\d)\)\"></span>([^<]+)</li>", chart) == [
        ("1", "base_fitted_scale"),
        ("0", "finetuned"),
    ]
    shares = np.linspace(0.0, 1.0, 256)[None]
    for name, expected in (
        ("depth, meters", colorize(shares, 0.0, 1.0)),
        ("|error|, meters", colorize(shares, 0.0, 1.0, colors=ERROR_COLORS)),
    ):
        (packed,) = re.findall(rf'<img src="data:[^,"]*,([^"]+)"[^>]*alt="color bar of {re.escape(name)}, ', page)
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(packed), np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        pixels = pixels[..., ::-1]
        assert np.abs(pixels[:1].astype(float) - expected).mean() < 3.0  # of 255, for what packing loses


def test_predictions_of_another_system_have_no_weights_to_use() -> None:
    page = render_report_page(content(Planes(), model=None, images=2))
    require_valid(page)
    assert "Use the weights" not in page and "load_model" not in page
    assert numbers_below(page)["Worst"] == [3]


def test_what_a_file_could_not_say_stands_in_the_commands() -> None:
    page = render_report_page(
        content(Planes(), model_options={"kind": "metric", "max_depth_m": 80.0}, overrides=["data.workers=0"])
    )
    assert "PHOTOS --kind metric --max-depth 80.0 --output predicted" in page
    assert "recipe.yaml&#39; data.workers=0" in page
    assert "load_model(&#39;runs/room &amp; co&#39;, kind=&#39;metric&#39;, max_depth_m=80.0)" in page


def test_without_a_base_there_is_nothing_to_switch() -> None:
    page = render_report_page(content(Planes(["finetuned"])))
    require_valid(page)
    assert 'type="radio"' not in page
    assert numbers_below(page)["Worst"]


def test_without_metrics_there_are_no_curves() -> None:
    page = render_report_page(content(Planes(), images=2, metrics={}))
    require_valid(page)
    assert "Curves" not in page and "training loss" not in page


def test_wide_frames_have_two_columns_of_larger_pictures() -> None:
    wide, other = (render_report_page(content(Planes(size=size), images=2)) for size in ((300, 1000), (600, 1000)))
    assert 'class="cells two"' in wide and 'class="cells two"' not in other
    widths = [set(re.findall(r'<img [^>]*width="(\d+)"', page)) for page in (wide, other)]
    assert "660" in widths[0] and "440" not in widths[0]
    assert "440" in widths[1] and "660" not in widths[1]


def test_it_stays_below_8_mb_with_pictures_that_do_not_compress() -> None:
    long = [float(step) for step in range(20_000)]
    noisy = content(
        Planes(size=(450, 600), noise=True), images=6, metrics={"step": long, "loss": long, "val_rmse": long}
    )
    page = render_report_page(noisy)
    assert page.count("<img ") == 6 * 6 + 2
    assert 4_000_000 < len(page.encode()) < 8_000_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report_page(content(Planes(size=(120, 160)), images=8)), encoding="utf-8")
    return path


def test_a_browser_has_nothing_to_complain_of(written: Path) -> None:
    with chromium() as browser:
        require_sound(browser, written)


def shown(frame: Any) -> list[str]:
    """Captions of the pictures of a frame that can be seen."""
    return [caption.inner_text() for caption in frame.locator("figcaption").all() if caption.is_visible()]


BASE = ["image", "measured", "predicted, base_fitted_scale", "error, base_fitted_scale"]
FINETUNED = ["image", "measured", "predicted, finetuned", "error, finetuned"]


def test_the_switch_works_by_keys_and_by_mouse_for_one_frame_and_for_all(written: Path) -> None:
    with chromium() as browser, opened(browser, written, width=390) as (page, faults):
        first, second = page.locator(".frame").nth(0), page.locator(".frame").nth(1)
        assert shown(first) == shown(second) == FINETUNED
        before = first.screenshot()
        first.locator("input:checked").focus()
        page.keyboard.press("ArrowLeft")
        assert (shown(first), shown(second)) == (BASE, FINETUNED)
        assert first.screenshot() != before
        first.get_by_text("finetuned").first.click()
        assert shown(first) == FINETUNED
        page.locator("#all").get_by_text("base_fitted_scale").click()
        assert shown(first) == shown(second) == BASE
        page.locator("#all input:checked").focus()
        page.keyboard.press("ArrowRight")
        assert shown(first) == shown(second) == FINETUNED
        assert not faults


def test_a_run_ends_with_its_page(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main([str(recipe), "run.steps=2"]) == 0
    run = tmp_path / "runs" / "small"
    assert f"next: open {run / 'report.html'}; " in capsys.readouterr().out
    page = (run / "report.html").read_text(encoding="utf-8")
    require_valid(page)
    rows: Mapping[str, Mapping[str, float]] = json.loads((run / "evaluation.json").read_text())[0]["rows"]
    assert all(f"{scores['abs_rel']:.4f}" in page for scores in rows.values())
    assert str(run / "export" / "small.pth") in page
    assert f"--output {run / 'export' / 'small.onnx'}" in page
    assert "training loss" in page
    assert f"python {platform.python_version()}, " in page
    assert page.count('<article class="frame">') == 3  # of three validation images, each once


@pytest.mark.slow
def test_a_page_that_cannot_be_made_loses_nothing_of_a_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: PageContent) -> str:
        raise ZeroDivisionError("a frame of no width")

    monkeypatch.setattr(run_training, "render_report_page", broken)
    assert train.main([str(recipe), "run.steps=2"]) == 0
    run = tmp_path / "runs" / "small"
    said = capsys.readouterr().out
    assert f"{run / 'report.html'} is not written (a frame of no width); all else is." in said
    assert f"finetune evaluate {run} --recipe {run / 'recipe.yaml'} --html FILE makes it again." in said
    assert (run / "export" / "small.pth").exists()
    assert not (run / "report.html").exists()


def test_the_ends_of_the_colors_are_round() -> None:
    def end(*values: float, share: float = 100.0) -> float:
        return choose_color_end([np.array(values, dtype=np.float32)], share, 10.0)

    assert [end(0.23), end(4.2), end(5.0), end(9.0), end(12.0), end(0.0)] == pytest.approx([0.3, 5, 5, 10, 10, 1e-6])

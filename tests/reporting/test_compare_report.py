"""Several runs on one page: only rows of the same protocol and images share a table; differences are listed."""

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.commands import compare
from finetune.reporting.compare_report import format_comparison, read_runs, render_comparison
from finetune.utils.errors import FinetuneError
from tests.browser import chromium, require_sound, require_valid

METRICS = ("abs_rel", "sq_rel", "rmse", "rmse_log", "log10", "silog", "delta1", "delta2", "delta3")


def written(
    folder: Path,
    value: float,
    *,
    lr: float = 1e-5,
    images: int = 3,
    steps: int = 3,
    frames: str = "ab",
    **protocol: Any,
) -> Path:
    """A run folder whose weights have ``value`` in every metric, on validation frames of a digest."""
    folder.mkdir(parents=True)
    settings = {"name": "plain", "min_depth_m": 0.001, "max_depth_m": 10.0, "flip": False} | protocol
    values = {"constant_median": 0.9, "base_fitted_scale": 0.8, "finetuned": value}
    evaluation = {
        "protocol": settings,
        "rows": {row: dict.fromkeys(METRICS, score) for row, score in values.items()},
        "images_used": images,
        "images_skipped": 0,
        "pixels_used": 1000 * images,
        "alarms": ["warning at step 2, <overfitting>."] if value > 0.5 else [],
    }
    (folder / "evaluation.json").write_text(json.dumps([evaluation]))
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"name": folder.name, "optim": {"lr": lr}, "loss": [{"kind": "l1", "weight": lr}]})
    )
    data = {"data.val.0": {"count": images, "sha256": frames}}
    record = {"device": "cpu (X)", "git_commit": "12" * 20, "frames": data}
    (folder / "environment.json").write_text(json.dumps(record))
    lines = [f"{step},{1 / (step + 1)},{lr},{value if step % 2 == 0 else ''}" for step in range(steps)]
    (folder / "metrics.csv").write_text("\n".join(["step,loss,lr_decoder,val_abs_rel", *lines]) + "\n")
    return folder


def bold(page: str) -> list[str]:
    """Numbers in bold in the tables before the curves."""
    return re.findall(r"<td><b>([\d.]+)</b>", page.partition('id="curves"')[0])


def test_side_by_side_the_best_is_bold_and_the_baselines_stand_once(tmp_path: Path) -> None:
    runs = read_runs([written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)])
    page = render_comparison(runs)
    require_valid(page)
    # Lower is better in six of nine, higher in the three deltas.
    assert bold(page) == [*["0.2500"] * 3, *["0.1250"] * 6]
    side_by_side = page.partition('id="curves"')[0]
    assert side_by_side.count("<code>constant_median</code></th>") == 1
    assert "so their numbers cannot be compared" not in page
    assert format_comparison(runs).splitlines()[1:] == [
        "protocol plain, 3 images",
        "a" + 9 * "    0.2500",
        "b" + 9 * "    0.1250",
    ]


@pytest.mark.parametrize("changed", [{"flip": True}, {"max_depth_m": 20.0}, {"images": 4}, {"frames": "cd"}])
def test_what_was_measured_otherwise_stands_apart(tmp_path: Path, changed: dict[str, Any]) -> None:
    runs = read_runs([written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125, **changed)])
    page = render_comparison(runs)
    assert page.partition('id="curves"')[0].count("<h3>protocol plain") == 2
    assert "so their numbers cannot be compared" in page


def test_a_run_of_an_older_version_is_compared_by_what_its_record_has(tmp_path: Path) -> None:
    paths = [written(tmp_path / "old", 0.25), written(tmp_path / "new", 0.125), written(tmp_path / "moved", 0.5)]
    for path, listed in zip(paths[1:], ("ab", "ef"), strict=True):
        record = json.loads((path / "environment.json").read_text())
        record["frames"]["data.val.0"] |= {"sha256": listed, "content_sha256": "cd"}
        (path / "environment.json").write_text(json.dumps(record))
    for together in (paths[:2], paths[1:]):  # the same list; the same frames at another place
        assert format_comparison(read_runs(together)).count("protocol plain") == 1
        assert "so their numbers cannot be compared" not in render_comparison(read_runs(together))


def test_of_an_aligned_table_the_row_of_the_weights_counts(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)]
    for path in paths:
        (table,) = json.loads((path / "evaluation.json").read_text())
        table["rows"]["finetuned_unaligned"] = dict.fromkeys(METRICS, 0.75)
        (path / "evaluation.json").write_text(json.dumps([table]))
    assert format_comparison(read_runs(paths)).splitlines()[2:] == ["a" + 9 * "    0.2500", "b" + 9 * "    0.1250"]


def test_what_differs_in_the_recipes_is_named(tmp_path: Path) -> None:
    runs = read_runs([written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.75, lr=2e-5)])
    page = render_comparison(runs)
    require_valid(page)
    differs = page.partition('id="what-differs"')[2].partition("</section>")[0]
    assert re.findall(r"<code>([^<]*)</code></th><td>([^<]*)</td><td>([^<]*)</td>", differs) == [
        ("loss.0.weight", "1e-05", "2e-05"),
        ("name", "a", "b"),
        ("optim.lr", "1e-05", "2e-05"),
    ]
    assert "The environments are the same." in differs
    assert "&lt;overfitting&gt;" in page and "<overfitting>" not in page


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [written(tmp_path / parent / "room", 0.25) for parent in ("x", "y")]
    assert [run.name for run in read_runs(paths)] == ["x/room", "y/room"]


def test_more_runs_than_colors_have_curves(tmp_path: Path) -> None:
    page = render_comparison(read_runs([written(tmp_path / str(number), 0.1 + number / 100) for number in range(11)]))
    require_valid(page)
    assert page.count("<polyline") == 3 * 11  # loss, abs_rel and rate


@pytest.mark.parametrize("file", ["recipe.yaml", "evaluation.json"])
def test_what_is_no_ended_run_is_one_sentence(tmp_path: Path, file: str) -> None:
    paths = [written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)]
    (paths[1] / file).unlink()
    with pytest.raises(FinetuneError, match=f"b .*{file}"):
        read_runs(paths)


@pytest.mark.parametrize("file", ["recipe.yaml", "evaluation.json", "environment.json"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, file: str) -> None:
    paths = [written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)]
    (paths[1] / file).write_bytes(b"{\xff")
    with pytest.raises(FinetuneError, match=f"{file} cannot be read"):
        read_runs(paths)


def test_a_run_named_twice_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "a", 0.25)
    assert compare.main([str(run), str(run / ".." / "a"), "--html", str(tmp_path / "x.html")]) == 2
    assert "is named twice" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


def test_one_run_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        compare.main([str(written(tmp_path / "a", 0.25))])
    assert stopped.value.code == 2


@pytest.mark.slow
def test_the_command_writes_a_page_that_a_browser_likes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "a_run_with_a_name_as_long_as_some_people_make_them_lr_5e-6_batch_16"
    names = [long, long + "_again", "c"]
    runs = [str(written(tmp_path / name, 0.1 + place / 10)) for place, name in enumerate(names)]
    page = tmp_path / "new" / "page.html"
    assert compare.main([*runs, "--html", str(page)]) == 0
    assert f"{page} is written" in capsys.readouterr().out
    with chromium() as browser:
        require_sound(browser, page)


# Values that an edit, a full disk or another program leaves in a file of a run folder.
STRANGE: tuple[Any, ...] = (None, [], {}, "x", 7, -1.5, True, [[]], {"a": None}, "9" * 400, 10**400)


def places_of(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in plain values, the empty path to the whole first."""
    found = [place]
    if isinstance(content, dict | list):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            found += places_of(value, (*place, key))
    return found


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a path."""
    if not place:
        return value
    copied = copy.deepcopy(content)
    part = copied
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return copied


@pytest.mark.parametrize("name", ["evaluation.json", "environment.json", "recipe.yaml"])
def test_a_tampered_file_is_a_page_or_one_sentence(tmp_path: Path, name: str) -> None:
    runs = [written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)]
    path = runs[1] / name
    content = yaml.safe_load(path.read_text())
    dump = yaml.safe_dump if name.endswith("yaml") else json.dumps
    every = [(place, value) for place in places_of(content) for value in STRANGE]
    generator = random.Random(0)
    refused = 0
    for place, value in generator.sample(every, min(len(every), 50)):
        path.write_text(dump(changed(content, place, value)))
        try:
            found = read_runs(runs)
            render_comparison(found)
            format_comparison(found)
        except FinetuneError as error:
            refused += 1
            assert str(path) in str(error) and "Leave its run out." in str(error)
    assert refused > 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metrics.csv", "step,loss\n1,2,3\n"),
        ("metrics.csv", "loss,lr\n1,2\n"),
        ("metrics.csv", "step,step\n1,2\n"),
        ("metrics.csv", "step,loss\n0," + 200_000 * "1" + "\n"),
        ("evaluation.json", "[" * 100_000),
        ("evaluation.json", "[]"),
        ("evaluation.json", "9" * 5_000),
        ("environment.json", '{"frames": {"data.val.0": 3}}'),
        ("recipe.yaml", "[" * 1_000),
        ("recipe.yaml", "- a\n"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path: Path, name: str, text: str) -> None:
    runs = [written(tmp_path / "a", 0.25), written(tmp_path / "b", 0.125)]
    (runs[1] / name).write_text(text)
    with pytest.raises(
        FinetuneError, match=rf"b/{name} (has content that no run writes|cannot be read) \(.*Leave its run out"
    ):
        read_runs(runs)


def test_metrics_that_are_no_text_or_odd_numbers(tmp_path: Path) -> None:
    run = written(tmp_path / "a", 0.25)
    (run / "metrics.csv").write_bytes(b"step,loss\n\xff\xfe,1\n")
    with pytest.raises(FinetuneError, match=r"metrics\.csv cannot be read"):
        read_runs([run])
    (run / "metrics.csv").write_text("step,loss,val_abs_rel\n0,x,1e300\n1,,-1e300\n,inf,nan\n2,3\n")
    require_valid(render_comparison(read_runs([run])))

"""What a run says it kept of its base, and what is refused before step 1."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from finetune.commands import evaluate
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.load import Checkpoint
from finetune.recipe.load import load_recipe
from finetune.training.retention import load_general_data, measure_kept_by, require_retention
from finetune.utils.errors import DataError, FinetuneError, ListError, RecipeFaults
from tests.conftest import CHECKPOINT, write_frame
from tests.runs import launch
from tests.synthetic import tilted_plane

PAIR = {"point1": [40, 30], "point2": [5, 30], "closer_point": "point1"}


def write_entry(folder: Path, name: str = "other") -> str:
    """Two frames of a floor that no run trains on, as an entry of a recipe."""
    (folder / name).mkdir()
    for number in range(2):
        write_frame(folder / name, f"{number}", tilted_plane(48, 64, near_m=1.0, far_m=4.0 + number).depth_m)
    (folder / name / "all.txt").write_text("0.jpg 0.png\n1.jpg 1.png\n")
    return f"{{reader: pairs, root: {folder / name}, list: all.txt, meters_per_unit: 0.001}}"


def write_annotations(folder: Path, image: str) -> Path:
    path = folder / "pairs.json"
    path.write_text(json.dumps({image: [PAIR]}))
    return path


@pytest.mark.slow
def test_a_run_says_what_it_kept(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = write_entry(tmp_path)
    annotations = write_annotations(tmp_path / "other", "1.jpg")
    asked = f"evaluation.retention={{drawn: 2, annotations: {annotations}, entries: [{entry}]}}"
    assert launch(recipe, asked, "export=[]", "run.evaluate_every_steps=6") == 0
    run = tmp_path / "runs" / "small"
    printed = capsys.readouterr().out
    assert "2 general frames drawn in " in printed
    lines = [line for line in printed.splitlines() if line.startswith("general ordering ")]
    assert [line.partition("finetuned, ")[2].partition(",")[0] for line in lines] == [
        "drawn rooms and ground",
        str(annotations),
        "evaluation.retention.entries",
    ]
    (table,) = json.loads((run / "evaluation.json").read_text())
    drawn, annotated, entries = table["retention"]
    warned = [sentence for sentence in table["alarms"] if sentence.startswith("warning, retention: ")]
    assert len(warned) == sum(found["lost_points"] > 2 for found in table["retention"])
    assert all(sentence in printed for sentence in warned)
    assert (drawn["base"]["ordering"]["images"], drawn["max_depth_m"]) == (2, 10.0)
    assert (annotated["finetuned"]["ordering"]["pairs"], annotated["finetuned"]["abs_rel"]) == (1, None)
    assert entries["base"]["abs_rel"] > 0 and entries["base"]["ordering"]["pairs"] == 80
    assert (
        "<h2>General data</h2>" in (run / "report.html").read_text()
        or "General data" in (run / "report.html").read_text()
    )
    # The weights of the run, evaluated later, give the same; and the base compared with itself loses nothing.
    call = [str(run), "--recipe", str(run / "recipe.yaml"), "--json", str(tmp_path / "later.json")]
    assert evaluate.main(call) == 0
    (later,) = json.loads((tmp_path / "later.json").read_text())
    assert later["retention"] == table["retention"]
    for itself in measure_kept_by(load_recipe(recipe, [asked]), load_model(CHECKPOINT)):
        assert itself.lost_points == 0
        assert itself.base.to_mapping() == itself.finetuned.to_mapping()


def test_nothing_is_said_where_nothing_is_asked(finished: Path) -> None:
    (table,) = json.loads((finished / "evaluation.json").read_text())
    assert "retention" not in table
    assert "General data" not in (finished / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("{entries: [TRAIN]}", r"share 10 frames, .*00\.png first.*what was trained on does not show"),
        ("{annotations: TRAINED}", r"share 1 frame, .*00\.jpg first"),
        ("{annotations: LOST}", r"lost\.jpg: no such file"),
        ("{annotations: BROKEN}", "is not JSON"),
        ("{entries: [FAR]}", r"evaluation\.retention\.entries: no two points between 0\.001 and 10 m differ"),
    ],
)
def test_what_the_end_could_not_measure_is_refused_before_step_1(
    options: str, found: str, recipe: Path, frames: Path, tmp_path: Path
) -> None:
    (tmp_path / "far").mkdir()
    write_frame(tmp_path / "far", "0", tilted_plane(48, 64, near_m=20.0, far_m=40.0).depth_m)
    (tmp_path / "far" / "all.txt").write_text("0.jpg 0.png\n")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "lost").mkdir()
    words = {
        "TRAINED": str(write_annotations(tmp_path, str(frames / "00.jpg"))),
        "TRAIN": f"{{reader: pairs, root: {frames}, list: train.txt, meters_per_unit: 0.001}}",
        "LOST": str(write_annotations(tmp_path / "lost", "lost.jpg")),
        "BROKEN": str(tmp_path / "broken.json"),
        "FAR": f"{{reader: pairs, root: {tmp_path / 'far'}, list: all.txt, meters_per_unit: 0.001}}",
    }
    for word, text in words.items():
        options = options.replace(f"[{word}]", f"[{text}]").replace(f" {word}}}", f" {text}}}")
    with pytest.raises((DataError, ListError), match=found):
        require_retention(load_recipe(recipe, [f"evaluation.retention={options}"]))


def test_an_encoder_alone_has_nothing_to_forget(recipe: Path) -> None:
    alone = cast(Checkpoint, SimpleNamespace(has_head=False, source="dinov2.pth"))
    with pytest.raises(
        FinetuneError, match=r"dinov2\.pth: is an encoder .*Remove evaluation\.retention \(command line"
    ):
        require_retention(load_recipe(recipe, ["evaluation.retention=default"]), alone)


def test_drawn_frames_that_a_recipe_trains_on_are_refused(recipe: Path) -> None:
    trains = "data.train=[{reader: scenes, seed: 1120154, count: 3}]"
    with pytest.raises(ListError, match=r"data\.train\.0 share 3 frames, scenes:seed=1120154#0 first"):
        require_retention(load_recipe(recipe, [trains, "evaluation.retention=default"]))


def test_short_words_and_wrong_values(recipe: Path, tmp_path: Path) -> None:
    assert load_recipe(recipe, ["evaluation.retention=default"]).evaluation.retention.drawn == 200
    assert not load_recipe(recipe, ["evaluation.retention=null"]).evaluation.retention.is_on
    assert not load_recipe(recipe).evaluation.retention.is_on
    wrong = {
        "evaluation.retention=defaults": "'defaults'; expected default, null, or a mapping with the keys drawn, annot",
        "evaluation.retention.drawn=201": "from 0 to 200",
        "evaluation.retention.annotations=none.json": "a JSON file in the layout of DA-2K's annotations.json",
        f"evaluation.retention.images={tmp_path}": "null, since it is the folder of annotations",
    }
    for override, expected in wrong.items():
        with pytest.raises(RecipeFaults, match=expected):
            load_recipe(recipe, [override])
    without = ["model.checkpoint=null", "model.encoder=tiny", "model.decoder_init=auto", "evaluation.retention=default"]
    with pytest.raises(RecipeFaults, match="random weights have nothing to forget"):
        load_recipe(recipe, without)


def test_a_cache_that_is_closed_ends_a_run_before_step_1(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FinetuneError, match="Set XDG_CACHE_HOME to a folder where this user may write"):
        load_general_data(load_recipe(recipe, ["evaluation.retention.drawn=1"]), None)

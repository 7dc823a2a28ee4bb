"""What a check looks at besides the faults of ``test_every_fault_of_data``."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from finetune.commands import train
from finetune.data.sample import DepthSample
from finetune.recipe.load import load_recipe
from finetune.training import recipe_check
from finetune.training.recipe_check import check_recipe, fitting_size
from finetune.utils import registry
from finetune.utils.errors import DataError
from tests.conftest import CHECKPOINT
from tests.synthetic import Skies


def test_a_sound_recipe_costs_one_look_and_writes_nothing(recipe: Path, tmp_path: Path) -> None:
    checked = check_recipe(load_recipe(recipe), str(recipe))
    assert not checked.stops
    assert [summary.key for summary in checked.summaries] == ["data.train.0", "data.val.0"]
    summary = checked.summaries[0]
    assert (summary.frames, summary.looked_at, summary.sizes) == (10, 10, {"48x64": 10})
    assert summary.valid_share == pytest.approx(1 - 15 / (48 * 64))
    assert list(summary.percentiles_m.values()) == sorted(summary.percentiles_m.values())
    assert len(summary.bin_edges_m) == len(summary.counts) + 1
    assert sum(summary.counts) == sum(summary.counts[:20]) + sum(summary.counts[20:]) > 10_000
    assert checked.step is not None
    assert checked.step["hours"] == pytest.approx(checked.step["seconds"] * 6 / 3600)
    assert checked.step["peak_bytes"] > 1e8
    assert any(note.startswith("loaded: the whole encoder, the decoder but its last layer") for note in checked.notes)
    assert any("license of the base: Apache-2.0" in note for note in checked.notes)
    assert not (tmp_path / "runs").exists()


def test_of_many_frames_a_spread_is_looked_at(recipe: Path) -> None:
    checked = check_recipe(load_recipe(recipe), str(recipe), samples=4, step=False)
    assert [summary.looked_at for summary in checked.summaries] == [4, 3]
    assert checked.step is None


@pytest.mark.parametrize("broken", [[9], [3, 9]])
def test_frames_that_cannot_be_read_are_counted_and_the_others_looked_at(
    recipe: Path, broken: list[int], tmp_path: Path
) -> None:
    folder = shutil.copytree(Path(str(load_recipe(recipe).data.train[0].source.root)), tmp_path / "copy")
    for number in broken:
        (folder / f"{number:02}.png").write_bytes(b"")
    checked = check_recipe(load_recipe(recipe, [f"data.train.0.root={folder}"]), str(recipe), step=False)
    first = checked.findings[0]
    assert (first.severity, first.name) == ("stop", "files")
    assert "is empty (0 bytes)" in first.evidence
    assert (", and 1 more of 10 looked at" in first.evidence) == (len(broken) > 1)
    assert checked.summaries[0].looked_at == 10 - len(broken)
    assert not checked.notes  # the checkpoint is looked at once the data are right


def test_a_checkpoint_that_cannot_start_the_model_is_a_finding(recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(CHECKPOINT.read_bytes()[:1000])
    checked = check_recipe(load_recipe(recipe, [f"model.checkpoint={broken}"]), str(recipe))
    assert checked.stops
    assert (checked.findings[0].name, checked.findings[0].key) == ("checkpoint", "model.checkpoint")
    assert "broken.safetensors" in checked.findings[0].evidence


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((480, 640), (252, 336)),
        ((375, 1242), (252, 840)),
        ((1344, 756), (448, 252)),
        ((64, 2048), (126, 4200)),  # a recipe takes 300 patches at most
        ((8, 2048), (56, 4200)),  # and 4 at least
    ],
)
def test_sizes_of_the_sensors_shape(size: tuple[int, int], fits: tuple[int, int]) -> None:
    assert fitting_size(*size, 252) == fits


def test_train_stops_on_the_same_findings_unless_they_are_accepted(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text('{"width": 64, "height": 48, "fx": 4.6, "fy": 4.6, "cx": 32, "cy": 24}')
    arguments = [str(recipe), f"data.train.0.intrinsics={camera}", "run.steps=2", "export=[]"]
    assert train.main(arguments) == 1
    said = capsys.readouterr().err
    assert "finetune stopped: data.train.0: " in said
    assert "a focal length of 4.6 px for images 64 px wide looks like millimeters" in said
    assert "If it is as it should be, set data.accept: [focal]" in said
    assert not (tmp_path / "runs").exists()
    assert train.main([*arguments, "data.accept=[focal]"]) == 0
    # And check says the same of both.
    monkeypatch.setattr(recipe_check, "_try_model", lambda *_: None)
    overrides = [arguments[1]]
    stopping = check_recipe(load_recipe(recipe, overrides), str(recipe), step=False)
    assert stopping.findings[0].sentence().endswith("If it is as it should be, set data.accept: [focal].")
    accepting = check_recipe(load_recipe(recipe, [*overrides, "data.accept=[focal]"]), str(recipe), step=False)
    (focal,) = [one for one in accepting.findings if one.name == "focal"]
    assert (focal.severity, accepting.stops) == ("note", False)


def test_a_list_that_cannot_be_read_is_named_once(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    checked = check_recipe(load_recipe(recipe, [f"data.train.0.list={tmp_path}/empty.txt"]), str(recipe), step=False)
    assert [(one.name, one.key) for one in checked.findings if one.severity == "stop"] == [("files", "data.train.0")]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Nameless(Skies):
    """Its frames can be read, and one of them has no name."""

    def source(self, index: int) -> str:
        if index == 2:
            raise DataError("sky#2", "has no name", "Give it one")
        return super().source(index)

    def __getitem__(self, index: int) -> DepthSample:
        return replace(Skies(count=self.count)[index], source=f"nameless#{index}")


def test_a_frame_without_a_name_is_a_finding_and_no_repeated_frame(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.READERS, "nameless", f"{__name__}:Nameless")
    written = load_recipe(recipe, ["data.train=[{reader: nameless}]"])
    checked = check_recipe(written, str(recipe), step=False)
    named = [one for one in checked.findings if one.evidence == "sky#2: has no name"]
    assert [(one.severity, one.name) for one in named] == [("stop", "files")]
    assert not [one for one in checked.findings if one.name == "repeated"]


def test_without_a_step_what_a_run_is_made_of_is_looked_at_too(recipe: Path) -> None:
    overrides = ["model.train=lora", "model.lora.last_blocks=99"]
    checked = check_recipe(load_recipe(recipe, overrides), str(recipe), step=False)
    assert (checked.findings[0].name, checked.findings[0].severity) == ("run", "stop")
    assert "model.lora.last_blocks is 99, but encoder tiny has" in checked.findings[0].evidence


def test_a_run_folder_that_is_taken_is_a_note(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_check, "_try_model", lambda *_: None)
    (tmp_path / "runs" / "small").mkdir(parents=True)
    (tmp_path / "runs" / "small" / "recipe.yaml").write_text("name: small\n")
    checked = check_recipe(load_recipe(recipe), str(recipe), step=False)
    (note,) = [one for one in checked.findings if one.name == "run"]
    assert (note.severity, checked.stops) == ("note", False)
    assert "--resume" in note.evidence
    (tmp_path / "runs" / "small" / "recipe.yaml").rename(tmp_path / "runs" / "small" / "photograph.jpg")
    checked = check_recipe(load_recipe(recipe), str(recipe), step=False)
    (stop,) = [one for one in checked.findings if one.name == "run"]
    assert (stop.severity, checked.stops) == ("stop", True)
    assert "contains files but no run" in stop.evidence


def test_what_a_sensor_stands_for_is_said_as_train_says_it(recipe: Path) -> None:
    checked = check_recipe(load_recipe(recipe, ["data.train.0.sensor=realsense"]), str(recipe), step=False)
    assert any("sensor realsense means meters_per_unit 0.001" in note for note in checked.notes)

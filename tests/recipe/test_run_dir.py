import copy
import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.commands import train
from finetune.recipe.load import load_recipe, recipe_mapping
from finetune.recipe.run_dir import PATH_KEYS_OF_DATA, RunFolder, differing_keys, lasting_digest, require_same_run
from finetune.training.run_log import MetricsLog
from finetune.utils import registry
from finetune.utils.errors import FinetuneError, ProcessError
from tests import conftest
from tests.normal_user import as_normal_user

RECIPE = "name: one\n"


def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "runs" / "one")
    run.require_free(resume=False, overwrite=False)
    run.prepare(RECIPE, overwrite=False)
    return run


def rows(run: RunFolder) -> list[dict[str, str]]:
    with (run.path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_that_holds_a_run_names_the_three_ways_on(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(FinetuneError, match=r"--resume.*name=.*--overwrite"):
        run.require_free(resume=False, overwrite=False)
    run.require_free(resume=True, overwrite=False)
    (run.path / "metrics.csv").write_text("step")
    run.prepare(RECIPE, overwrite=False)
    assert (run.path / "metrics.csv").exists()
    run.require_free(resume=False, overwrite=True)
    run.prepare("name: two\n", overwrite=True)
    assert [path.name for path in run.path.iterdir()] == ["recipe.yaml"]
    assert run.recipe.read_text() == "name: two\n"


def test_a_place_where_no_folder_can_be_is_told_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for path, said in (
        (tmp_path / "file" / "runs" / "one", f"{tmp_path / 'file'} is a file, so no folder can be made in it. Choose"),
        (tmp_path / "link", f"{tmp_path / 'link'} is a link to a folder that is missing. Choose another"),
        (tmp_path / "link" / "one", f"{tmp_path / 'link'} is a link to a folder that is missing. Choose another"),
        (tmp_path / "/".join(["deep"] * 1000), "cannot be written (File name too long). Choose another"),
    ):
        for resume in (False, True):
            with pytest.raises(FinetuneError, match=re.escape(said)):
                RunFolder(path).require_free(resume=resume, overwrite=False)


def test_resume_points_on_a_disk_that_is_not_there_are_not_taken_for_none(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.prepare("name: one\n", overwrite=False)
    run.checkpoints.symlink_to(tmp_path / "another disk")
    with pytest.raises(FinetuneError, match=r"checkpoints is a link to a folder that is missing\. Restore"):
        run.require_free(resume=True, overwrite=False)
    run.require_free(resume=False, overwrite=True)


def test_a_run_killed_before_it_wrote_anything_resumes_as_a_new_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (run.path / ".recipe.yaml.writing").write_text("name: o")
    run.require_free(resume=True, overwrite=False)


@pytest.mark.parametrize("flags", [{"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}])
def test_other_folders_are_left_alone(tmp_path: Path, flags: dict[str, bool]) -> None:
    run = RunFolder(tmp_path)
    (run.path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(FinetuneError, match="no run"):
        run.require_free(**flags)
    assert (run.path / "holiday.jpg").exists()


def test_checkpoints_are_whole_or_absent_and_the_newest_are_kept(tmp_path: Path) -> None:
    run = folder(tmp_path)
    assert run.newest_first() == []
    (run.checkpoints / ".writing_00000007").mkdir(parents=True)  # left by a kill
    for step in (100, 200, 1000):
        run.start_writing(step)
        (run.writing(step) / "state").write_text(str(step))
        assert run.checkpoint(step) not in run.newest_first()
        run.finish_writing(step, keep=2)
    assert run.newest_first() == [run.checkpoint(1000), run.checkpoint(200)]
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == ["step_00000200", "step_00001000"]
    assert (run.checkpoint(1000) / "state").read_text() == "1000"


def test_resume_points_that_may_not_be_listed_are_not_taken_for_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    assert run.newest_first() == []
    for step in (3, 20):
        run.checkpoint(step).mkdir(parents=True)
    assert run.newest_first() == [run.checkpoint(20), run.checkpoint(3)]
    run.checkpoints.chmod(0)
    try:
        with as_normal_user(), pytest.raises(FinetuneError) as refused:
            run.newest_first()
    finally:
        run.checkpoints.chmod(0o700)
    assert str(refused.value) == (
        f"{run.checkpoints}: its resume points cannot be listed (Permission denied). Make the folder readable for "
        "this user, or start another run with name=..."
    )


def test_an_old_resume_point_that_cannot_be_deleted_is_said_once_and_the_new_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder(tmp_path)
    remove = shutil.rmtree

    def not_the_first(path: Path, **options: Any) -> None:
        if path == run.checkpoint(1) and not options:
            raise PermissionError(13, "Permission denied", str(path))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", not_the_first)
    said = []
    for step in (1, 2, 3):
        run.start_writing(step)
        said.append(run.finish_writing(step, keep=1))
    (sentence,) = said[1]
    assert sentence.startswith(f"{run.checkpoint(1)}: an old resume point cannot be deleted ([Errno 13]")
    assert (said[0], said[2]) == ([], [])
    assert run.newest_first() == [run.checkpoint(3), run.checkpoint(1)]


def test_what_may_change_does_not_count_and_the_rest_does() -> None:
    recipe = {"name": "a", "run": {"steps": 5, "batch_size": 2}, "data": {"workers": 1}}
    other = {"name": "a", "run": {"steps": 9, "batch_size": 2}, "data": {"workers": 0}}
    assert lasting_digest(recipe) == lasting_digest(other)
    assert recipe["run"] == {"steps": 5, "batch_size": 2}
    assert lasting_digest(recipe) != lasting_digest({**recipe, "run": {"steps": 5, "batch_size": 4}})


def test_metrics_go_on_at_the_restored_step_and_drop_what_comes_again(tmp_path: Path) -> None:
    run = folder(tmp_path)
    log = MetricsLog(run, ["loss", "val_abs_rel"], from_step=0)
    for step in (10, 20, 30):
        log.write(step, {"loss": 1 / step})
    with (run.path / "metrics.csv").open("a") as file:
        file.write("40,0.0")  # killed in the middle of a row
    MetricsLog(run, ["loss", "val_abs_rel"], from_step=20).write(30, {"loss": 0.5, "val_abs_rel": 0.1})
    assert [row["step"] for row in rows(run)] == ["10", "20", "30"]
    assert rows(run)[0] == {"step": "10", "loss": "0.1", "val_abs_rel": ""}
    assert rows(run)[-1] == {"step": "30", "loss": "0.5", "val_abs_rel": "0.1"}


def test_differences_are_named_by_their_dotted_keys() -> None:
    old = {"run": {"steps": 1, "seed": 0}, "data": {"train": [{"root": "a"}]}}
    new = {"run": {"steps": 2, "seed": 0}, "data": {"train": [{"root": "b"}]}}
    assert differing_keys(old, new) == ["data.train.0.root", "run.steps"]
    assert differing_keys(old, old) == []


FRAMES = {"data.train.0": {"count": 2, "sha256": "1", "content_sha256": "2"}}
RECORD: dict[str, Any] = {"base_sha256": "0", "total_batch": 4, "frames": FRAMES, "python": "3"}


def test_a_resumption_may_change_steps_and_python_but_not_recipe_data_or_weights(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.write_text("recipe.yaml", "run: {steps: 1}\noptim: {lr: 1.0}\n")
    run.write_json("environment.json", RECORD)
    recipe = {"run": {"steps": 2}, "optim": {"lr": 1.0}}
    require_same_run(run, recipe, RECORD | {"python": "4"})
    with pytest.raises(FinetuneError, match=r"optim\.lr"):
        require_same_run(run, {"run": {"steps": 1}, "optim": {"lr": 2.0}}, RECORD)
    for key, value, named in (
        ("base_sha256", "9", r"model\.checkpoint"),
        ("total_batch", 8, r"run\.batch_size x run\.accumulate x processes"),
        (
            "frames",
            {"data.train.0": {"count": 3, "sha256": "1", "content_sha256": "2"}},
            r"data\.train\.0 \(2 .* 3 now",
        ),
        (
            "frames",
            {"data.train.0": {"count": 2, "sha256": "1", "content_sha256": "3"}},
            r"data\.train\.0 \(2 .* 2 now",
        ),
    ):
        with pytest.raises(FinetuneError, match=rf"environment\.json: since the run began, {named}"):
            require_same_run(run, recipe, RECORD | {key: value})


def test_where_things_lie_may_change_and_what_they_are_may_not(tmp_path: Path) -> None:
    run = folder(tmp_path)
    entry = {"reader": "pairs", "root": "/a", "list": "train.txt", "mask": None, "meters_per_unit": 0.001}
    old: dict[str, Any] = {
        "name": "one",
        "output": "runs",
        "model": {"checkpoint": "a.pth", "head": "metric"},
        "data": {"train": [entry], "val": []},
    }
    run.write_text("recipe.yaml", yaml.safe_dump(old))
    run.write_json("environment.json", RECORD)
    moved = copy.deepcopy(old)
    moved |= {"name": "two", "output": "/scratch/runs"}
    moved["model"]["checkpoint"] = "/weights/a.pth"
    moved["data"]["train"][0] |= {"root": "/local", "list": "/local/lists/train.txt"}
    elsewhere = {"data.train.0": {"count": 2, "sha256": "of other paths", "content_sha256": "2"}}
    require_same_run(run, moved, RECORD | {"frames": elsewhere})
    assert lasting_digest(moved) == lasting_digest(old)
    for key, value in (("meters_per_unit", 0.01), ("mask", "masks"), ("reader", "tum")):
        other = copy.deepcopy(moved)
        other["data"]["train"][0][key] = value
        assert lasting_digest(other) != lasting_digest(old)
        with pytest.raises(FinetuneError, match=rf"another data\.train\.0\.{key}\. Resume"):
            require_same_run(run, other, RECORD)


def test_a_run_of_an_older_version_is_told_by_its_paths(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.write_json("environment.json", RECORD | {"frames": {"data.train.0": {"count": 2, "sha256": "1"}}})
    require_same_run(run, {}, RECORD)
    other = {"data.train.0": {"count": 2, "sha256": "4", "content_sha256": "2"}}
    with pytest.raises(FinetuneError, match=r"data\.train\.0"):
        require_same_run(run, {}, RECORD | {"frames": other})


def test_keys_that_an_older_version_did_not_have_count_only_where_somebody_wrote_them(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.write_text("recipe.yaml", "name: one\nrun: {accumulate: 2}\ndata: {train: [{root: a}]}\n")
    recipe = {
        "name": "one",
        "run": {"accumulate": 2, "tf32": False},
        "data": {"train": [{"root": "a", "depth_is": "z"}], "accept": []},
    }
    require_same_run(run, recipe, RECORD, written={"run", "run.accumulate", "data.train.0.root"})
    for key in ("run.tf32", "data.train.0.depth_is"):
        with pytest.raises(FinetuneError, match=rf"made with another {re.escape(key)}\. Resume"):
            require_same_run(run, recipe, RECORD, written={key})
    with pytest.raises(FinetuneError, match=r"made with another run\.accumulate\. Resume"):
        require_same_run(run, {**recipe, "run": {"accumulate": 1}}, RECORD, written=())


def test_every_place_that_a_reader_is_told_is_known_for_one() -> None:
    no_places = {"depth", "rgb", "scenes", "variations", "depth_key"}  # names below the root, or within a file
    for name in registry.READERS:
        for option in fields(registry.find(registry.READERS, name)):
            if "str" in str(option.type).replace("Literal", "").split("[")[0] or option.name in no_places:
                assert (option.name in PATH_KEYS_OF_DATA) != (option.name in no_places), f"{name}.{option.name}"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("step,loss,theirs\n10,0.5,x\n20,0.4,y\n30,0.3,z\n", [("10", "0.5"), ("20", "0.4")]),
        ("loss,step\n0.5,10\n", [("10", "0.5")]),
        ("step\n10\n", [("10", "")]),
        ("a,b\n1,2\n", []),
        ("", []),
        ("step,loss\n" + "9" * 5000 + ",1\n\u00b2,1\n-1,1\n10,0.5,more,than,columns\n", [("10", "0.5")]),
        ('step,loss\n"' + "x" * 200_000, []),
        ("\0\0\0\n", []),
        ("\udcff\n1", []),
    ],
    ids=repr,
)
def test_metrics_of_any_columns_are_gone_on_with(tmp_path: Path, text: str, kept: list[tuple[str, str]]) -> None:
    run = folder(tmp_path)
    (run.path / "metrics.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    MetricsLog(run, ["loss"], from_step=20).write(30, {"loss": 0.1})
    assert [(row["step"], row["loss"]) for row in rows(run)] == [*kept, ("30", "0.1")]


def test_a_folder_that_is_gone_while_it_is_written_to_is_one_sentence(tmp_path: Path) -> None:
    run = folder(tmp_path)
    log = MetricsLog(run, ["loss"], from_step=0)
    run.path.rename(tmp_path / "moved")
    with pytest.raises(ProcessError, match="one was deleted or moved while the run wrote to it"):
        log.write(1, {"loss": 0.1})


@pytest.mark.parametrize("name", ["tensorboard", "checkpoints", "best", "last"])
def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path: Path, name: str) -> None:
    run = folder(tmp_path)
    (run.path / name).write_text("a file")
    with pytest.raises(FinetuneError, match=f"{name} must be a folder. Delete what is there"):
        run.require_free(resume=True, overwrite=False)
    run.require_free(resume=False, overwrite=True)


@pytest.mark.parametrize(
    "text", ["", "- a list\n", "a: [1\n", "a: " + "[" * 1500, "a: 2026-99-99\n", f"a: {'9' * 5000}\n"]
)
def test_a_recipe_that_is_damaged_is_one_sentence(tmp_path: Path, text: str) -> None:
    run = folder(tmp_path)
    run.write_text("recipe.yaml", text)
    with pytest.raises(FinetuneError, match=r"recipe\.yaml is .*damaged"):
        require_same_run(run, {}, RECORD)


def test_a_folder_that_is_a_link_is_emptied_where_it_leads_and_stays_a_link(tmp_path: Path) -> None:
    room = tmp_path / "large disk" / "one"
    room.mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "one").symlink_to(room)
    run = RunFolder(tmp_path / "runs" / "one")
    run.prepare("name: one\n", overwrite=False)
    (room / "tensorboard").mkdir()
    run.prepare("name: two\n", overwrite=True)
    assert run.path.is_symlink()
    assert {path.name: path.read_text() for path in room.iterdir()} == {"recipe.yaml": "name: two\n"}


def test_a_lock_is_no_link_is_not_emptied_and_goes(tmp_path: Path) -> None:
    run, lock = folder(tmp_path), tmp_path / "runs" / ".one.lock"
    (tmp_path / "theirs").write_text("precious")
    lock.symlink_to(tmp_path / "theirs")
    assert "is a link" in (run.claim() or "")
    assert (tmp_path / "theirs").read_text() == "precious"
    lock.unlink()
    assert run.claim() is None
    assert lock.exists()
    run.release()
    assert not lock.exists()
    # Removed while another launch was about to take it: that one takes the new file.
    real = os.open
    taken: list[int] = []

    def removed_meanwhile(path: Path, *arguments: int) -> int:
        file = real(path, *arguments)
        if not taken:
            path.unlink()
        taken.append(file)
        return file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetune.recipe.run_dir.os.open", removed_meanwhile)
        assert run.claim() is None
    assert len(taken) == 2 and lock.exists()
    run.release()


def test_a_word_is_found_by_whoever_sees_the_same_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.recipe.run_dir._CACHED_BY_NFS_S", 0.0)
    run, other = folder(tmp_path), RunFolder(tmp_path / "another disk" / "one")
    run.leave_word("a word")
    assert run.finds_word("a word") and RunFolder(run.path).finds_word("a word")
    assert not run.finds_word("another word") and not other.finds_word("a word")
    run.remove_word()
    assert not run.finds_word("a word")
    assert [path.name for path in run.path.parent.iterdir()] == ["one"]


HOLDER = """
import sys, time
from pathlib import Path
from finetune.recipe.run_dir import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print(folder.claim(), flush=True)
time.sleep(60)
"""


def test_a_folder_belongs_to_one_process_until_it_ends_however_it_does(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "mine"
    call = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(call, cwd=conftest.ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "None\n"
        here = RunFolder(path)
        assert "mine: another process is running in it. Wait until it ends" in (here.claim() or "")
        assert RunFolder(tmp_path / "runs" / "another").claim() is None
        other.kill()
        other.wait()
        assert here.claim() is None
        here.release()
    path.mkdir()
    assert list(path.iterdir()) == []  # the lock is next to it


def test_a_second_launch_is_refused(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [sys.executable, "-c", HOLDER, str(tmp_path / "runs" / "small")]
    with subprocess.Popen(call, cwd=conftest.ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert train.main([str(recipe)]) == 2
        assert "another process is running in it" in capsys.readouterr().err
        assert not (tmp_path / "runs" / "small").exists()
        other.kill()


def test_a_run_of_a_version_without_cameras_and_zoom_goes_on() -> None:
    old: dict[str, dict[str, object]] = {"data": {"workers": 1, "input_size": [56, 70]}, "augment": {"flip": 0.5}}
    camera = {"mode": "none", "focal_px": "auto"}
    new = {"data": {**old["data"], "camera": camera}, "augment": {"flip": 0.5, "zoom": [1.0, 1.0]}}
    assert lasting_digest(old) == lasting_digest(new)
    zoomed = {**new, "augment": {"flip": 0.5, "zoom": [1.0, 1.6]}}
    assert lasting_digest(old) != lasting_digest(zoomed)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("room_tiny", "74498ff5c589b5fcaff90b20121b55cfd50946819d284de8267ec6c8929293af"),
        ("room_tiny_lora", "f0661016b662e4b96d795bd06dc47345cde4645e083e46d58176d496e692ab20"),
    ],
)
def test_keys_that_were_added_since_do_not_change_the_digest_of_a_resume_point(name: str, known: str) -> None:
    # As runs before these keys wrote them. A new key belongs into LATER_KEYS or LATER_KEYS_OF_DATA.
    recipe = load_recipe(conftest.ROOT / "recipes" / f"{name}.yaml")
    assert lasting_digest(recipe_mapping(recipe)) == known


def test_losses_of_an_entry_change_the_digest_of_a_resume_point() -> None:
    path = conftest.ROOT / "recipes" / "room_tiny.yaml"
    plain, own = (load_recipe(path, lines) for lines in ((), ("data.train.0.loss=[{kind: l1}]",)))
    assert lasting_digest(recipe_mapping(plain)) != lasting_digest(recipe_mapping(own))

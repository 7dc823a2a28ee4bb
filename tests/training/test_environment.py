import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from finetune.models.arithmetic import allow_tf32
from finetune.recipe.load import load_recipe
from finetune.training import environment
from finetune.training.environment import (
    _precision,
    describe_environment,
    determinism_sentence,
    digest,
    environment_record,
    make_accelerator,
    try_compiler,
    watch_determinism,
)
from finetune.utils.errors import FinetuneError


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    # Accelerate keeps its state for the process; each test is a launch of its own.
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_cpu_trains_in_fp32_on_all_its_cores_whatever_the_launcher_set(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    before = torch.get_num_threads()
    accelerator, notes = make_accelerator(load_recipe(recipe, ["run.threads=null"]))
    assert torch.get_num_threads() == 3
    assert (accelerator.mixed_precision, notes) == ("no", [])
    make_accelerator(load_recipe(recipe, ["run.threads=1"]))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_the_launcher_decides_what_the_recipe_leaves_open(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator, notes = make_accelerator(load_recipe(recipe))
    assert (accelerator.mixed_precision, notes) == ("bf16", [])


def test_an_explicit_precision_wins_and_the_contradiction_is_said(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    accelerator, notes = make_accelerator(load_recipe(recipe, ["run.precision=fp32"]))
    assert accelerator.mixed_precision == "no"
    assert notes == ["run.precision fp32 wins over the launcher's bf16"]


def test_a_precision_that_nothing_is_calculated_in_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = r"run\.precision is fp16, but nothing is calculated in it on this device \(cpu\)"
    with pytest.raises(FinetuneError, match=sentence):
        make_accelerator(load_recipe(recipe, ["run.precision=fp16"]))
    AcceleratorState._reset_state(reset_partial_state=True)
    # A run in fp16 on a GPU is evaluated on a CPU all the same.
    accelerator, notes = make_accelerator(load_recipe(recipe, ["run.precision=fp16"]), trains=False)
    assert (accelerator.mixed_precision, notes) == ("no", [])


def test_a_launchers_precision_that_a_cpu_has_not_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(FinetuneError, match=r"run\.precision is fp16, but nothing"):
        make_accelerator(load_recipe(recipe))


@pytest.mark.parametrize(
    ("wanted", "own", "precision", "note"),
    [
        ("auto", True, "bf16", ""),
        ("auto", False, "fp32", "run.precision auto is fp32: Old has no bf16; fp16 is faster on it"),
        ("bf16", False, "bf16", "bf16 is emulated on Old, which is slower than fp32"),
        ("bf16", True, "bf16", ""),
        ("fp16", False, "fp16", ""),
    ],
)
def test_bf16_that_a_gpu_only_emulates_is_not_chosen_and_said(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, wanted: str, own: bool, precision: str, note: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Old")
    # As on a T4, a V100 and an RTX 20: it says yes where it may emulate.
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or own)
    found, notes = _precision(load_recipe(recipe, [f"run.precision={wanted}"]))
    assert (found, "".join(notes)[: len(note)], bool(notes)) == (precision, note, bool(note))


def test_the_launchers_compiler_does_not_compile_what_the_recipe_does_not(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "inductor")
    accelerator, notes = make_accelerator(load_recipe(recipe))
    assert notes == ["run.compile false wins over the launcher's dynamo backend inductor"]
    network = torch.nn.Linear(2, 2)
    assert accelerator.prepare(network) is network


@pytest.mark.parametrize("allowed", [True, False])
def test_one_setting_rounds_products_and_convolutions_alike(recipe: Path, allowed: bool) -> None:
    make_accelerator(load_recipe(recipe, [f"run.tf32={str(allowed).lower()}"]))
    try:
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is allowed
    finally:
        allow_tf32(False)


def test_what_the_launcher_says_wrongly_is_one_sentence(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "nonsense")
    with pytest.raises(FinetuneError, match="Accelerate cannot start as the launcher and run"):
        make_accelerator(load_recipe(recipe))


def test_a_tracker_that_is_missing_is_not_named_by_accelerate(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    # `require_trackers` says it in one sentence; `check` makes an accelerator before.
    monkeypatch.setattr("finetune.training.trackers.find_spec", lambda name: None)
    accelerator, _ = make_accelerator(load_recipe(recipe, ["run.trackers=[wandb, mlflow]"]))
    assert accelerator.log_with == []
    assert not [str(found.message) for found in recwarn.list if "log_with" in str(found.message)]


def test_processes_that_train_apart_stop(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, _ = make_accelerator(load_recipe(recipe))
    assert accelerator.num_processes == 1
    # Accelerate has made up its mind for this process.
    launched = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(FinetuneError, match="2 processes, but Accelerate sees 1"):
        make_accelerator(load_recipe(recipe))


def test_the_commit_is_that_of_the_program_and_not_of_the_repository_around_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    # A wheel in the environment of somebody's own repository, which does not track it.
    place = tmp_path / "venv" / "finetune"
    place.mkdir(parents=True)
    shutil.copy(environment.__file__, place)
    (tmp_path / "theirs.txt").write_text("a")
    git("init")
    git("add", "theirs.txt")
    git("commit", "-m", "theirs")
    monkeypatch.setattr(environment, "__file__", str(place / "environment.py"))
    assert environment._git("rev-parse", "HEAD") is None
    # Tracked, it is theirs; and whatever the environment names, it is the repository that it lies in.
    git("add", "venv")
    git("commit", "-m", "with the program")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert len(environment._git("rev-parse", "HEAD") or "") == 40


@pytest.mark.parametrize("locked", [True, False])
def test_git_is_asked_without_its_index_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool) -> None:
    def git(*arguments: str) -> None:
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    place = tmp_path / "finetune"
    place.mkdir()
    shutil.copy(environment.__file__, place)
    git("init")
    git("add", "finetune")
    git("commit", "-m", "with the program")
    monkeypatch.setattr(environment, "__file__", str(place / "environment.py"))
    # Another time stamp than in the index: git status would write the index anew, under its lock.
    os.utime(place / "environment.py", (1, 1))
    index = tmp_path / ".git" / "index"
    before = index.stat().st_mtime_ns
    if locked:
        (tmp_path / ".git" / "index.lock").touch()
    assert environment._git("status", "--porcelain", "-uno") == ""
    assert index.stat().st_mtime_ns == before


def test_digests_see_content_and_not_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def test_the_record_tells_two_file_lists_apart(recipe: Path) -> None:
    loaded = load_recipe(recipe)
    accelerator, _ = make_accelerator(loaded)
    frames = environment_record(loaded, accelerator, "0" * 64, 6)["frames"]
    assert frames["data.train.0"]["count"] == 10
    assert frames["data.train.0"]["sha256"] != frames["data.val.0"]["sha256"]


def test_a_machine_that_cannot_compile_is_told_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_compiler(function: object) -> object:
        def call(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("\nNo working C++ compiler found\nin a long story")

        return call

    monkeypatch.setattr(torch, "compile", without_compiler)
    with pytest.raises(
        FinetuneError, match=r"run\.compile is true, but .* \(No working C\+\+ compiler found\)\. Install"
    ):
        try_compiler(torch.device("cpu"))


def test_determinism_is_asked_for_while_a_run_lasts_and_what_has_none_is_named(
    recipe: Path, recwarn: pytest.WarningsRecorder
) -> None:
    with watch_determinism(load_recipe(recipe)) as met:
        assert not torch.are_deterministic_algorithms_enabled()
    with watch_determinism(load_recipe(recipe, ["run.deterministic=true"])) as met:
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        for _ in range(2):
            warnings.warn("upsample_backward does not have a deterministic implementation, but you set", stacklevel=1)
    assert not torch.are_deterministic_algorithms_enabled()
    assert met == {"upsample_backward"}
    assert not recwarn.list
    assert determinism_sentence(met).startswith("run.deterministic: not deterministic were upsample_backward; ")
    assert determinism_sentence(()) == "run.deterministic: no operation without a deterministic kernel was met"


def test_the_record_says_where_and_on_what_a_run_ran(recipe: Path) -> None:
    accelerator, _ = make_accelerator(load_recipe(recipe))
    record = environment_record(load_recipe(recipe), accelerator, "ab" * 32, 6)
    assert record["device"].startswith("cpu (")
    assert (record["processes"], record["machines"], record["total_batch"], record["seed"]) == (1, 1, 4, 0)
    assert torch.__version__.startswith(record["packages"]["torch"])
    assert record["packages"]["peft"]
    assert record["git_changed"] in (True, False, None)
    assert (record["git_commit"] is None) == (record["git_changed"] is None)
    device, arithmetic, versions, digests = describe_environment(record)
    assert arithmetic == "arithmetic: attention in one kernel, fused AdamW"
    assert device.endswith("total batch 4")
    assert f"torch {record['packages']['torch']}, accelerate " in versions
    assert digests.startswith("seed 0, recipe ")
    assert "base abababababab, data.train.0 10 frames " in digests

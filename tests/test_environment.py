import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from finetune.environment import (
    determinism,
    determinism_sentence,
    digest,
    environment_record,
    log_head,
    make_accelerator,
    try_compiler,
)
from finetune.errors import FinetuneError
from finetune.recipe import load_recipe


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    from accelerate.state import AcceleratorState

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


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_what_has_not_been_run_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setenv(flag, "true")
    with pytest.raises(FinetuneError, match="has not been run"):
        make_accelerator(load_recipe(recipe))


def test_processes_that_do_not_find_each_other_stop(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator, _ = make_accelerator(load_recipe(recipe))
    assert accelerator.num_processes == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FinetuneError, match=r"find each other \(RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        make_accelerator(load_recipe(recipe))
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FinetuneError, match="2 processes, but Accelerate sees 1"):
        make_accelerator(load_recipe(recipe))


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
    with determinism(load_recipe(recipe)) as met:
        assert not torch.are_deterministic_algorithms_enabled()
    with determinism(load_recipe(recipe, ["run.deterministic=true"])) as met:
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
    device, versions, digests = log_head(record)
    assert device.endswith("total batch 4")
    assert f"torch {record['packages']['torch']}, accelerate " in versions
    assert digests.startswith("seed 0, recipe ")
    assert "base abababababab, data.train.0 10 frames " in digests

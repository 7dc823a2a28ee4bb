"""What the console of a run shows: its first lines, one line an evaluation, and what to do next."""

import json
from pathlib import Path

import pytest

from finetune.training.first_look import MAX_LINES, Remarks, _where_it_runs
from tests.conftest import ROOT
from tests.runs import launch

SHORT = ("run.steps=1", "optim.warmup_steps=0", "export=[]")


def opening(printed: str) -> list[str]:
    """The lines before the first evaluation."""
    lines = printed.splitlines()
    return lines[: next(i for i, line in enumerate(lines) if line.startswith("step "))]


def groups(lines: list[str]) -> dict[str, list[str]]:
    """Group -> its lines, without those that follow the groups."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name, text = line[:8].strip(), line[8:]
        if name in ("trains", "from", "on", "to"):
            found[name] = [text]
        elif not name:
            found[list(found)[-1]].append(text)
    return found


@pytest.mark.slow
def test_the_first_lines_of_the_room_are_four_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ROOT / "recipes" / "room_tiny.yaml"
    root, weights = ROOT / "data" / "room", ROOT / "data" / "tiny_relative.safetensors"
    places = (f"output={tmp_path}", f"model.checkpoint={weights}", "run.threads=1")
    assert launch(recipe, *places, f"data.train.0.root={root}", f"data.val.0.root={root}", *SHORT) == 0
    printed = capsys.readouterr().out
    lines = opening(printed)
    assert len(lines) == 9
    found = groups(lines)
    assert list(found) == ["trains", "from", "on", "to"]
    what, where = found["trains"]
    assert what.startswith("room_tiny: every weight (4,6")
    assert what.endswith(" values), 1 step of 4 images, loss 1 silog + 0.5 log_l1 + 0.3 gradient")
    assert where.startswith("on cpu (") and where.endswith(" in fp32")
    assert found["from"] == [
        f"{weights} (relative, tiny, license Apache-2.0)",
        "loaded: the whole encoder, the decoder but its last layer, which is fitted to your frames",
    ]
    frames, reading, baselines = found["on"]
    assert reading.startswith("read by 1 worker, 2 batches ahead each (")
    assert [frames, baselines] == [
        "50 frames to train and 10 to validate, seen at 126x168 (height x width)",
        "baselines from 50 training frames: constant_median answers 1.720 m everywhere, best_constant 1.319 m; "
        "base_fitted_scale is your checkpoint with one scale and shift",
    ]
    run = tmp_path / "room_tiny"
    assert found["to"] == [
        f"{run}: weights in best/, and at the end the page report.html",
        f"watch it: tensorboard --logdir {run}/tensorboard",
    ]
    evaluations = [line for line in printed.splitlines() if line.startswith("step ") and "AbsRel" in line]
    assert evaluations[0] == "step 0  AbsRel 0.158 (base 0.148)  best"
    assert evaluations[1].startswith("step 1  AbsRel 0.") and " (base 0.148)" in evaluations[1]
    assert printed.splitlines()[-1] == (
        f"next: open {run}/report.html; finetune evaluate {run} --recipe {run}/recipe.yaml; "
        f"finetune predict {run} IMAGES --output FOLDER; finetune export {run} --to onnx --output FILE"
    )
    for unreadable in ("process(es)", "machine(s)", "alarm", "sha256", "\x1b", "\r"):
        assert unreadable not in printed


@pytest.mark.slow
def test_the_first_lines_with_adapters_and_without_a_checkpoint(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(recipe, *SHORT, "model.train=lora", "model.lora.rank=4") == 0
    lines = opening(capsys.readouterr().out)
    assert len(lines) <= MAX_LINES
    found = groups(lines)
    assert list(found) == ["trains", "from", "on", "to"]
    assert found["trains"][0].startswith("small: adapters of rank 4 in the encoder, and decoder and head (")
    drawn = ("model.checkpoint=null", "model.encoder=tiny", "name=drawn", "model.train=decoder", "run.batch_size=1")
    assert launch(recipe, *SHORT, *drawn) == 0
    found = groups(opening(capsys.readouterr().out))
    assert found["trains"][0].startswith("drawn: decoder and head, the encoder as it is (")
    assert " 1 step of 1 image, loss " in found["trains"][0]
    assert found["from"] == ["no checkpoint: encoder tiny, every weight drawn from seed 0"]
    assert not found["on"][1].endswith("scale and shift")


@pytest.mark.slow
def test_the_first_lines_of_a_resumed_run(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (finished / "checkpoints" / "step_00000006").iterdir():
        path.write_bytes(b"")
    assert launch(finished / "recipe.yaml", "--resume") == 0
    lines = opening(capsys.readouterr().out)
    assert len(lines) <= MAX_LINES
    found = groups(lines)
    assert list(found) == ["trains", "from", "on", "to"]
    assert found["trains"][0].endswith("; resumed at step 3 of 6")
    assert lines[-1].startswith(f"warning: {finished}/checkpoints/step_00000006 is left out: it is damaged (")


@pytest.mark.slow
def test_the_first_lines_of_a_run_with_warnings_count_those_that_do_not_fit(
    recipe: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = f"{{reader: pairs, root: {frames}, list: LIST, meters_per_unit: 0.001}}"
    several = [f"data.{part}=[{', '.join([entry.replace('LIST', f'{part}.txt')] * 3)}]" for part in ("train", "val")]
    assert launch(recipe, *SHORT, *several, "model.max_depth_m=5") == 0
    printed = capsys.readouterr().out
    lines = opening(printed)
    assert len(lines) == MAX_LINES
    assert list(groups(lines)) == ["trains", "from", "on", "to"]
    environment = tmp_path / "runs" / "small" / "environment.json"
    warnings = [line for line in lines if line.startswith("warning")]
    assert len(warnings) == MAX_LINES - 9 - 1
    kept = json.loads(environment.read_text())["remarks"]["warnings"]
    assert len(kept) > len(warnings)
    assert lines[-1] == f"and {len(kept) - len(warnings)} more: --verbose shows them, {environment} keeps them"
    assert launch(recipe, *SHORT, *several, "model.max_depth_m=5", "name=verbose", "--verbose") == 0
    verbose = opening(capsys.readouterr().out)
    assert sum(line.startswith("warning") for line in verbose) == len(kept)
    assert any("python " in line and "torch " in line for line in verbose)
    assert printed.splitlines()[-2].endswith(" warnings, above")


@pytest.mark.parametrize(
    ("cuda", "tf32", "said"), [("13.0", True, " with TF32"), ("13.0", False, ""), (None, True, "")]
)
def test_that_a_gpu_rounds_is_said_in_the_first_lines(cuda: str | None, tf32: bool, said: str) -> None:
    record = {"device": "a GPU", "precision": "fp32", "processes": 1, "machines": 1, "cuda": cuda, "tf32": tf32}
    assert _where_it_runs(record) == f"on a GPU in fp32{said}"


def test_remarks_say_what_they_are() -> None:
    remarks = Remarks(warnings=("warning, range of the data: x.", "y"), notes=("z",), details=("w",))
    assert remarks.marked == ["warning, range of the data: x.", "warning: y", "note: z"]

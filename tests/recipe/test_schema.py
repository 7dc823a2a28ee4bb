from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass

from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.recipe.load import default_notes, load_recipe, recipe_mapping, recipe_text
from finetune.recipe.schema import (
    AugmentOptions,
    DataOptions,
    EvaluationOptions,
    LoraOptions,
    ModelOptions,
    OptimOptions,
    Recipe,
    RetentionOptions,
    RunOptions,
)
from finetune.recipe.validate import option_fields
from finetune.utils import registry
from finetune.utils.errors import RecipeError, RecipeFaults


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FakeReader(Reader):
    root: str
    list: str | None = None
    meters_per_unit: float
    invalid: tuple[float, ...] = (0.0,)
    depth_is: Literal["z", "range"] = "z"
    count: int = 5

    def __post_init__(self) -> None:
        if self.meters_per_unit <= 0:
            raise RecipeError("meters_per_unit", self.meters_per_unit, "a number above 0")
        if self.count < 1:
            raise RecipeError("count", self.count, "at least 1 frame")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> DepthSample:
        raise AssertionError("nothing here reads a frame")

    def check_paths(self) -> None:
        if not Path(self.root).is_dir():
            raise RecipeError("root", self.root, "an existing folder")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FakeLoss:
    head: ClassVar[str] = "metric"

    lam: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.lam <= 1.0:
            raise RecipeError("lam", self.lam, "a number from 0 to 1; start with 0.5")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PlainLoss:
    head: ClassVar[str] = "metric"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class InverseLoss:
    head: ClassVar[str] = "relative"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LossOfBoth:
    of: Literal["log", "aligned"] = "log"

    @property
    def head(self) -> str:
        return "metric" if self.of == "log" else "relative"


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables as this file's recipes use them, so that its tests hold whatever the real classes become."""
    for table, entries in (
        (registry.READERS, {"pairs": "FakeReader", "scenes": "FakeReader"}),
        (registry.LOSSES, {"silog": "FakeLoss", "l1": "PlainLoss", "gradient": "LossOfBoth", "ssi": "InverseLoss"}),
    ):
        for name in list(table):
            monkeypatch.delitem(table, name)
        for name, cls in entries.items():
            monkeypatch.setitem(table, name, f"{__name__}:{cls}")
    monkeypatch.delenv("QQQQ", raising=False)


# The example of the design, with every key.
FULL = """\
name: room_tiny                # the run folder is <output>/<name>
output: runs
seed: 0
model:
  checkpoint: data/tiny_relative.safetensors   # path, or hub id such as depth-anything/Depth-Anything-V2-Small
  checkpoint_kind: auto        # auto | relative | metric; for official .pth files, which cannot say it themselves
  checkpoint_max_depth_m: null # of a metric .pth without a sidecar
  encoder: auto                # auto | tiny | vits | vitb | vitl | vitg
  head: metric                 # metric | relative
  max_depth_m: 10.0
  decoder_init: calibrated     # scratch | pretrained | calibrated | keep
  train: all                   # all | decoder | lora
  lora: {rank: 16, alpha: 32, dropout: 0.0}
data:
  input_size: [252, 336]       # height, width; multiples of 14
  train:
    - {reader: pairs, root: data/room, list: train.txt, meters_per_unit: 0.001, invalid: [0, 65535], depth_is: z,
       weight: 1.0}
  val:
    - {reader: pairs, root: data/room, list: val.txt, meters_per_unit: 0.001, invalid: [0, 65535], depth_is: z}
  workers: 2
augment: {flip: 0.5, color: 0.5}
loss:
  - {kind: silog, weight: 1.0, lam: 0.5}
  - {kind: l1, weight: 0.1}
optim: {lr: 5.0e-6, lr_decoder: 5.0e-5, weight_decay: 0.01, betas: [0.9, 0.999], clip_norm: 1.0,
        schedule: poly, warmup_steps: 50, ema_decay: 0.0}
run: {steps: 300, batch_size: 4, accumulate: 1, precision: auto, gradient_checkpointing: false, threads: null,
      log_every_steps: 10, evaluate_every_steps: 100, save_every_steps: 100, keep_checkpoints: 2}
evaluation: {protocols: [plain], best: abs_rel, min_depth_m: 0.001, max_depth_m: 10.0}
export: [official]
"""

# One key a line, so that a line number says which key was meant.
SMALL = """\
name: small
model:
  checkpoint: org/name
  max_depth_m: 10
data:
  input_size: [56, 70]
  train:
    - reader: pairs
      root: .
      meters_per_unit: 0.001
  val:
    - {reader: pairs, root: ., meters_per_unit: 0.001}
loss:
  - kind: silog
    lam: 0.5
run:
  steps: 300
"""


def load(tmp_path: Path, text: str, *overrides: str, check_files: bool = False) -> Recipe:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, check_files=check_files)


def faults(tmp_path: Path, text: str, *overrides: str, check_files: bool = False) -> list[str]:
    with pytest.raises(RecipeFaults) as caught:
        load(tmp_path, text, *overrides, check_files=check_files)
    return [fault.replace(f"{tmp_path}/", "") for fault in caught.value.faults]


@pytest.mark.parametrize("name", [".yaml", "con .yaml", "a\nb.yaml", os.fsdecode(b"caf\xe9.yaml"), "x" * 250])
def test_a_file_whose_name_cannot_be_the_run_s_is_told_what_to_write(tmp_path: Path, name: str) -> None:
    text = SMALL.replace("name: small\n", "")
    assert text != SMALL
    (tmp_path / name).write_text(text)
    with pytest.raises(
        RecipeFaults, match=r"name is missing, and would be the file's own, .*expected name: and a word"
    ):
        load_recipe(tmp_path / name, check_files=False)
    assert load_recipe(tmp_path / name, ["name=room"], check_files=False).name == "room"


def test_full_example(tmp_path: Path) -> None:
    recipe = load(tmp_path, FULL)
    assert recipe.data.train[0].source == FakeReader(
        root="data/room", list="train.txt", meters_per_unit=0.001, invalid=(0.0, 65535.0), depth_is="z"
    )
    assert [term.loss for term in recipe.loss] == [FakeLoss(lam=0.5), PlainLoss()]
    assert [term.weight for term in recipe.loss] == [1.0, 0.1]
    assert recipe.model.lora == LoraOptions(rank=16, alpha=32.0, dropout=0.0, last_blocks=None)
    assert recipe.optim == OptimOptions(lr=5e-6, lr_decoder=5e-5, warmup_steps=50)
    assert recipe.run == RunOptions(steps=300)
    assert recipe.data.input_size == (252, 336)
    assert recipe.depth_range_m == (0.001, 10.0)


def test_text_of_a_recipe_gives_an_equal_recipe(tmp_path: Path) -> None:
    for text in (FULL, SMALL):
        recipe = load(tmp_path, text)
        written = recipe_text(recipe)
        again = load(tmp_path, written)
        assert again == recipe
        assert recipe_text(again) == written
        assert recipe_mapping(again) == recipe_mapping(recipe)
        assert hash(again) == hash(recipe)


def test_text_has_every_default_in_the_order_of_the_sections(tmp_path: Path) -> None:
    written = recipe_text(load(tmp_path, SMALL))
    mapping: dict[str, Any] = recipe_mapping(load(tmp_path, SMALL))
    assert " ".join(mapping) == "name output seed model data augment loss optim run evaluation export"
    keys = [
        "input_size",
        "train",
        "val",
        "camera",
        "workers",
        "prefetch",
        "pin_memory",
        "on_bad_sample",
        "accept",
        "val_may_repeat_train",
    ]
    assert list(mapping["data"]) == [*keys, "image_black", "image_white", "image_percentiles", "decode"]
    entry = {"root": ".", "list": None, "meters_per_unit": 0.001, "invalid": [0.0], "depth_is": "z", "count": 5}
    assert mapping["data"]["train"] == [
        {"reader": "pairs", **entry, "weight": 1.0, "out_of_range": "ignore", "loss": None}
    ]
    assert mapping["loss"] == [{"kind": "silog", "weight": 1.0, "reduction": "image", "lam": 0.5}]
    assert mapping["run"]["steps"] == 300
    assert mapping["run"]["epochs"] is None
    assert mapping["evaluation"] == {
        "protocols": None,
        "choose_on": None,
        "best": "abs_rel",
        "min_depth_m": 0.001,
        "max_depth_m": None,
        "retention": {"drawn": 0, "annotations": None, "images": None, "entries": []},
    }
    assert json.loads(json.dumps(mapping)) == mapping
    assert (
        "  lora: {rank: 16, alpha: 32.0, dropout: 0.0, targets: [qkv, proj, fc1, fc2], last_blocks: null}\n" in written
    )
    assert "  - {kind: silog, weight: 1.0, reduction: image, lam: 0.5}\n" in written
    assert "  lr: 5.0e-6\n" in written
    assert max(map(len, written.splitlines())) <= 120


def test_a_whole_number_is_fine_where_a_number_is_asked(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL, "optim.clip_norm=1", "loss.0.lam=1", "augment.flip=0")
    assert (recipe.model.max_depth_m, recipe.optim.clip_norm, recipe.augment.flip) == (10.0, 1.0, 0.0)
    assert type(recipe.optim.clip_norm) is float
    assert type(recipe.loss[0].loss.lam) is float


def test_overrides_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOM", "/mnt/room")
    recipe = load(
        tmp_path,
        SMALL.replace("root: ., meters", "root: ${ROOM}, meters").replace("steps: 300", "steps: ${STEPS:-200}"),
        "data.train.0.root=/mnt/x",
        "loss=[{kind: l1}, {kind: silog, weight: 2, lam: 0}]",
        "optim.lr=1e-5",
        "optim.betas=[0.9,0.95]",
        "model.train=decoder",
        "run.threads=3",
    )
    assert recipe.run.steps == 200
    assert (recipe.data.train[0].source.root, recipe.data.val[0].source.root) == ("/mnt/x", "/mnt/room")
    assert [(term.kind, term.weight, term.loss) for term in recipe.loss] == [
        ("l1", 1.0, PlainLoss()),
        ("silog", 2.0, FakeLoss(lam=0.0)),
    ]
    assert (recipe.optim.lr, recipe.optim.betas, recipe.model.train) == (1e-5, (0.9, 0.95), "decoder")
    assert recipe.run.threads == 3


# A relative run from nothing.
RELATIVE = (
    SMALL.replace("checkpoint: org/name", "checkpoint: null")
    .replace("max_depth_m: 10", "encoder: tiny")
    .replace("  - kind: silog\n    lam: 0.5", "  - {kind: ssi}\n  - {kind: gradient, of: aligned, weight: 2}")
    .replace("model:\n", "model:\n  head: relative\n")
    + "evaluation: {max_depth_m: 20}\n"
)


def test_a_relative_recipe_needs_neither_checkpoint_nor_max_depth(tmp_path: Path) -> None:
    recipe = load(tmp_path, RELATIVE, "data.train.0.out_of_range=ceiling")
    assert (recipe.model.checkpoint, recipe.model.max_depth_m, recipe.model.head_max_depth_m) == (None, None, None)
    assert recipe.depth_range_m == (0.001, 20.0)
    assert recipe.data.train[0].out_of_range == "ceiling"
    assert recipe.evaluation.protocols is None
    assert recipe.protocols == ("plain+align=scale_shift_inverse",)
    assert load(tmp_path, recipe_text(recipe)) == recipe
    limited = load(tmp_path, RELATIVE, "model.max_depth_m=30", "evaluation.max_depth_m=null")
    assert limited.depth_range_m == (0.001, 30.0)
    assert limited.model.head_max_depth_m is None


def test_a_metric_recipe_is_scored_plainly_and_may_start_from_nothing(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL, "model.checkpoint=null", "model.encoder=tiny")
    assert recipe.protocols == ("plain",)
    assert recipe.model.head_max_depth_m == 10.0


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.0.kind=l1", "loss.0.kind is 'l1' and model.head is 'relative' (x.yaml:3); expected a loss of inverse"),
        ("loss.1.of=log", "loss.1.of is 'log' and model.head is 'relative' (x.yaml:3); expected aligned."),
        ("evaluation.protocols=[plain]", "evaluation.protocols is ['plain'] and model.head is 'relative' (x.yaml:3); "
         "expected protocols that align inverse depth, such as [plain+align=scale_shift_inverse]."),
        ("evaluation.max_depth_m=null", "evaluation.max_depth_m is null and model.max_depth_m is null (x.yaml:2); "
         "expected meters for one of them, such as evaluation.max_depth_m: 10.0, up to which depth is scored."),
        ("model.decoder_init=calibrated", "model.decoder_init is 'calibrated' and model.checkpoint is null "
         "(x.yaml:4); expected scratch, since every weight is random."),
        ("model.decoder_init=keep", "model.decoder_init is 'keep' and model.checkpoint is null (x.yaml:4); expected"),
        ("model.checkpoint_kind=metric", "model.checkpoint_kind is 'metric' and model.checkpoint is null (x.yaml:4); "
         "expected auto."),
        ("model.checkpoint_max_depth_m=3", "model.checkpoint_max_depth_m is 3 and model.checkpoint is null"),
    ],
)  # fmt: skip
def test_what_a_relative_run_cannot_have(tmp_path: Path, override: str, expected: str) -> None:
    (found,) = faults(tmp_path, RELATIVE, override)
    assert found.startswith(f"command line: {expected}")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.decoder_init=calibrated", "model.decoder_init is 'calibrated' and model.head is 'relative' "
         "(x.yaml:3); expected auto, keep, pretrained or scratch; calibrated solves for meters."),
        ("model.checkpoint_kind=metric", "model.checkpoint_kind is 'metric' and model.head is 'relative' (x.yaml:3); "
         "expected a relative checkpoint, since bigger is nearer to this head and farther to a metric one."),
    ],
)  # fmt: skip
def test_what_a_relative_head_cannot_start_from(tmp_path: Path, override: str, expected: str) -> None:
    (found,) = faults(tmp_path, RELATIVE.replace("checkpoint: null", "checkpoint: org/name"), override)
    assert found == f"command line: {expected}"


RELATIVE_DEPTH = RELATIVE.replace("head: relative", "head: relative_depth")


def test_a_recipe_of_relative_depth(tmp_path: Path) -> None:
    recipe = load(tmp_path, RELATIVE_DEPTH)
    assert recipe.protocols == ("plain+align=scale_shift",)
    assert (recipe.model.head_max_depth_m, recipe.model.head_activation) == (None, "exp")
    assert load(tmp_path, recipe_text(recipe)) == recipe
    losses = load(tmp_path, MINIMAL, "model.head=relative_depth").loss
    assert [term.kind for term in losses] == ["ssi", "gradient"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("loss.0.kind=l1", "loss.0.kind is 'l1' and model.head is 'relative_depth' (x.yaml:3); expected a loss wit"),
        ("evaluation.protocols=[plain]", "evaluation.protocols is ['plain'] and model.head is 'relative_depth' "
         "(x.yaml:3); expected protocols that align, such as [plain+align=scale_shift]."),
        ("data.train.0.out_of_range=ceiling", "model.max_depth_m is null and data.train.0.out_of_range is 'ceiling'"),
        ("data.camera.mode=canonical", "data.camera.mode is 'canonical' and model.head is 'relative_depth'"),
        ("model.activation=exp", "model.activation is 'exp' and model.head is 'relative_depth' (x.yaml:3); expected "
         "sigmoid, its default"),
    ],
)  # fmt: skip
def test_what_a_run_of_relative_depth_cannot_have(tmp_path: Path, override: str, expected: str) -> None:
    found = faults(tmp_path, RELATIVE_DEPTH, override)
    assert len(found) == 1
    assert expected in found[0]


def test_an_exponential_has_no_max_depth_to_rescale(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL, "model.activation=exp")
    assert (recipe.model.head_activation, recipe.model.head_max_depth_m) == ("exp", 10.0)
    (found,) = faults(tmp_path, SMALL, "model.activation=exp", "model.on_max_depth=rescale")
    assert "model.on_max_depth is 'rescale' and model.activation is 'exp'" in found


def test_epochs_instead_of_steps(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL, "run.steps=null", "run.epochs=5")
    assert (recipe.run.steps, recipe.run.epochs) == (None, 5)


MINIMAL = """\
model: {checkpoint: org/name, max_depth_m: 10.0}
data:
  input_size: [56, 70]
  train: [{reader: pairs, root: ., meters_per_unit: 0.001}]
  val: [{reader: pairs, root: ., meters_per_unit: 0.001}]
"""


def test_a_recipe_needs_a_checkpoint_a_max_depth_a_size_and_data(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL)
    assert (recipe.name, recipe.run.steps, recipe.run.epochs) == ("x", 2000, None)
    assert [(term.kind, term.weight) for term in recipe.loss] == [("silog", 1.0), ("l1", 0.1)]
    assert default_notes(recipe) == [
        "by default, since the recipe says nothing else: run.steps: 2000, loss: 1 silog + 0.1 l1"
    ]
    again = load(tmp_path, recipe_text(recipe))
    assert again == recipe
    assert not default_notes(again)


def test_the_losses_of_a_recipe_without_any_are_those_of_its_head(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL, "model.head=relative", "run.epochs=3")
    assert [(term.kind, term.weight, term.loss.head) for term in recipe.loss] == [
        ("ssi", 1.0, "relative"),
        ("gradient", 2.0, "relative"),
    ]
    assert (recipe.run.steps, recipe.run.epochs) == (None, 3)
    assert default_notes(recipe) == ["by default, since the recipe says nothing else: loss: 1 ssi + 2 gradient"]
    assert not default_notes(load(tmp_path, MINIMAL, "loss=[{kind: silog}]", "run.steps=5"))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("run.stpes=30", "steps"),  # although steps is there already
        ("model.max_depth=5", "max_depth_m"),
        ("lr=1e-5", "optim.lr"),
        ("stpes=30", "run.steps"),
        ("optim.batch_size=2", "run.batch_size"),
        ("model.input_size=[56,70]", "data.input_size"),
        ("root=/mnt", "data.train.0.root"),
        ("lam=0.2", "loss.0.lam"),
        ("rank=4", "model.lora.rank"),
        ("modle.train=lora", "model"),
        ("run.epoch=3", "epochs"),
        ("train=lora", "model.train"),
    ],
)
def test_what_was_meant_by_a_key_that_nobody_knows(tmp_path: Path, override: str, meant: str) -> None:
    (found,) = faults(tmp_path, SMALL, override)
    assert f" Did you mean {meant}? " in found


def test_what_a_recipe_leaves_out_by_a_slip_is_no_default(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, MINIMAL + "losses: [{kind: l1}]\n")
    assert "losses is not a key of the recipe. Did you mean loss?" in found


def test_where_a_key_was_written(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL, "optim.lr=1e-5")
    file = f"{tmp_path}/x.yaml"
    assert recipe.where("loss.0.lam") == f"{file}:15"
    assert recipe.where("data.val.0.root") == f"{file}:12"
    assert recipe.where("model.encoder") == f"{file}:2", "not written: the section that would hold it"
    assert recipe.where("augment.flip") == f"{file}:1"
    assert recipe.where("optim.lr") == "command line"


def test_places_are_no_part_of_the_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL)
    moved = load(tmp_path, "# a comment\n" + SMALL)
    assert moved.where("name") != recipe.where("name")
    assert moved == recipe
    assert repr(moved) == repr(recipe)
    assert recipe_text(moved) == recipe_text(recipe)
    assert "places" not in recipe_text(recipe)
    assert "x.yaml:1: places is not a key of the recipe." in faults(tmp_path, "places: {a: b}\n" + SMALL)[0]


def test_a_recipe_travels_and_does_not_change(tmp_path: Path) -> None:
    recipe = load(tmp_path, SMALL)
    for twin in (pickle.loads(pickle.dumps(recipe)), copy.deepcopy(recipe)):
        assert twin == recipe
        assert twin.where("run.steps") == recipe.where("run.steps")
    other = replace(recipe, name="other")
    assert other.name == "other"
    assert other.where("run.steps") == recipe.where("run.steps"), "a changed copy knows where its keys were written"
    with pytest.raises(FrozenInstanceError):
        recipe.name = "other"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        recipe.run.steps = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        AugmentOptions(blur=0.5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        # Unknown keys.
        ("    lam: 0.5", "    lamda: 0.5", 15,
         "loss.0.lamda is not an option of silog. Did you mean lam? Options: lam, weight, reduction. Found 0.5."),
        ("  steps: 300", "  step: 300\n  epochs: 3", 17,
         "run.step is not a key of run. Did you mean steps? Keys: steps, epochs, batch_size,"),
        ("model:", "modle:", 2, "modle is not a key of the recipe. Did you mean model?"),
        ("      root: .\n", "      root: .\n      wieght: 2\n", 10,
         "data.train.0.wieght is not an option of pairs. Did you mean weight?"),
        ("name: small", "name: small\noptim.lr: 1e-5", 2,
         "optim.lr is not a key of the recipe. Did you mean optim?"),
        ("  checkpoint: org/name", "  checkpoint: org/name\n  lora: {alhpa: 3}", 4,
         "model.lora.alhpa is not a key of model.lora. Did you mean alpha? Keys: rank, alpha, dropout, targets, "
         "last_blocks. Found 3."),
        # Duplicate keys.
        ("  max_depth_m: 10", "  max_depth_m: 10\n  max_depth_m: 20", 5,
         "model.max_depth_m is given twice, as 10 (x.yaml:4) and as 20; keep one."),
        ("    lam: 0.5", "    lam: 0.5\n    lam: 0.7", 16,
         "loss.0.lam is given twice, as 0.5 (x.yaml:15) and as 0.7; keep one."),
        # Types.
        ("  steps: 300", "  steps: \"300\"", 17,
         "run.steps is '300'; expected a whole number, 1 or more, or null. Did you mean 300?"),
        ("  steps: 300", "  steps: true", 17,
         "run.steps is true; expected a whole number, 1 or more, or null."),
        ("  steps: 300", "  steps: 300.0", 17,
         "run.steps is 300.0; expected a whole number, 1 or more, or null. Did you mean 300?"),
        ("  steps: 300", "  steps: 1_000", 17,
         "run.steps is '1_000'; expected a whole number, 1 or more, or null. Did you mean 1000?"),
        ("  steps: 300", "  steps: 0300", 17,
         "run.steps is '0300'; expected a whole number, 1 or more, or null. Did you mean 300?"),
        ("  steps: 300", "  steps: 5:00", 17,
         "run.steps is '5:00'; expected a whole number, 1 or more, or null."),
        ("  steps: 300", "  steps: 300\n  gradient_checkpointing: yes", 18,
         "run.gradient_checkpointing is 'yes'; expected true or false. Did you mean true?"),
        ("  steps: 300", "  steps: 300\n  gradient_checkpointing: off", 18,
         "run.gradient_checkpointing is 'off'; expected true or false. Did you mean false?"),
        ("  max_depth_m: 10", "  max_depth_m: ten", 4,
         "model.max_depth_m is 'ten'; expected a number above 0 and at most 100000, or null."),
        ("  max_depth_m: 10", "  max_depth_m: null", 4,
         "model.max_depth_m is null; expected a number above 0 and at most 100000: the farthest meters that head "
         "metric can predict."),
        ("  max_depth_m: 10\n", "", 2,
         "model.max_depth_m is null; expected a number above 0 and at most 100000: the farthest meters that head "
         "metric can predict."),
        ("name: small", "name: 7", 1, "name is 7; expected text that is not empty. Did you mean '7'?"),
        ("      meters_per_unit: 0.001", "      meters_per_unit: 1mm", 10,
         "data.train.0.meters_per_unit is '1mm'; expected a number."),
        ("      root: .", "      root: .\n      invalid: 0", 10,
         "data.train.0.invalid is 0; expected a list of numbers. Did you mean [0]?"),
        ("run:\n  steps: 300", "run: 300", 16, "run is 300; expected a mapping with the keys steps, epochs,"),
        ("loss:\n  - kind: silog\n    lam: 0.5", "loss: silog", 13,
         "loss is 'silog'; expected a list of 1 or more mappings."),
        ("  - kind: silog\n    lam: 0.5", "  - silog", 14,
         "loss.0 is 'silog'; expected a mapping with the keys kind, weight, reduction."),
        # Choices.
        ("  max_depth_m: 10", "  max_depth_m: 10\n  train: al", 5,
         "model.train is 'al'; expected one of all, decoder, lora. Did you mean all?"),
        ("  max_depth_m: 10", "  max_depth_m: 10\n  encoder: ViT-S", 5,
         "model.encoder is 'ViT-S'; expected one of auto, tiny, vits, vitb, vitl, vitg. Did you mean vits?"),
        ("    - reader: pairs", "    - reader: pair", 8,
         "data.train.0.reader is 'pair'; expected one of pairs, scenes. Did you mean pairs?"),
        ("  - kind: silog", "  - kind: SILog", 14,
         "loss.0.kind is 'SILog'; expected one of gradient, l1, silog, ssi. Did you mean silog?"),
        ("      root: .", "      root: .\n      depth_is: ranges", 10,
         "data.train.0.depth_is is 'ranges'; expected one of z, range. Did you mean range?"),
        ("run:", "export: [oficial]\nrun:", 16,
         "export is ['oficial']; expected a list out of adapter, huggingface, official, onnx, openvino, each once; "
         "perhaps official."),
        ("run:", "evaluation: {protocols: plane}\nrun:", 16,
         "evaluation.protocols is 'plane'; expected a list of 1 or more texts, or null."),
        ("run:", "evaluation: {protocols: [plane]}\nrun:", 16,
         "evaluation.protocols is ['plane']; expected one of plain, nyu_eigen, kitti_eigen_garg, kitti_garg_full, "
         "kitti_eigen, reference_script, each perhaps with +key=value; perhaps plain."),
        ("run:", "evaluation: {best: absrel}\nrun:", 16,
         "evaluation.best is 'absrel'; expected one of abs_rel, sq_rel, rmse, rmse_log, log10, silog, delta1, "
         "delta2, delta3. Did you mean abs_rel?"),
        ("run:", "evaluation: {choose_on: val}\nrun:", 16,
         "evaluation.choose_on is 'val'; expected an entry of data.val such as data.val.1, or null."),
        ("run:", "evaluation: {choose_on: data.val.0}\nrun:", 16,
         "evaluation.choose_on is 'data.val.0'; expected a second entry of data.val, so that one chooses and one is "
         "scored."),
        # Ranges.
        ("    lam: 0.5", "    lam: 2", 15, "loss.0.lam is 2; expected a number from 0 to 1; start with 0.5."),
        ("    lam: 0.5", "    weight: 0", 15, "loss.0.weight is 0; expected a number above 0."),
        ("run:", "augment: {flip: 1.5}\nrun:", 16, "augment.flip is 1.5; expected a number from 0 to 1."),
        ("run:", "optim: {betas: [0.9, 1]}\nrun:", 16,
         "optim.betas is [0.9, 1]; expected a list of 2 numbers, each 0 or more and below 1."),
        ("run:", "optim: {lr: -5e-6}\nrun:", 16,
         "optim.lr is -5.0e-6; expected a number above 0 and at most 1."),
        ("run:", "optim: {lr: .nan}\nrun:", 16, "optim.lr is .nan; expected a finite number."),
        ("  steps: 300", "  steps: 0", 17, "run.steps is 0; expected a whole number, 1 or more, or null."),
        ("  steps: 300", "  steps: 300\n  keep_checkpoints: 0", 18,
         "run.keep_checkpoints is 0; expected a whole number, 1 or more."),
        ("  max_depth_m: 10", "  max_depth_m: 1000000", 4,
         "model.max_depth_m is 1000000; expected a number above 0 and at most 100000, or null."),
        ("loss:\n  - kind: silog\n    lam: 0.5", "loss: []", 13,
         "loss is []; expected a list of 1 or more mappings."),
        ("name: small", "name: ../small", 1,
         "name is '../small'; expected the name of one folder: no slash, no dot or space at either end, at most 249 "),
        # Missing keys.
        ("  checkpoint: org/name\n", "", 2, "model.checkpoint is missing; expected a file, a hub id such as "),
        ("      meters_per_unit: 0.001\n", "", 8,
         "data.train.0.meters_per_unit is missing; expected a number."),
        ("  - kind: silog\n    lam", "  - knid: silog\n    lam", 14,
         "loss.0.kind is missing; expected one of gradient, l1, silog, ssi. Found knid, lam."),
        # Steps and epochs.
        ("  steps: 300", "  steps: 300\n  epochs: 5", 18,
         "run.epochs is 5 and run.steps is 300 (x.yaml:17); expected only one of them; remove the other or make it "
         "null."),
        ("  steps: 300", "  steps: 3\n  overfit_batches: 4", 18,
         "run.overfit_batches is 4 and run.steps is 3 (x.yaml:17); expected fewer, so that each is trained on more "
         "than once, such as 1."),
        # Sizes.
        ("[56, 70]", "[250, 336]", 6,
         "data.input_size is [250, 336]; expected height and width, multiples of 14 from 56 to 4200: 238 or 252 "
         "instead of 250."),
        ("[56, 70]", "[480, 640]", 6,
         "data.input_size is [480, 640]; expected height and width, multiples of 14 from 56 to 4200: 476 or 490 "
         "instead of 480, 630 or 644 instead of 640."),
        ("[56, 70]", "[42, 70]", 6,
         "data.input_size is [42, 70]; expected height and width, multiples of 14 from 56 to 4200: 56 or 70 instead "
         "of 42."),
        ("[56, 70]", "[70, 4214]", 6,
         "data.input_size is [70, 4214]; expected height and width, multiples of 14 from 56 to 4200: 4186 or 4200 "
         "instead of 4214."),
        ("[56, 70]", "518", 6, "data.input_size is 518; expected a list of 2 whole numbers."),
        # Variables.
        ("      root: .", "      root: ${QQQQ}/x", 9,
         "data.train.0.root is '${QQQQ}/x'; QQQQ is not set; set it or write ${QQQQ:-default}."),
        ("  steps: 300", "  steps: ${QQQQ}", 17,
         "run.steps is '${QQQQ}'; QQQQ is not set; set it or write ${QQQQ:-default}."),
        # Keys that do not go together.
        ("  max_depth_m: 10", "  max_depth_m: 10\n  on_max_depth: rescale\n  decoder_init: scratch", 5,
         "model.on_max_depth is 'rescale' and model.decoder_init is 'scratch' (x.yaml:6); expected refuse, since only "
         "a last layer that is kept has predictions to scale."),
        ("  max_depth_m: 10", "  max_depth_m: 10\n  on_max_depth: rescle", 5,
         "model.on_max_depth is 'rescle'; expected one of refuse, rescale. Did you mean rescale?"),
        ("run:", "evaluation: {min_depth_m: 5, max_depth_m: 2}\nrun:", 16,
         "evaluation.max_depth_m is 2 and evaluation.min_depth_m is 5 (x.yaml:16); expected a larger max_depth_m "
         "than min_depth_m."),
        ("run:", "evaluation: {min_depth_m: 10}\nrun:", 16,
         "evaluation.min_depth_m is 10 and model.max_depth_m is 10 (x.yaml:4); expected less than the max "
         "depth of the model."),
        ("run:", "evaluation: {protocols: [plain, plain]}\nrun:", 16,
         "evaluation.protocols is ['plain', 'plain']; expected each name once."),
        ("  max_depth_m: 10", "  max_depth_m: 10\n  checkpoint_kind: relative\n  checkpoint_max_depth_m: 20", 6,
         "model.checkpoint_max_depth_m is 20 and model.checkpoint_kind is 'relative' (x.yaml:5); expected null, "
         "since a relative checkpoint has no max depth."),
        ("  checkpoint: org/name", "  checkpoint: null", 3,
         "model.checkpoint is null and model.encoder is 'auto' (x.yaml:2); expected a file or a hub id such as "
         "depth-anything/Depth-Anything-V2-Small, or, to start from random weights, an encoder such as tiny."),
        ("  max_depth_m: 10", "  max_depth_m: 10\n  head: relative", 15,
         "loss.0.kind is 'silog' and model.head is 'relative' (x.yaml:5); expected a loss of inverse depth, such as "
         "ssi."),
        ("  - kind: silog\n    lam: 0.5", "  - kind: ssi", 14,
         "loss.0.kind is 'ssi' and model.head is 'metric' (x.yaml:2); expected a loss of depth in meters, such as "
         "silog."),
        ("  - kind: silog\n    lam: 0.5", "  - kind: gradient\n    of: aligned", 15,
         "loss.0.of is 'aligned' and model.head is 'metric' (x.yaml:2); expected log."),
        ("run:", "evaluation: {protocols: [plain+align=scale_shift_inverse]}\nrun:", 16,
         "evaluation.protocols is ['plain+align=scale_shift_inverse'] and model.head is 'metric' (x.yaml:2); expected "
         "a first protocol, by which best/ is chosen, that does not align, such as [plain, ...]."),
        ("run:", "evaluation: {protocols: [nyu_eigen], max_depth_m: 5}\nrun:", 16,
         "evaluation.max_depth_m is 5 and evaluation.protocols is ['nyu_eigen'] (x.yaml:16); expected null, since each "
         "protocol has its own range; to change it write nyu_eigen+max_depth_m=5."),
        ("      root: .", "      root: .\n      out_of_range: cap", 10,
         "data.train.0.out_of_range is 'cap'; expected one of ignore, ceiling."),
        ("run:\n  steps: 300", "optim: {warmup_steps: 50}\nrun:\n  steps: 40", 16,
         "optim.warmup_steps is 50 and run.steps is 40 (x.yaml:18); expected fewer warm-up steps, such as 4, or null."),
    ],
)  # fmt: skip
def test_one_wrong_key_gives_one_sentence(tmp_path: Path, old: str, new: str, line: int, expected: str) -> None:
    assert SMALL.count(old) == 1
    if "modle" in new:
        found = [fault for fault in faults(tmp_path, SMALL.replace(old, new)) if "modle" in fault]
    else:
        found = faults(tmp_path, SMALL.replace(old, new))
    assert len(found) == 1
    assert found[0].startswith(f"x.yaml:{line}: {expected}")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optim.lrr=1"], "optim.lrr is not a key of optim. Did you mean lr? Keys: lr, lr_decoder,"),
        (["optimm.lr=1"], "optimm is not a key of the recipe. Did you mean optim? Keys: name,"),
        (["loss.0.lamda=0.5"],
         "loss.0.lamda is not an option of silog. Did you mean lam? Options: lam, weight, reduction. Found 0.5."),
        (["loss.3.weight=1"], "loss.3.weight leads nowhere: loss has the entries 0 to 0, not 3."),
        (["run.steps"], "'run.steps' is not an override; expected key=value, such as optim.lr=1e-5."),
        (["run.steps='30'"],
         "run.steps is '30'; expected a whole number, 1 or more, or null. Did you mean 30?"),
        (["run.epochs=5"], "run.epochs is 5 and run.steps is 300 (x.yaml:17); expected only one of them;"),
        (["model.train=al"], "model.train is 'al'; expected one of all, decoder, lora. Did you mean all?"),
        (["data.input_size=[518,520]"],
         "data.input_size is [518, 520]; expected height and width, multiples of 14 from 56 to 4200: 518 or 532 "
         "instead of 520."),
        (["data.train.0.root=${QQQQ}"], "data.train.0.root is '${QQQQ}'; QQQQ is not set;"),
        (["seed=1", "seed=2"], "seed is given twice, here 2; keep one."),
        (["optim.warmup_steps=300"],
         "optim.warmup_steps is 300 and run.steps is 300 (x.yaml:17); expected fewer warm-up steps, such as 30, or "),
    ],
)  # fmt: skip
def test_one_wrong_override_gives_one_sentence(tmp_path: Path, overrides: list[str], expected: str) -> None:
    found = faults(tmp_path, SMALL, *overrides)
    assert len(found) == 1
    assert found[0].startswith(f"command line: {expected}")


def test_steps_on_the_command_line_against_epochs_in_the_file(tmp_path: Path) -> None:
    assert faults(tmp_path, SMALL.replace("steps: 300", "epochs: 3"), "run.steps=100") == [
        "x.yaml:17: run.epochs is 3 and run.steps is 100 (command line); "
        "expected only one of them; remove the other or make it null."
    ]


def test_all_faults_at_once_in_order_of_line(tmp_path: Path) -> None:
    text = """\
name: a/b
model:
  checkpoint: none/tiny.pth
  max_depth_m: -1
  train: al
data:
  input_size: [250, 336]
  train:
    - {reader: pairs, root: nowhere, meters_per_unit: 0.001, colour: 1}
    - {reader: pairs, root: ., meters_per_unit: 0, weight: x}
  val:
    - {reader: zzz}
    - {reader: pairs, root: ., meters_per_unit: 1, depth_is: q, count: 0}
  workers: 2
  workers: 3
loss:
  - {kind: silog, lam: 3, lamb: 1}
  - {kind: l1, weight: ${QQQQ}}
optim: {ema_decay: 1, clip_norm: 0, warmup_steps: 20}
run: {steps: 10, epochs: 2, thread: 1}
evaluation: {min_depth_m: 2, max_depth_m: 1}
extra: 1
"""
    found = faults(tmp_path, text, "seed=-1", "loss.1.kind=l3", check_files=True)
    keys = [fault.split(" is ")[0].removeprefix("x.yaml:") for fault in found]
    assert keys == [
        "1: name",
        "3: model.checkpoint",
        "4: model.max_depth_m",
        "5: model.train",
        "7: data.input_size",
        "9: data.train.0.colour",
        "9: data.train.0.root",
        "10: data.train.1.weight",
        "10: data.train.1.meters_per_unit",
        "12: data.val.0.reader",
        "13: data.val.1.depth_is",
        "13: data.val.1.count",
        "15: data.workers",
        "17: loss.0.lamb",
        "17: loss.0.lam",
        "18: loss.1.weight",
        "19: optim.clip_norm",
        "19: optim.ema_decay",
        "19: optim.warmup_steps",
        "20: run.thread",
        "20: run.epochs",
        "21: evaluation.max_depth_m",
        "22: extra",
        "command line: seed",
        "command line: loss.1.kind",
    ]


def test_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny.safetensors").touch()
    missing = SMALL.replace("org/name", "data/tinny.safetensors").replace("root: .,", "root: nowhere,")
    assert faults(tmp_path, missing, check_files=True) == [
        "x.yaml:3: model.checkpoint is 'data/tinny.safetensors'; expected a file that exists, or a hub id such as "
        "depth-anything/Depth-Anything-V2-Small; perhaps data/tiny.safetensors.",
        "x.yaml:12: data.val.0.root is 'nowhere'; expected an existing folder.",
    ]
    assert load(tmp_path, missing, check_files=False).data.val[0].source.root == "nowhere"
    assert load(tmp_path, SMALL, "model.checkpoint=data/tiny.safetensors", check_files=True)


@pytest.mark.parametrize(
    ("checkpoint", "is_left_to_the_loader"),
    [
        ("depth-anything/Depth-Anything-V2-Small", True),
        ("org/model-v1.5", True),
        ("org/model.pth", False),
        ("model", False),
        ("/mnt/none/model", False),
        ("a/b/c", False),
    ],
)
def test_a_hub_id_is_not_looked_for_on_disk(tmp_path: Path, checkpoint: str, is_left_to_the_loader: bool) -> None:
    override = f"model.checkpoint={checkpoint}"
    if is_left_to_the_loader:
        assert load(tmp_path, SMALL, override, check_files=True).model.checkpoint == checkpoint
    else:
        assert faults(tmp_path, SMALL, override, check_files=True)[0].startswith("command line: model.checkpoint is")


def test_a_fault_that_follows_from_another_is_not_reported(tmp_path: Path) -> None:
    # Neither the missing steps nor the warm-up, whose default is 50, says more than the typing error does.
    assert len(faults(tmp_path, SMALL.replace("steps: 300", "steps: x"))) == 1
    wrong_range = SMALL.replace("run:", "evaluation: {min_depth_m: 20, max_depth_m: '30'}\nrun:")
    assert [fault.split(" is ")[0] for fault in faults(tmp_path, wrong_range)] == [
        "x.yaml:16: evaluation.max_depth_m",
        "x.yaml:16: evaluation.min_depth_m",
    ]


SECTIONS: dict[str, type] = {
    "": Recipe,
    "model.": ModelOptions,
    "model.lora.": LoraOptions,
    "data.": DataOptions,
    "augment.": AugmentOptions,
    "optim.": OptimOptions,
    "run.": RunOptions,
    "evaluation.": EvaluationOptions,
    "evaluation.retention.": RetentionOptions,
}
KEYS = [prefix + name for prefix, section in SECTIONS.items() for name in option_fields(section)]
KEYS += ["loss.0.kind", "loss.0.weight", "loss.0.lam", "data.val.0.reader", "data.val.0.weight", "data.val.0.invalid"]


@pytest.mark.parametrize("key", KEYS)
def test_no_value_brings_out_the_words_of_pydantic(tmp_path: Path, key: str) -> None:
    values: list[Any] = [
        "text",
        "",
        "1",
        True,
        None,
        -1,
        0,
        2.5,
        1e300,
        10**17,
        [],
        {},
        [[]],
        [-1, -1],
        ["x"],
        {"x": 1},
    ]
    refused = 0
    for value in values:
        try:
            load(tmp_path, SMALL, f"{key}={json.dumps(value)}")
        except RecipeFaults as error:
            refused += 1
            assert "https://" not in str(error)
            assert "Input should" not in str(error)
            assert "pydantic" not in str(error)
            about = [fault for fault in error.faults if fault.startswith(f"command line: {key}")]
            assert about, error.faults
            for fault in about:
                assert " expected " in fault or " is not a" in fault
    assert refused >= 6


def test_the_real_classes_load_without_torch(tmp_path: Path) -> None:
    entry = "{reader: pairs, root: ., list: x.txt, meters_per_unit: 0.001}"
    text = f"""\
name: x
model: {{checkpoint: org/name, max_depth_m: 10}}
data: {{input_size: [56, 56], train: [{entry}], val: [{entry}]}}
loss: [{{kind: silog}}, {{kind: l1}}, {{kind: gradient}}]
run: {{epochs: 1}}
"""
    (tmp_path / "x.yaml").write_text(text)
    code = (
        "import sys; from finetune.recipe.load import load_recipe, recipe_text\n"
        "recipe = load_recipe(sys.argv[1], check_files=False); recipe_text(recipe)\n"
        "print([term.kind for term in recipe.loss])\n"
        "print([name for name in ('torch', 'timm', 'albumentations', 'accelerate') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.yaml")], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["['silog', 'l1', 'gradient']", "[]"]

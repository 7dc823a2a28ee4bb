from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.models.checkpoints.fill import fill
from finetune.models.checkpoints.identity import ArgumentNames
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import UNUSED_UNIT, DepthModel
from finetune.utils.errors import CheckpointError, shown
from tests.drawn_weights import drawn_image, drawn_model


@lru_cache
def official_tensors(encoder: str = "tiny") -> dict[str, Tensor]:
    return Official.from_ours(drawn_model(encoder, None).state_dict())


def written(path: Path, content: object) -> str:
    torch.save(content, path)
    return str(path)


@pytest.fixture
def official(tmp_path: Path) -> str:
    return written(tmp_path / "dav2.pth", official_tensors())


def refusal(source: str, **claims: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(source, **claims)
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_official_is_taken_as_relative_and_says_so(official: str) -> None:
    checkpoint = read_checkpoint(official, where="recipe.yaml:4")
    assert (checkpoint.format, checkpoint.kind, checkpoint.kind_assumed) == ("official", "relative", True)
    assert (checkpoint.encoder, checkpoint.max_depth_m, checkpoint.license) == ("tiny", None, None)
    assert checkpoint.sha256 == hashlib.sha256(Path(official).read_bytes()).hexdigest()
    assert checkpoint.notes == (
        f"{official} cannot say whether it is relative or metric: taken as relative (inverse depth, no unit). "
        "If it is metric, set model.checkpoint_kind and model.checkpoint_max_depth_m (recipe.yaml:4)",
        f"{official} cannot say whether it is V1 or V2 of Depth Anything: taken as V2. If it is V1, set "
        "model.checkpoint_version to v1 (recipe.yaml:4)",
    )
    assert all(tensor.dtype == torch.float32 for tensor in checkpoint.tensors.values())
    model = DepthModel("tiny", None)
    assert str(fill(model, checkpoint, "all")) == "encoder 119/119, decoder 64/64"
    image = drawn_image(28, 42)
    assert torch.equal(model(image), drawn_model("tiny", None)(image))


def test_official_that_is_said_to_be_what_it_is(official: str) -> None:
    relative = read_checkpoint(official, kind="relative", version="v2")
    metric = read_checkpoint(official, kind="metric", max_depth_m=20.0)
    assert (relative.kind, relative.kind_assumed, relative.notes) == ("relative", False, ())
    assert (metric.kind, metric.kind_assumed, metric.max_depth_m) == ("metric", False, 20.0)


@pytest.mark.parametrize("nest", ["model", "state_dict", None])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module."])
def test_training_checkpoint(nest: str | None, prefix: str, tmp_path: Path) -> None:
    tensors = {prefix + name: tensor for name, tensor in official_tensors().items()}
    content = {nest: tensors, "epoch": 12, "previous_best": {"d1": 0.5}} if nest else tensors
    checkpoint = read_checkpoint(written(tmp_path / "latest.pth", content), kind="relative", version="v2")
    assert checkpoint.notes == (("training checkpoint, epoch 12: using its model weights",) if nest else ())
    assert torch.equal(checkpoint.tensors["encoder.cls_token"], official_tensors()["pretrained.cls_token"])


def test_half_precision_and_old_files_are_read(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in official_tensors().items()}
    torch.save(halves, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    checkpoint = read_checkpoint(str(tmp_path / "old.pth"))
    assert checkpoint.tensors["head.last.weight"].dtype == torch.float32
    assert torch.equal(
        checkpoint.tensors["head.last.weight"], halves["depth_head.scratch.output_conv2.2.weight"].float()
    )


def test_file_beside_an_official_one_says_what_it_is(official: str) -> None:
    sidecar = {"kind": "metric", "encoder": "tiny", "max_depth_m": 20.0, "base": {"license": "CC-BY-NC-4.0"}}
    Path(official).with_suffix(".json").write_text(json.dumps(sidecar))
    checkpoint = read_checkpoint(official)
    assert (checkpoint.kind, checkpoint.kind_assumed, checkpoint.max_depth_m) == ("metric", False, 20.0)
    assert (checkpoint.metadata, checkpoint.license) == (sidecar, "CC-BY-NC-4.0")
    assert checkpoint.notes == (f"{official} has license CC-BY-NC-4.0: no commercial use",)
    assert refusal(official, kind="relative", where="r.yaml:3") == (
        f"{official}: is metric, model.checkpoint_kind says relative. Set model.checkpoint_kind to auto (r.yaml:3)."
    )
    assert refusal(official, max_depth_m=10.0) == (
        f"{official}: has max depth 20 m, model.checkpoint_max_depth_m says 10. "
        "Set model.checkpoint_max_depth_m to null."
    )


def test_file_beside_it_that_is_broken_or_another_program_s(official: str) -> None:
    sidecar = Path(official).with_suffix(".json")
    sidecar.write_text("[1, 2]")
    assert read_checkpoint(official).kind_assumed
    sidecar.write_text("{")
    assert refusal(official).startswith(f"{sidecar}: cannot be read as JSON (")
    sidecar.write_text('{"kind": "relative", "base": {"license": 5}}')
    assert read_checkpoint(official).license is None


@pytest.mark.parametrize("kind", ["metric", "relative"])
@pytest.mark.parametrize("value", ["-3", "0", "NaN", "Infinity", "true", '"3"', "[3]", "1" + 400 * "0", "1e9", "1e-30"])
def test_max_depth_that_is_none(official: str, kind: str, value: str) -> None:
    sidecar = Path(official).with_suffix(".json")
    sidecar.write_text(f'{{"kind": "{kind}", "max_depth_m": {value}}}')
    sentence = refusal(official)
    assert sentence.startswith(f"{sidecar}: says kind '{kind}' and max_depth_m {shown(json.loads(value))}; expected ")


@pytest.mark.parametrize("says", ['{"kind": "metric", "max_depth_m": null}', '{"kind": "meters"}', '{"kind": [1]}'])
def test_kind_and_max_depth_that_do_not_go_together(official: str, says: str) -> None:
    Path(official).with_suffix(".json").write_text(says)
    expected = "expected metric and 0.001 to 100000 meters, or relative or relative_depth and none. Export it again"
    assert expected in refusal(official)


ROWS = {"protocol": {"name": "plain"}, "rows": {"finetuned": {"abs_rel": 0.1, "rmse": None}}}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("step", 3, [-1, "3", True, None, [3]]),
        (
            "evaluation",
            ROWS,
            [3, "x", {"protocol": {}}, {**ROWS, "rows": [1]}, {**ROWS, "rows": {"a": {"abs_rel": "x"}}}],
        ),
        ("evaluation", [ROWS, ROWS], [[3], {**ROWS, "protocol": None}]),
        (
            "calibration",
            {"scale": 1.1, "original_max_depth_m": 10.0, "original_evaluation": None},
            [3, {}, {"scale": -1, "original_max_depth_m": 10.0}, {"scale": 1.1, "original_max_depth_m": "10"}],
        ),
    ],
)
def test_what_a_file_says_of_itself_is_what_we_write(
    name: str, good: object, bad: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_native(path, drawn_model("tiny", 10.0), {name: good})
    assert read_checkpoint(str(path)).metadata[name] == good
    for value in bad:
        save_native(path, drawn_model("tiny", 10.0), {name: value})
        assert refusal(str(path)).startswith(f"{path}: says {name} ")


def test_metric_needs_its_max_depth(official: str) -> None:
    assert refusal(official, kind="metric", where="r.yaml:3") == (
        f"{official}: is metric, but nothing says its max depth. "
        "Set model.checkpoint_max_depth_m to the meters it was trained with (r.yaml:3)."
    )
    assert "is relative, which has no max depth" in refusal(official, max_depth_m=20.0)


def test_name_that_says_metric_is_not_taken_as_relative(tmp_path: Path) -> None:
    source = written(tmp_path / "depth_anything_v2_metric_vkitti_vits.pth", official_tensors())
    assert refusal(source) == (
        f"{source}: has metric in its name, but the file itself cannot say so. "
        "Set model.checkpoint_kind to metric and model.checkpoint_max_depth_m to 80."
    )
    assert read_checkpoint(source, kind="metric", max_depth_m=80.0).max_depth_m == 80.0


def test_published_name_says_version_and_license_of_the_encoder_it_is_of(tmp_path: Path) -> None:
    source = written(tmp_path / "depth_anything_v2_vits.pth", official_tensors("vits"))
    checkpoint = read_checkpoint(source, kind="relative")
    assert (checkpoint.version, checkpoint.license, checkpoint.notes) == ("v2", "Apache-2.0", ())
    other = read_checkpoint(written(tmp_path / "depth_anything_v2_vitl.pth", official_tensors()), kind="relative")
    assert (other.license, other.version_assumed) == (None, True)


def test_name_of_v1_is_not_taken_as_v2(tmp_path: Path) -> None:
    source = written(tmp_path / "depth_anything_vits14.pth", official_tensors())
    assert refusal(source, where="r.yaml:3") == (
        f"{source}: has the name of V1 weights, but the file itself cannot say so. "
        "Set model.checkpoint_version to v1, or to v2 if that is what it is (r.yaml:3)."
    )
    assert read_checkpoint(source, version="v1").version == "v1"


def test_version_beside_it_wins_and_is_one_of_two(official: str) -> None:
    sidecar = Path(official).with_suffix(".json")
    sidecar.write_text(json.dumps({"kind": "relative", "checkpoint_version": "v1", "position_offset": 0.1}))
    assert read_checkpoint(official).version == "v1"
    assert refusal(official, version="v2") == (
        f"{official}: is V1, model.checkpoint_version says v2. Set model.checkpoint_version to auto."
    )
    sidecar.write_text(json.dumps({"kind": "relative", "checkpoint_version": "v3"}))
    assert refusal(official).startswith(f"{sidecar}: says checkpoint_version 'v3'; expected v1 or v2.")
    sidecar.write_text(json.dumps({"kind": "relative", "position_offset": 0.5}))
    assert refusal(official).startswith(f"{sidecar}: says position_offset 0.5; expected 0.1 or 0.0.")


def test_adapters_beside_the_weights_are_not_left_out_in_silence(tmp_path: Path) -> None:
    tensors = {f"base_model.model.{name}": tensor for name, tensor in official_tensors().items()}
    adapter = "base_model.model.pretrained.blocks.0.attn.qkv.lora_A.default.weight"
    source = written(tmp_path / "lora.pth", {**tensors, adapter: torch.zeros(4, 192)})
    assert refusal(source) == (
        f"{source}: holds adapters next to the weights that they change "
        "(encoder.blocks.0.attn.qkv.lora_A.default.weight). Merge them before saving (model.merge_and_unload()), or "
        "name the folder that peft saved."
    )
    assert read_checkpoint(written(tmp_path / "merged.pth", tensors)).format == "official"


def test_hub_id_that_is_not_in_the_table_is_a_folder_of_transformers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from finetune.models.checkpoints.huggingface import HuggingFace

    source = Path(
        written(tmp_path / "pytorch_model.bin", HuggingFace.from_ours(drawn_model("tiny", None).state_dict()))
    )
    monkeypatch.setattr("finetune.models.checkpoints.load.fetch_transformers", lambda repository, naming: source)
    checkpoint = read_checkpoint("someone/their-depth", kind="relative", version="v2")
    assert (checkpoint.format, checkpoint.source, checkpoint.license) == ("huggingface", "someone/their-depth", None)


def test_encoder_that_the_file_is_not(official: str) -> None:
    assert refusal(official, encoder="vitl", where="recipe.yaml:2") == (
        f"{official}: found 8 blocks, encoder vitl has 24. Set model.encoder to tiny (recipe.yaml:2)."
    )
    assert read_checkpoint(official, encoder="tiny").encoder == "tiny"


def test_encoder_of_the_same_depth(tmp_path: Path) -> None:
    source = written(tmp_path / "small.pth", official_tensors("vits"))
    assert refusal(source, encoder="vitb").endswith(
        "found tokens of width 384, encoder vitb has 768. Set model.encoder to vits."
    )


def test_encoder_that_nobody_knows(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in official_tensors().items() if "blocks.7." not in name}
    source = written(tmp_path / "cut.pth", tensors)
    assert "found 7 blocks of width 192, which is no known encoder" in refusal(source)


def test_tensors_without_any_dimension(official: str, tmp_path: Path) -> None:
    source = written(tmp_path / "flat.pth", {**official_tensors(), "pretrained.cls_token": torch.tensor(1.0)})
    assert "found 8 blocks of width 1, which is no known encoder" in refusal(source)
    with pytest.raises(CheckpointError, match=r"head\.last\.bias is a single number instead of 1 for"):
        fill(DepthModel("tiny", None), changed(official, **{"head.last.bias": torch.tensor(1.0)}), "all")


def test_run_folder_means_its_best_weights(tmp_path: Path) -> None:
    save_native(tmp_path / "run" / "best" / "model.safetensors", drawn_model("tiny", None), {})
    for folder in (tmp_path / "run", tmp_path / "run" / "best"):
        checkpoint = read_checkpoint(str(folder))
        assert (checkpoint.path, checkpoint.source) == (tmp_path / "run/best/model.safetensors", str(folder))
    (tmp_path / "empty").mkdir()
    assert "is a folder without best/model.safetensors" in refusal(str(tmp_path / "empty"))


def zip_bytes(tmp_path: Path) -> bytes:
    return Path(written(tmp_path / "whole.pth", official_tensors())).read_bytes()


def native_bytes(tmp_path: Path) -> bytes:
    save_native(tmp_path / "whole.safetensors", drawn_model("tiny", None), {})
    return (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "is empty"),
        (b"kind: relative\n", "is neither a .pth nor a .safetensors file"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 500, "is cut short or damaged"),
        (b"\x80\x02", "damaged"),
        (b"\x10" + b"\0" * 7 + b'{"a":1', "is cut short or damaged"),
    ],
)
def test_files_that_are_no_weights(content: bytes, found: str, tmp_path: Path) -> None:
    source = tmp_path / "weights.pth"
    source.write_bytes(content)
    assert found in refusal(str(source))


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.9999])
def test_files_that_are_cut_short(share: float, tmp_path: Path) -> None:
    for whole in (zip_bytes(tmp_path), native_bytes(tmp_path)):
        source = tmp_path / "cut.pth"
        source.write_bytes(whole[: int(share * len(whole))])
        assert "is cut short or damaged" in refusal(str(source))


class Opened:
    """Writes a file if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    source = written(tmp_path / "bad.pth", {**official_tensors(), "extra": Opened(tmp_path / "ran")})
    sentence = refusal(source)
    assert "opening it could run code" in sentence and "torch.save(model.state_dict(), path)" in sentence
    assert not (tmp_path / "ran").exists()


def test_files_of_another_layout(tmp_path: Path) -> None:
    other = written(tmp_path / "other.pth", {"layer.weight": torch.zeros(1)})
    assert "has 1 tensors (layer.weight, ...), the names of no known format" in refusal(other)
    numbered = written(tmp_path / "numbered.pth", {1: torch.zeros(1)})
    assert "has 1 tensors (1, ...), the names of no known format" in refusal(numbered)
    assert "holds a list, not weights by name" in refusal(written(tmp_path / "list.pth", [1, 2]))
    nameless = tmp_path / "resume.safetensors"
    save_file({"encoder.cls_token": torch.zeros(1)}, nameless)
    assert "does not say what they are" in refusal(str(nameless))


def test_path_that_is_not_there() -> None:
    assert refusal("weights/none.pth") == (
        "weights/none.pth: no such file. Check the path, or name a hub id, such as "
        "depth-anything/Depth-Anything-V2-Small (30 are known by name)."
    )
    assert refusal("depth-anything/Depth-Anything-V2-Smal-hf").endswith(
        "no such file. Did you mean the hub id depth-anything/Depth-Anything-V2-Small-hf."
    )


def test_hub_id_says_what_its_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = Path(written(tmp_path / "depth_anything_v2_metric_hypersim_vitb.pth", official_tensors()))
    monkeypatch.setattr("finetune.models.checkpoints.load.fetch", lambda entry, naming: source)
    checkpoint = read_checkpoint("depth-anything/Depth-Anything-V2-Metric-Hypersim-Base")
    assert (checkpoint.kind, checkpoint.kind_assumed, checkpoint.max_depth_m) == ("metric", False, 20.0)
    assert checkpoint.license == "Apache-2.0"
    assert checkpoint.notes == (
        "depth-anything/Depth-Anything-V2-Metric-Hypersim-Base has license Apache-2.0; the relative model it was "
        "trained from is CC-BY-NC-4.0",
    )


def filled(checkpoint: Checkpoint, parts: str) -> tuple[set[str], str]:
    """Which tensors of a NaN network were filled, and the line to print."""
    model = DepthModel("tiny", 10.0)
    coverage = fill(model, checkpoint, parts)
    return {name for name, tensor in model.state_dict().items() if not tensor.isnan().any()}, str(coverage)


def test_parts_to_fill(official: str) -> None:
    checkpoint = read_checkpoint(official)
    names = set(checkpoint.tensors)
    last = {"head.last.weight", "head.last.bias"}
    assert filled(checkpoint, "all") == (names, "encoder 119/119, decoder 64/64")
    assert filled(checkpoint, "all_but_last") == (names - last, "encoder 119/119, decoder 62/64, last layer new (2)")
    encoder = {name for name in names if name.startswith("encoder.")}
    assert filled(checkpoint, "encoder") == (encoder, "encoder 119/119, decoder new (64)")


def changed(official: str, **tensors: Tensor | None) -> Checkpoint:
    checkpoint = read_checkpoint(official)
    for name, tensor in tensors.items():
        if tensor is None:
            del checkpoint.tensors[name]
        else:
            checkpoint.tensors[name] = tensor
    return checkpoint


def test_what_the_network_never_reads_may_be_missing(official: str) -> None:
    checkpoint = changed(official, **{"encoder.mask_token": None, f"{UNUSED_UNIT}.conv1.bias": None})
    names, line = filled(checkpoint, "all")
    assert line == "encoder 118/119, decoder 63/64"
    assert "encoder.mask_token" in names  # zero, not NaN


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"head.refine.bias": None}, "lacks head.refine.bias"),
        ({"decoder.readout.weight": torch.zeros(1)}, "has unknown tensors: decoder.readout.weight"),
        (
            {"decoder.project.0.bias": torch.zeros(48)},
            "has another shape: decoder.project.0.bias is 48 instead of 24",
        ),
    ],
)
def test_file_that_does_not_cover_the_network(official: str, tensors: dict[str, Any], found: str) -> None:
    checkpoint = changed(official, **tensors)
    model = DepthModel("tiny", 10.0)
    for parts in ("all", "all_but_last"):
        # Not even a run with a new decoder could start: its table needs the base model's own prediction.
        with pytest.raises(
            CheckpointError, match=f"{found} for encoder tiny. Use a whole checkpoint of this encoder.$"
        ):
            fill(model, checkpoint, parts)
    assert all(tensor.isnan().all() for tensor in model.state_dict().values())
    assert str(fill(model, checkpoint, "encoder")) == "encoder 119/119, decoder new (64)"


def test_last_layer_that_is_new_need_not_be_in_the_file(official: str) -> None:
    checkpoint = changed(official, **{"head.last.weight": None, "head.last.bias": torch.zeros(7)})
    assert filled(checkpoint, "all_but_last")[1] == "encoder 119/119, decoder 62/64, last layer new (2)"
    with pytest.raises(CheckpointError, match=r"lacks head\.last\.weight"):
        fill(DepthModel("tiny", None), checkpoint, "all")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(official: str, value: float) -> None:
    bias = torch.zeros(24)
    bias[5] = value
    checkpoint = changed(official, **{"decoder.project.0.bias": bias})
    model = DepthModel("tiny", None)
    with pytest.raises(CheckpointError, match=r"dav2\.pth: decoder\.project\.0\.bias holds NaN or infinity"):
        fill(model, checkpoint, "all")
    assert all(tensor.isnan().all() for tensor in model.state_dict().values())
    assert str(fill(model, checkpoint, "encoder")) == "encoder 119/119, decoder new (64)"


def test_what_the_network_never_reads_need_not_be_finite(official: str) -> None:
    checkpoint = read_checkpoint(official)
    checkpoint.tensors[f"{UNUSED_UNIT}.conv1.bias"].fill_(torch.nan)
    assert filled(checkpoint, "all")[1] == "encoder 119/119, decoder 64/64"


def test_only_the_first_few_are_named(official: str) -> None:
    tensors = {name: None for name in official_tensors_of_ours() if name.startswith("encoder.blocks.3.")}
    with pytest.raises(CheckpointError, match=r"lacks ([\w.]+, ){2}[\w.]+ and 11 more for"):
        fill(DepthModel("tiny", None), changed(official, **tensors), "all")


def official_tensors_of_ours() -> dict[str, Tensor]:
    return Official.to_ours(official_tensors())


def test_own_file_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = drawn_model("tiny", 10.0)
    metadata = {
        "preprocessing": {"input_size": [252, 336]},
        "base": {"source": "a.pth", "sha256": "0", "license": "Apache-2.0"},
        "evaluation": [{"rows": {"finetuned": {"abs_rel": 0.1}}}],
    }
    path = tmp_path / "new" / "model.safetensors"
    save_native(path, model, metadata)
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.metadata == {
        **metadata,
        "format": "finetune",
        "version": 1,
        "kind": "metric",
        "encoder": "tiny",
        "max_depth_m": 10.0,
        "activation": "sigmoid",
        "checkpoint_version": "v2",
        "position_offset": 0.1,
        "stored_as": "float32",
    }
    assert (checkpoint.format, checkpoint.kind, checkpoint.kind_assumed) == ("native", "metric", False)
    assert (checkpoint.encoder, checkpoint.max_depth_m) == ("tiny", 10.0)
    assert (checkpoint.license, checkpoint.notes) == ("Apache-2.0", ())
    again = DepthModel(checkpoint.encoder, checkpoint.max_depth_m)
    fill(again, checkpoint, "all")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert load_file(path)["head.last.bias"].dtype == torch.float32


def test_half_says_so_and_comes_back_as_float32(tmp_path: Path) -> None:
    model = drawn_model("tiny", None)
    save_native(tmp_path / "model.safetensors", model, {}, half=True)
    checkpoint = read_checkpoint(str(tmp_path / "model.safetensors"))
    assert checkpoint.metadata["stored_as"] == "float16"
    assert load_file(tmp_path / "model.safetensors")["head.last.bias"].dtype == torch.float16
    for name, tensor in model.state_dict().items():
        assert torch.equal(checkpoint.tensors[name], tensor.half().float()), name


def test_what_stands_is_kept_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_native(path, drawn_model("tiny", 10.0), {})
    before = path.read_bytes()

    def disk_full(tensors: object, unfinished: Path, metadata: object) -> None:
        unfinished.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finetune.models.checkpoints.save.save_file", disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_native(path, drawn_model("tiny", 20.0), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_file_has_the_mode_that_the_umask_asks_for(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        save_native(tmp_path / "model.safetensors", drawn_model("tiny", None), {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == mode


@pytest.mark.slow
def test_what_a_kill_left_is_gone_with_the_next_write(tmp_path: Path) -> None:
    # Killed by the library's own write: its temporary file and ours are both there.
    code = (
        "import os, sys; from pathlib import Path; import finetune.models.checkpoints.save as weights; "
        "weights.save_file = lambda tensors, path, metadata: "
        "(path.write_bytes(b'half'), path.with_name('.tmp').touch(), os.kill(os.getpid(), 9)); "
        "model = weights.DepthModel('tiny', None); weights.save_native(Path(sys.argv[1]), model, {})"
    )
    path = tmp_path / "model.safetensors"
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -9
    assert [left.name for left in tmp_path.iterdir()] == [".model.safetensors.writing"]
    save_native(path, drawn_model("tiny", None), {})
    assert list(tmp_path.iterdir()) == [path]
    assert read_checkpoint(str(path)).encoder == "tiny"


def test_file_of_a_newer_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("finetune.models.checkpoints.save.VERSION", 2)
        save_native(tmp_path / "model.safetensors", drawn_model("tiny", None), {})
    assert "is version 2 of our format, this program reads version 1" in refusal(str(tmp_path / "model.safetensors"))


def test_shipped_tiny_checkpoint_says_what_it_is_and_predicts() -> None:
    source = Path(__file__).parents[3] / "data" / "tiny_relative.safetensors"
    assert source.stat().st_size <= 12_000_000
    checkpoint = read_checkpoint(str(source))
    assert (checkpoint.kind, checkpoint.encoder, checkpoint.license) == ("relative", "tiny", "Apache-2.0")
    model = DepthModel("tiny", None)
    fill(model, checkpoint, "all")
    with torch.inference_mode():
        prediction = model(drawn_image(252, 336))
    assert prediction.min() > 0.1
    assert prediction.std() > 0.02


def test_same_weights_are_the_same_file(tmp_path: Path) -> None:
    model, metadata = drawn_model("tiny", 10.0), {"preprocessing": {"size": "ä"}, "camera": None, "note": ""}
    for n in range(4):
        save_native(tmp_path / f"{n}.safetensors", model, metadata)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_caller_names_the_arguments_as_its_user_does(official: str) -> None:
    wording = ArgumentNames(
        source="name", kind="--kind", max_depth_m="--max-depth", no_max_depth="Leave --max-depth out"
    )
    sentence = refusal(official, kind="relative", max_depth_m=3.0, wording=wording)
    assert sentence.endswith("--max-depth says 3. Leave --max-depth out, or set --kind to metric.")
    assert read_checkpoint(official, wording=wording).notes[0].endswith("If it is metric, set --kind and --max-depth")

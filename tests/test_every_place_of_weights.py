"""Weights under whatever names training scripts put them: the same network, or one sentence that runs nothing."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from finetune.models.checkpoints.fill import fill
from finetune.models.checkpoints.huggingface import HuggingFace
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.models.depth_model import DepthModel
from finetune.utils.errors import CheckpointError
from tests.small_models import small_model

STATE = small_model(None).state_dict()
OFFICIAL = Official.from_ours(STATE)
OTHER = Official.from_ours(small_model(None, seed=1).state_dict())


def below(prefix: str, tensors: dict[str, Tensor] = OFFICIAL) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def read(path: Path, content: Any) -> Checkpoint:
    torch.save(content, path)
    return read_checkpoint(str(path), kind="relative", version="v2")


def refusal(path: Path, content: Any = None) -> str:
    if content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence
    assert "weights_only" not in sentence and "torch.load" not in sentence
    return sentence


def require_same(checkpoint: Checkpoint, state: dict[str, Tensor] = STATE) -> None:
    assert checkpoint.tensors.keys() == state.keys()
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    "content",
    [
        {"model_state_dict": OFFICIAL, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(3)}}}, "epoch": 3},
        {"params": OFFICIAL},
        {"net": OFFICIAL, "step": torch.tensor(5)},
        {"weights": OFFICIAL},
        {"model": {"state_dict": OFFICIAL}},
        {"state_dict": below("model."), "epoch": 3},
        {"state_dict": below("net.")},
        {"state_dict": below("depth_anything.")},
        {"model": below("core.core.")},
        {"model": below("module._orig_mod.")},
        below("model.network."),
        {**below("module."), "n_averaged": torch.tensor(9)},
        {"pretrained": {name.partition(".")[2]: OFFICIAL[name] for name in OFFICIAL if name.startswith("pretrained.")},
         "depth_head": {name.partition(".")[2]: OFFICIAL[name] for name in OFFICIAL if name.startswith("depth_head.")}},
        {"model": OFFICIAL, "best_model": dict(OFFICIAL)},
        {"swa_state_dict": {**below("module."), "n_averaged": torch.tensor(9)}},
    ],
    ids=lambda content: "-".join(list(content)[:2])[:40],
)  # fmt: skip
def test_the_same_network_wherever_it_lies(content: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = read(tmp_path / "w.pth", content)
    require_same(checkpoint)
    assert not checkpoint.chosen


def part(name: str, tensors: dict[str, Tensor] = OFFICIAL) -> dict[str, Tensor]:
    """``pretrained`` or ``depth_head`` alone, as ``network.pretrained.state_dict()`` gives it."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


PARTS = {"encoder": part("pretrained"), "decoder": part("depth_head")}
OTHER_PARTS = {"encoder": part("pretrained", OTHER), "decoder": part("depth_head", OTHER)}


@pytest.mark.parametrize(
    "content",
    [
        PARTS,
        {"epoch": 3, "model": PARTS},
        {"backbone_state_dict": PARTS["encoder"], "dpt_state_dict": PARTS["decoder"], "optimizer_state_dict": {}},
        {"encoder": below("pretrained.", PARTS["encoder"]), "decoder": below("depth_head.", PARTS["decoder"])},
        {"encoder": below("module.", PARTS["encoder"]), "decoder": below("module.", PARTS["decoder"])},
    ],
)
def test_encoder_and_decoder_that_are_kept_apart_are_one_network(content: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = read(tmp_path / "w.pth", content)
    require_same(checkpoint)
    assert not checkpoint.chosen and checkpoint.format == "official"


def test_parts_of_two_networks_are_not_mixed(tmp_path: Path) -> None:
    averages = {f"ema_{name}": tensors for name, tensors in PARTS.items()}
    checkpoint = read(tmp_path / "w.pth", {**OTHER_PARTS, **averages})
    require_same(checkpoint)
    (note,) = checkpoint.chosen
    assert "using the averaged weights (ema_encoder and ema_decoder), not those of encoder and decoder" in note
    others = {f"teacher_{name}": tensors for name, tensors in OTHER_PARTS.items()}
    assert "holds 2 networks (encoder and teacher_encoder)" in refusal(tmp_path / "w.pth", {**PARTS, **others})
    # The decoder of another network next to a whole one is left out, aloud.
    checkpoint = read(tmp_path / "w.pth", {"net": OFFICIAL, "other": OTHER_PARTS["decoder"]})
    require_same(checkpoint)
    assert "other tensors are left out (other." in checkpoint.chosen[0]


def test_in_safetensors_and_by_the_names_of_transformers_too(tmp_path: Path) -> None:
    save_file({f"model.{name}": tensor.contiguous() for name, tensor in HuggingFace.from_ours(STATE).items()},
              tmp_path / "w.safetensors")  # fmt: skip
    require_same(read_checkpoint(str(tmp_path / "w.safetensors"), kind="relative", version="v2"))


@pytest.mark.parametrize(
    ("average", "raw", "prefix"),
    [
        ("ema", "model", ""),
        ("ema", "net", "module."),
        ("params_ema", "params", ""),
        ("ema_state_dict", "state_dict", "model."),
        ("model_ema", "model", ""),
    ],
)
def test_an_average_is_preferred_aloud(average: str, raw: str, prefix: str, tmp_path: Path) -> None:
    for content in (
        {average: below(prefix), raw: below(prefix, OTHER)},
        {raw: below(prefix, OTHER), average: below(prefix)},
    ):
        checkpoint = read(tmp_path / "w.pth", content)
        require_same(checkpoint)
        (note,) = checkpoint.chosen
        assert f"using the averaged weights ({average}" in note and f"not those of {raw}" in note
        assert note in checkpoint.notes


def test_an_average_without_names_is_not_taken_and_that_is_said(tmp_path: Path) -> None:
    """torch_ema keeps a list of tensors."""
    ema = {"decay": 0.99, "num_updates": 4, "shadow_params": list(OTHER.values())}
    checkpoint = read(tmp_path / "w.pth", {"model": OFFICIAL, "ema": ema})
    require_same(checkpoint)
    (note,) = checkpoint.chosen
    assert (
        "using the weights of model, not the averaged ones, which are a list without names (ema.shadow_params)" in note
    )


def test_what_is_no_file_is_not_suggested_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "loop.pth"
    path.symlink_to(path)
    with pytest.raises(CheckpointError, match=r"links lead in a circle\. Check the path"):
        read_checkpoint(str(path))


def test_a_pipe_is_named_and_neither_suggested_nor_taken_for_a_misspelling(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"a\.pth: is a pipe, not a file\. Name a run folder, or a weights file"):
        read_checkpoint(str(tmp_path / "a.pth"))
    with pytest.raises(CheckpointError, match=r"c\.pth: no such file\. Check the path"):
        read_checkpoint(str(tmp_path / "c.pth"))


@pytest.mark.parametrize("source", ["runs/desc", "weights/desc"])
def test_a_folder_of_ours_is_a_path_where_there_is_none_yet(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=rf"^{source}: no such file\. Check the path"):
        read_checkpoint(source)


def test_what_stands_beside_it_is_named_and_two_networks_are_not_chosen_from(tmp_path: Path) -> None:
    others = {f"seed.{n}": torch.ones(2) for n in range(4)}
    checkpoint = read(tmp_path / "w.pth", {"model": {**below("core.core."), **others}})
    require_same(checkpoint)
    assert checkpoint.chosen == (
        f"{tmp_path / 'w.pth'}: using what is below model.core.core; 4 other tensors are left out "
        "(model.seed.0, model.seed.1, model.seed.2, ...)",
    )
    found = refusal(tmp_path / "w.pth", {"student": OFFICIAL, "teacher": OTHER})
    assert "holds 2 networks (student and teacher), and nothing says which is meant. Save the one you mean" in found


def dinov2() -> dict[str, Tensor]:
    names = HuggingFace.from_ours(STATE)
    return {name.removeprefix("backbone."): tensor for name, tensor in names.items() if name.startswith("backbone.")}


@pytest.mark.parametrize("prefix", ["", "dinov2.", "model.backbone."])
def test_dinov2_as_transformers_saves_it(prefix: str, tmp_path: Path) -> None:
    tensors = {prefix + name: tensor.contiguous() for name, tensor in dinov2().items()}
    save_file({**tensors, **({"classifier.weight": torch.ones(2)} if prefix else {})}, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(str(tmp_path))
    assert (checkpoint.format, checkpoint.kind, checkpoint.license) == ("dinov2_transformers", "encoder", "Apache-2.0")
    require_same(checkpoint, {name: tensor for name, tensor in STATE.items() if name.startswith("encoder.")})
    assert str(fill(DepthModel("tiny", 10.0), checkpoint, "encoder")) == "encoder 119/119, decoder new (64)"


def test_an_encoder_inside_another_network_is_not_taken_for_one_of_ours(tmp_path: Path) -> None:
    plain = {f"pixel_encoder.{name.removeprefix('encoder.')}": STATE[name] for name in STATE if "encoder." in name}
    found = refusal(tmp_path / "w.pth", {**plain, "pixel_decoder.out.weight": torch.ones(2)})
    assert "holds an encoder of DINOv2 (pixel_encoder) inside another network (pixel_decoder.out.weight)" in found
    torch.save(plain | {"head.weight": torch.ones(2)}, tmp_path / "w.pth")
    assert read_checkpoint(str(tmp_path / "w.pth")).kind == "encoder"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda bias: bias.to_sparse(), "is sparse (sparse_coo), not plain weights"),
        (lambda bias: torch.quantize_per_tensor(bias, 0.1, 0, torch.qint8), "is quantized"),
        (lambda bias: bias.to("meta"), "has no numbers in the file (device meta)"),
        (lambda bias: bias.to(torch.int8), "holds whole numbers, as quantized weights are (int8)"),
        (lambda bias: bias.to(torch.complex64), "holds complex numbers (complex64)"),
        (lambda bias: bias[:1].clone().expand(1 << 40), "repeats 1 stored numbers 1099511627776 times"),
    ],
    ids=["sparse", "quantized", "meta", "int8", "complex", "expanded"],
)
def test_tensors_that_are_no_plain_weights(make: Callable[[Tensor], Tensor], found: str, tmp_path: Path) -> None:
    name = "depth_head.projects.0.bias"
    assert f"{name} {found}" in refusal(tmp_path / "w.pth", {**OFFICIAL, name: make(OFFICIAL[name])})


def zipped_again(data: bytes, method: int, names: bool = False) -> bytes:
    """The archive written anew by another program, in another order, compressed or not."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(written, "w", method) as new:
        for name in reversed(old.namelist()) if names else old.namelist():
            new.writestr(name, old.read(name))
    return written.getvalue()


@pytest.mark.parametrize(
    "method",
    [
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        pytest.param(zipfile.ZIP_BZIP2, marks=pytest.mark.slow),
        pytest.param(zipfile.ZIP_LZMA, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("names", [False, True])
def test_an_archive_that_was_packed_again_gives_the_same_weights_or_none(
    method: int, names: bool, tmp_path: Path
) -> None:
    path = tmp_path / "w.pth"
    torch.save(OFFICIAL, path)
    path.write_bytes(zipped_again(path.read_bytes(), method, names))
    if method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        require_same(read_checkpoint(str(path), kind="relative", version="v2"))
    else:
        assert "is cut short or damaged" in refusal(path)


def test_one_flipped_bit_and_an_archive_without_checksums(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(OFFICIAL, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "is cut short or damaged (record w/data/" in refusal(path)
    torch.serialization.set_crc32_options(False)
    try:
        require_same(read(path, OFFICIAL))
    finally:
        torch.serialization.set_crc32_options(True)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.filterwarnings("ignore")
def test_programs_and_files_of_other_programs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "script.pth"
    torch.jit.save(torch.jit.script(Small()), str(path))
    assert "is a program of TorchScript, whose weights come with code; it stays closed. Name the run" in refusal(path)
    path = tmp_path / "exported.pt2"
    torch.export.save(torch.export.export(Small(), (torch.ones(3),)), path)
    assert "is a program of torch.export" in refusal(path)
    for name, start, found in (
        ("m.onnx", b"\x08\x0a\x12\x07pytorch", "is an ONNX file, which runtimes run, not a weights file. Name the run"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        ("m.gguf", b"GGUF\x03\x00\x00\x00", "is a GGUF file"),
    ):
        (tmp_path / name).write_bytes(start + bytes(64))
        assert found in refusal(tmp_path / name)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 100_000, "{" * 5000 + "}" * 5000, '{"a":' * 3000])
def test_metadata_without_end_is_no_metadata_of_ours(value: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    ours = {name: tensor.contiguous() for name, tensor in STATE.items()}
    said = {"format": '"finetune"', "version": "1", "kind": '"metric"', "checkpoint_version": '"v2"'}
    save_file(ours, path, {**said, "max_depth_m": value})
    assert "says kind 'metric' and max_depth_m" in refusal(path) and len(refusal(path)) < 500
    save_file(ours, path, {**said, "kind": '"relative"', "camera": value})
    assert read_checkpoint(str(path)).kind == "relative"
    # Of another program: what it says next to the weights is not asked.
    save_file({name: tensor.contiguous() for name, tensor in OFFICIAL.items()}, path, {"notes": value})
    require_same(read_checkpoint(str(path), kind="relative", version="v2"))


def test_a_description_beside_it_without_end_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(OFFICIAL, path)
    for value in ("1" * 5000, "[" * 100_000, "{", b"\xff\xfe"):
        sidecar = path.with_suffix(".json")
        sidecar.write_bytes(value if isinstance(value, bytes) else value.encode())
        with pytest.raises(CheckpointError, match=r"w\.json: cannot be read as JSON \(.*\)\. Export the weights"):
            read_checkpoint(str(path))

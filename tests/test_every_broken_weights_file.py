"""Files that are no weights, through the commands that read some: one sentence that says what the file is, exit 2."""

import gzip
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from finetune.commands import export, predict, train
from tests.conftest import CHECKPOINT, ROOT
from tests.drawn_weights import drawn_model


class Mark:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def saved(content: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def tensors() -> dict[str, torch.Tensor]:
    return {f"pretrained.layer.{n}": torch.full((64,), float(n)) for n in range(8)}


def optimizer_state() -> dict[str, Any]:
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def archive_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "text")
    return buffer.getvalue()


def holding_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


# Name of the file and what is in it; MARK stands for the path of a file that code in it would leave.
CASES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda mark: b"", "is empty"),
    "text": (lambda mark: b"epoch 1 loss 0.5\n" * 40, "is neither a .pth nor a .safetensors file"),
    "web page": (lambda mark: b"<!DOCTYPE html>\n<html><head><title>Sign in", "is a web page, not weights"),
    "Git LFS pointer": (lambda mark: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "zeros": (lambda mark: bytes(4096), "4096 bytes of which the first are all zero: a download that was cut off"),
    "gzip": (lambda mark: gzip.compress(saved(tensors())), "is a gzip archive, not a weights file"),
    "zip": (lambda mark: archive_of("readme.txt"), "is a zip archive, not a weights file. Unpack it"),
    "optimizer": (
        lambda mark: saved(optimizer_state()),
        "is the state of an optimizer, without the weights of a model",
    ),
    "optimizer in a training file": (
        lambda mark: saved({"optimizer": optimizer_state(), "epoch": 3}),
        "is the state of an optimizer, without the weights of a model",
    ),
    "holding itself": (lambda mark: saved(holding_itself(), legacy=True), "has 0 tensors (no tensors, ...)"),
    "numbers": (lambda mark: saved({"pretrained.a": 1.0, "depth_head.b": 2.0}), "has 0 tensors (no tensors, ...)"),
    "code": (lambda mark: saved({**tensors(), "extra": Mark(mark)}), "opening it could run code, so it stays closed"),
    "code, legacy": (lambda mark: saved({"extra": Mark(mark)}, legacy=True), "opening it could run code"),
    "code, bare pickle": (lambda mark: pickle.dumps(Mark(mark)), "opening it could run code, so it stays closed"),
    "truncated": (lambda mark: saved(tensors())[:-300], "is cut short or damaged"),
    "truncated, legacy": (lambda mark: saved(tensors(), legacy=True)[:-300], "is cut short or damaged"),
    "truncated safetensors": (lambda mark: save(tensors())[:-300], "is cut short or damaged"),
    "safetensors that claims terabytes": (
        lambda mark: (1 << 42).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1099511627776]}}',
        "is cut short or damaged",
    ),
    "infinite weights": (
        lambda mark: saved({**drawn_official(), "depth_head.scratch.output_conv1.bias": torch.full((16,), torch.inf)}),
        "holds NaN or infinity",
    ),
}


def drawn_official() -> dict[str, torch.Tensor]:
    from finetune.models.checkpoints.official import Official

    return Official.from_ours(drawn_model("tiny", None).state_dict())


@pytest.mark.parametrize("name", CASES)
def test_each_command_says_what_the_file_is(
    name: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, expected = CASES[name]
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    path.write_bytes(make(str(mark)))
    output = tmp_path / "out"
    calls = (
        lambda: train.main([str(recipe), f"model.checkpoint={path}", "run.steps=2"]),
        lambda: predict.main([str(path), str(recipe.parent), "--output", str(output)]),
        lambda: export.main([str(path), "--to", "official", "--output", str(tmp_path / "out.pth")]),
    )
    (recipe.parent / "image.png").write_bytes((ROOT / "data/room/color/0000.jpg").read_bytes())
    for call in calls:
        assert call() == 2
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("finetune stopped: ")]
        assert len(said) == 1
        assert str(path) in said[0] and expected in said[0]
    assert not mark.exists()
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out.pth").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_sentence(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe.parent / "closed.pth"
    path.write_bytes(CHECKPOINT.read_bytes())
    path.chmod(0)
    assert train.main([str(recipe), f"model.checkpoint={path}"]) == 2
    assert "cannot be read (Permission denied)" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "web page"])
def test_as_typed_it_ends_with_2_and_without_a_traceback(name: str, recipe: Path, tmp_path: Path) -> None:
    make, expected = CASES[name]
    path, mark = tmp_path / "weights.pth", tmp_path / "mark"
    path.write_bytes(make(str(mark)))
    command = [sys.executable, str(ROOT / "finetune" / "train.py"), str(recipe), f"model.checkpoint={path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not mark.exists()

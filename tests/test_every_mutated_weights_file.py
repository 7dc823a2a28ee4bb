"""Weights files whose bytes were changed at random, by seed: one sentence, or weights that no change has reached."""

from __future__ import annotations

import json
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from finetune.data.preprocessing import Preprocessing
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.save import save_native
from finetune.utils.errors import CheckpointError
from tests.small_models import INPUT_SIZE, small_model

STATE = {name: tensor for name, tensor in small_model(None).state_dict().items() if tensor.numel() < 3000}


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes flipped, zeroed, cut out, doubled or cut off, more often where the tables of a file are."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        edge = draw.choice((0, len(changed) - 2000, draw.randrange(len(changed))))
        at = max(0, min(len(changed) - 1, edge + draw.randrange(2000)))
        length = draw.choice((1, 1, 4, 64))
        match draw.randrange(5):
            case 0:
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + length] = bytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case _:
                changed = changed[: max(1, at)]
    return bytes(changed)


def read(path: Path) -> dict[str, Tensor] | None:
    """The tensors by our names; None where one sentence says why not."""
    try:
        return read_checkpoint(str(path), kind="relative", version="v2").tensors
    except CheckpointError as error:
        sentence = str(error)
        assert "\n" not in sentence and len(sentence) < 1000 and sentence.endswith("."), sentence
        assert "weights_only" not in sentence
        return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_a_pth_is_refused_or_is_what_was_written(seed: int, tmp_path: Path) -> None:
    draw, path = random.Random(seed), tmp_path / "w.pth"
    torch.save(Official.from_ours(STATE | small_head()), path)
    whole = path.read_bytes()
    written = read(path)
    assert written is not None
    outcomes = {"refused": 0, "read": 0}
    for _ in range(40):
        path.write_bytes(mutated(whole, draw))
        found = read(path)
        outcomes["refused" if found is None else "read"] += 1
        # Every record has a checksum: what is read is what was written.
        assert found is None or all(torch.equal(found[name], written[name]) for name in written)
    assert outcomes["refused"] > 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_a_safetensors_file_and_what_it_says_of_itself(seed: int, tmp_path: Path) -> None:
    draw, path = random.Random(seed), tmp_path / "m.safetensors"
    said = {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "step": 3, "name": "m"}
    save_native(path, small_model(None), said)
    with safe_open(path, "pt") as file:
        native = file.metadata()
    # What is mutated are the tables, and most of the time would go into tensors.
    save_file({name: tensor.contiguous() for name, tensor in (STATE | small_head()).items()}, path, native)
    assert read(path) is not None
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    head, rest = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    strange: list[Any] = ["1" * 5000, "[" * 20_000, "NaN", "null", "true", "-1", '"x"', "1e400", '{"a": 1}', "[[]]", ""]
    read_or_not = set()
    for _ in range(15):
        changed = json.loads(json.dumps(head))
        for _ in range(draw.choice((1, 2))):
            changed["__metadata__"][draw.choice(sorted(head["__metadata__"]))] = draw.choice(strange)
        text = json.dumps(changed).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + rest)
        read_or_not.add(read(path) is None)
        path.write_bytes(mutated(whole[: 8 + length], draw) + rest)
        read(path)
    assert read_or_not == {True, False}


class Runs:
    """Makes a folder if it is ever unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: str) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def test_no_code_of_a_pickle_is_run_wherever_it_lies(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = (
        Runs(os.mkdir, str(mark)),
        Runs(os.system, f"mkdir {mark}"),
        Runs(eval, f"__import__('os').mkdir('{mark}')"),
    )
    weights = {"pretrained.cls_token": torch.zeros(1, 1, 192), "depth_head.a": torch.zeros(2)}
    for number, one in enumerate(code):
        for content in (one, {"model": weights, "hook": one}, {**weights, "depth_head.b": one}, [weights, one]):
            path = tmp_path / f"{number}.pth"
            for legacy in (False, True):
                torch.save(content, path, _use_new_zipfile_serialization=not legacy)
                assert read(path) is None
            path.write_bytes(pickle.dumps(content))
            assert read(path) is None
    assert not mark.exists()


def small_head() -> dict[str, Tensor]:
    """What the encoder is recognized by, which is larger than the tensors that are kept."""
    state = small_model(None).state_dict()
    return {name: state[name] for name in ("encoder.blocks.0.mlp.fc1.weight", "encoder.blocks.0.mlp.fc2.weight")}

from __future__ import annotations

import pytest

from finetune.checkpoints.wrapping import unwrap

PLAIN = {"pretrained.cls_token": 1, "depth_head.projects.0.bias": 2}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(prefix: str) -> None:
    assert unwrap({prefix + name: value for name, value in PLAIN.items()}) == (PLAIN, False)


def test_keys_that_are_no_strings_are_named_all_the_same() -> None:
    assert unwrap({1: 2, "module.a": 3}) == ({"1": 2, "a": 3}, False)


def test_compiled_part_of_a_network() -> None:
    assert unwrap({"pretrained._orig_mod.cls_token": 1}) == ({"pretrained.cls_token": 1}, False)


@pytest.mark.parametrize(
    "content",
    [
        {"model": PLAIN, "optimizer": {}, "epoch": 12, "previous_best": {"d1": 0.5}},
        {"state_dict": PLAIN, "epoch": 3},
        {"model": {"state_dict": {f"module.{name}": value for name, value in PLAIN.items()}}},
    ],
)
def test_training_checkpoint_is_opened(content: dict[str, object]) -> None:
    assert unwrap(content) == (PLAIN, True)

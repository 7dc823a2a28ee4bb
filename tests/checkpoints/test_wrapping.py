from __future__ import annotations

import pytest

from finetune.checkpoints.wrapping import unwrap

PLAIN = {"pretrained.cls_token": 1, "depth_head.projects.0.bias": 2}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(prefix: str) -> None:
    assert unwrap({prefix + name: value for name, value in PLAIN.items()}) == (PLAIN, False)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.pretrained.blocks.0.attn.qkv.base_layer.weight",
        "module.base_model.model.pretrained.blocks.0.attn.qkv.base_layer.weight",
        "base_model.model.module.pretrained.blocks.0.attn.qkv.base_layer.weight",
        "_orig_mod.base_model.module.model.pretrained.blocks.0.attn.qkv.base_layer.weight",
        "base_model._orig_mod.model._orig_mod.pretrained.blocks.0.attn.qkv._orig_mod.base_layer.weight",
    ],
)
def test_what_peft_puts_around_a_network_in_any_order(name: str) -> None:
    assert unwrap({name: 1}) == ({"pretrained.blocks.0.attn.qkv.weight": 1}, False)


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

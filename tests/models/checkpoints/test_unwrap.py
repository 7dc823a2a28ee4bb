from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from finetune.models.checkpoints.unwrap import networks_in, tensors_in

PLAIN = {"pretrained.cls_token": 1, "depth_head.projects.0.bias": 2}


def is_tensor(value: Any) -> bool:
    return isinstance(value, int)


def found_in(content: dict[Any, Any]) -> dict[str, dict[str, int]]:
    """Place -> the network there; whole numbers stand for tensors."""

    def format_of(names: Iterable[str]) -> str | None:
        return "official" if set(PLAIN) <= set(names) else None

    return {one.place: one.tensors for one in networks_in(tensors_in(content, is_tensor)[0], format_of)}


def prefixed(prefix: str) -> dict[str, int]:
    return {prefix + name: value for name, value in PLAIN.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(prefix: str) -> None:
    assert tensors_in(prefixed(prefix), is_tensor) == (PLAIN, False)


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
    assert tensors_in({name: 1}, is_tensor) == ({"pretrained.blocks.0.attn.qkv.weight": 1}, False)


def test_keys_that_are_no_strings_are_named_all_the_same() -> None:
    assert tensors_in({1: 2, "module.a": 3}, is_tensor) == ({"1": 2, "a": 3}, False)


def test_compiled_part_of_a_network() -> None:
    assert tensors_in({"pretrained._orig_mod.cls_token": 1}, is_tensor) == ({"pretrained.cls_token": 1}, False)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"model": PLAIN, "optimizer": {"state": PLAIN}, "epoch": "12", "best": {"d1": 0.5}}, "model"),
        ({"state_dict": PLAIN, "epoch": "3"}, "state_dict"),
        ({"model": {"state_dict": prefixed("module.")}}, "model.state_dict"),
        ({"model_state_dict": PLAIN, "optimizer_state_dict": {}, "epoch": "3"}, "model_state_dict"),
        ({"params": PLAIN}, "params"),
        ({"state_dict": prefixed("model.")}, "state_dict.model"),
        ({"state_dict": prefixed("net.")}, "state_dict.net"),
        ({"any name at all": {"below": prefixed("depth_anything.")}}, "any name at all.below.depth_anything"),
        ({"model": prefixed("core.core.")}, "model.core.core"),
        ({"pretrained": {"cls_token": 1}, "depth_head": {"projects.0.bias": 2}}, ""),
    ],
)
def test_mappings_and_prefixes_of_any_name_are_searched(content: dict[str, object], place: str) -> None:
    assert found_in(content) == {place: PLAIN}
    assert tensors_in(content, is_tensor)[1]


def test_every_network_is_found_and_an_average_is_known_by_its_name() -> None:
    def format_of(names: Iterable[str]) -> str | None:
        return "official" if set(PLAIN) <= set(names) else None

    for name in ("ema", "model_ema", "params_ema", "ema_state_dict", "state_dict_ema", "swa_model", "averaged_model"):
        tensors, _ = tensors_in({"model": PLAIN, name: prefixed("module."), "n_averaged": 7}, is_tensor)
        found = networks_in(tensors, format_of)
        assert [(one.place, one.averaged) for one in found] == [("model", False), (name, True)]
    for name in ("schema", "cinema", "remade"):
        assert [one.averaged for one in networks_in(tensors_in({name: PLAIN}, is_tensor)[0], format_of)] == [False]


def test_a_mapping_that_holds_itself_and_one_without_end() -> None:
    content: dict[str, Any] = {"model": dict(PLAIN)}
    content["model"]["again"] = content
    assert found_in(content) == {"model": PLAIN}
    deep: dict[str, Any] = dict(PLAIN)
    for _ in range(5000):
        deep = {"a": deep}
    assert found_in(deep) == {}

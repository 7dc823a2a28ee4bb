from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.models.checkpoints.unwrap import FoundTensors, find_networks, find_tensors

ONE, TWO, THREE = torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0)
PLAIN = {"pretrained.cls_token": ONE, "depth_head.projects.0.bias": TWO}


def only(tensors: dict[str, Tensor], *, nested: bool = False) -> FoundTensors:
    return FoundTensors(by_name=tensors, nested=nested, nameless_averages=())


def found_in(content: dict[Any, Any]) -> dict[str, dict[str, Tensor]]:
    """Place -> the network there."""

    def format_of(names: Iterable[str]) -> str | None:
        return "official" if set(PLAIN) <= set(names) else None

    return {network.place: network.tensors for network in find_networks(find_tensors(content).by_name, format_of)}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in PLAIN.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_are_taken_off(prefix: str) -> None:
    assert find_tensors(prefixed(prefix)) == only(PLAIN)


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
    assert find_tensors({name: ONE}) == only({"pretrained.blocks.0.attn.qkv.weight": ONE})


def test_keys_that_are_no_strings_are_named_all_the_same() -> None:
    assert find_tensors({1: TWO, "module.a": THREE}) == only({"1": TWO, "a": THREE})


def test_compiled_part_of_a_network() -> None:
    assert find_tensors({"pretrained._orig_mod.cls_token": ONE}) == only({"pretrained.cls_token": ONE})


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
        ({"pretrained": {"cls_token": ONE}, "depth_head": {"projects.0.bias": TWO}}, ""),
    ],
)
def test_mappings_and_prefixes_of_any_name_are_searched(content: dict[str, object], place: str) -> None:
    assert found_in(content) == {place: PLAIN}
    assert find_tensors(content).nested


def test_every_network_is_found_and_an_average_is_known_by_its_name() -> None:
    def format_of(names: Iterable[str]) -> str | None:
        return "official" if set(PLAIN) <= set(names) else None

    for name in ("ema", "model_ema", "params_ema", "ema_state_dict", "state_dict_ema", "swa_model", "averaged_model"):
        tensors = find_tensors({"model": PLAIN, name: prefixed("module."), "n_averaged": THREE}).by_name
        found = find_networks(tensors, format_of)
        assert [(network.place, network.averaged) for network in found] == [("model", False), (name, True)]
    for name in ("schema", "cinema", "remade"):
        (network,) = find_networks(find_tensors({name: PLAIN}).by_name, format_of)
        assert not network.averaged


def test_averages_without_names_are_found_where_they_are_called_so_and_nothing_of_an_optimizer_is() -> None:
    content = {
        "model": PLAIN,
        "ema": {"shadow_params": [ONE, TWO], "decay": THREE},
        "history": [ONE],
        "averages": {"moving": (0.5, 0.25)},
        "optimizer": {"state": {"ema": [ONE], "step": THREE}},
    }
    found = find_tensors(content)
    assert found.nameless_averages == ("ema.shadow_params",)
    assert found.by_name == {f"model.{name}": tensor for name, tensor in PLAIN.items()}
    assert find_tensors({"param_groups": [], "ema": [ONE], "a": TWO}) == only({})


def test_a_mapping_that_holds_itself_and_one_without_end() -> None:
    content: dict[str, Any] = {"model": dict(PLAIN)}
    content["model"]["again"] = content
    assert found_in(content) == {"model": PLAIN}
    deep: dict[str, Any] = dict(PLAIN)
    for _ in range(5000):
        deep = {"a": deep}
    assert found_in(deep) == {}

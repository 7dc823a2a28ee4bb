"""Low-rank adapters beside the linear layers of the encoder, through peft.

peft takes seconds to import, so only what has adapters imports it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from finetune.models.depth_model import DepthModel
from finetune.models.dropout import SampleDropout

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import Linear

# What a recipe calls them, and where they are in a block.
TARGETS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_DROPOUT = 1000  # what the draws are for; apart from those of the data, which count from 0
ADAPTER = "default"  # the name that peft gives the only one


def lora_config(
    blocks: int, *, rank: int, alpha: float, dropout: float, targets: Sequence[str], last_blocks: int | None
) -> LoraConfig:
    """
    Args:
        blocks: of the encoder.
        rank, alpha, dropout: of an adapter; its answer is scaled by alpha / rank.
        targets: keys of ``TARGETS``.
        last_blocks: how many blocks, counted from the last, get adapters; None: all.

    Returns:
        What peft is told, with whole paths from the network: a bare ``proj`` would also mean the patch embedding.
    """
    from peft import LoraConfig

    first = blocks - (last_blocks or blocks)
    numbers = "|".join(str(number) for number in range(first, blocks))
    names = "|".join(TARGETS[target].replace(".", r"\.") for target in targets)
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf"encoder\.blocks\.({numbers})\.({names})",
        modules_to_save=["decoder", "head"],
        bias="none",
    )


def add_adapters(network: DepthModel, config: LoraConfig, seed: int) -> None:
    """
    Put adapters into the encoder, in place; of the encoder they alone are trained, and they answer 0 until they are.

    Args:
        network: every weight of its encoder is frozen; decoder and head stay as they are.
        config: what ``lora_config`` answered.
        seed: adapters are drawn from it, whatever the global generator's state; and with the number of a sample, what
            dropout takes from it.
    """
    from peft import inject_adapter_in_model

    inside = copy.copy(config)
    inside.modules_to_save = None  # decoder and head are no part of the encoder, and trained in full as they are
    inside.target_modules = str(config.target_modules).removeprefix(r"encoder\.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(inside, network.encoder, ADAPTER)
    if config.lora_dropout:
        # torch's own draws from the global generator, which nobody seeds and a resumed run would find in another state.
        for number, (_, layer) in enumerate(adapted_layers(network)):
            layer.lora_dropout[ADAPTER] = SampleDropout(config.lora_dropout, seed=(seed, _DROPOUT, number))


def adapted_layers(network: DepthModel) -> Iterator[tuple[str, Linear]]:
    """Name and layer of each linear layer with an adapter."""
    from peft.tuners.lora import Linear

    return ((name, module) for name, module in network.named_modules() if isinstance(module, Linear))


def merged(network: DepthModel) -> DepthModel:
    """A network without adapters that gives the same answer: each is added to the weight it stands beside."""
    plain = DepthModel(
        network.encoder_name,
        network.max_depth_m,
        version=network.version,
        position_offset=network.position_offset,
    )
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in network.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in adapted_layers(network):
        state[f"{name}.weight"] = state[f"{name}.weight"] + layer.get_delta_weight(ADAPTER)
    plain.load_state_dict(state)
    return plain.eval()


def adapter_tensors(network: DepthModel) -> dict[str, Tensor]:
    """
    The adapters, and decoder and head in full, by the names that peft gives them in a file.

    Two numbers beside them say what network they belong to; ``DepthModel`` refuses others when peft loads them.
    """
    kept = {f"base_model.model.{name}": tensor for name, tensor in network.meaning().items()}
    for name, tensor in network.state_dict().items():
        if ".lora_" in name or not name.startswith("encoder."):
            kept[f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}"] = tensor
    return kept

"""Low-rank adapters of the linear layers of the encoder, by peft.

peft takes seconds to import, so only functions that need it import it.
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

# Name in a recipe -> path in a block.
TARGETS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_DROPOUT = 1000  # part of the seed; the data's draws count from 0
ADAPTER = "default"  # peft's name of the only adapter


def lora_config(
    blocks: int, *, rank: int, alpha: float, dropout: float, targets: Sequence[str], last_blocks: int | None
) -> LoraConfig:
    """
    Args:
        blocks: of the encoder.
        rank, alpha, dropout: of an adapter; its output is scaled by alpha / rank.
        targets: keys of ``TARGETS``.
        last_blocks: how many blocks, counted from the last, get adapters; None: all.

    Returns:
        The configuration for peft, with whole paths: a bare ``proj`` would also mean the patch embedding.
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
    Put adapters into the encoder, in place. They are all of it that is trained, and add 0 until then.

    Args:
        network: every weight of its encoder is frozen; decoder and head stay as they are.
        config: of ``lora_config``.
        seed: the adapters are drawn from it, whatever the global generator's state, and so is their dropout, with the
            number of the sample.
    """
    from peft import inject_adapter_in_model

    inside = copy.copy(config)
    inside.modules_to_save = None  # decoder and head are not in the encoder, and are trained in full
    inside.target_modules = str(config.target_modules).removeprefix(r"encoder\.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(inside, network.encoder, ADAPTER)
    if config.lora_dropout:
        # torch's own dropout draws from the global generator, whose state a resumed run does not restore.
        for number, (_, layer) in enumerate(adapted_layers(network)):
            layer.lora_dropout[ADAPTER] = SampleDropout(config.lora_dropout, seed=(seed, _DROPOUT, number))


def adapted_layers(network: DepthModel) -> Iterator[tuple[str, Linear]]:
    """Name and layer of each linear layer with an adapter."""
    from peft.tuners.lora import Linear

    return ((name, module) for name, module in network.named_modules() if isinstance(module, Linear))


def merge_adapters(network: DepthModel) -> DepthModel:
    """A network without adapters that predicts the same: each adapter is added to its weight."""
    plain = DepthModel(
        network.encoder_name,
        network.max_depth_m,
        version=network.version,
        position_offset=network.position_offset,
        camera=network.camera,
        activation=network.activation,
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
    The adapters, and decoder and head in full, by peft's names in a file.

    Two more numbers say which network they belong to; ``DepthModel`` refuses another one when peft loads them.
    """
    kept = {f"base_model.model.{name}": tensor for name, tensor in network.meaning().items()}
    for name, tensor in network.state_dict().items():
        if ".lora_" in name or not name.startswith("encoder."):
            kept[f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}"] = tensor
    return kept

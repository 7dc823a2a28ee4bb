"""A folder that peft loads: adapters of the encoder, and decoder and head in full, to be merged into their base."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.sidecar import read_json
from finetune.models.depth_model import EXPONENTIAL, MAX_DEPTH, VERSION
from finetune.utils.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "finetune-adapter"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


class Adapter(Format):
    """``adapter_model.safetensors`` of a run with ``train: lora``, next to peft's ``adapter_config.json``."""

    files = (WEIGHTS_FILE,)

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with this metadata is of this format."""
        return metadata.get("format") == FORMAT

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, unchanged; ``merge_into_base`` makes a whole network of them."""
        return {name: tensor for name, tensor in tensors.items() if name not in (MAX_DEPTH, VERSION, EXPONENTIAL)}

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """
        Raises:
            ValueError: always; ``models.lora.adapter_tensors`` gives the tensors of a network with adapters.
        """
        raise ValueError("only a network with adapters gives an adapter")

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """Its own metadata, which is that of the merged weights."""
        return Description(says=dict(metadata), file=source)


def base_of(path: Path, source: str) -> tuple[str, float]:
    """
    Args:
        path: the adapter's weights.
        source: what the user wrote.

    Returns:
        The base, a path or a hub id, and the factor of the adapters' output, alpha / rank.

    Raises:
        CheckpointError: the configuration next to the weights is missing or does not say it.
    """
    config_path = path.with_name(CONFIG_FILE)
    config = read_json(config_path, "Export the adapter again from its run folder")
    base, rank, alpha = (config.get(key) for key in ("base_model_name_or_path", "r", "lora_alpha"))
    if not isinstance(base, str) or not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1:
        raise CheckpointError(
            source,
            f"{config_path} is missing or does not say base_model_name_or_path, r and lora_alpha",
            "Export the adapter again from its run folder",
        )
    return base, alpha / rank


def merge_into_base(base: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """
    Args:
        base: tensors of the base by our names; only those of its encoder are used.
        adapter: tensors of the adapter's file, without peft's prefix.
        scale: alpha / rank.

    Returns:
        The tensors of a whole network: W + scale * B A where there is an adapter (Hu et al. 2021, arXiv:2106.09685).
    """
    whole = {name: tensor for name, tensor in base.items() if name.startswith("encoder.")}
    whole |= {name: tensor for name, tensor in adapter.items() if not name.startswith("encoder.")}
    for name, down in adapter.items():
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            up = adapter[f"{layer}.lora_B.weight"]
            whole[f"{layer}.weight"] = whole[f"{layer}.weight"] + scale * (up @ down)
    return whole


def config_text(content: Mapping[str, object]) -> str:
    """``adapter_config.json``; sets are written as sorted lists, so that one adapter always gives the same bytes."""
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in content.items()}
    return json.dumps(plain, indent=2, sort_keys=True) + "\n"

"""DINOv2 without a decoder, as transformers saves it: a base for ``decoder_init: scratch``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.dinov2 import DinoV2
from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.huggingface import HuggingFace

if TYPE_CHECKING:
    from torch import Tensor


class DinoV2Transformers(Format):
    """``Dinov2Model``: what Depth Anything of transformers calls its backbone, without that prefix."""

    files = ("model.safetensors", "pytorch_model.bin")

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with these tensor names is of this format."""
        return {"embeddings.cls_token", "embeddings.position_embeddings", "encoder.layer.0.norm1.weight"} <= set(names)

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Renamed; query, key and value fused into one, as are the two halves of a gated layer."""
        return HuggingFace.to_ours({f"backbone.{name}": tensor for name, tensor in tensors.items()})

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder alone, by the hub's names."""
        return {
            name.removeprefix("backbone."): tensor
            for name, tensor in HuggingFace.from_ours(tensors).items()
            if name.startswith("backbone.")
        }

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """An encoder without a decoder; all of these weights have the same license."""
        return DinoV2.description(path, source, metadata, sha256)

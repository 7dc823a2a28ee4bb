"""DINOv2 without a decoder, as Meta and timm publish it: a base for ``decoder_init: scratch``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.format import Description, Format
from finetune.models.checkpoints.official import GATED

if TYPE_CHECKING:
    from torch import Tensor


class DinoV2(Format):
    """The encoder's tensors without a prefix; timm names the gated part of vitg as we do, and has no mask token."""

    files = ("model.safetensors",)

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with these tensor names is of this format."""
        return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.ls1.gamma"} <= set(names)

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors by our names."""
        renamed = {}
        for name, tensor in tensors.items():
            for ours, theirs in GATED:
                name = name.replace(theirs, ours)
            renamed[f"encoder.{name}"] = tensor
        return renamed

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The encoder alone, by timm's names."""
        return {
            name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")
        }

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """An encoder without a decoder; all of these weights have the same license."""
        base = {"source": source, "sha256": sha256, "license": "Apache-2.0"}
        return Description(says={"kind": "encoder", "base": base}, file=source)

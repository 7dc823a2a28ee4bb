"""Our own weights file: our tensor names, and metadata that says what the weights are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.models.checkpoints.format import Description, Format

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "finetune"
VERSION = 1


class Native(Format):
    """``model.safetensors`` of a run folder, written by ``finetune.models.checkpoints.save.save_native``."""

    files = ("best/model.safetensors", "model.safetensors")

    @staticmethod
    def recognises(names: Iterable[str], metadata: Mapping[str, object]) -> bool:
        """Whether a file with this metadata is of this format; tensor names alone do not say what the weights are."""
        return metadata.get("format") == FORMAT

    @staticmethod
    def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, unchanged."""
        return dict(tensors)

    @staticmethod
    def from_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, unchanged."""
        return dict(tensors)

    @staticmethod
    def description(path: Path, source: str, metadata: Mapping[str, object], sha256: str) -> Description:
        """Its own metadata."""
        return Description(says=dict(metadata), file=source)

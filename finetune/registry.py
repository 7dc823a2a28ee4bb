"""Four tables, name in a recipe or a command -> ``module:Class``, imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

READERS = {
    "hypersim": "finetune.readers.hypersim:Hypersim",
    "kitti": "finetune.readers.kitti:Kitti",
    "nyuv2": "finetune.readers.nyuv2:NyuV2",
    "pairs": "finetune.readers.pairs:Pairs",
    "scenes": "finetune.readers.scenes:Scenes",
    "tum": "finetune.readers.tum:Tum",
    "vkitti2": "finetune.readers.vkitti2:Vkitti2",
    "diml": "finetune.readers.diml:Diml",
}

LOSSES = {
    "berhu": "finetune.losses.berhu:BerHu",
    "gradient": "finetune.losses.gradient:Gradient",
    "l1": "finetune.losses.l1:L1",
    "l2": "finetune.losses.l2:L2",
    "log_l1": "finetune.losses.log_l1:LogL1",
    "silog": "finetune.losses.silog:SiLog",
    "ssi": "finetune.losses.ssi:Ssi",
}

CHECKPOINTS = {
    "native": "finetune.checkpoints.native:Native",
    "official": "finetune.checkpoints.official:Official",
    "huggingface": "finetune.checkpoints.huggingface:HuggingFace",
    "dinov2": "finetune.checkpoints.dinov2:DinoV2",
    "dinov2_transformers": "finetune.checkpoints.dinov2_transformers:DinoV2Transformers",
    "adapter": "finetune.checkpoints.adapter:Adapter",
}

EXPORTERS = {
    "adapter": "finetune.exporters.adapter:Adapter",
    "huggingface": "finetune.exporters.huggingface:HuggingFace",
    "official": "finetune.exporters.official:Official",
    "onnx": "finetune.exporters.onnx:Onnx",
}


def find(table: dict[str, str], name: str) -> Any:
    """
    Args:
        table: one of the four tables above.
        name: a key of it.

    Returns:
        The class, its module imported now if it was not before.

    Raises:
        KeyError: the table has no such name.
    """
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)

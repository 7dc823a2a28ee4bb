"""Four tables of classes by the names that recipes and commands use; a class is imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

READERS = {
    "hypersim": "finetune.data.readers.hypersim:Hypersim",
    "kitti": "finetune.data.readers.kitti:Kitti",
    "nyuv2": "finetune.data.readers.nyuv2:NyuV2",
    "packed": "finetune.data.readers.packed:Packed",
    "pairs": "finetune.data.readers.pairs:Pairs",
    "pseudo": "finetune.data.readers.pseudo:Pseudo",
    "scenes": "finetune.data.readers.scenes:Scenes",
    "tum": "finetune.data.readers.tum:Tum",
    "vkitti2": "finetune.data.readers.vkitti2:Vkitti2",
    "diml": "finetune.data.readers.diml:Diml",
}

LOSSES = {
    "berhu": "finetune.losses.berhu:BerHu",
    "feature": "finetune.losses.feature:Feature",
    "gradient": "finetune.losses.gradient:Gradient",
    "l1": "finetune.losses.l1:L1",
    "l2": "finetune.losses.l2:L2",
    "log_l1": "finetune.losses.log_l1:LogL1",
    "silog": "finetune.losses.silog:SiLog",
    "ssi": "finetune.losses.ssi:Ssi",
}

CHECKPOINTS = {
    "native": "finetune.models.checkpoints.native:Native",
    "official": "finetune.models.checkpoints.official:Official",
    "depth_anything_3": "finetune.models.checkpoints.depth_anything_3:DepthAnything3",
    "huggingface": "finetune.models.checkpoints.huggingface:HuggingFace",
    "dinov2": "finetune.models.checkpoints.dinov2:DinoV2",
    "dinov2_transformers": "finetune.models.checkpoints.dinov2_transformers:DinoV2Transformers",
    "adapter": "finetune.models.checkpoints.adapter:Adapter",
}

EXPORTERS = {
    "adapter": "finetune.export.adapter:Adapter",
    "huggingface": "finetune.export.huggingface:HuggingFace",
    "official": "finetune.export.official:Official",
    "onnx": "finetune.export.onnx:Onnx",
    "openvino": "finetune.export.openvino:OpenVino",
}


def find(table: dict[str, str], name: str) -> Any:
    """
    Args:
        table: one of the four tables above.
        name: a key of it.

    Returns:
        The class; its module is imported if it was not before.

    Raises:
        KeyError: the table has no such name.
    """
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)

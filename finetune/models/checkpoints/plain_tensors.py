"""Which tensors of a file can be weights: the file stores one number for each element."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from finetune.utils.errors import CheckpointError

_FIX = "Save plain weights: {name: tensor.float().cpu().contiguous()}, as model.state_dict() of the trained model has"


def require_plain(tensors: Mapping[str, Tensor], source: str) -> None:
    """
    Raises:
        CheckpointError: a tensor is sparse, quantized, nested, without its numbers (meta), of whole or complex
            numbers, or repeats few stored numbers many times; torch would refuse it as float32, or get it wrong.
    """
    for name, tensor in tensors.items():
        found = _unusual(tensor)
        if found:
            raise CheckpointError(source, f"{name} {found}, not plain weights", _FIX)


def _unusual(tensor: Tensor) -> str:
    if tensor.is_quantized:
        return "is quantized"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "is a nested tensor" if tensor.is_nested else f"is sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.device.type != "cpu":
        return f"has no numbers in the file (device {tensor.device.type})"
    if not tensor.is_floating_point():
        of_what = "complex numbers" if tensor.is_complex() else "whole numbers, as quantized weights are"
        return f"holds {of_what} ({str(tensor.dtype).removeprefix('torch.')})"
    stored = tensor.untyped_storage().nbytes() // max(tensor.element_size(), 1)
    return f"repeats {stored} stored numbers {tensor.numel()} times" if tensor.numel() > stored else ""

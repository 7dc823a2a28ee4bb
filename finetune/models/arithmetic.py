"""The choices between equal kernels and between roundings, in one place: TF32, cuDNN, attention, AdamW, precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from finetune.utils.errors import FinetuneError
from finetune.utils.kinds import IN_WORDS, Kind

# Of predictions; see ``choose_precision``.
Precision = Literal["fp32", "bf16", "fp16"]
FULL_PRECISION: Precision = "fp32"
_DTYPES: Mapping[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Devices for which PyTorch has an AdamW of one kernel; elsewhere it is one of many.
_FUSED_ADAMW = ("cpu", "cuda")


def allow_tf32(allowed: bool) -> None:
    """
    Set whether a GPU may round the factors of float32 products to the 10 bits of TF32, in matrices and convolutions.

    PyTorch's own default is no for matrices and yes for convolutions, so that tables differ from a CPU's by more than
    rounding: https://docs.pytorch.org/docs/stable/notes/cuda.html#tf32-on-ampere
    """
    for kind in _tf32_switches():
        kind.allow_tf32 = allowed


@contextmanager
def without_tf32() -> Iterator[None]:
    """Full float32 while this lasts, whatever ``allow_tf32`` was told."""
    before = [kind.allow_tf32 for kind in _tf32_switches()]
    try:
        allow_tf32(False)
        yield
    finally:
        for kind, allowed in zip(_tf32_switches(), before, strict=True):
            kind.allow_tf32 = allowed


def _tf32_switches() -> tuple[Any, ...]:
    return torch.backends.cuda.matmul, torch.backends.cudnn


@contextmanager
def prefer_deterministic_kernels() -> Iterator[None]:
    """
    Deterministic kernels while this lasts, where there are some; others warn.

    Not an error: the backward of a bilinear resize has no deterministic kernel on a GPU, and no network of this kind
    goes without it (https://github.com/pytorch/pytorch/issues/107999).
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
    )
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = before[2]


def choose_fused_attention(block: nn.Module) -> None:
    """Attention in one kernel, whatever TIMM_FUSED_ATTN says: the other path holds all weights in memory."""
    block.attn.fused_attn = True  # type: ignore[union-attr]


def has_fused_adamw(device: torch.device) -> bool:
    """Whether AdamW is one kernel on this device."""
    return device.type in _FUSED_ADAMW


def has_native_bf16() -> bool:
    """Whether the GPU calculates in bf16 itself: PyTorch emulates it on older ones, slower than float32."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """
    Args:
        wanted: ``auto``, which is bf16 on a GPU of CUDA that has it, and fp32 elsewhere; or a ``Precision``.
        device: of the network.

    Raises:
        FinetuneError: the device does not calculate in it.
    """
    if wanted == "auto":
        return "bf16" if device.type == "cuda" and has_native_bf16() else "fp32"
    found = next(name for name in get_args(Precision) if name == wanted)
    if found == "fp16" and device.type == "cpu":
        raise FinetuneError("fp16 is for GPUs; a CPU overflows or is slow in it. Write --precision bf16 or fp32.")
    return found


def autocast_to(precision: Precision, device: torch.device) -> torch.autocast:
    """Products and convolutions in this precision, also inside a caller's autocast."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, enabled=dtype is not None, dtype=dtype)


def describe_difference(
    precision: Precision, found: NDArray[np.floating], full: NDArray[np.floating], kind: Kind
) -> str:
    """
    Args:
        precision: of ``found``.
        found, full: (H, W), a prediction in that precision and in float32.
        kind: what they are.
    """
    difference = np.abs(found - full)
    median, most = float(np.median(difference)), float(difference.max())
    if kind == "metric":
        return f"{precision} differs from float32 by {median:.2g} m in the median and by {most:.2g} m at most"
    share = most / max(float(full.max()), 1e-12)
    return f"{precision} differs from float32 by at most {share:.2g} of the largest {IN_WORDS[kind]}"


def describe_arithmetic(device: torch.device, *, tf32: bool, deterministic: bool = False) -> str:
    """What was chosen for a run on this device, as words."""
    found = ["attention in one kernel", f"{'fused' if has_fused_adamw(device) else 'plain'} AdamW"]
    if device.type == "cuda":
        kernels = "fixed kernels" if not torch.backends.cudnn.benchmark else "kernels chosen by time"
        found = [f"{'with' if tf32 else 'without'} TF32", f"cuDNN {kernels}", *found]
    if device.type == "mps":
        found.append("the device mps is untried")
    return ", ".join([*found, *(["deterministic where there is a kernel"] if deterministic else [])])

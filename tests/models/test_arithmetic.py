"""Choices of kernels and roundings are made in one module, and a run says which they are."""

import re

import numpy as np
import pytest
import torch

from finetune.models.arithmetic import (
    allow_tf32,
    autocast_to,
    choose_precision,
    describe_arithmetic,
    describe_difference,
    has_fused_adamw,
    without_tf32,
)
from finetune.utils.errors import FinetuneError
from tests.test_layout import FILES, PACKAGE

CPU, GPU, MAC = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
CHOICES = re.compile(
    r"allow_tf32 =|fused_attn =|backends\.cudnn\.\w+ =|use_deterministic|float32_matmul|fused=(True|False)"
)


def test_no_other_module_makes_such_a_choice() -> None:
    found = {file.relative_to(PACKAGE).as_posix() for file in FILES if CHOICES.search(file.read_text())}
    assert found == {"models/arithmetic.py"}


def test_tf32_is_off_while_full_float32_is_asked_for() -> None:
    try:
        allow_tf32(True)
        with without_tf32():
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        allow_tf32(False)


@pytest.mark.parametrize(
    ("device", "tf32", "deterministic", "said"),
    [
        (CPU, True, False, "attention in one kernel, fused AdamW"),
        (GPU, True, False, "with TF32, cuDNN fixed kernels, attention in one kernel, fused AdamW"),
        (
            GPU,
            False,
            True,
            "without TF32, cuDNN fixed kernels, attention in one kernel, fused AdamW, deterministic where",
        ),
        (MAC, False, False, "attention in one kernel, plain AdamW, the device mps is untried"),
    ],
)
def test_what_was_chosen_is_said(device: torch.device, tf32: bool, deterministic: bool, said: str) -> None:
    found = describe_arithmetic(device, tf32=tf32, deterministic=deterministic)
    assert found.startswith(said)
    assert deterministic or found == said
    assert ("fused AdamW" in said) == has_fused_adamw(device)


def test_auto_is_bf16_where_a_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # It says yes where it may emulate.
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert [choose_precision("auto", device) for device in (CPU, GPU, MAC)] == ["fp32", "fp32", "fp32"]
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: True)
    assert [choose_precision("auto", device) for device in (CPU, GPU, MAC)] == ["fp32", "bf16", "fp32"]
    assert choose_precision("fp16", GPU) == "fp16"
    with pytest.raises(FinetuneError, match="fp16 is for GPUs"):
        choose_precision("fp16", CPU)


def test_a_precision_is_that_of_products_whatever_is_around_it() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with autocast_to("fp32", CPU):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    with autocast_to("bf16", CPU):
        assert (x @ x).dtype == torch.bfloat16


def test_a_difference_is_said_in_meters_or_as_a_share() -> None:
    full = np.array([[1.0, 2.0, 4.0]])
    found = np.array([[1.0, 2.25, 5.0]])
    assert describe_difference("bf16", found, full, "metric") == (
        "bf16 differs from float32 by 0.25 m in the median and by 1 m at most"
    )
    assert describe_difference("fp16", found, full, "relative") == (
        "fp16 differs from float32 by at most 0.25 of the largest inverse depth"
    )

"""Models that predict in milliseconds, as files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from finetune.data.preprocessing import Preprocessing
from finetune.models.checkpoints.save import save_adapter, save_native
from finetune.models.depth_model import DepthModel
from finetune.models.lora import adapter_tensors, add_adapters, lora_config, merge_adapters
from finetune.utils.kinds import Activation

INPUT_SIZE = (28, 42)
BASE = {"source": "base.pth", "sha256": "0" * 64, "license": "Apache-2.0"}


def small_model(max_depth_m: float | None, seed: int = 0, activation: Activation | None = None) -> DepthModel:
    """A tiny network drawn by seed; a relative one predicts above 0."""
    model = DepthModel("tiny", max_depth_m, activation=activation)
    model.initialise(seed)
    if max_depth_m is None:
        set_last_bias(model, 1.0)
    return model.eval()


def set_last_bias(model: DepthModel, value: float) -> None:
    """Shift all predictions of a network, before its last activation."""
    with torch.no_grad():
        model.state_dict()["head.last.bias"].fill_(value)


def make_overflow(model: DepthModel) -> None:
    """Finite weights with which every prediction is infinity less infinity, which is not a number.

    What the last layer reads is infinite already: from finite inputs a fused multiply-add, which rounds once, would add
    a finite product to infinity, and the prediction would depend on the processor and the number of threads.
    """
    with torch.no_grad():
        weights = model.state_dict()
        weights["head.reduce.bias"].fill_(1e10)
        weights["head.refine.weight"].fill_(3e38)
        weights["head.last.weight"].copy_(torch.tensor([1.0, -1.0]).repeat(16).view(1, 32, 1, 1))


def write_model(
    path: Path, max_depth_m: float | None = 10.0, seed: int = 0, activation: Activation | None = None
) -> Path:
    """Our own weights file of ``small_model``."""
    metadata = {"preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(), "base": BASE, "name": "small"}
    save_native(path, small_model(max_depth_m, seed, activation), metadata)
    return path


def write_adapted(folder: Path, max_depth_m: float | None = 10.0) -> Path:
    """What a run with adapters leaves: merged weights, the folder of the adapters next to them, and their base."""
    base = write_model(folder / "base.safetensors", max_depth_m)
    network = small_model(max_depth_m)
    config = lora_config(
        len(network.encoder.blocks), rank=2, alpha=4.0, dropout=0.0, targets=("qkv", "fc1"), last_blocks=None
    )
    add_adapters(network, config, 0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if ".lora_B." in name:
                tensor.normal_(0.0, 0.05, generator=torch.Generator().manual_seed(len(name)))
    sha256 = hashlib.sha256(base.read_bytes()).hexdigest()
    described = {
        "preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(),
        "base": {**BASE, "sha256": sha256},
        "name": "small",
    }
    save_native(folder / "model.safetensors", merge_adapters(network), described)
    named = config.to_dict() | {"base_model_name_or_path": str(base)}
    save_adapter(folder / "adapter", adapter_tensors(network), named, network, described)
    return folder / "model.safetensors"

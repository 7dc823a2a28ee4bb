"""Files like those of Depth Anything 3's monocular releases, with a tiny network."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from finetune.models.checkpoints.depth_anything_3 import DepthAnything3
from finetune.models.depth_model import DepthModel
from tests.small_models import small_model

SKY_NAMES = tuple(f"head.scratch.sky_output_conv2.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias"))


def da3_tensors(model: DepthModel) -> dict[str, Tensor]:
    """The weights of a network by the names of a published file, with layers for the sky."""
    theirs = DepthAnything3.from_ours(model.state_dict()) | {name: torch.zeros(1) for name in SKY_NAMES}
    return {f"model.{name}": tensor.clone().contiguous() for name, tensor in theirs.items()}


def write_da3(path: Path, seed: int = 0) -> Path:
    """A file of ``small_model``, whose name or folder says which of the two it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(da3_tensors(small_model(None, seed)), path)
    return path

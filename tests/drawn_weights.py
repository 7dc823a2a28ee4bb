"""Weights with which a network's prediction varies over the image, each drawn by a generator seeded by its name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from finetune.models.checkpoints.official import Official
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS, EncoderSpec


def draw(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """
    Args:
        shapes: of each tensor, by official name.

    Returns:
        float32 tensors, the same for a name and a shape wherever they are drawn; copy them before changing them.
    """
    return _draw_all(tuple(sorted(shapes.items())))


@lru_cache(maxsize=1)
def _draw_all(shapes: tuple[tuple[str, torch.Size], ...]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(_draw_one(name, tuple(shape))) for name, shape in shapes}


def _draw_one(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if "norm" in name or name.endswith("gamma"):
        center = 0.0 if name.endswith("bias") else 1.0 if "norm" in name else 0.5
        return center + 0.1 * values
    if name.endswith("bias"):
        return 0.1 * values
    if name.endswith(("pos_embed", "cls_token", "mask_token")):
        return 0.5 * values
    # Outputs of about the size of the inputs; after a ReLU half of the energy is gone.
    gain = 2.0 if name.startswith("depth_head") else 1.0
    return values * np.float32((gain / np.prod(shape[1:])) ** 0.5)


def drawn_model(
    encoder: str, max_depth_m: float | None, last_layer: tuple[float, float] = (1.0, 0.0), **variant: Any
) -> DepthModel:
    """
    Args:
        encoder: a key of ``ENCODERS``.
        max_depth_m: None for a relative network.
        last_layer: scale and shift of what the last layer gives.
        variant: what else ``DepthModel`` takes.

    Returns:
        A network of ours with drawn weights, in evaluation mode.
    """
    model = DepthModel(encoder, max_depth_m, **variant)
    official = Official.from_ours(model.state_dict())
    weights = draw({name: tensor.shape for name, tensor in official.items()})
    model.load_state_dict(Official.to_ours(adjusted(weights, last_layer)))
    model.encoder.blocks = spread_blocks(model.encoder.blocks, ENCODERS[encoder])
    return model.eval()


def spread_blocks(blocks: nn.Module, spec: EncoderSpec) -> nn.Module:
    """The blocks; where a size was cut to fewer than its out_indices ask for, spread among others that do nothing."""
    if spec.depth > spec.out_indices[-1]:
        return blocks
    spread = nn.ModuleList(nn.Identity() for _ in range(spec.out_indices[-1] + 1))
    for index, block in zip(spec.out_indices[::2], blocks.children(), strict=True):
        spread[index] = block
    return spread


def adjusted(weights: dict[str, Tensor], last_layer: tuple[float, float]) -> dict[str, Tensor]:
    """The weights, by official name, with the last layer's output scaled and shifted."""
    scale, shift = last_layer
    weight, bias = (f"depth_head.scratch.output_conv2.2.{part}" for part in ("weight", "bias"))
    return {**weights, weight: weights[weight] * scale, bias: weights[bias] * scale + shift}


def last_layer_that_varies(model: DepthModel, image: Tensor) -> tuple[float, float]:
    """Scale and shift with which the prediction for ``image`` varies over its whole range, for either kind of head."""
    with torch.inference_mode():
        raw = model.head.last(model.last_features(image))
    low, high = raw.min().item(), raw.max().item()
    if model.kind == "metric":  # sigmoid(-2) = 0.12, sigmoid(2) = 0.88
        scale = 4.0 / (high - low)
        return scale, -scale * (high + low) / 2
    scale = 1.0 / (high - low)
    return scale, -scale * torch.quantile(raw[..., ::7, ::7], 0.04).item()


def require_varied(prediction: Tensor, max_depth_m: float | None) -> None:
    """A comparison of predictions that hardly vary would prove nothing."""
    if max_depth_m is None:
        assert (prediction > 0).float().mean() >= 0.9
    else:
        assert prediction.max() - prediction.min() >= 0.6 * max_depth_m


def drawn_image(height: int, width: int) -> Tensor:
    """(1, 3, height, width) normalized: smooth shapes, edges and a little noise, different in each channel."""
    rng = np.random.default_rng(height * 10000 + width)
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    channels = []
    for _ in range(3):
        waves = sum(np.sin(rng.uniform(2, 30) * x + rng.uniform(2, 30) * y + rng.uniform(0, 6)) for _ in range(4))
        edges = np.where(rng.uniform(-1, 1) * (x - 0.5) + rng.uniform(-1, 1) * (y - 0.5) > 0, 1.0, -1.0)
        channels.append(0.5 * waves + edges + 0.1 * rng.standard_normal((height, width)))
    return torch.from_numpy(np.stack(channels)[None].astype(np.float32))

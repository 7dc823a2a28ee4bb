"""Networks of transformers with drawn weights, whose predictions vary over the image."""

from __future__ import annotations

import os
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from transformers import AutoConfig, DepthAnythingConfig, DepthAnythingForDepthEstimation

from finetune.models.encoder_specs import ENCODERS

MAX_DEPTH_M = 20


def drawn_transformers_model(
    encoder: str, kind: str, image: Tensor, version: str = "v2"
) -> DepthAnythingForDepthEstimation:
    """
    Args:
        encoder: a key of ``ENCODERS``.
        kind: ``relative`` or ``metric``, with a max depth of ``MAX_DEPTH_M``.
        image: (1, 3, H, W), over which the prediction is made to vary.
        version: ``v1`` or ``v2``.
    """
    spec = ENCODERS[encoder]
    config = DepthAnythingConfig(
        backbone_config=AutoConfig.for_model(
            "dinov2",
            image_size=518,
            hidden_size=spec.embed_dim,
            num_hidden_layers=spec.depth,
            num_attention_heads=spec.heads,
            out_indices=[index + 1 for index in spec.out_indices_of(version)],
            reshape_hidden_states=False,
            use_swiglu_ffn=spec.swiglu,
        ),
        reassemble_hidden_size=spec.embed_dim,
        neck_hidden_sizes=list(spec.out_channels),
        fusion_hidden_size=spec.features,
        depth_estimation_type=kind,
        max_depth=MAX_DEPTH_M if kind == "metric" else 1,
    )
    model = DepthAnythingForDepthEstimation(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(_drawn(name, tuple(tensor.shape))))
    _vary(model, image, kind)
    return model


def answer_of(model: nn.Module, image: Tensor) -> Tensor:
    """(1, 1, H, W)."""
    with torch.inference_mode():
        prediction: Tensor = model(pixel_values=image).predicted_depth[:, None]
    return prediction


def _vary(model: nn.Module, image: Tensor, kind: str) -> None:
    """Scale and shift the last layer: over the sigmoid from 0.12 to 0.88, or nearly all above 0."""
    raw: list[Tensor] = []
    last = model.get_submodule("head.conv3")
    handle = last.register_forward_hook(lambda module, inputs, output: raw.append(output.clone()))
    answer_of(model, image)
    handle.remove()
    low, high = raw[0].min().item(), raw[0].max().item()
    scale = (4.0 if kind == "metric" else 1.0) / (high - low)
    lowest = torch.quantile(raw[0][..., ::7, ::7], 0.04).item()
    shift = -scale * (high + low) / 2 if kind == "metric" else -scale * lowest
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(scale)
        last.get_parameter("bias").add_(shift)


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if "norm" in name or name.endswith("lambda1"):
        center = 0.0 if name.endswith("bias") else 1.0 if "norm" in name else 0.5
        return center + 0.1 * values
    if name.endswith("bias"):
        return 0.1 * values
    if name.endswith(("position_embeddings", "cls_token", "mask_token")):
        return 0.5 * values
    # Outputs of about the size of the inputs; after a ReLU half of the energy is gone.
    gain = 1.0 if name.startswith("backbone") else 2.0
    return values * np.float32((gain / np.prod(shape[1:])) ** 0.5)

"""Writes the predictions of the original network that tests/models/test_parity.py holds ours against.

Run it with the original installed (pip install --no-deps jkp-depth-anything-v2): python -m tests.golden.make
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from finetune.models.encoder_specs import ENCODERS, EncoderSpec
from tests.drawn_weights import (
    adjusted,
    draw,
    drawn_image,
    drawn_model,
    last_layer_that_varies,
    require_varied,
    spread_blocks,
)

MAX_DEPTH_M = 20.0
STRIDE = 3  # of the stored pixels
# encoder, height, width, max depth: the sizes lie on both sides of 518, where antialiasing matters most and least
CASES = (
    ("tiny", 126, 168, MAX_DEPTH_M),
    ("tiny", 168, 126, None),
    ("vits", 140, 182, MAX_DEPTH_M),
    ("vits", 70, 560, None),
)


def golden_path(encoder: str, height: int, width: int, max_depth_m: float | None) -> Path:
    """Path of the stored prediction of one case."""
    kind = "relative" if max_depth_m is None else "metric"
    return Path(__file__).parent / f"{encoder}_{height}x{width}_{kind}.npz"


def original_network(
    encoder: str, spec: EncoderSpec, last_layer: tuple[float, float], max_depth_m: float | None, version: str = "v2"
) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """
    Args:
        encoder: name of the size; its own class is only asked where it knows that size.
        spec: its numbers.
        last_layer: scale and shift of the last layer's output.
        max_depth_m: None for the relative network.
        version: ``v1`` reads the last four blocks, as the first Depth Anything does.

    Returns:
        The original network with drawn weights: normalized (B, 3, H, W) -> (B, 1, H, W); and the module itself.
    """
    from depth_anything_v2.dinov2 import DinoVisionTransformer
    from depth_anything_v2.dinov2_layers import MemEffAttention, NestedTensorBlock
    from depth_anything_v2.dpt import DepthAnythingV2, DPTHead

    known = encoder in ("vits", "vitb", "vitl")
    network = DepthAnythingV2(encoder if known else "vits", spec.features, out_channels=list(spec.out_channels))
    if not known:
        network.pretrained = DinoVisionTransformer(
            img_size=518,
            patch_size=14,
            embed_dim=spec.embed_dim,
            depth=spec.depth,
            num_heads=spec.heads,
            init_values=1.0,
            block_fn=partial(NestedTensorBlock, attn_class=MemEffAttention),
            ffn_layer="swiglufused" if spec.swiglu else "mlp",
            block_chunks=0,
        )
        network.depth_head = DPTHead(spec.embed_dim, spec.features, out_channels=list(spec.out_channels))
    network.intermediate_layer_idx[encoder if known else "vits"] = list(spec.out_indices_of(version))
    weights = draw({name: tensor.shape for name, tensor in network.state_dict().items()})
    network.load_state_dict(adjusted(weights, last_layer), strict=True)
    network.pretrained.blocks = spread_blocks(network.pretrained.blocks, spec)
    if max_depth_m is not None:
        # The metric network differs from the relative one in these two lines and the factor.
        network.depth_head.scratch.output_conv2[3] = nn.Sigmoid()
        network.depth_head.scratch.output_conv2[4] = nn.Identity()
    network.eval()

    def predict(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(image)[:, None] * (1.0 if max_depth_m is None else max_depth_m)

    return predict, network


def main() -> None:
    """Write all cases."""
    for encoder, height, width, max_depth_m in CASES:
        image = drawn_image(height, width)
        last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m), image)
        network, _ = original_network(encoder, ENCODERS[encoder], last_layer, max_depth_m)
        prediction = network(image)
        require_varied(prediction, max_depth_m)
        np.savez_compressed(
            golden_path(encoder, height, width, max_depth_m),
            answer=prediction[0, 0, ::STRIDE, ::STRIDE].numpy(),
            last_layer=np.array(last_layer),
        )


if __name__ == "__main__":
    main()

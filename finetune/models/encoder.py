"""DINOv2's vision transformer through timm, with the original's position embedding.

Importing timm imports torchvision and so torch's compiler, which an optimizer imports anyway.
"""

from __future__ import annotations

import math

import torch
from timm.layers import Mlp, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finetune.models.arithmetic import choose_fused_attention
from finetune.models.encoder_specs import ENCODERS, GRID, ORIGINAL_OFFSET, PATCH, EncoderSpec
from finetune.models.position_embedding import as_grid, as_tokens, resized_positions

__all__ = ["ENCODERS", "Encoder", "EncoderSpec"]


class Encoder(VisionTransformer):
    """Image -> four maps of normalized tokens, one for each of ``out_indices``.

    Parameter names and meanings are those of DINOv2 as Depth Anything V2 stores it, after ``pretrained.``; only the
    gated feed-forward part of vitg has other names.
    """

    def __init__(self, spec: EncoderSpec, version: str = "v2", position_offset: float = ORIGINAL_OFFSET) -> None:
        super().__init__(
            img_size=GRID * PATCH,
            patch_size=PATCH,
            num_classes=0,
            global_pool="",
            embed_dim=spec.embed_dim,
            depth=spec.depth,
            num_heads=spec.heads,
            # The gated part keeps two thirds of the width, and timm counts gate and value together.
            mlp_ratio=16 / 3 if spec.swiglu else 4.0,
            mlp_layer=SwiGLUPacked if spec.swiglu else Mlp,
            act_layer=nn.SiLU if spec.swiglu else nn.GELU,  # timm passes it to the gated part too
            init_values=1.0,
            dynamic_img_size=True,
            weight_init="skip",
        )
        self.out_indices = spec.out_indices_of(version)
        self.position_offset = position_offset
        # Unused, but official files contain it, so our exports need it.
        self.register_buffer("mask_token", torch.zeros(1, spec.embed_dim))
        for block in self.blocks:
            choose_fused_attention(block)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: linear layers as in Glorot and Bengio 2010, positions as smooth waves.

        DINOv2 draws from a truncated normal of 0.02, which suits layers of 768 channels and more. In our smaller ones
        every branch would start near zero, and all positions would look alike for thousands of steps.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                # The patch embedding is a linear layer of a whole patch.
                nn.init.xavier_uniform_(module.weight.flatten(1), generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            nn.init.ones_(block.ls1.gamma)
            nn.init.ones_(block.ls2.gamma)
        with torch.no_grad():
            self.pos_embed.copy_(_waves(self.pos_embed.shape[-1]))
        nn.init.normal_(self.cls_token, std=1e-6, generator=generator)
        nn.init.zeros_(self.mask_token)

    def position_embedding(self, height: int, width: int) -> Tensor:
        """
        Args:
            height: patches from top to bottom.
            width: patches from left to right.

        Returns:
            (1, 1 + height * width, C): the class token's first; see ``models.position_embedding``.
        """
        if (height, width) == (GRID, GRID):
            return self.pos_embed
        stored = self.pos_embed.float()
        patches = resized_positions(as_grid(stored), height, width, self.position_offset)
        return as_tokens(stored[:, :1], patches).to(self.pos_embed.dtype)

    def forward(self, image: Tensor) -> list[Tensor]:
        """
        Args:
            image: normalized, (B, 3, H, W), sides multiples of 14.

        Returns:
            Four maps, (B, C, H / 14, W / 14), shallow to deep, channels last in memory.
        """
        patches = self.patch_embed(image)
        height, width = patches.shape[1:3]
        tokens = torch.cat((self.cls_token.expand(len(patches), -1, -1), patches.flatten(1, 2)), dim=1)
        tokens = tokens + self.position_embedding(height, width)
        maps = []
        for index, block in enumerate(self.blocks):
            if self.grad_checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if index in self.out_indices:
                maps.append(self.norm(tokens[:, 1:]).unflatten(1, (height, width)).permute(0, 3, 1, 2))
        return maps


def _waves(channels: int) -> Tensor:
    """
    (1, 1 + GRID**2, channels): sine and cosine of the position along each side, as in Dosovitskiy et al. 2021 and He et
    al. 2022, but with half a period to four over the grid. Waves this long mean the same for images of few patches;
    values drawn for each position of the grid would be noise at every size but the trained one.
    """
    position = torch.linspace(0.0, 1.0, GRID)[:, None]
    waves = 0.5 * 2.0 ** torch.linspace(0.0, 3.0, channels // 4)
    of_side = torch.cat([torch.sin(2 * math.pi * waves * position), torch.cos(2 * math.pi * waves * position)], dim=1)
    rows = of_side[:, None].expand(GRID, GRID, -1)
    columns = of_side[None].expand(GRID, GRID, -1)
    patches = 0.3 * torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return torch.cat([torch.zeros(1, channels), patches])[None]

"""The dense prediction decoder: four token maps of one size -> one feature map of a finer size.

Source: Ranftl et al. 2021, arXiv:2103.13413, as Depth Anything V2 has it (dpt.py, util/blocks.py).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from finetune.models.encoder_specs import EncoderSpec


class ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x)))), (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))


class Fusion(nn.Module):
    """Adds a finer map to the map of the coarser scales, and enlarges the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip_unit = ResidualUnit(channels)
        self.unit = ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """
        Args:
            x: (B, C, h, w).
            skip: (B, C, h, w), the map of this scale; None at the deepest, where ``x`` is that map itself.
            size: height and width to enlarge to.

        Returns:
            (B, C, *size).
        """
        if skip is not None:
            x = x + self.skip_unit(skip)
        # The original enlarges first; a 1x1 convolution and a bilinear resize commute, and here it has fewer pixels.
        return F.interpolate(self.out(self.unit(x)), size=size, mode="bilinear", align_corners=True)


class DptDecoder(nn.Module):
    """Four maps (B, embed_dim, h, w) -> (B, features, 8h, 8w)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        first, second, _, fourth = spec.out_channels
        self.project = nn.ModuleList(nn.Conv2d(spec.embed_dim, channels, 1) for channels in spec.out_channels)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(channels, spec.features, 3, padding=1, bias=False) for channels in spec.out_channels
        )
        self.fuse = nn.ModuleList(Fusion(spec.features) for _ in spec.out_channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """
        Args:
            maps: four of (B, embed_dim, h, w), from the shallowest block to the deepest.

        Returns:
            (B, features, 8h, 8w).
        """
        layers = zip(maps, self.project, self.resize, self.reduce, strict=True)
        scales = [reduce(resize(project(tokens))) for tokens, project, resize, reduce in layers]
        height, width = scales[0].shape[-2:]
        sizes = [(2 * height, 2 * width), *(scale.shape[-2:] for scale in scales[:-1])]
        x = self.fuse[3](scales[3], None, sizes[3])
        for level in (2, 1, 0):
            x = self.fuse[level](x, scales[level], sizes[level])
        return x

"""The network in a form that can be traced: the position embedding as a constant, or as products of matrices.

What needs the range of float32 has a module of its own, by whose name ``export.onnx_precision`` finds its nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import GRID, PATCH
from finetune.models.position_embedding import as_grid, as_tokens

# Parameter of PyTorch's cubic interpolation: Keys 1981, doi:10.1109/TASSP.1981.1163711, with a = -0.75.
_A = -0.75


class TracedNetwork(nn.Module):
    """
    (B, 3, H, W) normalized -> (B, 1, H, W), the prediction of ``DepthModel`` without its check of the size. With focal
    lengths, (B,) in pixels at the size of the input, a canonical network gives meters of these cameras.
    """

    def __init__(
        self,
        network: DepthModel,
        size: tuple[int, int] | None,
        *,
        colors: tuple[Sequence[float], Sequence[float]] | None = None,
        frame_size: tuple[int, int] | None = None,
    ) -> None:
        """
        Args:
            network: in evaluation mode; it is not changed.
            size: height and width, pixels, of the only input; None for any multiples of 14.
            colors: mean and std: the input is (B, H, W, 3) uint8 RGB, and normalized here.
            frame_size: height and width of such an input, pixels: it is resized to ``size``, the prediction back to it.
        """
        super().__init__()
        self.network = network
        self.frame_size = frame_size
        with torch.no_grad():
            embedding = network.encoder.position_embedding(size[0] // PATCH, size[1] // PATCH) if size else None
        self.positions: Tensor | None
        self.register_buffer("positions", None if embedding is None else embedding.detach().clone())
        self.sampler = None if size else PositionSampler(network.encoder.position_offset)
        self.pixels = None if colors is None else NormalizedPixels(*colors, size if frame_size else None)
        self.meters = MetersOfLens(network, size, frame_size)

    def forward(self, image: Tensor, focal_px: Tensor | None = None) -> Tensor:
        if self.pixels is not None:
            image = self.pixels(image)
        height, width = image.shape[-2:]
        rows, columns = height // PATCH, width // PATCH
        encoder = self.network.encoder
        patches = encoder.patch_embed.proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat((encoder.cls_token.expand(image.shape[0], -1, -1), patches), dim=1)
        embedding = self.positions
        if self.sampler is not None:
            embedding = self.sampler(encoder.pos_embed, rows, columns)
        assert embedding is not None
        tokens = tokens + embedding
        maps = []
        for index, block in enumerate(encoder.blocks):
            tokens = block(tokens)
            if index in encoder.out_indices:
                maps.append(encoder.norm(tokens[:, 1:]).transpose(1, 2).unflatten(2, (rows, columns)))
        decoded = self.network.decoder(maps)
        prediction: Tensor = self.network.head(self.network.head.features(decoded, (height, width)))
        if self.frame_size is not None:
            prediction = F.interpolate(prediction, size=self.frame_size, mode="bilinear", align_corners=True)
        return prediction if focal_px is None else self.meters(prediction, focal_px)


class NormalizedPixels(nn.Module):
    """(B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32, or (B, 3, *size), as ``Preprocessing`` prepares images."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], size: tuple[int, int] | None) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.size = size

    def forward(self, image: Tensor) -> Tensor:
        # Converted first: TensorRT takes uint8 for nothing else.
        pixels = image.float().permute(0, 3, 1, 2) / 255
        if self.size is not None:
            pixels = F.interpolate(pixels, size=self.size, mode="bicubic", align_corners=False)
        return (pixels - self.mean) / self.std


class MetersOfLens(nn.Module):
    """Meters of the canonical camera -> meters of other focal lengths, (B,) in pixels at the size of the input."""

    def __init__(self, network: DepthModel, size: tuple[int, int] | None, frame_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.canonical_px = network.camera.focal_px if network.camera else 0.0
        if size and frame_size:
            # A frame's focal length becomes that of the network's input.
            self.canonical_px /= (size[0] / frame_size[0] + size[1] / frame_size[1]) / 2

    def forward(self, prediction: Tensor, focal_px: Tensor) -> Tensor:
        return prediction * (focal_px / self.canonical_px)[:, None, None, None]


class PositionSampler(nn.Module):
    """The position embedding at a size that is known only when the graph runs: (1, 1 + rows * columns, C)."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, stored: Tensor, rows: int, columns: int) -> Tensor:
        return as_tokens(stored[:, :1], sampled_positions(as_grid(stored), rows, columns, self.offset))


def sampled_positions(grid: Tensor, height: int, width: int, offset: float) -> Tensor:
    """
    ``position_embedding.resized_positions`` as two products, in operations that any runtime has, for sizes that are
    known only when it runs.

    Args:
        grid: (1, C, G, G).
        height, width: patches.
        offset: patches added to each side before the scale is computed, unless the size is that of the grid: tenths.

    Returns:
        (1, C, height, width).
    """
    at_home = (torch.scalar_tensor(height) == GRID) & (torch.scalar_tensor(width) == GRID)
    tenths = torch.where(at_home, torch.scalar_tensor(0.0), torch.scalar_tensor(float(round(10 * offset))))
    down, across = (_cubic(count, tenths, grid.shape[-1]) for count in (height, width))
    return down @ grid @ across.transpose(0, 1)


def _cubic(count: int, offset_tenths: Tensor, side: int) -> Tensor:
    """(count, side): weights of the grid's values for each of ``count`` positions along one side."""
    # Position i is (i + 0.5) * side / (count + offset) - 0.5. At 30 of 37 float32 would be off by a millionth, and an
    # embedding changes fast, while float64 is unknown to TensorRT. So it is a fraction of whole numbers, below 2**24,
    # where float32 is exact.
    below = 10 * torch.scalar_tensor(count) + offset_tenths
    above = (2 * torch.arange(count, dtype=torch.float32) + 1) * (10 * side) + below
    first = (above / (2 * below)).floor()
    t = (above - first * (2 * below)) / (2 * below)
    first = first - 1
    weights = (_outer(t), _inner(t), _inner(1 - t), _outer(1 - t))
    columns = torch.arange(side, dtype=torch.float32)
    matrix = torch.zeros(1)
    for step, weight in enumerate(weights):
        # Beyond the edge the last value is repeated.
        index = (first + (step - 1)).clamp(0, side - 1)
        matrix = matrix + weight[:, None] * (index[:, None] == columns[None]).float()
    return matrix


def _inner(x: Tensor) -> Tensor:
    """The cubic for distances up to 1."""
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    """The cubic for distances from 1 to 2, of the distance less 1."""
    return _A * x * (1 - x) * (1 - x)

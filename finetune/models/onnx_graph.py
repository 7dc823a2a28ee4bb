"""The network in a form that can be traced: the position embedding as a constant, or as products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import GRID, PATCH
from finetune.models.position_embedding import as_grid, as_tokens

# Parameter of PyTorch's cubic interpolation: Keys 1981, doi:10.1109/TASSP.1981.1163711, with a = -0.75.
_A = -0.75


class TracedNetwork(nn.Module):
    """
    (1, 3, H, W) normalized -> (1, 1, H, W), the prediction of ``DepthModel`` without its check of the size. With a
    focal length, (1,) in pixels at H x W, a canonical network gives meters of that camera.
    """

    def __init__(self, network: DepthModel, size: tuple[int, int] | None) -> None:
        """
        Args:
            network: in evaluation mode; it is not changed.
            size: height and width, pixels, of the only input; None for any multiples of 14.
        """
        super().__init__()
        self.network = network
        with torch.no_grad():
            embedding = network.encoder.position_embedding(size[0] // PATCH, size[1] // PATCH) if size else None
        self.positions: Tensor | None
        self.register_buffer("positions", None if embedding is None else embedding.detach().clone())

    def forward(self, image: Tensor, focal_px: Tensor | None = None) -> Tensor:
        height, width = image.shape[-2:]
        rows, columns = height // PATCH, width // PATCH
        encoder = self.network.encoder
        patches = encoder.patch_embed.proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat((encoder.cls_token, patches), dim=1)
        embedding = self.positions
        if embedding is None:
            stored = encoder.pos_embed
            grid = sampled_positions(as_grid(stored), rows, columns, encoder.position_offset)
            embedding = as_tokens(stored[:, :1], grid)
        tokens = tokens + embedding
        maps = []
        for index, block in enumerate(encoder.blocks):
            tokens = block(tokens)
            if index in encoder.out_indices:
                maps.append(encoder.norm(tokens[:, 1:]).transpose(1, 2).unflatten(2, (rows, columns)))
        decoded = self.network.decoder(maps)
        prediction: Tensor = self.network.head(self.network.head.features(decoded, (height, width)))
        if focal_px is None:
            return prediction
        assert self.network.camera is not None
        return prediction * (focal_px / self.network.camera.focal_px)


def sampled_positions(grid: Tensor, height: int, width: int, offset: float) -> Tensor:
    """
    ``position_embedding.resized_positions`` as two products, in operations that any runtime has, for sizes that are
    known only when it runs.

    Args:
        grid: (1, C, G, G).
        height, width: patches.
        offset: patches added to each side before the scale is computed, unless the size is that of the grid.

    Returns:
        (1, C, height, width).
    """
    at_home = (torch.scalar_tensor(height) == GRID) & (torch.scalar_tensor(width) == GRID)
    none, some = (torch.scalar_tensor(patches, dtype=torch.float64) for patches in (0.0, offset))
    added = torch.where(at_home, none, some)
    down, across = (_cubic(count, added, grid.shape[-1]) for count in (height, width))
    return down @ grid @ across.transpose(0, 1)


def _cubic(count: int, offset: Tensor, side: int) -> Tensor:
    """(count, side): weights of the grid's values for each of ``count`` positions along one side."""
    # In float64: at position 30 of 37 float32 is off by a millionth of a patch, and an embedding changes fast.
    scale = side / (torch.scalar_tensor(count, dtype=torch.float64) + offset)
    position = (torch.arange(count, dtype=torch.float64) + 0.5) * scale - 0.5
    first = position.floor()
    t = position - first
    weights = (_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t))
    columns = torch.arange(side, dtype=torch.float64)
    matrix = torch.zeros(1, dtype=torch.float64)
    for step, weight in enumerate(weights):
        # Beyond the edge the last value is repeated.
        index = (first + (step - 1)).clamp(0, side - 1)
        matrix = matrix + weight[:, None] * (index[:, None] == columns[None]).double()
    return matrix.float()


def _inner(x: Tensor) -> Tensor:
    """The cubic for distances up to 1."""
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _outer(x: Tensor) -> Tensor:
    """The cubic for distances from 1 to 2."""
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A

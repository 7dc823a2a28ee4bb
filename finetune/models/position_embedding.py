"""The position embedding at another size than the stored one, as the original and as transformers sample it.

The original adds 0.1 patches to each side before it computes the scale; transformers (4.45 to 5) does not. At any size
but that of the stored grid their predictions from the same weights differ, by up to a hundredth of their spread.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.models.encoder_specs import GRID


def resized_positions(grid: Tensor, height: int, width: int, offset: float) -> Tensor:
    """
    Args:
        grid: (1, C, G, G), one vector a patch.
        height, width: patches from top to bottom and from left to right.
        offset: patches added to each side before the scale is computed.

    Returns:
        (1, C, height, width): bicubic, not antialiased; ``grid`` itself at its own size.
    """
    side = grid.shape[-1]
    if (height, width) == (side, side):
        return grid
    if not offset:
        return F.interpolate(grid, size=(height, width), mode="bicubic")
    # Source: Depth Anything V2, dinov2.py, interpolate_pos_encoding.
    scale = ((height + offset) / side, (width + offset) / side)
    return F.interpolate(grid, scale_factor=scale, mode="bicubic")


def as_grid(stored: Tensor) -> Tensor:
    """(1, 1 + G * G, C), the class token's first -> (1, C, G, G) without it."""
    patches = stored[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    return patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def as_tokens(first: Tensor, grid: Tensor) -> Tensor:
    """The inverse of ``as_grid``; ``first`` is (1, 1, C), the class token's."""
    return torch.cat((first, grid.flatten(2).transpose(1, 2)), dim=1)


def refitted_positions(stored: Tensor, height: int, width: int, *, offset: float, other: float) -> Tensor:
    """
    An embedding that gives, sampled with another offset at one size, what the stored one gives with its own.

    Of all such embeddings it is the one nearest to the stored one. Sampling is a product with one matrix for each side,
    so the change is the least-squares solution of both.

    Args:
        stored: (1, 1 + 37 * 37, C), the class token's first.
        height, width: patches at the size where both agree.
        offset: with which ``stored`` is sampled.
        other: with which the result will be sampled.

    Returns:
        (1, 1 + G * G, C), float32; G is 37, or the longer side if that is more: fewer values than the size has
        cannot give every embedding.
    """
    if offset == other or (height, width) == (GRID, GRID):
        return stored
    side = max(GRID, height, width)
    grid = as_grid(stored.double())
    wanted = resized_positions(grid, height, width, offset)
    if (height, width) == (side, side):
        return as_tokens(stored[:, :1], wanted.to(stored.dtype))  # not sampled, whatever the offset
    start = resized_positions(grid, side, side, 0.0)
    down, across = (_sampling(side, count, other) for count in (height, width))
    missing = wanted - down @ start @ across.T
    fitted = start + torch.linalg.pinv(down) @ missing @ torch.linalg.pinv(across).T
    return as_tokens(stored[:, :1], fitted.to(stored.dtype))


def _sampling(side: int, count: int, offset: float) -> Tensor:
    """(count, side), float64: weights of the ``side`` values of the grid for each of ``count`` patches."""
    one_hot = torch.eye(side, dtype=torch.float64)[None, :, :, None]
    if not offset:
        return F.interpolate(one_hot, size=(count, 1), mode="bicubic")[0, :, :, 0].T
    scale = ((count + offset) / side, 1.0)
    return F.interpolate(one_hot, scale_factor=scale, mode="bicubic")[0, :, :, 0].T

"""What every loss asks of its inputs. Losses use tensor methods only, so reading a recipe does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def require_same_shape(**tensors: Tensor) -> None:
    """
    Args:
        tensors: name -> tensor, all of them (B, 1, H, W).

    Raises:
        ValueError: the shapes differ; (B, H, W) against (B, 1, H, W) would broadcast without a word.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) != 1 or any(len(shape) != 4 for shape in shapes.values()):
        raise ValueError(f"shapes must be one (B, 1, H, W): {shapes}")


def mean_over_images(per_image: Tensor, count: Tensor) -> Tensor:
    """
    Args:
        per_image: (B,) loss of each image; anything where ``count`` is 0.
        count: (B,) number of valid pixels of each image.

    Returns:
        Scalar: mean over the images that have a valid pixel; 0 with zero gradient when none has, so every process can
        still call backward.
    """
    usable = count > 0
    return per_image.where(usable, 0.0).sum() / usable.sum().clamp_min(1)

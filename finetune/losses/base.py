"""What all losses share. Losses use only methods of tensors, so that reading a recipe does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

# image: the mean over the images that have a valid pixel; pixel: each image weighs as much as it has valid pixels.
Reduction = Literal["image", "pixel"]


class LossOfImages:
    """A loss that is one number for each image, and the mean of these for a batch."""

    def per_image(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            pred: predicted depth, meters, > 0, or inverse depth of any unit, float32, (B, 1, H, W).
            target: measured depth, meters, or inverse depth, 1/m, float32, (B, 1, H, W); anything where not valid.
            valid: True where depth was measured, (B, 1, H, W).

        Returns:
            (B,), anything for an image without a valid pixel, but finite.
        """
        raise NotImplementedError

    def __call__(self, pred: Tensor, target: Tensor, valid: Tensor, reduction: Reduction = "image") -> Tensor:
        """
        Args:
            pred: predicted depth, meters, or inverse depth of any unit, (B, 1, H, W), of any floating type.
            target: measured depth, meters, or inverse depth, 1/m, (B, 1, H, W); anything where ``valid`` is False.
            valid: True where depth was measured, (B, 1, H, W).
            reduction: how images weigh. With ``pixel`` the losses that are a mean over pixels are the mean over all
                pixels of the batch; the others, such as a root of a mean, are still one number an image.

        Returns:
            Scalar; 0 with zero gradient when no pixel is valid, so every process can still call backward. Over
            micro-batches and processes the divisor is the count, of images or pixels, of the whole step.

        Raises:
            ValueError: the shapes differ; (B, H, W) against (B, 1, H, W) would broadcast without a word.
        """
        require_same_shape(pred=pred, target=target, valid=valid)
        count = valid.flatten(1).sum(1)
        weight = (count > 0).float() if reduction == "image" else count.float()
        per_image = self.per_image(pred.float(), target.float(), valid).where(count > 0, 0.0)
        return (per_image * weight).sum() / weight.sum().clamp_min(1)


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


def mean_over_valid(values: Tensor, valid: Tensor) -> Tensor:
    """(B, 1, H, W), 0 where not valid -> (B,): the mean over the valid pixels of each image; 0 where none is."""
    return values.flatten(1).sum(1) / valid.flatten(1).sum(1).clamp_min(1)

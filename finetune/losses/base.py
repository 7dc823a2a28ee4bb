"""What all losses share. Losses use only methods of tensors, so that reading a recipe does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor

# image: the mean over the images that have a valid pixel; pixel: each image weighs as much as it has valid pixels.
Reduction = Literal["image", "pixel"]
MIN_WEIGHT = 1e-6  # the weights of an image that add up to less count as nothing valid


class LossOfImages:
    """A loss that is one number for each image, and the mean of these for a batch.

    Attributes:
        weighs_pixels: ``per_image`` takes a fourth argument, the weight of each pixel. A loss that does not counts all
            valid pixels the same.
        of_features: ``pred`` and ``target`` are features, (B, C, h, w), of the encoder and of the one that the run
            started from, in place of depth.
    """

    weighs_pixels: ClassVar[bool] = False
    of_features: ClassVar[bool] = False

    def per_image(self, pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """
        Args:
            pred: predicted depth, meters, > 0, or inverse depth of any unit, float32, (B, 1, H, W).
            target: measured depth, meters, or inverse depth, 1/m, float32, (B, 1, H, W); anything where not valid.
            valid: True where depth was measured, (B, 1, H, W).
            weight: of losses with ``weighs_pixels``, how much a valid pixel counts in the mean over its image, 0 or
                more, float32, (B, 1, H, W); None: all count the same.

        Returns:
            (B,), anything for an image without a valid pixel, but finite.
        """
        raise NotImplementedError

    def __call__(
        self,
        pred: Tensor,
        target: Tensor,
        valid: Tensor,
        reduction: Reduction = "image",
        weight: Tensor | None = None,
        pasted: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            pred: predicted depth, meters, or inverse depth of any unit, (B, 1, H, W), of any floating type.
            target: measured depth, meters, or inverse depth, 1/m, (B, 1, H, W); anything where ``valid`` is False.
            valid: True where depth was measured, (B, 1, H, W).
            reduction: how images weigh. With ``pixel`` the losses that are a mean over pixels are the mean over all
                pixels of the batch; the others, such as a root of a mean, are still one number an image.
            weight: see ``per_image``; how much an image counts among the others does not depend on it.
            pasted: (B, 1, H, W) bool, True at the pixels of another image. Both parts of an image are then images of
                their own for ``per_image``, and each counts by its share of the valid pixels; None: there are none.

        Returns:
            Scalar; 0 with zero gradient when no pixel is valid, so every process can still call backward. Over
            micro-batches and processes the divisor is the count, of images or pixels, of the whole step.

        Raises:
            ValueError: the shapes differ; (B, H, W) against (B, 1, H, W) would broadcast without a word.
        """
        self.require_shapes(pred, target, valid)
        count = count_valid(valid)
        share = (count > 0).float() if reduction == "image" else count.float()
        weights = () if weight is None or not self.weighs_pixels else (weight.float(),)
        pred, target = pred.float(), target.float()
        if pasted is None or self.of_features:
            per_image = self.per_image(pred, target, valid, *weights).where(count > 0, 0.0)
        else:
            parts = [valid & ~pasted, valid & pasted]
            per_image = sum(
                (
                    self.per_image(pred, target, part, *weights).where(part.flatten(1).any(1), 0.0)
                    * (count_valid(part) / count.clamp_min(1))
                    for part in parts
                ),
                start=pred.new_zeros(len(pred)),
            )
        return (per_image * share).sum() / share.sum().clamp_min(1)

    def require_shapes(self, pred: Tensor, target: Tensor, valid: Tensor) -> None:
        """
        Raises:
            ValueError: the shapes differ.
        """
        require_same_shape(pred=pred, target=target, valid=valid)


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


def count_valid(valid: Tensor) -> Tensor:
    """(B, ...) bool -> (B,) int32: how many are True."""
    import torch

    # On a CPU the sum of bools in 64 bits, which is the default, takes four times as long.
    return valid.flatten(1).sum(1, dtype=torch.int32)


def measure_log_ratio(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(B, 1, H, W) -> ln(pred / target), 0 with zero gradient where not ``valid``, whatever is there; both are at least
    1e-6."""
    # The gradient of an invalid pixel is 0 behind `where`. Through the log it becomes NaN where ``pred`` is, and behind
    # `clamp_min` 0 again, as NaN is not above the bound.
    return (pred.clamp_min(1e-6).log() - target.clamp_min(1e-6).log()).where(valid, 0.0)


def mean_over_valid(values: Tensor, valid: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, 1, H, W), 0 where not valid -> (B,): the mean over the valid pixels of each image; 0 where none is.

    With ``weight``, (B, 1, H, W), the sum of what is weighted, divided by the sum of the weights of valid pixels.
    """
    if weight is None:
        return values.flatten(1).sum(1) / count_valid(valid).clamp_min(1)
    weight = weight.where(valid, 0.0)
    return (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(MIN_WEIGHT)

"""The losses of one micro-batch: which samples each is for, and what it compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from finetune.data.dataloader import Batch
from finetune.models.depth_model import DepthModel
from finetune.recipe.schema import TrainingTerm


def inverse_depth(depth_m: Tensor, valid: Tensor) -> Tensor:
    """(B, 1, H, W) meters -> float32, 1/m: 0 where it is infinitely far, 1 where ``valid`` is False."""
    # Nearer than a micrometer is no distance, and would be infinity.
    return depth_m.float().where(valid, 1.0).clamp_min(1e-6).reciprocal()


def measure_output(pred: Tensor) -> Tensor:
    """(B, 1, H, W) -> (2,): the mean, and the standard deviation within an image, in the mean over images."""
    of_images = pred.detach().flatten(1)
    return torch.stack([of_images.mean(), of_images.std(1).mean()])


@dataclass(frozen=True, kw_only=True)
class BatchLosses:
    """All losses of a recipe, for one micro-batch of one process.

    Attributes:
        terms: of the recipe.
        network: what is trained, as it is under the wrapper of the accelerator.
        frozen: the encoder that the run started from, for a loss of features; None where there is no such loss.
    """

    terms: Sequence[TrainingTerm]
    accelerator: Accelerator
    network: DepthModel
    frozen: nn.Module | None

    def __call__(
        self,
        batch: Batch,
        pred: Tensor,
        features: tuple[Tensor, Tensor] | None,
        of_counts: Mapping[str, tuple[int, float | Tensor]],
    ) -> Tensor:
        """
        Args:
            batch: of this process.
            pred, features: as ``predict`` gives them for its images.
            of_counts: by the kind of count that a loss is a mean over, what the batch's own count is multiplied and
                divided by.

        Returns:
            (terms,): each loss, unweighted, as its part of the step's mean.
        """
        device = self.accelerator.device
        target, valid = (tensor.to(device, non_blocking=True) for tensor in (batch.depth_m, batch.valid))
        if self.network.kind == "relative":
            target = inverse_depth(target, valid)
        weight = None if batch.weight is None else batch.weight.to(device, non_blocking=True)
        pasted = self._find_pasted(batch)
        of_step = []
        for term in self.terms:
            mine = valid & self._choose_samples(batch, term.entries) if term.entries else valid
            pair = features if features and term.loss.of_features else (pred, target)
            value = term.loss(*pair, mine, term.reduction, weight, pasted)
            # The mean over its own samples, times their number, over the number of all samples of the step.
            usable = batch.usable_of(term.entries) if term.entries else batch.usable
            times, divisor = of_counts[term.reduction]
            of_step.append(value * (usable[term.reduction] * times / divisor))
        return torch.stack(of_step)

    def predict(self, model: nn.Module, image: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """
        Args:
            model: the network as the accelerator prepared it.
            image: normalized, (B, 3, H, W).

        Returns:
            The prediction; and the features of the encoder, and of the frozen one, where a loss compares them.
        """
        if self.frozen is None:
            return model(image), None
        seen: list[Tensor] = []
        # Only for this forward: a hook that stays would be copied with the network, and keep the features of others.
        hook = self.network.encoder.register_forward_hook(lambda _, __, maps: seen.append(maps[-1]))
        try:
            pred = model(image)
        finally:
            hook.remove()
        # Accelerate wraps the forward of the model that it prepared in autocast, and not this one.
        with torch.no_grad(), self.accelerator.autocast():
            return pred, (seen[0], self.frozen(image)[-1])

    def _find_pasted(self, batch: Batch) -> Tensor | None:
        """(B, 1, H, W) bool, on the device: True where a sample shows a part of another; None where none does."""
        if not any(batch.pasted):
            return None
        found = torch.zeros_like(batch.valid)
        for i, box in enumerate(batch.pasted):
            if box is not None:
                top, left, height, width = box
                found[i, :, top : top + height, left : left + width] = True
        return found.to(self.accelerator.device, non_blocking=True)

    def _choose_samples(self, batch: Batch, entries: frozenset[int]) -> Tensor:
        """(B, 1, 1, 1) bool: True for the samples from these entries."""
        chosen = torch.tensor([entry in entries for entry in batch.entries]).view(-1, 1, 1, 1)
        device = self.accelerator.device
        # The copy from pinned memory does not wait for the device.
        return (chosen.pin_memory() if device.type == "cuda" else chosen).to(device, non_blocking=True)

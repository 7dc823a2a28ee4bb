"""Dropout whose draws depend only on the run's seed and the number of the sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class SampleDropout(nn.Module):
    """As ``nn.Dropout``, but sample k of a run loses the same values in any batch and process.

    Attributes:
        first_sample: number k of the first sample of the batch; the others follow. The trainer sets it.
    """

    def __init__(self, p: float, *, seed: tuple[int, ...]) -> None:
        """
        Args:
            p: share of the values that are lost.
            seed: of this layer; k is added to it.
        """
        super().__init__()
        self.p = p
        self.first_sample = 0
        self._seed = seed

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) of samples -> the same, with a share ``p`` of 0 and the rest scaled by 1 / (1 - p), in training."""
        return x * self._kept(x) / (1.0 - self.p) if self.training and self.p else x

    # The compiler does not support generators, so this part stays outside of its graph.
    @torch.compiler.disable
    def _kept(self, x: Tensor) -> Tensor:
        kept = torch.empty_like(x, requires_grad=False)
        for i, of_sample in enumerate(kept):
            number = np.random.SeedSequence((*self._seed, self.first_sample + i)).generate_state(1, np.uint64)
            generator = torch.Generator(x.device).manual_seed(int(number.item()))
            of_sample.bernoulli_(1.0 - self.p, generator=generator)
        return kept

    def extra_repr(self) -> str:
        """For ``repr``."""
        return f"p={self.p}"

"""Random numbers for a batch of frames, from one generator per frame."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor


class Rng:
    """Random tensors whose row b depends on (seed, indices[b]) and the draws made before, but on no other row."""

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        """
        Args:
            seed: of the data set, >= 0.
            indices: of the frames, >= 0, one per row.
        """
        # NumPy's, since torch's generator on the CPU keeps 32 bits of a seed and would repeat frames among millions.
        self._generators = [np.random.default_rng([seed, index]) for index in indices]

    def __len__(self) -> int:
        return len(self._generators)

    def __getitem__(self, rows: slice) -> Rng:
        """The generators of these rows alone, at their current state."""
        part = copy(self)
        part._generators = self._generators[rows]
        return part

    def uniform(self, low: Tensor | float, high: Tensor | float, *shape: int) -> Tensor:
        """(B, *shape) float32 from ``low`` to ``high``, which broadcast against it."""
        unit = torch.from_numpy(np.stack([g.random(shape, dtype=np.float32) for g in self._generators]))
        return low + (high - low) * unit

    def chance(self, probability: float, *shape: int) -> Tensor:
        """(B, *shape) bool, True with ``probability``."""
        return self.uniform(0.0, 1.0, *shape) < probability

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64 from ``low`` to ``high``, both included."""
        return torch.from_numpy(np.stack([g.integers(low, high + 1, shape) for g in self._generators]))

    def choice(self, weights: Sequence[float], *shape: int) -> Tensor:
        """(B, *shape) int64, positions in ``weights``, drawn in proportion to them."""
        edges = torch.tensor(weights, dtype=torch.float64).cumsum(0)
        unit = self.uniform(0.0, 1.0, *shape).double()
        return torch.bucketize(unit * edges[-1], edges[:-1], right=True)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(B, *shape) float32 from ``low`` to ``high``, uniform in the logarithm."""
        share = self.uniform(0.0, 1.0, *shape).double()
        return (low * (high / low) ** share).float()

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32 of mean 0 and standard deviation 1."""
        return torch.from_numpy(np.stack([g.standard_normal(shape, dtype=np.float32) for g in self._generators]))


def cos_sin(angle_rad: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine, float32; computed in double precision, so that rounding hides differences of libraries."""
    return angle_rad.double().cos().float(), angle_rad.double().sin().float()


def square_root(value: Tensor) -> Tensor:
    """Square root, float32, exact to the last bit: single-precision roots of libraries are not, on some processors."""
    return value.double().sqrt().float()


def pick_rows(table: Tensor, index: Tensor) -> Tensor:
    """
    Args:
        table: (B, K, ...).
        index: (B, N) int64, rows of the same frame's table.

    Returns:
        (B, N, ...)
    """
    frames = torch.arange(len(table), device=table.device)[:, None]
    return table[frames, index]

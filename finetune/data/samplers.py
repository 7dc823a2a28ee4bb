"""Which frame is sample k of a run, and which samples a process takes: pure functions of seed, k and rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

# What a random draw is for. It is part of the seed, so that no two purposes share their numbers.
ORDER, MIX, WINDOW, AUGMENT, STAND_IN, ZOOM, STRONG = range(7)
_MIX_BLOCK = 1000


@dataclass(frozen=True, kw_only=True)
class WeightedMixSampler:
    """Which frame of which reader is sample k: readers in proportion to their weights, each in shuffled epochs.

    Attributes:
        sizes: number of frames of each reader.
        weights: share of the samples that each reader gives, > 0, in any unit; exact to a thousandth.
        seed: of the run.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    def __call__(self, k: int) -> tuple[int, int]:
        """(reader, frame) of sample ``k``."""
        reader, turn = self._pick_reader(k)
        epoch, position = divmod(turn, self.sizes[reader])
        return reader, int(_shuffle_frames(self.seed, reader, epoch, self.sizes[reader])[position])

    def _pick_reader(self, k: int) -> tuple[int, int]:
        """Reader of sample ``k``, and how many samples of that reader came before it."""
        if len(self.sizes) == 1:
            return 0, k
        block, position = divmod(k, _MIX_BLOCK)
        shares = self._block_shares()
        slots = np.random.default_rng((self.seed, MIX, block)).permutation(np.repeat(np.arange(len(shares)), shares))
        reader = int(slots[position])
        return reader, int(block * shares[reader] + np.count_nonzero(slots[:position] == reader))

    def _block_shares(self) -> NDArray[np.intp]:
        """Samples of each reader in a block: proportional, at least one, remainders to the largest fractions."""
        exact = np.array(self.weights) / sum(self.weights) * _MIX_BLOCK
        shares = np.maximum(1, np.floor(exact).astype(np.intp))
        for reader in np.argsort(shares - exact, kind="stable")[: max(0, _MIX_BLOCK - int(shares.sum()))]:
            shares[reader] += 1
        shares[np.argmax(shares)] += _MIX_BLOCK - int(shares.sum())
        return shares


@lru_cache(maxsize=16)  # shuffling a million frames takes 10 ms, and every sample asks for it
def _shuffle_frames(seed: int, reader: int, epoch: int, size: int) -> NDArray[np.intp]:
    return np.random.default_rng((seed, ORDER, reader, epoch)).permutation(size)


class DistributedBatchSampler(Sampler[list[int]]):
    """The samples of every micro-batch of one process, without end.

    Step s trains on samples s * total to (s + 1) * total - 1, where total is batch size times micro-batches times
    processes. So the same total batch means the same samples on any number of processes.
    """

    def __init__(
        self,
        *,
        first_step: int,
        batch_size: int,
        accumulate: int,
        rank: int,
        world_size: int,
        repeated_steps: int | None = None,
    ) -> None:
        """``repeated_steps``: the samples of this many steps are repeated over and over; None: nothing is repeated."""
        self._first_step = first_step
        self._batch_size = batch_size
        self._accumulate = accumulate
        self._rank = rank
        self._world_size = world_size
        self._repeated = repeated_steps * accumulate if repeated_steps else None

    def __iter__(self) -> Iterator[list[int]]:
        for number in count(self._first_step * self._accumulate):
            micro_batch = number % self._repeated if self._repeated else number
            first = (micro_batch * self._world_size + self._rank) * self._batch_size
            yield list(range(first, first + self._batch_size))

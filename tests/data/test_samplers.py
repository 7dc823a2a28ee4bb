"""Which frame sample k is, and which samples a process takes."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from finetune.data.samplers import DistributedBatchSampler, WeightedMixSampler


def test_each_epoch_shows_every_frame_once_in_another_order() -> None:
    mix = WeightedMixSampler(sizes=(10,), weights=(1.0,), seed=3)
    first, second = [[mix(k)[1] for k in range(start, start + 10)] for start in (0, 10)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first != [WeightedMixSampler(sizes=(10,), weights=(1.0,), seed=4)(k)[1] for k in range(10)]


def test_weights_share_the_samples_and_each_reader_keeps_its_epochs() -> None:
    mix = WeightedMixSampler(sizes=(50, 7), weights=(3.0, 1.0), seed=0)
    drawn = [mix(k) for k in range(2000)]
    assert Counter(reader for reader, _ in drawn) == {0: 1500, 1: 500}
    assert Counter(reader for reader, _ in drawn[:100])[1] in range(10, 45)
    second = [frame for reader, frame in drawn if reader == 1]
    assert all(sorted(second[start : start + 7]) == list(range(7)) for start in range(0, 490, 7))


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1e-9, 1.0, 2.0), (0.3, 0.6, 1e6)])
def test_shares_add_up_and_none_is_empty(weights: tuple[float, ...]) -> None:
    shares = WeightedMixSampler(sizes=(5, 5, 5), weights=weights, seed=0)._block_shares()
    assert shares.sum() == 1000
    assert shares.min() >= 1


def test_same_total_batch_means_same_samples() -> None:
    def of_step(step: int, batch_size: int, accumulate: int, world_size: int) -> list[int]:
        seen = []
        for rank in range(world_size):
            batches = DistributedBatchSampler(
                first_step=step, batch_size=batch_size, accumulate=accumulate, rank=rank, world_size=world_size
            )
            seen += [k for batch in islice(batches, accumulate) for k in batch]
        return sorted(seen)

    expected = list(range(5 * 8, 6 * 8))
    assert all(of_step(5, *split) == expected for split in [(8, 1, 1), (4, 2, 1), (4, 1, 2), (2, 2, 2), (1, 1, 8)])


def test_a_mix_keeps_to_its_weights_and_to_seed_and_number() -> None:
    mix = WeightedMixSampler(sizes=(50, 7, 1000), weights=(5.0, 1.0, 4.0), seed=3)
    drawn = [mix(k) for k in range(10_000)]
    assert [sum(reader == place for reader, _ in drawn) for place in range(3)] == [5000, 1000, 4000]
    assert [mix(k) for k in (9_999, 17, 4_242)] == [drawn[9_999], drawn[17], drawn[4_242]]
    # Each entry in epochs: every frame of the smallest as often as every other, but for one.
    of_second = [frame for reader, frame in drawn if reader == 1]
    counts = np.bincount(of_second, minlength=7)
    assert counts.max() - counts.min() <= 1

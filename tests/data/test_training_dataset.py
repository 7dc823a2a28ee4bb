import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.data.augmentation import Augmentation
from finetune.data.dataloader import Batch, collate, init_worker, raise_worker_errors, training_batches
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import BadSamples, Reader, too_many_bad
from finetune.data.readers.kitti import Kitti
from finetune.data.sample import DepthSample
from finetune.data.samplers import DistributedBatchSampler, WeightedMixSampler
from finetune.data.training_dataset import DepthRangePolicy, TrainingItem, TrainingSamples, crop_with_valid_depth
from finetune.utils.errors import DataError, ProcessError
from finetune.utils.indices import evenly_spread
from tests.synthetic import Holed, Planes, Skies, tilted_plane


def samples(seed: int = 0, count: int = 10) -> TrainingSamples:
    return TrainingSamples(
        [Planes(count)],
        [1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=seed,
    )


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
    shares = WeightedMixSampler(sizes=(5, 5, 5), weights=weights, seed=0)._shares()
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


def test_a_sample_is_the_same_alone_in_any_worker_and_after_a_resume() -> None:
    alone = samples()[13].sample
    for workers, first_step in ((0, 0), (2, 0), (2, 3)):
        loader = training_batches(
            samples(),
            DistributedBatchSampler(first_step=first_step, batch_size=4, accumulate=1, rank=0, world_size=1),
            workers=workers,
            pin_memory=False,
        )
        batch = next(islice(loader, 3 - first_step, None))
        assert batch.sources[1] == alone.source
        assert np.array_equal(batch.image[1].permute(1, 2, 0).numpy(), alone.image)
        assert np.array_equal(batch.depth_m[1, 0].numpy(), alone.depth_m)


class Together(Planes):
    """Planes that are rather read many at once; ``asked`` tells how they were."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.asked: list[list[int]] = []

    def batch(self, indices: Sequence[int]) -> list[DepthSample]:
        self.asked.append(list(indices))
        return [self[index] for index in indices]


def test_a_batch_is_asked_for_at_once_where_a_reader_can_and_is_the_same_as_one_by_one() -> None:
    together, one_by_one = Together(10), Planes(7)
    mixed = TrainingSamples(
        [together, one_by_one],
        [1.0, 1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0), DepthRangePolicy(max_depth_m=2.0)],
        seed=0,
    )
    ks = list(range(12))
    batch = [drawn.sample for drawn in mixed.__getitems__(ks)]
    (asked,) = together.asked
    assert asked == [frame for reader, frame in map(mixed.mix, ks) if reader == 0]
    # So does the loader of a run, though it catches faults.
    batches = DistributedBatchSampler(first_step=0, batch_size=12, accumulate=1, rank=0, world_size=1)
    first = next(training_batches(mixed, batches, workers=0, pin_memory=False))
    assert together.asked == [asked, asked]
    assert first.sources == [sample.source for sample in batch]
    for k, sample in zip(ks, batch, strict=True):
        alone = mixed[k].sample
        assert sample.source == alone.source
        assert np.array_equal(sample.image, alone.image)
        assert np.array_equal(sample.valid, alone.valid)


def test_evenly_spread_takes_both_ends_and_never_too_many() -> None:
    assert evenly_spread(10, 4) == [0, 3, 6, 9]
    assert evenly_spread(3, 200) == [0, 1, 2]
    assert evenly_spread(1, 5) == [0]
    assert len(evenly_spread(100_000, 200)) == 200


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(
        iter(
            training_batches(
                samples(),
                DistributedBatchSampler(first_step=0, batch_size=2, accumulate=1, rank=0, world_size=1),
                workers=0,
                pin_memory=False,
            )
        )
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_shapes_types_and_memory_layout() -> None:
    plane = tilted_plane()
    empty = DepthRangePolicy(max_depth_m=0.5)(plane)
    batch = collate([TrainingItem(plane), TrainingItem(empty), TrainingItem(plane)])
    assert batch.image.shape == (3, 3, 48, 64)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.depth_m.shape == batch.valid.shape == (3, 1, 48, 64)
    assert batch.valid.dtype == torch.bool
    assert batch.usable_images == 2
    assert batch.sources == ["plane"] * 3


def test_depth_beyond_the_maximum_does_not_count() -> None:
    kept = DepthRangePolicy(max_depth_m=2.0)(tilted_plane(near_m=1.0, far_m=4.0))
    assert kept.depth_m[kept.valid].max() <= 2.0
    farthest_m = float(kept.depth_m[kept.valid].max())
    assert np.array_equal(DepthRangePolicy(max_depth_m=farthest_m)(kept).valid, kept.valid)  # the maximum itself counts
    assert 0.3 < kept.valid.mean() < 0.4  # a third of the way from 1 to 4 m


@pytest.mark.parametrize("max_depth_m", [2.0, None])
def test_sky_is_beyond_every_range(max_depth_m: float | None) -> None:
    sample = Skies()[0]
    ignored = DepthRangePolicy(max_depth_m=max_depth_m)(sample)
    assert not ignored.valid[:16].any()
    assert ignored.valid[-5:].all()
    assert np.isfinite(ignored.depth_m[ignored.valid]).all()


@pytest.mark.parametrize("ceiling_m", [2.0, np.inf])
def test_depth_beyond_the_maximum_is_kept_at_the_ceiling(ceiling_m: float) -> None:
    sample = Skies()[0]
    sample.valid[30, 5], sample.depth_m[30, 5] = False, np.nan
    kept = DepthRangePolicy(max_depth_m=2.0, ceiling_m=ceiling_m)(sample)
    assert np.array_equal(kept.valid, sample.valid)
    beyond = sample.valid & (sample.depth_m > 2.0)
    assert (kept.depth_m[beyond] == ceiling_m).all()
    assert np.array_equal(kept.depth_m[~beyond], sample.depth_m[~beyond], equal_nan=True)


def test_sky_at_the_ceiling_reaches_the_batch() -> None:
    training = TrainingSamples(
        [Skies(count=2)],
        [1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=None, ceiling_m=np.inf)],
        seed=0,
    )
    batch = collate([training[k] for k in range(4)])
    assert batch.valid.all()
    assert batch.depth_m.isinf().any()
    assert batch.usable_images == 4


def holed(readers: Sequence[Reader], *, skip_bad: bool = True, seed: int = 0) -> TrainingSamples:
    return TrainingSamples(
        readers,
        [1.0] * len(readers),
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)] * len(readers),
        seed=seed,
        skip_bad=skip_bad,
    )


def batches_of(samples: TrainingSamples, *, workers: int = 0, first_step: int = 0, **split: int) -> Iterator[Batch]:
    whole = {"batch_size": 4, "accumulate": 1, "rank": 0, "world_size": 1}
    steps = DistributedBatchSampler(first_step=first_step, **(whole | split))
    return training_batches(samples, steps, workers=workers, pin_memory=False)


def test_a_bad_sample_is_replaced_by_a_frame_of_its_reader_and_noted() -> None:
    training = holed([Holed(6, bad={2, 3}), Planes(5, "sound")])
    for k in range(40):
        reader, frame = training.mix(k)
        sample, skipped = training[k]
        assert sample.source.startswith(("plane#", "sound#")[reader])
        if reader == 0 and frame in (2, 3):
            # Also a stand-in may be bad; each is named.
            assert skipped[0] == (k, f"plane#{frame}: is empty (0 bytes)")
            assert sample.source not in ("plane#2", "plane#3")
        else:
            assert (sample.source, skipped) == (f"{('plane', 'sound')[reader]}#{frame}", ())


def test_stand_ins_follow_from_the_seed_and_the_number_of_the_sample() -> None:
    def shown(batches: Iterator[Batch], count: int) -> list[tuple[list[str], list[tuple[int, str]]]]:
        return [(batch.sources, list(batch.skipped)) for batch in islice(batches, count)]

    reader = Holed(12, bad=set(range(6)))
    straight = shown(batches_of(holed([reader])), 6)
    assert sum(len(skipped) for _, skipped in straight) > 6
    for workers in (1, 2):
        assert shown(batches_of(holed([reader]), workers=workers), 6) == straight
    assert shown(batches_of(holed([reader]), first_step=4), 2) == straight[4:]
    assert shown(batches_of(holed([reader], seed=1)), 6) != straight
    parts = shown(batches_of(holed([reader]), batch_size=2, accumulate=2), 12)
    assert [source for sources, _ in parts for source in sources] == [one for sources, _ in straight for one in sources]
    ranks = [shown(batches_of(holed([reader]), batch_size=2, world_size=2, rank=rank), 6) for rank in (0, 1)]
    assert sorted(one for rank in ranks for _, skipped in rank for one in skipped) == sorted(
        one for _, skipped in straight for one in skipped
    )
    # As two different samples that show one bad frame, which need not have the same stand-in.
    stand_ins = {drawn.sample.source for k in range(60) if (drawn := holed([reader])[k]).skipped}
    assert len(stand_ins) > 1


def test_a_reader_without_any_readable_frame_ends_though_bad_ones_are_skipped() -> None:
    with pytest.raises(DataError, match=r"is empty \(0 bytes\); nor could any of 10 frames be read .* Write it again"):
        holed([Holed(3, bad={0, 1, 2})])[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_stops_where_it_is_not_said_to_skip_it(workers: int) -> None:
    with pytest.raises(DataError, match="plane#1: is empty"):
        list(islice(batches_of(holed([Holed(3, bad={1})], skip_bad=False), workers=workers), 2))


class HoledTogether(Holed):
    """Reads many at once."""

    def batch(self, indices: Sequence[int]) -> list[DepthSample]:
        return [self[index] for index in indices]


def test_one_bad_sample_among_many_read_at_once_costs_only_itself() -> None:
    one_by_one, together = (holed([kind(8, bad={5})]).__getitems__(range(8)) for kind in (Holed, HoledTogether))
    assert [drawn.sample.source for drawn in together] == [drawn.sample.source for drawn in one_by_one]
    assert sum(bool(drawn.skipped) for drawn in together) == 1


def test_few_bad_samples_are_ten_or_a_hundredth() -> None:
    assert [too_many_bad(bad, asked) for bad, asked in [(10, 10), (11, 1099), (11, 1100), (12, 1100)]] == [
        False,
        True,
        False,
        True,
    ]


def test_bad_samples_are_counted_each_time_and_the_first_ten_different_ones_named_in_their_order() -> None:
    bad = BadSamples()
    # For sample 7 two stand-ins were bad too.
    skipped = [(7, "c: is empty"), (7, "a: is empty"), (7, "b: is empty"), (2, "a: is empty"), (9, "b: is empty")]
    assert bad.add(skipped) == ["a: is empty", "c: is empty", "b: is empty"]
    assert bad.count == 3
    assert bad.add([(k, f"{k % 12:02}: is empty") for k in range(20, 32)]) == [
        f"{name:02}: is empty" for name in (8, 9, 10, 11, 0, 1, 2)
    ]
    assert bad.add([(40, "late: is empty")]) == []
    assert bad.count == 16
    assert bad.summary(2000).startswith("16 of the 2000 training samples asked for could not be read; the first: a: is")


class Broken:
    """What stands for a loader of two processes one of which went away while it handed something over."""

    num_workers = 2

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise self._fault


@pytest.mark.parametrize("fault", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_broken_pipe_to_a_worker_is_its_death(fault: Exception) -> None:
    items = raise_worker_errors(Broken(fault))  # type: ignore[arg-type]
    assert next(items) == 1
    with pytest.raises(ProcessError, match=r"A process that reads data died \((EOFError|.*reset by peer)\)"):
        next(items)


def test_what_a_reader_raises_is_not_taken_for_a_worker_that_died() -> None:
    fault = EOFError("Caught EOFError in DataLoader worker process 0.\nOriginal Traceback")
    with pytest.raises(EOFError):
        list(raise_worker_errors(Broken(fault)))  # type: ignore[arg-type]


class NotToBeHandedOver(Dataset[object]):
    """What Python cannot pickle, as a tensor cannot be handed over where shared memory is full."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> object:
        return lambda: index


def test_a_worker_that_cannot_hand_over_a_sample_dies_of_it_and_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # PyTorch asks to hear of workers that end once in a process, and what came before may have ended that.
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    loader = DataLoader(NotToBeHandedOver(), num_workers=1, collate_fn=list, worker_init_fn=init_worker, timeout=30)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        list(loader)
    assert time.monotonic() - started < 20
    said = capfd.readouterr().err
    assert said.startswith("A process that reads data could not hand it over: ")
    assert "pickle" in said and said.count("\n") == 1


class Endless(Dataset[int]):
    """Numbers without end."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> int:
        return index


def test_a_worker_heeds_the_signal_of_its_parent_alone() -> None:
    items = iter(DataLoader(Endless(), num_workers=1, worker_init_fn=init_worker, timeout=30))
    assert next(items).item() == 0
    (worker,) = items._workers  # type: ignore[attr-defined]
    # By another process, as a scheduler or a launcher does it.
    for _ in range(3):
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert [next(items).item() for _ in range(50)] == list(range(1, 51))
    worker.terminate()
    worker.join(timeout=10)
    assert worker.exitcode == 0


def with_one_label(row: int, column: int, height: int = 60, width: int = 400) -> DepthSample:
    """A wide frame of which one pixel was measured."""
    valid = np.zeros((height, width), bool)
    valid[row, column] = True
    image = np.zeros((height, width, 3), np.uint8)
    return DepthSample(image=image, depth_m=np.full((height, width), 3.0, np.float32), valid=valid, source="one")


@pytest.mark.parametrize("place", [(0, 0), (59, 399), (0, 399), (30, 5), (31, 200)])
@pytest.mark.parametrize("size", [(28, 42), (56, 56), (112, 154)])
def test_a_window_holds_a_label_where_the_frame_has_one(place: tuple[int, int], size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(input_size=size)
    for seed in range(25):
        windows = [
            crop_with_valid_depth(preprocessing, with_one_label(*place), np.random.default_rng(seed)) for _ in range(2)
        ]
        assert windows[0].valid.any()
        assert windows[0].valid.shape == size
        assert (windows[0].valid == windows[1].valid).all()


def test_a_window_with_labels_is_the_first_drawn() -> None:
    sample = Planes(1)[0]
    preprocessing = Preprocessing(input_size=(28, 28))
    height, width = sample.depth_m.shape
    across, down = np.random.default_rng(5).random(2)
    expected = preprocessing.window(height, width, across, down)(sample)
    found = crop_with_valid_depth(preprocessing, sample, np.random.default_rng(5))
    assert (found.image == expected.image).all()
    assert (found.depth_m == expected.depth_m).all()


def test_a_frame_without_labels_gives_a_window_without() -> None:
    sample = replace(with_one_label(0, 0), valid=np.zeros((60, 400), bool))
    assert not crop_with_valid_depth(Preprocessing(input_size=(28, 42)), sample, np.random.default_rng(0)).valid.any()


def test_a_mix_keeps_to_its_weights_and_to_seed_and_number() -> None:
    mix = WeightedMixSampler(sizes=(50, 7, 1000), weights=(5.0, 1.0, 4.0), seed=3)
    drawn = [mix(k) for k in range(10_000)]
    assert [sum(reader == place for reader, _ in drawn) for place in range(3)] == [5000, 1000, 4000]
    assert [mix(k) for k in (9_999, 17, 4_242)] == [drawn[9_999], drawn[17], drawn[4_242]]
    # Each entry in epochs: every frame of the smallest as often as every other, but for one.
    of_second = [frame for reader, frame in drawn if reader == 1]
    counts = np.bincount(of_second, minlength=7)
    assert counts.max() - counts.min() <= 1


def lidar_scan(height: int = 375, width: int = 1242, lines: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Depth and validity of a street seen by so many scan lines below the horizon, with a fifth of the returns lost."""
    draw = np.random.default_rng(0)
    rows = np.unique(np.linspace(height * 0.4, height - 1, lines).round().astype(int))
    valid = np.zeros((height, width), bool)
    valid[rows] = draw.random((len(rows), width)) < 0.8
    y = np.arange(height)[:, None] - height * 0.38
    depth_m = np.where(valid, np.clip(1.65 * 720 / np.maximum(y, 1.0), 2, 80) + draw.random((height, width)), 0.0)
    return depth_m.astype(np.float32), valid


def require_returns_kept(depth_m: np.ndarray, valid: np.ndarray) -> None:
    """At half size at least 95 % of the cells with a return keep one, and no value is new."""
    height, width = depth_m.shape
    # 14 * 13 = 182 rows of 375: about half.
    size = (round(height / 28) * 14, round(width / 28) * 14)
    whole = Preprocessing(input_size=size).whole(height, width)
    found_m, found = whole.depth(depth_m, valid)
    assert found.shape == (whole.height, whole.width)
    assert height / whole.height == pytest.approx(2, rel=0.1)
    rows = np.minimum((np.arange(height) + 0.5) / whole.pixels_down, whole.height - 1).astype(int)
    columns = np.minimum((np.arange(width) + 0.5) / whole.pixels_across, whole.width - 1).astype(int)
    cells = np.zeros_like(found)
    cells[rows[np.nonzero(valid)[0]], columns[np.nonzero(valid)[1]]] = True
    assert (found & cells).sum() >= 0.95 * cells.sum()
    assert np.isin(found_m[found], depth_m[valid]).all()


def test_a_64_line_scan_keeps_its_returns_at_half_size() -> None:
    require_returns_kept(*lidar_scan())


def test_a_real_64_line_scan_keeps_its_returns_at_half_size() -> None:
    if "DEPTH_SAMPLES" not in os.environ:
        pytest.skip("DEPTH_SAMPLES is not set")
    root = Path(os.environ["DEPTH_SAMPLES"]) / "kitti_depth"
    sample = Kitti(root=str(root), list="eigen_style_subset.txt")[0]
    require_returns_kept(sample.depth_m, sample.valid)


@pytest.mark.parametrize("seed", range(5))
def test_no_depth_comes_out_of_training_that_was_not_measured(seed: int) -> None:
    depth_m, valid = lidar_scan(200, 700, 20 + 10 * seed)
    image = np.random.default_rng(seed).integers(0, 256, (200, 700, 3), np.uint8)
    sample = DepthSample(image=image, depth_m=depth_m, valid=valid, source="scan")
    augmentation = Augmentation(flip=0.5, color=0.5)
    for size in ((56, 84), (112, 154), (252, 336)):
        window = crop_with_valid_depth(Preprocessing(input_size=size), sample, np.random.default_rng(seed))
        found = augmentation(window, (seed, 1))
        assert found.valid.any()
        assert np.isin(found.depth_m[found.valid], depth_m[valid]).all()

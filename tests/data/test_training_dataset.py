"""Sample k of a run: its frame, what stands in for a bad one, its depth range and its window."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.camera import Camera
from finetune.data.dataloader import Batch, training_batches
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import (
    CanonicalLabels,
    DepthRangePolicy,
    TrainingSamples,
    Zoom,
    crop_with_valid_depth,
)
from finetune.utils.errors import DataError
from tests.synthetic import Holed, Planes, Skies, lidar_scan, tilted_plane


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
        sample, skipped, *_ = training[k]
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
    with pytest.raises(
        DataError, match=r"is empty \(0 bytes\); the 10 frames tried in its place could not be read either, .* Write it"
    ):
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


class Lens(Planes):
    """Planes with a camera."""

    def __init__(self, focal_px: float, *, sparse: bool = False) -> None:
        super().__init__(8)
        self._camera = Camera(fx_px=focal_px, fy_px=focal_px, cx_px=31.5, cy_px=23.5)
        self._sparse = sparse

    def __getitem__(self, index: int) -> DepthSample:
        sample = replace(super().__getitem__(index), camera=self._camera)
        if not self._sparse:
            return sample
        kept = np.zeros_like(sample.valid)
        kept[3::8, 2::9] = True
        return replace(sample, valid=kept)


def zoomed_samples(reader: Reader, *, canonical_px: float | None, most: float = 1.6) -> list[DepthSample]:
    samples = TrainingSamples(
        [reader],
        [1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.0),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=3,
        zoom=Zoom(least=1.0, most=most, divides_depth=canonical_px is None),
        labels=None if canonical_px is None else CanonicalLabels(focal_px=canonical_px, max_depth_m=100.0),
    )
    return [drawn.sample for drawn in samples.__getitems__(range(8))]


def test_the_canonical_label_after_a_zoom_is_f_c_over_f_of_the_label_without_canonical_mode() -> None:
    reader, canonical_px = Lens(90.0), 77.0
    # 48x64 becomes 28x42: 0.58333 downwards and 0.65625 across, so the lens is 55.78 px before the zoom.
    before_px = 90.0 * (28 / 48 + 42 / 64) / 2
    pairs = list(
        zip(zoomed_samples(reader, canonical_px=None), zoomed_samples(reader, canonical_px=canonical_px), strict=True)
    )
    zooms = []
    for plain, canonical in pairs:
        assert plain.camera is not None and plain.camera == canonical.camera
        assert np.array_equal(plain.valid, canonical.valid) and plain.valid.any()
        np.testing.assert_allclose(
            canonical.depth_m[plain.valid], canonical_px / before_px * plain.depth_m[plain.valid], rtol=1e-6
        )
        zooms.append(plain.camera.focal_px / before_px)
    assert 1.0 <= min(zooms) < 1.2 and 1.4 < max(zooms) <= 1.6


def test_sparse_labels_stay_single_pixels_in_a_zoomed_sample() -> None:
    for sample in zoomed_samples(Lens(90.0, sparse=True), canonical_px=None, most=4.0):
        assert sample.valid.any()
        assert not (sample.valid[1:] & sample.valid[:-1]).any()
        assert not (sample.valid[:, 1:] & sample.valid[:, :-1]).any()


def test_a_canonical_label_beyond_the_head_is_not_valid_and_a_frame_without_camera_is_named() -> None:
    labels = CanonicalLabels(focal_px=200.0, max_depth_m=5.0)
    sample = replace(tilted_plane(), camera=Camera(fx_px=100.0, fy_px=100.0, cx_px=31.5, cy_px=23.5))
    found = labels(sample)
    assert np.array_equal(found.depth_m, 2 * sample.depth_m)
    assert np.array_equal(found.valid, sample.valid & (sample.depth_m <= 2.5))
    with pytest.raises(DataError, match=r"has no intrinsics, and data\.camera\.mode is canonical"):
        labels(replace(sample, camera=None))

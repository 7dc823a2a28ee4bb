"""Each protocol against the same written down in plain NumPy, on random predictions with holes."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data.crops import crop_for_protocol
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest, ScaledBaseline, evaluate, predict_with_network
from finetune.evaluation.protocol_settings import KEYS, PROTOCOLS, protocol_settings
from finetune.evaluation.protocols import Protocol, crop_of
from finetune.evaluation.results import Evaluation
from finetune.models.depth_model import DepthModel
from finetune.reporting.text_table import format_evaluation
from finetune.utils.errors import DataError, RecipeError
from tests import protocols_in_numpy
from tests.synthetic import Planes

SIZES = {"nyu_eigen": (480, 640)}
KITTI = [(375, 1242), (370, 1224), (376, 1241), (352, 1216)]
ALIGNMENTS = ("none", "median", "scale", "scale_shift", "scale_shift_inverse")
SMALL = Preprocessing(input_size=(56, 70))


class Frames(Reader):
    """Measured depth from a seed: an eighth of the pixels is a hole, some beyond every range; frames of ``sizes``."""

    def __init__(self, sizes: Sequence[tuple[int, int]], most_m: float, seed: int) -> None:
        self.pairs = []
        for number, size in enumerate(sizes):
            draw = np.random.default_rng((seed, number))
            target = np.exp(draw.uniform(np.log(0.0005), np.log(1.3 * most_m), size)).astype(np.float32)
            pred = (target * np.exp(draw.normal(0.05, 0.3, size)) + draw.normal(0, 0.05, size)).astype(np.float32)
            self.pairs.append((pred, np.where(draw.random(size) < 0.125, np.float32(0), target)))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> DepthSample:
        target = self.pairs[index][1]
        image = np.zeros((*target.shape, 3), np.uint8)
        return DepthSample(image=image, depth_m=target, valid=target > 0, source=f"frame {index}")

    def predict(self, asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        found = []
        for request in asked:
            pred = self.pairs[request.number][0]
            height, width = request.size
            top, left = (pred.shape[0] - height, (pred.shape[1] - width) // 2)
            found.append(pred[top : top + height, left : left + width])
        return found


def one_process() -> Any:
    return SimpleNamespace(process_index=0, num_processes=1)


def protocol(name: str, most_m: float = 10.0) -> Protocol:
    settings = protocol_settings(name)
    return Protocol(name=name, min_depth_m=settings.min_depth_m or 0.001, max_depth_m=settings.max_depth_m or most_m)


def tables(frames: Frames, names: Sequence[str], most_m: float = 10.0) -> list[Evaluation]:
    protocols = [protocol(name, most_m) for name in names]
    samples = ValidationSamples([frames], SMALL, image_crops=[protocol.settings.image_crop for protocol in protocols])
    return evaluate(one_process(), samples, {"x": frames.predict}, protocols, workers=0, batch_size=3)


@pytest.mark.parametrize("base", PROTOCOLS)
def test_two_hundred_pairs_agree_with_plain_numpy(base: str) -> None:
    large = base in protocols_in_numpy.RANGES
    # Where a protocol takes frames of one size alone, these are large: two here, 60 in the slow test below.
    sizes = [(24 + n % 5, 32 + n % 7) for n in range(200)]
    if large:
        sizes = [SIZES.get(base, KITTI[n % len(KITTI)]) for n in range(2)]
    most_m = 10.0 if base in ("plain", "nyu_eigen", "reference_script") else 80.0
    frames = Frames(sizes, most_m, seed=len(base))
    names = [f"{base}+align={align}+average={average}" for align in ALIGNMENTS for average in ("image", "pixel")]
    if large:
        names = [names[0], names[3], names[4], names[-2]]
    for name, found in zip(names, tables(frames, names), strict=True):
        _, align, average = (part.rpartition("=")[2] for part in name.split("+"))
        expected = protocols_in_numpy.table(base, align, average, frames.pairs, 10.0)
        assert found.images_used == len(sizes)
        for metric, value in expected.items():
            assert found.rows["x"][metric] == pytest.approx(value, rel=1e-6, abs=1e-9), (name, metric)


@pytest.mark.slow
@pytest.mark.parametrize("base", sorted(protocols_in_numpy.RANGES))
def test_sixty_whole_frames_agree_with_plain_numpy(base: str) -> None:
    sizes = [SIZES.get(base, KITTI[n % len(KITTI)]) for n in range(60)]
    frames = Frames(sizes, 10.0 if base == "nyu_eigen" else 80.0, seed=7)
    averages = ("image", "pixel", "image", "pixel", "image")
    kinds = list(zip(ALIGNMENTS, averages, strict=True))
    names = [f"{base}+align={align}+average={average}" for align, average in kinds]
    for (align, average), found in zip(kinds, tables(frames, names), strict=True):
        for metric, value in protocols_in_numpy.table(base, align, average, frames.pairs, 10.0).items():
            assert found.rows["x"][metric] == pytest.approx(value, rel=1e-6, abs=1e-9), (align, metric)


@pytest.mark.parametrize(
    ("name", "size", "rows", "columns"),
    [
        ("garg", (352, 1216), (143, 349), (43, 1172)),
        ("garg", (375, 1242), (153, 371), (44, 1197)),
        ("eigen", (352, 1216), (117, 321), (43, 1172)),
        ("eigen", (375, 1242), (124, 342), (44, 1197)),
        ("nyu_eigen", (480, 640), (45, 471), (41, 601)),
    ],
)
def test_crops_are_the_published_ones(
    name: str, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    assert crop_of(name, size) == (slice(*rows), slice(*columns))


def test_the_kb_crop_is_the_bottom_and_the_middle_once() -> None:
    frames = Frames([(375, 1242)], 80.0, seed=0)
    view = crop_for_protocol("kb", frames[0])
    assert view.depth_m.shape == (352, 1216)
    assert (view.depth_m == frames[0].depth_m[23:375, 13:1229]).all()
    assert (crop_for_protocol("kb", view).depth_m == view.depth_m).all()
    with pytest.raises(DataError, match=r"frame 0: is 300x1242; the KB crop of KITTI cuts 352x1216"):
        crop_for_protocol("kb", Frames([(300, 1242)], 80.0, seed=0)[0])


def test_a_frame_of_another_size_is_not_nyu() -> None:
    with pytest.raises(DataError, match=r"frame 0: is 240x320; the crop nyu_eigen is defined for 480x640 only"):
        tables(Frames([(240, 320)], 10.0, seed=0), ["nyu_eigen"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kitti_eigen_gar", "perhaps kitti_eigen_garg"),
        ("plain+algn=median", "perhaps align"),
        ("plain+align=medium", "align= followed by one of none, median, scale"),
        ("plain+flip=yes", "flip= followed by one of true, false"),
        ("plain+align=median+align=scale", "align is there twice"),
        ("plain+max_depth_m=-1", "max_depth_m= followed by meters, above 0"),
        ("plain+min_pixels=2.5", "min_pixels= followed by a whole number above 0"),
        ("kitti_eigen+min_depth_m=90", "a larger max_depth_m than min_depth_m"),
    ],
)
def test_names_that_are_none_name_the_nearest(name: str, said: str) -> None:
    with pytest.raises(RecipeError, match="protocols is") as raised:
        protocol_settings(name)
    assert said in str(raised.value)


def test_a_changed_key_is_in_name_and_record() -> None:
    found = protocol("kitti_eigen_garg+max_depth_m=50+flip=true")
    record = found.to_mapping()
    assert (record["name"], record["max_depth_m"], record["flip"]) == (found.name, 50.0, True)
    assert "KB crop, garg crop" in str(found)
    assert "averaged with the mirrored image" in str(found)
    assert set(KEYS) == set(vars(PROTOCOLS["plain"]))


def test_aligned_rows_stand_beside_unaligned_ones() -> None:
    frames = Frames([(20, 30)] * 3, 10.0, seed=1)
    plain, aligned = tables(frames, ["plain", "plain+align=median"])
    assert list(aligned.rows) == ["x", "x_unaligned"]
    assert aligned.rows["x_unaligned"] == plain.rows["x"]
    assert aligned.rows["x"]["abs_rel"] != plain.rows["x"]["abs_rel"]
    assert "aligned per image (one scale, the ratio of the medians" in format_evaluation(aligned)


def test_bins_and_millimeters_by_hand() -> None:
    class Two(Reader):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> DepthSample:
            depth_m = np.array([[0.5, 1.0, 1.5, 8.0]], np.float32)
            image = np.zeros((1, 4, 3), np.uint8)
            return DepthSample(image=image, depth_m=depth_m, valid=depth_m > 0, source="two")

    def tenth_more(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        return [np.array([[0.5, 1.1, 1.5, 9.0]]) for _ in asked]

    (found,) = evaluate(
        one_process(), ValidationSamples([Two()], SMALL), {"x": tenth_more}, [protocol("plain")], workers=0
    )
    near, next_one, *_, far = found.bins["x"]
    # To 1 m, its end included: errors 0 and 0.1, relative 0 and 0.1.
    assert (near["from_m"], near["to_m"], near["pixels"]) == (0.0, 1.0, 2)
    assert near["abs_rel"] == pytest.approx(0.05)
    assert near["mean_error_m"] == pytest.approx(0.05)
    assert (next_one["pixels"], next_one["abs_rel"]) == (1, 0.0)
    assert (far["pixels"], far["abs_rel"]) == (1, pytest.approx(0.125))
    # Errors 0, 0, 100 and 1000 mm.
    assert found.errors_mm["x"]["mean"] == pytest.approx(275.0)
    assert found.errors_mm["x"]["median"] == pytest.approx(50.0)
    assert "|error| of an image, mm" in format_evaluation(found)
    assert "7-10 m" in format_evaluation(found)


def test_each_entry_has_its_own_rows() -> None:
    def two_meters(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        return [np.full(request.size, 2.0) for request in asked]

    frames = [Frames([(20, 30)] * 2, 10.0, seed=1), Frames([(20, 30)] * 3, 10.0, seed=2)]
    (both,) = evaluate(
        one_process(), ValidationSamples(frames, SMALL), {"x": two_meters}, [protocol("plain")], workers=0
    )
    alone = [
        evaluate(one_process(), ValidationSamples([one], SMALL), {"x": two_meters}, [protocol("plain")], workers=0)[0]
        for one in frames
    ]
    assert list(both.entries) == ["data.val.0", "data.val.1"]
    for entry, one in zip(both.entries.values(), alone, strict=True):
        assert (entry.rows, entry.images_used, entry.pixels_used) == (one.rows, one.images_used, one.pixels_used)
    assert both.rows["x"]["abs_rel"] == pytest.approx(
        (2 * alone[0].rows["x"]["abs_rel"] + 3 * alone[1].rows["x"]["abs_rel"]) / 5
    )
    assert "data.val.1: 3 images used" in format_evaluation(both)
    assert not alone[0].entries


class Wide(Planes):
    """Frames that the network sees in another size."""

    def __init__(self) -> None:
        super().__init__(2, "wide")

    def __getitem__(self, index: int) -> DepthSample:
        found = super().__getitem__(index)
        return found.window(0, 0, found.depth_m.shape[0] // 2, found.depth_m.shape[1])


def network() -> DepthModel:
    model = DepthModel("tiny", 10.0)
    model.initialise(0)
    return model.eval()


def test_flip_averages_with_the_mirrored_image() -> None:
    samples = ValidationSamples([Planes(2)], SMALL)
    predict, asked_for = predict_with_network(network()), []

    def watched(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        asked_for.append(len(asked))
        return predict(asked)

    plain, flipped = evaluate(
        one_process(),
        samples,
        {"x": watched},
        [protocol("plain"), protocol("plain+flip=true")],
        workers=0,
        batch_size=2,
    )
    assert asked_for == [2, 2]  # both protocols share the first
    one = samples[0]
    size = one.sample.depth_m.shape
    straight, mirrored = predict(
        [PredictionRequest(image=one.image, size=size), PredictionRequest(image=one.image.flip(-1), size=size)]
    )
    mean_m = (straight + mirrored[:, ::-1]) / 2
    usable = protocol("plain").usable(one.sample.depth_m, one.sample.valid)
    assert flipped.images[0].rows["x"] == protocol("plain").score(mean_m, one.sample.depth_m, usable)
    assert plain.rows != flipped.rows


def test_the_mirrored_image_is_asked_for_only_where_a_protocol_averages_with_it() -> None:
    asked_for = []

    def watched(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        asked_for.append(len(asked))
        return [np.full(request.size, 2.0) for request in asked]

    protocols = [protocol("plain"), protocol("plain+align=median")]
    evaluate(one_process(), ValidationSamples([Planes(2)], SMALL), {"x": watched}, protocols, workers=0, batch_size=2)
    assert asked_for == [2]


def test_a_batch_predicts_as_one_by_one() -> None:
    # Up to the rounding of sums, which a network does in another order for a batch.
    samples = ValidationSamples([Planes(3, "a"), Wide()], SMALL)
    rows = {"x": predict_with_network(network())}
    single, batched = (
        evaluate(one_process(), samples, rows, [protocol("plain")], workers=0, batch_size=size)[0] for size in (1, 4)
    )
    for metric, value in single.rows["x"].items():
        assert batched.rows["x"][metric] == pytest.approx(value, rel=1e-6)


def test_a_fit_keeps_to_the_range_of_each_protocol() -> None:
    seen = []

    def depth_m(prediction: np.ndarray, least_m: float, most_m: float) -> np.ndarray:
        seen.append((least_m, most_m))
        return np.clip(prediction, least_m, most_m)

    frames = Frames([(20, 30)], 10.0, seed=1)
    names = ["plain", "plain+max_depth_m=5"]
    fitted = ScaledBaseline(predict=frames.predict, depth_m=depth_m)
    protocols = [protocol(names[0]), protocol(names[1])]
    evaluate(one_process(), ValidationSamples([frames], SMALL), {"x": fitted}, protocols, workers=0)
    assert seen == [(0.001, 10.0), (0.001, 5.0)]


def test_the_reference_script_skips_images_of_under_ten_pixels() -> None:
    frames = Frames([(3, 3), (4, 4)], 5.0, seed=3)
    (found,) = tables(frames, ["reference_script"])
    assert (found.images_used, found.images_skipped) == (1, 1)
    assert torch.isfinite(torch.tensor(list(found.rows["x"].values()))).all()

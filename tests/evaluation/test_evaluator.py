from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.sample import DepthSample
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest, _share, evaluate, predict_with_network, resize_prediction
from finetune.evaluation.protocols import Protocol
from finetune.models.depth_model import DepthModel
from finetune.reporting.text_table import format_evaluation
from finetune.utils.errors import DataError, ResultError
from tests.synthetic import Planes, Skies

PLAIN = Protocol(min_depth_m=0.1, max_depth_m=10.0)
ALIGNED = "plain+align=scale_shift_inverse"
SMALL = Preprocessing(input_size=(56, 70))


def one_process(index: int = 0, count: int = 1) -> Any:
    return SimpleNamespace(process_index=index, num_processes=count)


class Flat(Reader):
    """Frame i is 1 + i meters everywhere; the last one was not measured at all."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> DepthSample:
        return DepthSample(
            image=np.zeros((20, 30, 3), np.uint8),
            depth_m=np.full((20, 30), 1.0 + index, np.float32),
            valid=np.full((20, 30), index < 2),
            source=f"flat#{index}",
        )


def two_meters(requests: Sequence[PredictionRequest]) -> list[np.ndarray]:
    return [np.full(request.size, 2.0) for request in requests]


def four_meters(requests: Sequence[PredictionRequest]) -> list[np.ndarray]:
    return [2 * prediction for prediction in two_meters(requests)]


def test_a_constant_by_hand() -> None:
    (table,) = evaluate(one_process(), ValidationSamples([Flat()], SMALL), {"two": two_meters}, [PLAIN], workers=0)
    assert (table.images_used, table.images_skipped, table.pixels_used) == (2, 1, 1200)
    # 1 m off by all of it, 2 m not at all; each image counts once.
    assert table.rows["two"]["abs_rel"] == pytest.approx(0.5)
    assert table.rows["two"]["rmse"] == pytest.approx(0.5)
    assert table.rows["two"]["delta1"] == pytest.approx(0.5)
    assert "2 images used, 1 skipped, 1200 pixels" in format_evaluation(table)


def test_every_row_sees_the_same_pixels_in_one_pass() -> None:
    predictions = {"two": two_meters, "four": four_meters}
    (table,) = evaluate(one_process(), ValidationSamples([Flat()], SMALL), predictions, [PLAIN], workers=0)
    assert table.rows["four"]["abs_rel"] == pytest.approx((3 + 1) / 2)
    assert table.to_mapping()["rows"].keys() == predictions.keys()


def test_no_usable_image_is_an_error_and_never_a_zero() -> None:
    narrow = Protocol(min_depth_m=5.0, max_depth_m=10.0)
    with pytest.raises(DataError, match=r"0 of 3 images had valid pixels.*meters_per_unit"):
        evaluate(one_process(), ValidationSamples([Flat()], SMALL), {"two": two_meters}, [narrow], workers=0)


def test_processes_share_the_images_each_exactly_once() -> None:
    samples = ValidationSamples([Planes(4, "a"), Planes(3, "b")], SMALL)
    shares = [[frame.sample.source for frame in _share(one_process(rank, 3), samples, 0, 1)] for rank in range(3)]
    assert sorted(source for share in shares for source in share) == ["a#0", "a#1", "a#2", "a#3", "b#0", "b#1", "b#2"]
    assert [len(share) for share in shares] == [3, 2, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_batch_has_the_same_neighbors_on_any_number_of_processes(count: int) -> None:
    samples = ValidationSamples([Planes(7, "a"), Planes(4, "b")], SMALL)
    batches = []
    for rank in range(count):
        numbers = [frame.number for frame in _share(one_process(rank, count), samples, 0, 3)]
        batches += [numbers[start : start + 3] for start in range(0, len(numbers), 3)]
    assert sorted(batches) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_refused_and_never_a_metric(wrong: float) -> None:
    def broken(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        found = two_meters(asked)
        for prediction in found:
            prediction[0, :6] = wrong
        return found

    samples = ValidationSamples([Flat()], SMALL)
    for name in ("plain", "plain+align=median", "reference_script", "plain+align=scale_shift_inverse"):
        protocol = Protocol(name=name, min_depth_m=0.1, max_depth_m=10.0)
        with pytest.raises(ResultError, match=r"flat#0: x predicts NaN or infinity at 1\.0% of the pixels that count"):
            evaluate(one_process(), samples, {"two": two_meters, "x": broken}, [protocol], workers=0)


def test_a_prediction_that_is_no_number_where_nothing_was_measured_changes_nothing() -> None:
    class Half(Flat):
        def __getitem__(self, index: int) -> DepthSample:
            found = super().__getitem__(index)
            found.valid[0] = False
            return found

    def broken(asked: Sequence[PredictionRequest]) -> list[np.ndarray]:
        found = two_meters(asked)
        for prediction in found:
            prediction[0] = np.nan
        return found

    for name in ("plain", "plain+align=scale_shift"):
        protocol = Protocol(name=name, min_depth_m=0.1, max_depth_m=10.0)
        rows = {"two": two_meters, "x": broken}
        (table,) = evaluate(one_process(), ValidationSamples([Half()], SMALL), rows, [protocol], workers=0)
        assert table.rows["x"] == table.rows["two"]


def test_workers_change_nothing() -> None:
    samples = ValidationSamples([Planes(5)], SMALL)
    model = DepthModel("tiny", 10.0)
    model.initialise(0)
    tables = [
        evaluate(one_process(), samples, {"finetuned": predict_with_network(model.eval())}, [PLAIN], workers=workers)
        for workers in (0, 2)
    ]
    assert tables[0] == tables[1]


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = ValidationSamples([Planes(3, "a"), Skies()], SMALL)
    rows = {
        "two": two_meters,
        "four": four_meters,
        "tilted": lambda asked: [np.indices(x.size)[1] + 0.5 for x in asked],
    }
    protocols = [PLAIN, Protocol(name="plain+align=median", min_depth_m=0.1, max_depth_m=10.0)]
    found = []
    for threads in (1, 3):
        monkeypatch.setattr("torch.get_num_threads", lambda threads=threads: threads)
        tables = evaluate(one_process(), samples, rows, protocols, workers=0, batch_size=2)
        found.append([table.to_mapping() for table in tables])
    assert found[0] == found[1]
    assert list(found[0][1]["rows"]) == [*rows, *(f"{row}_unaligned" for row in rows)]


def test_predictions_are_resized_with_aligned_corners() -> None:
    corners = torch.tensor([[0.0, 3.0], [6.0, 9.0]]).view(1, 1, 2, 2)
    assert resize_prediction(corners, (4, 4))[0].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert resize_prediction(corners, (4, 4))[:, 0].tolist() == pytest.approx([0.0, 2.0, 4.0, 6.0])


def test_each_image_is_aligned_by_itself_and_the_table_says_so() -> None:
    aligned = Protocol(name=ALIGNED, min_depth_m=0.1, max_depth_m=10.0, kind="relative")
    (table,) = evaluate(one_process(), ValidationSamples([Flat()], SMALL), {"two": two_meters}, [aligned], workers=0)
    # Images of 1 m and of 2 m: a constant is right in both after its own alignment.
    assert table.rows["two"]["abs_rel"] == pytest.approx(0.0, abs=1e-6)
    assert "protocol plain+align=scale_shift_inverse" in format_evaluation(table)
    assert "no alignment" not in format_evaluation(table)
    assert "least squares in inverse depth" in format_evaluation(table)


def test_sky_is_not_scored_and_an_image_of_sky_is_skipped() -> None:
    samples = ValidationSamples([Skies(count=3)], SMALL)
    for name, kind in (("plain", "metric"), (ALIGNED, "relative")):
        protocol = Protocol(name=name, min_depth_m=0.1, max_depth_m=1000.0, kind=kind)  # type: ignore[arg-type]
        (table,) = evaluate(one_process(), samples, {"two": two_meters}, [protocol], workers=0)
        assert (table.images_used, table.images_skipped, table.pixels_used) == (2, 1, 2 * 32 * 64)
        assert np.isfinite(list(table.rows["two"].values())).all()

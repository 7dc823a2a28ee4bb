"""What a page shows of frames: each as the protocol compares it, small, and counted in bounded memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.data.preprocessing import Preprocessing
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest, Row, ScaledBaseline
from finetune.evaluation.protocols import Protocol
from finetune.recipe.load import load_recipe
from finetune.reporting.frames import DepthCounts, ShownFrame, ShownFrames, choose_worst_and_best, shrink_frame


def frame(target_m: Any, usable: Any = True, **predictions: Any) -> ShownFrame:
    target = np.asarray(target_m, dtype=np.float32)
    mask = np.broadcast_to(np.asarray(usable), target.shape)
    return ShownFrame(
        source="a.png",
        image=np.zeros((*target.shape, 3), dtype=np.uint8),
        target_m=target,
        measured=mask,
        usable=mask,
        predictions={row: np.asarray(prediction, dtype=np.float64) for row, prediction in predictions.items()},
    )


def test_histograms_end_at_the_farthest() -> None:
    counts = DepthCounts(max_depth_m=10.0)
    counts.add(frame([[1.0, 1.0, 3.99, 1.0]], base=[[1.0, 1.0, 1.0, 1.0]], finetuned=[[3.0, 1.0, 1.0, 1.0]]))
    edges, measured, predicted = counts.shares(4)
    assert edges == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0])
    assert measured == [0.0, 0.75, 0.0, 0.25]
    assert predicted == {"base": [0.0, 1.0, 0.0, 0.0], "finetuned": [0.0, 0.75, 0.0, 0.25]}


@pytest.mark.parametrize("bins", [1, 3, 7, 60, 400])
def test_shares_add_up_whatever_the_bins(bins: int) -> None:
    counts = DepthCounts(max_depth_m=10.0)
    depths = np.random.default_rng(bins).uniform(0.1, 9.0, (20, 30))
    counts.add(frame(depths, finetuned=depths[::-1]))
    edges, measured, predicted = counts.shares(bins)
    assert len(edges) == len(measured) + 1 <= bins + 1
    assert sum(measured) == pytest.approx(1.0)
    assert sum(predicted["finetuned"]) == pytest.approx(1.0)
    assert (np.diff(edges) > 0).all()


def test_what_is_counted_does_not_grow() -> None:
    counts = DepthCounts(max_depth_m=10.0)
    counts.add(frame(np.full((4, 4), 2.0), finetuned=np.full((4, 4), 2.5)))
    sizes = [counts.measured.size, counts.predicted["finetuned"].size]
    for _ in range(20):
        counts.add(frame(np.full((40, 40), 2.0), finetuned=np.full((40, 40), 2.5)))
    assert [counts.measured.size, counts.predicted["finetuned"].size] == sizes
    assert counts.frames == 21


def test_a_smaller_frame_never_mixes_what_was_measured_with_what_was_not() -> None:
    target_m = np.full((40, 80), 5.0, dtype=np.float32)
    target_m[:, ::2] = 0.0
    smaller, errors_m = shrink_frame(frame(target_m, target_m > 0, finetuned=np.full((40, 80), 4.0)), 20)
    assert smaller.target_m.shape == (10, 20)
    assert set(np.unique(smaller.target_m).tolist()) <= {0.0, 5.0}
    assert (smaller.usable == (smaller.target_m > 0)).all()
    assert set(np.unique(errors_m["finetuned"]).tolist()) <= {0.0, 1.0}


def test_a_small_frame_stays() -> None:
    smaller, _ = shrink_frame(frame(np.full((6, 8), 2.0), finetuned=np.full((6, 8), 2.0)), 20)
    assert smaller.target_m.shape == (6, 8)


def test_worst_and_best_by_hand() -> None:
    scores = [(0, 0.3), (2, 0.1), (5, 0.2), (7, 0.4)]
    assert choose_worst_and_best(scores, 2, higher_is_better=False) == ([7, 0], [2, 5])
    assert choose_worst_and_best(scores, 3, higher_is_better=True) == ([2, 5, 0], [7, 0, 5])
    assert choose_worst_and_best(scores, 9, higher_is_better=True)[0] == [2, 5, 0, 7]


def validation(recipe: Path) -> ValidationSamples:
    loaded = load_recipe(recipe)
    return ValidationSamples([entry.source for entry in loaded.data.val], Preprocessing(input_size=(56, 70)))


def test_a_frame_is_what_the_protocol_compares(recipe: Path) -> None:
    def far(asked: Sequence[PredictionRequest]) -> list[Any]:
        return [np.full(one.size, 99.0) for one in asked]

    def half(prediction: Any, low_m: float, high_m: float) -> Any:
        assert (low_m, high_m) == (0.001, 10.0)
        return prediction / 33

    protocol = Protocol(name="plain+crop=garg", min_depth_m=0.001, max_depth_m=10.0)
    rows: dict[str, Row] = {"base_fitted_scale": ScaledBaseline(predict=far, depth_m=half), "finetuned": far}
    shown = ShownFrames(samples=validation(recipe), rows=rows, protocol=protocol)[1]
    assert shown.source.endswith("11.png")
    assert shown.image.shape == (48, 64, 3)
    assert (shown.predictions["finetuned"] == 10.0).all()  # within the range
    assert (shown.predictions["base_fitted_scale"] == 3.0).all()
    # Measured everywhere but in a corner; what counts are rows 19 to 47 and columns 2 to 61, half-open.
    assert not shown.measured[:3, :5].any() and shown.measured[3:].all()
    assert (shown.target_m[:3, :5] == 0.0).all()
    assert shown.usable.sum() == shown.usable[19:47, 2:61].sum() == 28 * 59


def test_an_aligned_frame_is_aligned(recipe: Path) -> None:
    samples = validation(recipe)
    protocol = Protocol(name="plain+align=scale_shift_inverse", min_depth_m=0.001, max_depth_m=10.0, kind="relative")

    def right(asked: Sequence[PredictionRequest]) -> list[Any]:
        sample = samples[asked[0].number].sample
        return [np.where(sample.valid, 3.0 / np.maximum(sample.depth_m, 0.1) + 0.5, 1.0)]

    shown = ShownFrames(samples=samples, rows={"finetuned": right}, protocol=protocol)[0]
    np.testing.assert_allclose(shown.predictions["finetuned"][shown.usable], shown.target_m[shown.usable], rtol=1e-4)

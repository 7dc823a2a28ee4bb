import numpy as np
import pytest

from finetune.data.preprocessing import Preprocessing
from finetune.evaluation.alignment import DepthFit, InverseFit
from finetune.evaluation.baselines import LabeledPixels, collect_labeled_pixels, fit_baselines, require_kind
from finetune.models.depth_model import DepthModel
from finetune.utils.errors import CheckpointError, DataError
from finetune.utils.kinds import Kind
from tests.synthetic import Planes, Skies


def labeled(prediction: np.ndarray, depth_m: np.ndarray) -> LabeledPixels:
    return LabeledPixels(
        depth_m=depth_m.astype(np.float32),
        prediction=prediction.astype(np.float32),
        image=np.arange(len(depth_m)) // 50,
        features=np.zeros((0, 32), np.float32),
    )


DEPTH_M = np.random.default_rng(0).uniform(1, 8, 200)
RANGE_M = {"min_depth_m": 0.1, "max_depth_m": 10.0}


def test_relative_base_gets_one_line_in_inverse_depth_and_the_constant_is_the_median() -> None:
    baselines = fit_baselines(labeled(3 / DEPTH_M + 1, DEPTH_M), "relative", **RANGE_M)
    assert isinstance(baselines.base, InverseFit)
    assert baselines.median_m == pytest.approx(np.median(DEPTH_M), rel=1e-6)
    assert baselines.base_depth_m(3 / DEPTH_M + 1, 0.1, 10.0) == pytest.approx(DEPTH_M, rel=1e-4)
    assert baselines.base_depth_m(np.array([-50.0]), 0.1, 10.0) == pytest.approx([10.0])


def test_a_base_of_relative_depth_gets_one_line_in_depth() -> None:
    baselines = fit_baselines(labeled(0.2 * DEPTH_M + 1, DEPTH_M), "relative_depth", **RANGE_M)
    assert isinstance(baselines.base, DepthFit)
    assert (baselines.base.scale, baselines.base.shift) == pytest.approx((5.0, -5.0), rel=1e-3)
    assert baselines.base_depth_m(0.2 * DEPTH_M + 1, 0.1, 10.0) == pytest.approx(DEPTH_M, rel=1e-3)
    assert "with one scale and shift" in str(baselines)


def test_each_image_counts_once_however_few_pixels_it_has() -> None:
    # 2 m in one image of 900 pixels, 1 m in two images of 10.
    depth_m = np.repeat([2.0, 1.0, 1.0], [900, 10, 10]).astype(np.float32)
    pixels = LabeledPixels(
        depth_m=depth_m,
        prediction=np.zeros_like(depth_m),
        image=np.repeat([0, 1, 2], [900, 10, 10]),
        features=np.zeros((0, 32), np.float32),
    )
    baselines = fit_baselines(pixels, None, **RANGE_M)
    assert (baselines.median_m, baselines.best_m, baselines.images) == (2.0, 1.0, 3)


def test_the_fit_is_over_what_is_scored() -> None:
    depth_m = np.concatenate([DEPTH_M, np.full(300, 9.0)])
    prediction = np.concatenate([3 / DEPTH_M + 1, np.full(300, 50.0)])
    near = fit_baselines(labeled(prediction, depth_m), "relative", min_depth_m=0.1, max_depth_m=8.5)
    assert near.base_depth_m(3 / DEPTH_M + 1, 0.1, 8.5) == pytest.approx(DEPTH_M, rel=1e-4)
    assert near.best_m < 8.0
    # Where nothing is scored, something is better than nothing.
    assert fit_baselines(labeled(prediction, depth_m), None, min_depth_m=20.0, max_depth_m=30.0).best_m > 1.0


def test_metric_base_gets_one_factor() -> None:
    baselines = fit_baselines(labeled(DEPTH_M / 2, DEPTH_M), "metric", **RANGE_M)
    assert baselines.base == pytest.approx(2.0, rel=1e-6)
    assert baselines.base_depth_m(np.array([1.0, 100.0]), 0.1, 10.0) == pytest.approx([2.0, 10.0])


@pytest.mark.parametrize(
    ("kind", "other"), [("relative", "metric"), ("metric", "relative"), ("relative_depth", "relative")]
)
def test_the_wrong_sign_stops_and_names_the_other_kind(kind: Kind, other: str) -> None:
    right = labeled(1 / DEPTH_M if kind == "relative" else DEPTH_M, DEPTH_M)
    wrong = labeled(DEPTH_M if kind == "relative" else 1 / DEPTH_M, DEPTH_M)
    require_kind(right, kind, "base.pth", "recipe.yaml:3")
    with pytest.raises(CheckpointError, match=rf"base\.pth.*checkpoint_kind: {other} \(recipe\.yaml:3\)"):
        require_kind(wrong, kind, "base.pth", "recipe.yaml:3")


def test_noise_has_no_sign_and_passes() -> None:
    require_kind(labeled(np.random.default_rng(1).uniform(size=200), DEPTH_M), "relative", "base.pth", "")


def test_pixels_come_from_all_readers_with_features_for_the_first_images() -> None:
    model = DepthModel("tiny", None)
    model.initialise(0)
    readers = [Planes(5, "a"), Planes(3, "b")]
    pixels = collect_labeled_pixels(
        model.eval(), readers, Preprocessing(input_size=(56, 70)), max_depth_m=10.0, images=200, images_with_features=4
    )
    assert len(np.unique(pixels.image)) == 8
    with_features = pixels.image < 4
    assert pixels.features.shape == (with_features.sum(), 32)
    assert with_features[: with_features.sum()].all()
    # The features are those of the last layer: it gives the prediction back.
    last = model.head.last
    assert last.bias is not None
    logits = pixels.features @ last.weight.detach().numpy().reshape(32) + last.bias.item()
    assert np.maximum(logits, 0) == pytest.approx(pixels.prediction[with_features], abs=1e-5)


def test_without_a_base_there_is_the_constant_alone() -> None:
    baselines = fit_baselines(labeled(np.zeros(200), DEPTH_M), None, **RANGE_M)
    assert baselines.median_m == pytest.approx(np.median(DEPTH_M))
    assert baselines.base is None


def test_sky_is_no_labeled_pixel() -> None:
    model = DepthModel("tiny", None)
    model.initialise(0)
    preprocessing = Preprocessing(input_size=(56, 70))
    pixels = collect_labeled_pixels(
        model.eval(), [Skies()], preprocessing, max_depth_m=None, images=9, images_with_features=2
    )
    assert pixels.depth_m.max() <= 4.0
    assert len(set(pixels.image)) == 3  # the fourth is all sky


def test_no_pixel_in_range_is_an_error_that_names_the_keys() -> None:
    model = DepthModel("tiny", None)
    model.initialise(0)
    with pytest.raises(DataError, match=r"none of 2 images.*meters_per_unit"):
        collect_labeled_pixels(
            model.eval(),
            [Planes(2)],
            Preprocessing(input_size=(56, 70)),
            max_depth_m=0.5,
            images=9,
            images_with_features=2,
        )

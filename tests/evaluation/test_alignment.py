import numpy as np
import pytest

from finetune.evaluation.alignment import (
    InverseFit,
    fit_constant_abs_rel,
    fit_depth_abs_rel,
    fit_depth_least_squares,
    fit_inverse_abs_rel,
    fit_inverse_least_squares,
    fit_scale_abs_rel,
    fit_scale_least_squares,
    fit_scale_of_medians,
    rank_correlation,
)

RANGE_M = {"min_depth_m": 0.001, "max_depth_m": 10.0}


def abs_rel_of(depth_m: np.ndarray, target_m: np.ndarray, weight: np.ndarray) -> float:
    return float(np.sum(weight * np.abs(depth_m - target_m) / target_m) / np.sum(weight))


def test_an_exact_line_comes_back() -> None:
    relative = np.linspace(0.1, 5, 50)
    fit = fit_inverse_abs_rel(relative, 1 / (0.2 * relative + 0.15), np.ones(50), **RANGE_M)
    assert (fit.scale, fit.shift) == pytest.approx((0.2, 0.15), rel=1e-6)


def test_an_exact_line_of_depth_comes_back_although_a_fifth_is_wrong() -> None:
    relative = np.linspace(0.1, 5, 500)
    target_m = 1.5 * relative + 0.4
    exact = fit_depth_abs_rel(relative, target_m, np.ones(500), **RANGE_M)
    assert (exact.scale, exact.shift) == pytest.approx((1.5, 0.4), rel=1e-5)
    target_m[::5] = 8.0
    fit = fit_depth_abs_rel(relative, target_m, np.ones(500), **RANGE_M)
    assert (fit.scale, fit.shift) == pytest.approx((1.5, 0.4), rel=1e-3)
    # 1.5 * 2 + 0.4, and both ends of the range
    assert fit.depth_m(np.array([2.0, -9.0, 90.0]), 0.1, 10.0) == pytest.approx([3.4, 0.1, 10.0], rel=1e-3)
    assert fit_depth_abs_rel(np.ones(3), np.array([1.0, 2.0, 8.0]), np.ones(3), **RANGE_M).scale == 0.0


def test_a_fifth_of_wrong_pixels_does_not_tilt_the_line() -> None:
    relative = np.linspace(0.1, 5, 500)
    target_m = 1 / (0.2 * relative + 0.15)
    target_m[::5] = 8.0
    fit = fit_inverse_abs_rel(relative, target_m, np.ones(500), **RANGE_M)
    assert (fit.scale, fit.shift) == pytest.approx((0.2, 0.15), rel=1e-3)


def noisy(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A prediction that is half right, measured depth with a far tail, and weights."""
    generator = np.random.default_rng(seed)
    target_m = generator.lognormal(0.5, 0.9, count).clip(0.2, 9.9)
    relative = 3 / target_m * generator.lognormal(0, 0.6, count) + generator.uniform(0, 2)
    return relative, target_m, generator.uniform(0.2, 3, count)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_scale_and_shift_has_a_smaller_abs_rel(seed: int) -> None:
    relative, target_m, weight = noisy(seed)
    fit = fit_inverse_abs_rel(relative, target_m, weight, **RANGE_M)
    found = abs_rel_of(fit.depth_m(relative, 0.001, 10.0), target_m, weight)
    # All lines of a grid, through what they say at the ends of the middle eight tenths of the predictions.
    low, high = np.percentile(relative, (10, 90))
    for at_low in np.linspace(-2, 2, 161):
        for at_high in at_low + np.linspace(0, 4, 81):
            scale = (at_high - at_low) / (high - low)
            other = InverseFit(scale=scale, shift=at_low - scale * low).depth_m(relative, 0.001, 10.0)
            assert found <= abs_rel_of(other, target_m, weight) * (1 + 1e-9)
    squares = fit_inverse_least_squares(relative, target_m).depth_m(relative, 0.001, 10.0)
    assert found < 0.97 * abs_rel_of(squares, target_m, weight)


def test_the_clamp_is_part_of_what_is_fitted() -> None:
    # The far half is beyond the range of the prediction: with the clamp the line need not bend for it.
    relative = np.linspace(0.0, 2, 200)
    target_m = np.minimum(1 / np.maximum(relative - 0.5, 0.1), 10.0)
    fit = fit_inverse_abs_rel(relative, target_m, np.ones(200), **RANGE_M)
    assert (fit.scale, fit.shift) == pytest.approx((1.0, -0.5), rel=1e-4)


@pytest.mark.parametrize("relative", [[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
def test_a_prediction_that_says_nothing_leaves_the_best_constant(relative: list[float]) -> None:
    # Nearer pixels must have the larger prediction; of constants 1.0 errs by 0, 0.5 and 0.75.
    fit = fit_inverse_abs_rel(np.array(relative), np.array([1.0, 2.0, 4.0]), np.ones(3), **RANGE_M)
    assert fit.depth_m(np.array(relative), 0.001, 10.0) == pytest.approx([1.0, 1.0, 1.0], rel=1e-6)


def test_best_constant_by_hand() -> None:
    # Each target weighs by its inverse: of 1, 2 and 4 that is 1, 1/2 and 1/4, and 1 holds half of it.
    assert fit_constant_abs_rel(np.array([4.0, 1.0, 2.0]), np.ones(3)) == 1.0
    # Weights 1, 3/2 and 3/4: half of 3.25 is reached at 2.
    assert fit_constant_abs_rel(np.array([4.0, 1.0, 2.0]), np.array([3.0, 1.0, 3.0])) == 2.0
    with pytest.raises(ValueError, match="pixel"):
        fit_constant_abs_rel(np.zeros(0), np.zeros(0))


@pytest.mark.parametrize("seed", range(3))
def test_no_other_constant_and_no_other_scale_has_a_smaller_abs_rel(seed: int) -> None:
    relative, target_m, weight = noisy(seed)
    constant = fit_constant_abs_rel(target_m, weight)
    scale = fit_scale_abs_rel(relative, target_m, weight, **RANGE_M)
    of_constant = abs_rel_of(np.full_like(target_m, constant), target_m, weight)
    of_scale = abs_rel_of(np.clip(scale * relative, 0.001, 10.0), target_m, weight)
    for factor in np.geomspace(0.02, 50, 4001):
        assert of_constant <= abs_rel_of(np.full_like(target_m, factor), target_m, weight) * (1 + 1e-12)
        other = abs_rel_of(np.clip(factor * relative, 0.001, 10.0), target_m, weight)
        assert of_scale <= other * (1 + 1e-9)


def test_scale_by_hand() -> None:
    # Ratios 2, 2 and 30, and a pixel errs by 1 / ratio for each unit of scale.
    pred_m, target_m = np.array([1.0, 2.0, 1.0]), np.array([2.0, 4.0, 30.0])
    assert fit_scale_abs_rel(pred_m, target_m, np.ones(3), min_depth_m=0.1, max_depth_m=100.0) == pytest.approx(2.0)


def test_least_squares_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    relative, target_m = generator.uniform(0, 5, 40), generator.uniform(1, 8, 40)
    target_m[relative > 3] /= 3  # so that nearer pixels have the larger prediction
    fit = fit_inverse_least_squares(relative, target_m)
    assert (fit.scale, fit.shift) == pytest.approx(tuple(np.polyfit(relative, 1 / target_m, 1)))
    assert fit.scale > 0


@pytest.mark.parametrize("relative", [[1.0, 2.0, 4.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])
def test_least_squares_without_a_scale_above_zero_give_the_mean_inverse(relative: list[float]) -> None:
    fit = fit_inverse_least_squares(np.array(relative), np.array([1.0, 2.0, 4.0]))
    assert (fit.scale, fit.shift) == pytest.approx((0.0, 7 / 12))


def test_least_squares_of_one_pixel_are_that_pixel_and_of_none_an_error() -> None:
    assert fit_inverse_least_squares(np.array([3.0]), np.array([2.0])) == InverseFit(scale=0.0, shift=0.5)
    with pytest.raises(ValueError, match="pixel"):
        fit_inverse_least_squares(np.zeros(0), np.zeros(0))


def test_predictions_are_clamped_and_nothing_divides_by_zero() -> None:
    fit = InverseFit(scale=1.0, shift=-1.0)
    depth_m = fit.depth_m(np.array([0.0, 1.0, 1.5, 100.0]), 0.1, 10.0)
    assert depth_m == pytest.approx([10.0, 10.0, 2.0, 0.1])


def test_scale_of_medians_by_hand() -> None:
    # Medians 2 and 6; the median of the ratios 4, 4 and 1.2 is another.
    pred, target = np.array([1.0, 2.0, 5.0]), np.array([4.0, 8.0, 6.0])
    assert fit_scale_of_medians(pred, target) == 3.0
    assert fit_scale_of_medians(np.array([1.0, 2.0, 8.0, 9.0]), np.array([4.0, 4.0, 6.0, 6.0])) == 1.0


def test_least_squares_scale_by_hand() -> None:
    # (1*2 + 2*2 + 3*9) / (1 + 4 + 9)
    assert fit_scale_least_squares(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 9.0])) == pytest.approx(33 / 14)


def test_least_squares_in_depth_by_hand() -> None:
    # Means 2 and 5; covariance (1*3 + 0 + 1*4) / 3 over variance 2 / 3: slope 3.5, through 5 - 7.
    scale, shift = fit_depth_least_squares(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 9.0]))
    assert (scale, shift) == pytest.approx((3.5, -2.0))
    # Downhill, the best that is left is a constant.
    assert fit_depth_least_squares(np.array([1.0, 2.0, 3.0]), np.array([9.0, 4.0, 2.0])) == (0.0, 5.0)


def test_a_prediction_of_nothing_keeps_a_scale_of_one() -> None:
    nothing, target = np.zeros(3), np.array([1.0, 2.0, 4.0])
    assert fit_scale_of_medians(nothing, target) == 1.0
    assert fit_scale_least_squares(nothing, target) == 1.0
    assert fit_scale_least_squares(-target, target) == 0.0
    assert fit_scale_of_medians(np.array([0.0, 0.0, 5.0]), target) == 1.0


def test_fits_over_pixels_in_float32_are_summed_in_float64() -> None:
    pred = np.full(2_000_000, 1 / 3, np.float32)
    assert fit_scale_least_squares(pred, 2 * pred) == pytest.approx(2.0, rel=1e-12)
    scale, shift = fit_depth_least_squares(np.array([1e4, 1e4 + 1], np.float32), np.array([1.0, 2.0], np.float32))
    assert (scale, shift) == pytest.approx((1.0, 1 - 1e4))


def test_rank_correlation_sees_order_alone() -> None:
    values = np.array([1.0, 2.0, 5.0, 9.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1.0)
    assert rank_correlation(values, 1 / values) == pytest.approx(-1.0)
    assert rank_correlation(values, np.ones(4)) == 0.0
    # ranks 0 1 2 and 0 2 1: covariance 1/3 over variance 2/3
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)


def test_many_equal_values_do_not_count_as_one_rank() -> None:
    # Three fifths of the first are equal, as where a head predicts 0: each has rank 6.5, the others have 13 to 20.
    first = np.array([0.0] * 12 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    second = np.array([3, 10, 9, 15, 7, 16, 6, 12, 5, 13, 18, 19, 11, 2, 17, 14, 0, 8, 1, 4], np.float64)
    ranks = np.array([6.5] * 12 + [13.0, 14.0, 15.0, 16.0, 17.0, 18.0, 19.0, 20.0])
    assert rank_correlation(first, second) == pytest.approx(np.corrcoef(ranks, second)[0, 1], rel=1e-12)
    assert rank_correlation(first, second) == pytest.approx(-0.4031, abs=1e-4)
    # Ranks 0 to 8, which count the twelve as one, would give another number.
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(-0.4371, abs=1e-4)


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    # Ranks 1.5 1.5 3 4 and 1 2 4 3: covariance (1.5 * 1.5 - 1 * 0.5 + ...) worked out below.
    first, second = np.array([5.0, 5.0, 7.0, 9.0]), np.array([1.0, 2.0, 8.0, 4.0])
    ranks = np.array([1.5, 1.5, 3.0, 4.0]) - 2.5, np.array([1.0, 2.0, 4.0, 3.0]) - 2.5
    expected = float(ranks[0] @ ranks[1]) / np.sqrt(float(ranks[0] @ ranks[0]) * float(ranks[1] @ ranks[1]))
    assert expected == pytest.approx(3.5 / np.sqrt(4.5 * 5.0))
    assert rank_correlation(first, second) == pytest.approx(expected, rel=1e-12)

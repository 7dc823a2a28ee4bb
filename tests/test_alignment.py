import numpy as np
import pytest

from finetune.alignment import (
    InverseFit,
    fit_depth_least_squares,
    fit_inverse_least_squares,
    fit_inverse_robust,
    fit_scale_least_squares,
    fit_scale_median,
    fit_scale_of_medians,
    rank_correlation,
)


def test_exact_line_comes_back() -> None:
    relative = np.linspace(0.1, 5, 50)
    fit = fit_inverse_robust(relative, 1 / (0.2 * relative + 0.05))
    assert (fit.scale, fit.shift) == pytest.approx((0.2, 0.05), rel=1e-6)


def test_a_fifth_of_wrong_pixels_does_not_tilt_the_line() -> None:
    relative = np.linspace(0.1, 5, 500)
    target_m = 1 / (0.2 * relative + 0.05)
    target_m[::5] = 0.3
    fit = fit_inverse_robust(relative, target_m)
    assert (fit.scale, fit.shift) == pytest.approx((0.2, 0.05), rel=1e-3)
    least_squares = np.polyfit(relative, 1 / target_m, 1)
    assert abs(least_squares[1] - 0.05) > 0.1  # what it is robust against


def test_constant_answer_gives_the_median_inverse() -> None:
    fit = fit_inverse_robust(np.full(3, 2.0), np.array([1.0, 2.0, 4.0]))
    assert (fit.scale, fit.shift) == (0.0, 0.5)


def test_least_squares_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    relative, target_m = generator.uniform(0, 5, 40), generator.uniform(1, 8, 40)
    target_m[relative > 3] /= 3  # so that nearer pixels have the larger answer
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


def test_answers_are_clamped_and_nothing_divides_by_zero() -> None:
    fit = InverseFit(scale=1.0, shift=-1.0)
    depth_m = fit.depth_m(np.array([0.0, 1.0, 1.5, 100.0]), 0.1, 10.0)
    assert depth_m == pytest.approx([10.0, 10.0, 2.0, 0.1])


def test_median_scale_by_hand() -> None:
    assert fit_scale_median(np.array([1.0, 2.0, 1.0]), np.array([2.0, 4.0, 30.0])) == 2.0


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

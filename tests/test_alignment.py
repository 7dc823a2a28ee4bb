import numpy as np
import pytest

from finetune.alignment import (
    InverseFit,
    fit_inverse_least_squares,
    fit_inverse_robust,
    fit_scale_median,
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


def test_rank_correlation_sees_order_alone() -> None:
    values = np.array([1.0, 2.0, 5.0, 9.0])
    assert rank_correlation(values, np.exp(values)) == pytest.approx(1.0)
    assert rank_correlation(values, 1 / values) == pytest.approx(-1.0)
    assert rank_correlation(values, np.ones(4)) == 0.0
    # ranks 0 1 2 and 0 2 1: covariance 1/3 over variance 2/3
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)

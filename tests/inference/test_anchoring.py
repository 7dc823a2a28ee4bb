"""Anchoring of a relative map: drawn relations come back, wrong points are dropped, other maps are refused."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator

from finetune.inference.anchoring import (
    MIN_POINTS,
    AnchoredDepth,
    AnchoringOptions,
    AnchoringRefused,
    anchor_depth,
    find_agreeing,
    fit_inverse_log,
    measure_relief,
)

SHAPE = (96, 128)
SCALE, SHIFT = 0.02, 0.05


def draw_depth() -> NDArray[np.float64]:
    """A floor that reaches from 2.5 to 13 m, with a box at 3 m and a hilly part, meters."""
    row, column = np.indices(SHAPE)
    inverse = 0.075 + 0.325 * row / (SHAPE[0] - 1)
    inverse *= 1 + 0.1 * np.sin(column / 6.0) * np.sin(row / 5.0)
    inverse[30:60, 40:70] = 1 / 3.0
    return 1.0 / inverse


def draw_field() -> NDArray[np.float64]:
    """A smooth factor from 0.8 to 1.25."""
    row, column = np.indices(SHAPE)
    return np.asarray(np.exp(0.22 * np.sin(np.pi * row / SHAPE[0]) * np.cos(np.pi * column / SHAPE[1])))


def make_relative(depth_m: NDArray[np.float64], field: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
    """What becomes this depth by the scale, the shift and the factor on depth."""
    return (field / depth_m - SHIFT) / SCALE


def anchor(
    relative: NDArray[np.float64], depth_m: NDArray[np.float64], count: int, wrong_share: float = 0.0, seed: int = 0
) -> tuple[AnchoredDepth, NDArray[np.bool_]]:
    """Anchor to random points; which of them are wrong, by at least a third."""
    rng = np.random.default_rng(seed)
    rows, columns = np.unravel_index(rng.permutation(depth_m.size)[:count], SHAPE)
    points_m = depth_m[rows, columns].copy()
    wrong = np.arange(count) < round(wrong_share * count)
    points_m[wrong] *= np.exp(rng.choice([-1, 1], wrong.sum()) * rng.uniform(0.3, 1.5, wrong.sum()))
    order = rng.permutation(count)
    return anchor_depth(relative, rows[order], columns[order], points_m[order]), wrong[order]


def relative_error(anchored: AnchoredDepth, depth_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """At the pixels that are filled."""
    filled = anchored.confidence > 0
    return np.abs(anchored.depth_m[filled] / depth_m[filled] - 1)


@pytest.mark.parametrize("wrong_share", [0.0, 0.1])
@pytest.mark.parametrize("count", [200, 1200])
def test_scale_and_shift_come_back(count: int, wrong_share: float) -> None:
    depth_m = draw_depth()
    anchored, wrong = anchor(make_relative(depth_m), depth_m, count, wrong_share)
    assert anchored.fit.scale == pytest.approx(SCALE, rel=0.01)
    assert anchored.fit.shift == pytest.approx(SHIFT, rel=0.01)
    assert anchored.relief == pytest.approx(1.0, abs=0.01)
    assert anchored.inlier_share == pytest.approx(1 - wrong_share, abs=0.02)
    assert np.mean(anchored.confidence > 0) > (0.6 if count > 200 else 0.4)
    error = relative_error(anchored, depth_m)
    # With 200 points, a wrong one still pulls the field at its place by some percent.
    assert error.mean() < 0.01 and np.quantile(error, 0.95 if count > 200 else 0.85) < 0.01
    assert not anchored.kept[wrong].any() or anchored.kept[wrong].mean() < 0.05


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("count", "mean"), [(200, 0.01), (1200, 0.003)])
def test_a_smooth_field_with_wrong_points_comes_back(seed: int, count: int, mean: float) -> None:
    depth_m = draw_depth()
    anchored, wrong = anchor(make_relative(depth_m, draw_field()), depth_m, count, 0.1, seed)
    error = relative_error(anchored, depth_m)
    assert error.mean() < mean and np.quantile(error, 0.85) < 0.01
    assert anchored.kept[~wrong].mean() > 0.97


def test_points_between_nearer_ones_are_dropped_and_what_is_around_them_is_not_filled() -> None:
    depth_m = draw_depth()
    rows, columns = (axis.ravel() for axis in np.mgrid[2:94:4, 2:126:4])
    points_m = depth_m[rows, columns].copy()
    behind = (rows == 46) & (columns == 54)  # on the box, at 3 m
    points_m[behind] = 9.0
    anchored = anchor_depth(make_relative(depth_m), rows, columns, points_m)
    assert not anchored.kept[behind].any() and anchored.kept[~behind].mean() > 0.99
    assert anchored.confidence[46, 54] == 0 and np.isinf(anchored.guess_spread[46, 54])
    assert anchored.depth_m[46, 54] == pytest.approx(3.0, rel=0.02)


def test_far_from_the_points_and_between_points_that_contradict_nothing_is_filled() -> None:
    depth_m = draw_depth()
    rows, columns = (axis.ravel() for axis in np.mgrid[50:94:3, 2:126:3])
    left = columns < 64
    # Two halves whose scales differ by 30 %: at their border the points do not agree.
    points_m = depth_m[rows, columns] * np.where(left, 1.0, 1.3)
    anchored = anchor_depth(make_relative(depth_m), rows, columns, points_m, AnchoringOptions(min_inlier_share=0.3))
    assert not anchored.confidence[:50].any()
    assert anchored.confidence[70, 20] > 0 and anchored.confidence[70, 100] > 0
    assert anchored.depth_m[70, 100] / anchored.depth_m[70, 20] == pytest.approx(
        1.3 * depth_m[70, 100] / depth_m[70, 20], rel=0.02
    )


def test_a_guess_at_an_edge_takes_after_the_points_of_its_own_side() -> None:
    depth_m = draw_depth()
    rows, columns = (axis.ravel() for axis in np.mgrid[2:94:6, 2:126:6])
    # The map sees the box where it is, at 3 m, and it is at 2 m: no smooth field explains that.
    nearer_m = depth_m.copy()
    nearer_m[30:60, 40:70] = 2.0
    anchored = anchor_depth(make_relative(depth_m), rows, columns, nearer_m[rows, columns])
    guessed = (anchored.confidence == 0) & np.isfinite(anchored.guess_spread)
    assert (anchored.guess_spread[guessed] >= 0.1).all() and not anchored.guess_spread[anchored.confidence > 0].any()
    around_box = np.zeros(SHAPE, bool)
    around_box[24:66, 34:76] = True
    error = np.abs(anchored.depth_m / nearer_m - 1)[guessed & around_box]
    # The points alone make a ramp of the edge; the map alone is half too far on the box.
    ramp_m = LinearNDInterpolator(np.stack([rows, columns], 1), nearer_m[rows, columns])(*np.indices(SHAPE))
    assert error.size > 200
    assert error.mean() < 0.6 * np.abs(ramp_m / nearer_m - 1)[guessed & around_box].mean()


def test_where_no_point_is_near_there_is_no_guess() -> None:
    depth_m = draw_depth()
    rows, columns = (axis.ravel() for axis in np.mgrid[50:94:3, 2:126:3])
    anchored = anchor_depth(make_relative(depth_m), rows, columns, depth_m[rows, columns])
    # A point has 96 x 128 / 630 = 19.5 pixels for itself; two spaces of 4.42 px between points are 8.8 px, and the
    # first row of points is 50.
    assert np.isinf(anchored.guess_spread[:42]).all() and np.isfinite(anchored.guess_spread[42:]).all()
    assert (anchored.guess_spread[42:50] == np.float32(0.1)).mean() > 0.9


def test_without_guesses_only_what_was_guessed_differs() -> None:
    depth_m = draw_depth()
    rows, columns = (axis.ravel() for axis in np.mgrid[50:94:5, 2:126:5])
    points_m = np.where(columns < 64, 1.0, 1.3) * depth_m[rows, columns]
    given = make_relative(depth_m), rows, columns, points_m, AnchoringOptions(min_inlier_share=0.3)
    guessed, plain = anchor_depth(*given), anchor_depth(*given, with_guesses=False)
    np.testing.assert_array_equal(plain.confidence, guessed.confidence)
    np.testing.assert_array_equal(plain.kept, guessed.kept)
    is_sure = guessed.confidence > 0
    assert np.isinf(plain.guess_spread[~is_sure]).all() and not plain.guess_spread[is_sure].any()
    is_guess = ~is_sure & np.isfinite(guessed.guess_spread)
    is_guess[rows, columns] = True
    np.testing.assert_array_equal(plain.depth_m[~is_guess], guessed.depth_m[~is_guess])
    assert (plain.depth_m != guessed.depth_m)[is_guess].mean() > 0.5


@pytest.mark.parametrize(
    ("count", "reason"),
    [(0, "it has no point"), (1, "it has 1 point,"), (3, "it has 3 points"), (MIN_POINTS - 1, "it has 29 points")],
)
def test_too_few_points_are_refused(count: int, reason: str) -> None:
    depth_m = draw_depth()
    with pytest.raises(AnchoringRefused, match=reason):
        anchor(make_relative(depth_m), depth_m, count)


@pytest.mark.parametrize(
    ("down", "across"), [(0, 1), (1, 0), (1, 1), (2, 1)], ids=["a row", "a column", "a diagonal", "a line"]
)
def test_points_on_one_line_are_refused(down: int, across: int) -> None:
    depth_m = draw_depth()
    along = np.arange(40)
    rows, columns = 10 + down * along, 10 + across * along
    with pytest.raises(AnchoringRefused, match="its points are on one line of the image"):
        anchor_depth(make_relative(depth_m), rows, columns, depth_m[rows, columns])


def test_points_of_one_depth_are_refused() -> None:
    depth_m = draw_depth()
    with pytest.raises(AnchoringRefused, match="one depth"):
        anchor(make_relative(depth_m), np.full(SHAPE, 4.0), 300)


@pytest.mark.parametrize("seed", range(5))
def test_points_that_are_all_wrong_are_refused(seed: int) -> None:
    depth_m = draw_depth()
    noise = np.exp(np.random.default_rng(seed).uniform(0, 3, SHAPE))
    with pytest.raises(AnchoringRefused, match=r"agree with|not nearer"):
        anchor(make_relative(depth_m), noise, 400)


def test_a_map_the_wrong_way_round_and_a_flat_one_are_refused() -> None:
    depth_m = draw_depth()
    for relative in (-make_relative(depth_m), np.ones(SHAPE)):
        with pytest.raises(AnchoringRefused, match="not nearer where the model sees something nearer"):
            anchor(relative, depth_m, 300)


def test_twice_the_depth_gives_twice_the_depth_and_equal_calls_equal_bits() -> None:
    depth_m = draw_depth()
    relative = make_relative(depth_m, draw_field())
    (once, _), (again, _), (twice, _) = (anchor(relative, factor * depth_m, 400, 0.1) for factor in (1, 1, 2))
    np.testing.assert_array_equal(once.depth_m, again.depth_m)
    np.testing.assert_array_equal(once.confidence, again.confidence)
    np.testing.assert_allclose(twice.depth_m, 2 * once.depth_m, rtol=1e-3)


def test_a_third_of_wrong_points_does_not_move_scale_and_shift() -> None:
    # 1 / depth = 0.1 x + 0.2 for x = 0 .. 2
    x = np.linspace(0.0, 2.0, 300)
    log_m = -np.log(0.1 * x + 0.2)
    log_m[::3] += 1.0
    fit = fit_inverse_log(x, log_m, (-5.0, 5.0))
    assert (fit.scale, fit.shift) == (pytest.approx(0.1, rel=1e-3), pytest.approx(0.2, rel=1e-3))


def test_a_point_needs_two_of_its_eight_neighbors() -> None:
    points = np.array([(row, column) for row in range(3) for column in range(3)], dtype=np.float64)
    residual = np.array([0, 0, 0, 0, 1.0, 0, 0, 0, 0])
    assert find_agreeing(points, residual, 0.1).tolist() == [*[True] * 4, False, *[True] * 4]
    residual[:2] = 1.0  # now it has two
    assert find_agreeing(points, residual, 0.1)[4]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_relief_is_the_share_of_the_maps_bumps_that_the_points_have(share: float) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (500, 2))
    bumps = np.sin(points[:, 0]) * np.sin(points[:, 1])
    slope = 0.01 * points[:, 0]  # explained by planes, so it says nothing about relief
    assert measure_relief(points, bumps + slope, share * bumps - slope) == pytest.approx(share, abs=1e-4)

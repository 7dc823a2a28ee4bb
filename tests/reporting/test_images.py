import cv2
import numpy as np

from finetune.reporting.images import (
    add_legend,
    colorize,
    join_pictures,
    make_panel,
)


def test_colors_depend_on_the_range_alone_and_gray_is_not_measured() -> None:
    values = np.array([[0.0, 5.0, 10.0, 99.0, np.nan]])
    valid = np.array([[True, True, True, True, False]])
    colors = colorize(values, 0.0, 10.0, valid)
    assert colors.shape == (1, 5, 3)
    assert np.array_equal(colors[0, 2], colors[0, 3])  # beyond the end is the end
    assert not np.array_equal(colors[0, 0], colors[0, 1])
    assert colors[0, 4].tolist() == [90, 90, 90]
    assert np.array_equal(colorize(2 * values, 0.0, 20.0, valid), colors)


def test_a_legend_goes_below_and_leaves_the_picture_as_it_is() -> None:
    picture = np.full((40, 320, 3), 200, np.uint8)
    whole = add_legend(picture, 0.0, 10.0, "m")
    assert whole.shape[1:] == (320, 3)
    assert np.array_equal(whole[:40], picture)
    assert len(whole) > 50
    assert whole[-5:].max() <= 235
    assert (whole[46:] > 100).any()  # there are numbers


def test_shorter_pictures_are_padded_below() -> None:
    row = join_pictures([np.ones((2, 3, 3), np.uint8), np.ones((4, 5, 3), np.uint8)])
    assert row.shape == (4, 8, 3)
    assert row[2:, :3].max() == 0


def test_a_panel_is_two_pictures_wide_and_a_perfect_answer_has_a_blue_error() -> None:
    depth_m = np.full((60, 80), 3.0, np.float32)
    valid = np.ones((60, 80), bool)
    image = np.zeros((60, 80, 3), np.uint8)
    perfect = make_panel(image, depth_m, valid, depth_m, 10.0)
    assert perfect.shape[1] == 2 * 80
    half = len(perfect) // 2
    # Row 40 is inside every picture, below the titles.
    measured, predicted, error = perfect[40, 120], perfect[half + 40, 40], perfect[half + 40, 120]
    assert np.array_equal(measured, predicted)
    assert np.array_equal(error, colorize(np.zeros((1, 1)), 0, 1)[0, 0])
    assert not np.array_equal(make_panel(image, depth_m, valid, depth_m + 0.5, 10.0)[half + 40, 120], error)


def test_a_panel_of_a_large_frame_is_small_and_keeps_what_was_not_measured_gray() -> None:
    depth_m = np.full((1080, 1920), 3.0, np.float32)
    valid = np.zeros((1080, 1920), bool)
    valid[:, 960:] = True
    drawn = make_panel(np.zeros((1080, 1920, 3), np.uint8), depth_m, valid, depth_m, 10.0)
    assert drawn.shape[1] == 640
    assert len(drawn) < 2 * 180 + 120
    # The measured one is on the right, its left half was not measured.
    assert drawn[100, 320 + 100].tolist() == [90, 90, 90]
    assert drawn[100, 320 + 250].tolist() == one_color(3.0, 10.0)


def one_color(value: float, high: float, colors: int = cv2.COLORMAP_TURBO) -> list[int]:
    return colorize(np.array([[value]]), 0.0, high, colors=colors)[0, 0].tolist()

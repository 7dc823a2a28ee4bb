"""The picture of the README, as ``readme_picture.py`` draws it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.inference.point_cloud import PointCloud
from finetune.reporting.images import (
    colorize,
)
from tests.benchmarks.readme_picture import ComparedFrame, comparison, points_from_aside


def flat_frame(height: int = 30, width: int = 40, finetuned_m: float = 2.0) -> ComparedFrame:
    """2 m everywhere, not measured on the left quarter; the base says 4 m."""
    valid = np.ones((height, width), bool)
    valid[:, : width // 4] = False
    return ComparedFrame(
        image=np.full((height, width, 3), (10, 120, 230), np.uint8),
        target_m=np.full((height, width), 2.0, np.float32),
        valid=valid,
        base_m=np.full((height, width), 4.0),
        finetuned_m=np.full((height, width), finetuned_m),
    )


def one_color(value: float, high: float, colors: int = cv2.COLORMAP_TURBO) -> list[int]:
    return colorize(np.array([[value]]), 0.0, high, colors=colors)[0, 0].tolist()


# 5 pictures of 20 pixels and 6 gutters of 8 are 148; a picture is 15 high. A title takes 24, the legends 12 + 2 x 24.
ROWS = (slice(24, 39), slice(47, 62))


COLUMNS = tuple(slice(8 + 28 * place, 28 + 28 * place) for place in range(5))


def test_a_comparison_has_five_aligned_pictures_a_row_in_colors_of_meters() -> None:
    page = comparison([flat_frame(), flat_frame(finetuned_m=2.5)], far_m=5.0, most_error_m=1.0, width=148)
    assert page.shape == (24 + 2 * (15 + 8) + 60, 148, 3)
    assert page.dtype == np.uint8
    for row, finetuned_m in zip(ROWS, (2.0, 2.5), strict=True):
        image, measured, base, finetuned, error = (page[row, column] for column in COLUMNS)
        assert (image == (10, 120, 230)).all()
        assert (base == one_color(4.0, 5.0)).all()
        assert (finetuned == one_color(finetuned_m, 5.0)).all()
        for picture, color in (
            (measured, one_color(2.0, 5.0)),
            (error, one_color(finetuned_m - 2.0, 1.0, cv2.COLORMAP_INFERNO)),
        ):
            assert (picture[:, :5] == 90).all()  # not measured
            assert (picture[:, 5:] == color).all()


def test_gutters_are_white_and_every_column_has_its_title() -> None:
    page = comparison([flat_frame(), flat_frame()], far_m=5.0, most_error_m=1.0, width=900)
    body = page[24:-60]
    covered = (body != 255).any(axis=(0, 2))
    starts = np.flatnonzero(np.diff(covered.astype(int), prepend=0) == 1)
    ends = np.flatnonzero(np.diff(covered.astype(int), append=0) == -1) + 1
    assert (ends - starts).tolist() == [170] * 5
    assert starts[0] == 900 - ends[-1] == 8
    for start, end in zip(starts, ends, strict=True):
        inked = np.flatnonzero((page[:24, start:end] < 128).any(axis=(0, 2)))
        assert (inked[0] + inked[-1]) / 2 == pytest.approx(84.5, abs=1.5)  # in the middle
    # The longest title is narrowed to its column.
    narrow = comparison([flat_frame()], far_m=5.0, most_error_m=1.0, width=600)
    assert (narrow[:24, [*range(8), *range(118, 126), *range(236, 244)]] == 255).all()


def test_the_legends_run_over_the_whole_ranges_and_name_their_ends() -> None:
    page = comparison([flat_frame()], far_m=5.0, most_error_m=1.0, width=900)
    bars, values = page[-60:-48], page[-48:-24]
    # Below measured to fine-tuned, and below error.
    for left, right, colors in ((186, 713, cv2.COLORMAP_TURBO), (722, 892, cv2.COLORMAP_INFERNO)):
        assert (bars[:, left] == one_color(0.0, 1.0, colors)).all()
        assert (bars[:, right - 1] == one_color(1.0, 1.0, colors)).all()
        inked = np.flatnonzero((values[:, left:right] < 128).any(axis=(0, 2)))
        assert inked[0] < 12
        assert inked[-1] > right - left - 12
    assert (values[:, 714:722] == 255).all()  # the end of one legend does not run into the other


def test_a_row_of_a_comparison_does_not_depend_on_the_other_frames() -> None:
    alone = comparison([flat_frame()], far_m=5.0, most_error_m=1.0, width=148)
    both = comparison([flat_frame(), flat_frame(60, 40, 50.0)], far_m=5.0, most_error_m=1.0, width=148)
    assert np.array_equal(both[:47], alone[:47])
    assert np.array_equal(both[-60:], alone[-60:])
    assert len(both) == len(alone) + 30 + 8  # a tall frame is a tall row


def test_points_are_the_sixth_picture_where_the_camera_is_known() -> None:
    camera = Camera(fx_px=40.0, fy_px=40.0, cx_px=19.5, cy_px=14.5)
    page = comparison([replace(flat_frame(), camera=camera)], far_m=5.0, most_error_m=1.0, width=900)
    covered = (page[24:-60] != 255).any(axis=(0, 2))
    assert np.flatnonzero(np.diff(covered.astype(int), prepend=0) == 1).size == 6


def test_a_nearer_point_hides_a_farther_one() -> None:
    camera = Camera(fx_px=40.0, fy_px=40.0, cx_px=20.0, cy_px=20.0)
    wall = np.stack([*np.meshgrid(np.linspace(-3, 3, 60), np.linspace(-3, 3, 60)), np.full((60, 60), 2.0)], -1)
    xyz_m = np.concatenate([wall.reshape(-1, 3), [[0.0, 0.0, 1.5]]]).astype(np.float32)
    color = np.zeros((len(xyz_m), 3), np.uint8)
    color[-1] = 200
    for order in (slice(None), slice(None, None, -1)):
        picture = points_from_aside(PointCloud(xyz_m=xyz_m[order], color=color[order]), camera, 40, 40)
        assert (picture == 200).all(axis=2).sum() == 4  # two by two pixels
    assert (picture == 255).all(axis=2).any()


def test_a_hole_never_colors_its_neighbours() -> None:
    frame = flat_frame()
    frame.target_m[~frame.valid] = np.nan
    page = comparison([frame], far_m=5.0, most_error_m=1.0, width=148)
    assert np.array_equal(page, comparison([flat_frame()], far_m=5.0, most_error_m=1.0, width=148))

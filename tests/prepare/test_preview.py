"""Depth drawn over color: where it is, and how scattered points are made visible."""

import numpy as np

from finetune.prepare.preview import draw_depth


def test_dense_depth_colors_what_was_measured() -> None:
    image = np.full((120, 160, 3), 100, np.uint8)
    depth_m = np.full((120, 160), 2.0, np.float32)
    depth_m[:, :80] = 0.0
    picture = draw_depth(image, depth_m, 1.0, 4.0)
    assert picture.shape == (360, 480, 3)
    assert (picture[:, :240] == 100).all()
    assert np.unique(picture[:, 240:].reshape(-1, 3), axis=0).shape == (1, 3)
    # 2 m is in the middle of 1 m to 4 m by ratio: green is the strongest color there.
    assert picture[0, 300].argmax() == 1


def test_scattered_points_are_drawn_larger_and_nothing_else_is() -> None:
    image = np.full((360, 480, 3), 100, np.uint8)
    depth_m = np.zeros((360, 480), np.float32)
    depth_m[100, 200] = 2.0
    colored = (draw_depth(image, depth_m, 1.0, 4.0) != 100).any(axis=-1)
    rows, columns = np.nonzero(colored)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (99, 101, 199, 201)

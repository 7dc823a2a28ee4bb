"""Poses of sweeps, and what moved between them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from finetune.prepare.accumulate import find_moved, neighbors_of, poses_of_sweeps, read_poses
from finetune.utils.errors import ListError

HALF = math.sqrt(0.5)


def written(folder: Path, text: str) -> Path:
    (folder / "poses.txt").write_text(text)
    return folder / "poses.txt"


def test_rows_of_tum_between_which_sweeps_move_straight_and_turn_evenly(tmp_path: Path) -> None:
    # From the origin to (2, 0, 0), turning by 90 degrees about z; the rows are not in order.
    text = f"# time x y z qx qy qz qw\n1001 2 0 0 0 0 {HALF} {HALF}\n1000 0 0 0 0 0 0 1\n"
    poses = read_poses(written(tmp_path, text))
    matrices, known = poses_of_sweeps(poses, 4, [1000.0, 1000.5, 1001.0, 1001.2])
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(matrices[0], np.eye(4), atol=1e-12)
    turn: list[list[float]] = [[HALF, -HALF, 0, 1], [HALF, HALF, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(matrices[1], turn, atol=1e-12)
    np.testing.assert_allclose(matrices[2][:3, 0], [0, 1, 0], atol=1e-12)


def test_rows_of_kitti_are_one_for_each_sweep(tmp_path: Path) -> None:
    text = "1 0 0 0 0 1 0 0 0 0 1 0\n0 0 1 3 0 1 0 4 -1 0 0 500\n"
    poses = read_poses(written(tmp_path, text))
    matrices, known = poses_of_sweeps(poses, 2, None)
    assert known.all()
    np.testing.assert_array_equal(matrices[1], [[0, 0, 1, 3], [0, 1, 0, 4], [-1, 0, 0, 500], [0, 0, 0, 1]])
    with pytest.raises(ListError, match="has 2 poses for 3 sweeps"):
        poses_of_sweeps(poses, 3, None)


def test_a_gap_between_poses_is_not_bridged(tmp_path: Path) -> None:
    text = "".join(f"{time} {time} 0 0 0 0 0 1\n" for time in (0, 1, 4, 5))
    matrices, known = poses_of_sweeps(read_poses(written(tmp_path, text)), 4, [0.5, 2.0, 4.0, 4.25])
    assert known.tolist() == [True, False, True, True]
    assert matrices[3][0, 3] == pytest.approx(4.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n", "has 3 columns"),
        ("", "has rows of no one length"),
        ("0 0 0 0 0 0 0 1\n0 0\n", "cannot be read as poses"),
        ("0 0 0 0 0 0 0 2\n", "has a quaternion whose length is not 1"),
        ("2 0 0 0 0 2 0 0 0 0 2 0\n", r"poses\.txt:1: the pose is not rigid"),
    ],
)
def test_files_that_are_no_poses(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ListError, match=message):
        read_poses(written(tmp_path, text))
    with pytest.raises(ListError, match="no such file"):
        read_poses(tmp_path / "none.txt")


def test_poses_of_another_clock_and_sweeps_without_times(tmp_path: Path) -> None:
    poses = read_poses(written(tmp_path, "0 0 0 0 0 0 0 1\n1 0 0 0 0 0 0 1\n"))
    with pytest.raises(ListError, match=r"times of sweeps run from 1700000000\.000 .* of other clocks"):
        poses_of_sweeps(poses, 2, [1.7e9, 1.7e9 + 0.1])
    with pytest.raises(ListError, match=r"those of the sweeps are not known\. Give --points-times FILE"):
        poses_of_sweeps(poses, 2, None)


def test_neighbors_are_the_nearest_in_order() -> None:
    assert neighbors_of(5, 10, 3) == [5, 4, 6]
    assert neighbors_of(0, 10, 3) == [0, 1, 2]
    assert neighbors_of(1, 3, 9) == [1, 0, 2]


def test_what_is_in_free_space_has_moved() -> None:
    # A wall at 10 m, seen at every tenth of a degree; 10 / 1.05 - 0.3 = 9.22 m is still the wall.
    angles = np.radians(np.arange(-20, 20, 0.1))
    wall = np.stack([np.full_like(angles, 10.0), 10 * np.tan(angles), np.zeros_like(angles)], axis=1)
    points = np.array([[5.0, 0.0, 0.0], [9.3, 0.0, 0.0], [10.0, 0.0, 0.0], [11.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    assert find_moved(points, wall).tolist() == [True, False, False, False, False]
    assert find_moved(points[:0], wall).tolist() == [] and not find_moved(points, wall[:0]).any()

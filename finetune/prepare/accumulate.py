"""Several sweeps in the frame of one of them, by the poses of the sensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.calibration import require_rigid
from finetune.utils.errors import ListError
from finetune.utils.paths import is_file, missing, read_bytes

_FIX = "Give TUM's rows (time tx ty tz qx qy qz qw) or KITTI's (12 numbers, a row for each sweep), in meters"
# Between poses that are farther apart the way is not known well enough.
_MAX_GAP_S = 1.0
# How much farther a sweep must see along a ray than a point of another sweep, for the point to have moved away.
_FREE_M, _FREE_SHARE = 0.3, 0.05
_NEIGHBOR_RAD = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """
    Attributes:
        world_from_body: (M, 4, 4) meters.
        times_s: (M,) seconds, ascending; None: a pose for each sweep, in order, as KITTI has them.
        source: the file.
    """

    world_from_body: NDArray[np.float64]
    times_s: NDArray[np.float64] | None
    source: str


def read_poses(path: Path) -> Poses:
    """
    Args:
        path: rows of text. TUM: time, position, quaternion with w last (cvg.cit.tum.de/data/datasets/rgbd-dataset/
            file_formats). KITTI: the upper three rows of the 4x4, row by row (readme of the odometry benchmark). Lines
            that begin with ``#`` are skipped.

    Raises:
        ListError: the file is missing, is neither, or a pose is not rigid.
    """
    from scipy.spatial.transform import Rotation

    if not is_file(path):
        raise ListError(path, missing(path), _FIX)
    try:
        lines = read_bytes(path).decode("utf-8-sig").splitlines()
        kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
        rows = np.array([[float(word) for word in line.replace(",", " ").split()] for line in kept])
    except (OSError, ValueError) as error:
        raise ListError(path, f"cannot be read as poses ({' '.join(str(error).split())[:80]})", _FIX) from None
    if rows.ndim != 2 or rows.shape[1] not in (8, 12) or not np.isfinite(rows).all():
        found = f"{rows.shape[1]} columns" if rows.ndim == 2 and len(rows) else "rows of no one length"
        raise ListError(path, f"has {found}", _FIX)
    matrices = np.tile(np.eye(4), (len(rows), 1, 1))
    if rows.shape[1] == 12:
        matrices[:, :3] = rows.reshape(-1, 3, 4)
        # Far from the start of a drive the sensor is not near the origin: only the rotation is asked for.
        for i, matrix in enumerate(matrices):
            turn = np.eye(4)
            turn[:3, :3] = matrix[:3, :3]
            require_rigid(turn, f"{path}:{i + 1}", "the pose")
        return Poses(world_from_body=matrices, times_s=None, source=str(path))
    if np.abs(np.linalg.norm(rows[:, 4:], axis=1) - 1).max() > 1e-2:
        raise ListError(path, "has a quaternion whose length is not 1", _FIX)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    matrices[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
    matrices[:, :3, 3] = rows[:, 1:4]
    return Poses(world_from_body=matrices, times_s=rows[:, 0], source=str(path))


def poses_of_sweeps(
    poses: Poses, count: int, times_s: Sequence[float] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """
    Args:
        poses: of the body that carries the sensor.
        count: of the sweeps.
        times_s: of the sweeps, seconds; needed for poses with times.

    Returns:
        (count, 4, 4) the pose of each sweep, between two poses by a straight line and a turn at constant speed; and
        (count,) bool, whether it is known: it is not before the first pose, after the last, or in a gap of more than
        1 s.

    Raises:
        ListError: KITTI's rows are not as many as the sweeps, or the sweeps have no times or those of another clock.
    """
    if poses.times_s is None:
        if len(poses.world_from_body) != count:
            found = f"has {len(poses.world_from_body)} poses for {count} sweeps"
            raise ListError(poses.source, found, "Give a row for each sweep, or rows with times, as TUM has them")
        return poses.world_from_body, np.ones(count, dtype=bool)
    if times_s is None:
        raise ListError(poses.source, "has times, and those of the sweeps are not known", "Give --points-times FILE")
    from scipy.spatial.transform import Rotation, Slerp

    from finetune.prepare.matching_times import require_one_clock

    known = np.asarray(times_s, dtype=np.float64)
    require_one_clock(known, poses.times_s, ("sweeps", "poses"), poses.source)
    times, first = np.unique(poses.times_s, return_index=True)
    matrices = poses.world_from_body[first]
    result = np.tile(np.eye(4), (count, 1, 1))
    inside = (known >= times[0]) & (known <= times[-1])
    if len(times) < 2 or not inside.any():
        return result, np.zeros(count, dtype=bool)
    after = np.clip(np.searchsorted(times, known), 1, len(times) - 1)
    inside &= (times[after] - times[after - 1] <= _MAX_GAP_S) | np.isin(known, times)
    # Times since the first: the turn of a fraction of a second needs more digits than seconds since 1970 leave.
    turns = Slerp(times - times[0], Rotation.from_matrix(matrices[:, :3, :3]))
    result[inside, :3, :3] = turns(known[inside] - times[0]).as_matrix()
    for axis in range(3):
        result[inside, axis, 3] = np.interp(known[inside], times, matrices[:, axis, 3])
    return result, inside


def neighbors_of(index: int, count: int, sweeps: int) -> list[int]:
    """The ``sweeps`` indices around ``index``, itself first: before and after it in turn, within 0 to ``count``."""
    near = range(max(0, index - sweeps), min(count, index + sweeps + 1))
    return sorted(near, key=lambda i: (abs(i - index), i))[:sweeps]


def find_moved(
    points_m: NDArray[np.float64], sweep_m: NDArray[np.float64], neighbor_rad: float = _NEIGHBOR_RAD
) -> NDArray[np.bool_]:
    """
    The points of other sweeps whose place was empty when this sweep was measured.

    A ray of this sweep, next to the ray to the point, ends farther away, so it went through the place of the point.
    Source: the comparison of range images of Kim and Kim 2020, "Remove, then revert", IROS.

    Args:
        points_m: (N, 3) in the frame of this sweep's sensor, meters.
        sweep_m: (M, 3) what the sweep measured.
        neighbor_rad: farthest ray that says something about a point.

    Returns:
        (N,) bool.
    """
    from scipy.spatial import cKDTree

    moved = np.zeros(len(points_m), dtype=bool)
    if not len(points_m) or not len(sweep_m):
        return moved
    range_m = np.linalg.norm(points_m, axis=1)
    seen_m = np.linalg.norm(sweep_m, axis=1)
    apart, ray = cKDTree(sweep_m / seen_m[:, None]).query(
        points_m / np.maximum(range_m, 1e-9)[:, None], distance_upper_bound=neighbor_rad
    )
    met = np.isfinite(apart)
    moved[met] = seen_m[ray[met]] > range_m[met] * (1 + _FREE_SHARE) + _FREE_M
    return moved

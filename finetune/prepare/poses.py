"""Poses of the frames that were written, as text in the format of TUM RGB-D."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finetune.prepare.recording import FrameSource

_HEADER = "# timestamp tx ty tz qx qy qz qw: the camera (x right, y down, z forward) in the world, meters and seconds\n"


def format_poses(source: FrameSource, indices: Iterable[int]) -> dict[str, str]:
    """
    Args:
        source: of the frames.
        indices: of the frames that were written.

    Returns:
        Name of each recording with poses -> text, a line for each of its frames that has a pose, in order of time. The
        time of a frame without one is its number in the recording. Format: cvg.cit.tum.de/data/datasets/rgbd-dataset/
        file_formats, trajectories.
    """
    from scipy.spatial.transform import Rotation

    first: dict[str, int] = {}
    for index, key in enumerate(source.keys):
        first.setdefault(key.recording, index)
    lines: dict[str, list[str]] = {}
    for index in indices:
        pose = source.camera_pose(index)
        if pose is None:
            continue
        key = source.keys[index]
        time_s = float(index - first[key.recording]) if key.time_s is None else key.time_s
        numbers = np.concatenate([pose[:3, 3], Rotation.from_matrix(pose[:3, :3]).as_quat()])
        line = f"{time_s:.6f} {' '.join(f'{number:.9g}' for number in numbers)}\n"
        lines.setdefault(key.recording, []).append(line)
    return {recording: _HEADER + "".join(rows) for recording, rows in lines.items()}

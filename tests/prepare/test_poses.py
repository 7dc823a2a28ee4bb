"""Poses as text in TUM's format: numbers worked out by hand."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.poses import format_poses
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame


class _Source(FrameSource):
    """Two recordings; the second has no times, and its first frame no pose."""

    @property
    def keys(self) -> Sequence[FrameKey]:
        times = [("a", 10.0), ("a", 10.5), ("b", None), ("b", None)]
        return [FrameKey(recording=name, stem=str(i), time_s=time) for i, (name, time) in enumerate(times)]

    def load_frame(self, index: int) -> RecordedFrame | None:
        raise AssertionError("no frame is decoded for its pose")

    def camera_pose(self, index: int) -> NDArray[np.float64] | None:
        if index == 2:
            return None
        pose = np.eye(4)
        pose[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # a quarter turn about y: x, y, z, w are 0, sin 45, 0, cos 45
        pose[:3, 3] = [index, 2.0, -0.25]
        return pose


def test_poses_are_written_for_each_recording() -> None:
    texts = format_poses(_Source(), [0, 1, 2, 3])
    assert sorted(texts) == ["a", "b"]
    header, *rows = texts["a"].splitlines()
    assert header.startswith("# timestamp tx ty tz qx qy qz qw")
    assert rows == [
        "10.000000 0 2 -0.25 0 0.707106781 0 0.707106781",
        "10.500000 1 2 -0.25 0 0.707106781 0 0.707106781",
    ]
    assert texts["b"].splitlines()[1:] == ["1.000000 3 2 -0.25 0 0.707106781 0 0.707106781"]


def test_only_frames_that_were_written_have_a_line() -> None:
    assert [len(text.splitlines()) for text in format_poses(_Source(), [1]).values()] == [2]
    assert format_poses(_Source(), [2]) == {}


def test_a_name_without_ascii_letters_is_still_a_file_of_its_own() -> None:
    from finetune.prepare.naming import name_frames
    from finetune.prepare.recording import FrameKey

    assert name_frames([FrameKey(recording="", stem=stem) for stem in ("厨房", "客厅")]) == ["_", "__2"]

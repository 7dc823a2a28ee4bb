"""Frames of a video by their number, in any order, in any process."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from finetune.inference.video import VideoFrames, open_video_writer
from finetune.prepare.video_frames import IndexedVideo
from finetune.utils.errors import DataError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 20, 50, ... 170 in all pixels."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    with open_video_writer(path, 30.0) as write:
        for number in range(6):
            write(np.full((48, 64, 3), 20 + 30 * number, np.uint8))
    return path


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - 20) / 30)


def test_frames_are_found_in_any_order(video: Path) -> None:
    frames = IndexedVideo(video)
    assert [number_of(frames.frame(index)) for index in (0, 1, 4, 5, 2, 2, 0)] == [0, 1, 4, 5, 2, 2, 0]


def test_a_frame_in_order_is_decoded_once(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def open_video(path: Path) -> VideoFrames:
        opened.append(path)
        return VideoFrames(path)

    monkeypatch.setattr("finetune.prepare.video_frames.VideoFrames", open_video)
    frames = IndexedVideo(video)
    for index in (0, 2, 3, 5):
        frames.frame(index)
    assert opened == [video]


def test_an_open_video_is_pickled_as_its_path(video: Path) -> None:
    frames = IndexedVideo(video)
    frames.frame(3)
    assert number_of(pickle.loads(pickle.dumps(frames)).frame(1)) == 1


@pytest.mark.parametrize("index", [6, 7, 100])
def test_a_frame_after_the_end_is_named(video: Path, index: int) -> None:
    with pytest.raises(DataError, match=rf"v.mp4: ends after 6 frames, and frame {index} has a depth map"):
        IndexedVideo(video).frame(index)


def test_frames_are_skipped_without_being_read(video: Path) -> None:
    frames = VideoFrames(video)
    assert frames.skip(4) == 4
    assert [number_of(frame.image) for frame in frames] == [4, 5]
    assert VideoFrames(video).skip(9) == 6

"""Train and val are apart: by recording, by time, or by the number of frames between them."""

import numpy as np
import pytest

from finetune.prepare.recording import FrameKey
from finetune.prepare.split import GAP_S, split_frames


def keys(count: int, recording: str = "a", rate: float | None = None) -> list[FrameKey]:
    return [
        FrameKey(recording=recording, stem=f"{i:04}", time_s=None if rate is None else 100 + i / rate)
        for i in range(count)
    ]


@pytest.mark.parametrize("count", [3, 4, 9, 20, 61, 300, 1000])
def test_frames_without_times_keep_five_percent_between_train_and_val(count: int) -> None:
    split = split_frames(keys(count))
    nearest = min(abs(i - j) for i in split.train for j in split.val)
    # 5 % of the frames, at least one, are between the two: 61 frames are 3.05, so 4
    assert nearest - 1 >= max(1, np.ceil(0.05 * count))
    assert sorted([*split.train, *split.val, *split.gap]) == list(range(count))
    assert len(split.val) == max(1, round(0.1 * count))


@pytest.mark.parametrize(("seconds", "rate"), [(30.0, 30.0), (300.0, 10.0), (40.0, 1.0), (1000.0, 0.2)])
def test_frames_with_times_keep_two_seconds_between_train_and_val(seconds: float, rate: float) -> None:
    frames = keys(round(seconds * rate), rate=rate)
    split = split_frames(frames)
    times = np.array([key.time_s for key in frames])
    apart = np.abs(times[list(split.train)][:, None] - times[list(split.val)])
    assert apart.min() >= GAP_S - 1e-9
    assert f"a gap of {GAP_S:g} s" in split.rule


def test_a_long_recording_is_validated_in_three_places() -> None:
    split = split_frames(keys(3000, rate=10.0))  # 300 s: 5 gaps of 2 s lose 95 of 3000 frames
    assert "3 stretches" in split.rule
    starts = [i for i in split.val if i - 1 not in split.val]
    assert starts == [900, 1900, 2900]
    assert len(split.gap) == 5 * 19  # a frame is 0.1 s: 19 frames on a side are nearer than 2 s
    assert len(split.train) == 3000 - 300 - 95


def test_a_recording_of_seconds_takes_five_percent_instead_of_two_seconds() -> None:
    split = split_frames(keys(90, rate=30.0))  # 3 s
    assert len(split.train) == 90 - 9 - 5 and "5 frames" in split.rule


def test_frames_of_two_clocks_are_split_by_their_order() -> None:
    some = [*keys(20, rate=1.0), FrameKey(recording="a", stem="last")]
    split = split_frames(some)
    assert split is not None and "2 frames" in split.rule


def test_recordings_are_never_cut() -> None:
    frames = [*keys(50, "a"), *keys(40, "b"), *keys(12, "c"), *keys(2, "d")]
    split = split_frames(frames)
    # a tenth of 104 frames is 10.4: c alone is 1.6 away, with d 3.6
    assert {frames[i].recording for i in split.val} == {"c"}
    assert {frames[i].recording for i in split.train} == {"a", "b", "d"}
    assert not split.gap and split.rule == "val is 1 of 4 recordings: c"


def test_many_short_recordings_share_val() -> None:
    frames = [key for number in range(40) for key in keys(5, f"{number:02}")]
    split = split_frames(frames)
    assert split is not None and len(split.val) == 20 and len(split.train) == 180


@pytest.mark.parametrize("count", [1, 2])
def test_of_too_few_frames_all_train_and_validate(count: int) -> None:
    split = split_frames(keys(count))
    assert [*split.train] == [*split.val] == [*range(count)] and split.is_shared
    assert not split_frames(keys(3)).is_shared


def test_two_frames_that_are_far_apart_are_split() -> None:
    far_apart = [FrameKey(recording="a", stem=str(i), time_s=10.0 * i) for i in range(2)]
    split = split_frames(far_apart)
    assert (split.train, split.val, split.is_shared) == ([0], [1], False)

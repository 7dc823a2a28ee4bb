from finetune.prepare.recording import FrameKey
from finetune.prepare.selection import select_frames

KEYS = [FrameKey(recording=name, stem=str(i)) for name, count in (("a", 5), ("b", 4)) for i in range(count)]


def test_every_third_begins_anew_with_each_recording() -> None:
    assert select_frames(KEYS, 3, None) == [0, 3, 5, 8]


def test_most_are_spread_over_all() -> None:
    assert select_frames(KEYS, 1, 3) == [0, 4, 8]
    assert select_frames(KEYS, 3, 2) == [0, 8]
    assert select_frames(KEYS, 1, 100) == list(range(9))
    assert select_frames(KEYS, 1, 1) == [0]

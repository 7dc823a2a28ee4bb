from finetune.prepare.naming import clean_name, name_frames
from finetune.prepare.recording import FrameKey


def test_one_recording_needs_no_folder() -> None:
    assert name_frames([FrameKey(recording="a", stem="1"), FrameKey(recording="a", stem="2")]) == ["1", "2"]


def test_recordings_are_folders() -> None:
    keys = [FrameKey(recording="day 1/hall", stem="0"), FrameKey(recording="b", stem="0")]
    assert name_frames(keys) == ["day_1/hall/0", "b/0"]


def test_names_are_safe_and_differ() -> None:
    keys = [FrameKey(recording="a", stem=stem) for stem in ("a b", "a_b", "A_B", "../x", "é", "")]
    names = name_frames(keys)
    assert names == ["a_b", "a_b_2", "A_B_3", "_x", "_", "__2"]
    assert len({name.lower() for name in names}) == len(names)
    assert clean_name(".hidden") == "hidden"

"""Drawn frames in the user's cache: drawn once, verified, and a cache that cannot be written."""

from pathlib import Path

import numpy as np
import pytest

from finetune.data.drawn_frames import describe_scenes, find_cache, load_drawn_frames
from finetune.data.readers.scenes import Scenes
from finetune.utils.errors import FinetuneError


def test_frames_are_drawn_once_and_damage_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    frames = load_drawn_frames(2, said.append)
    (path,) = (tmp_path / "finetune").iterdir()
    assert [said[0].partition(" drawn in ")[0], said[0].endswith(f"kept in {path}")] == ["2 general frames", True]
    expected = describe_scenes(2).batch([0, 1])
    assert [frames[i].source for i in range(len(frames))] == [sample.source for sample in expected]
    for frame, sample in zip((frames[0], frames[1]), expected, strict=True):
        assert np.array_equal(frame.image, sample.image) and np.array_equal(frame.depth_m, sample.depth_m)
        assert frame.image.shape == (112, 154, 3) and frame.valid.all()
    drawn: list[int] = []
    draw = Scenes.batch

    def count_frames(scenes: Scenes, indices: range, device: str = "cpu") -> object:
        drawn.append(len(indices))
        return draw(scenes, indices, device)

    monkeypatch.setattr(Scenes, "batch", count_frames)
    again = load_drawn_frames(2, said.append)
    assert drawn == [] and len(said) == 1
    assert np.array_equal(again[1].depth_m, frames[1].depth_m)
    whole = path.read_bytes()
    # One bit in the images, one in the depth, a cut file, and an empty one.
    bits = bytearray(whole), bytearray(whole)
    bits[0][len(whole) // 5] ^= 1
    bits[1][4 * len(whole) // 5] ^= 1
    for damaged in (*map(bytes, bits), whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        assert np.array_equal(load_drawn_frames(2)[1].image, frames[1].image)
        assert np.array_equal(load_drawn_frames(2)[1].depth_m, frames[1].depth_m)
    assert drawn == [2, 2, 2, 2]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_closed_cache_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FinetuneError, match=r"1\.npz: cannot be written \(.*\)\. Set XDG_CACHE_HOME to a folder"):
        load_drawn_frames(1)


def test_the_cache_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    for value, expected in (("/caches", "/caches/finetune"), ("not/absolute", "/home/somebody/.cache/finetune")):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert find_cache() == Path(expected)
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_cache() == Path("/home/somebody/.cache/finetune")

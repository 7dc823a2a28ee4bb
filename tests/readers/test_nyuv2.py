"""NYU Depth V2 in the PNG layout: lists of BTS form, the official split, unit and intrinsics."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.errors import DataError, ListError, RecipeError
from finetune.readers.nyuv2 import NyuV2
from finetune.readers.splits import split_frames


def write_frame(folder: Path, scene: str, frame: int, raw: int, shape: tuple[int, int] = (480, 640)) -> None:
    (folder / scene).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{scene}/rgb_{frame:05}.jpg"), np.full((*shape, 3), 90, np.uint8))
    depth = np.full(shape, raw, np.uint16)
    depth[0] = 0
    cv2.imwrite(str(folder / f"{scene}/sync_depth_{frame:05}.png"), depth)


def example(folder: Path) -> dict[str, object]:
    """Writes two frames and a list of BTS form; the options that read them."""
    lines = []
    for frame, raw in ((7, 2500), (3, 10_001)):
        write_frame(folder, "den_0001", frame, raw)
        lines.append(f"/den_0001/rgb_{frame:05}.jpg /den_0001/sync_depth_{frame:05}.png 518.8579\n")
    (folder / "frames.txt").write_text("".join(lines))
    return {"root": str(folder), "list": "frames.txt"}


def test_a_list_with_leading_slashes_and_focal_lengths(tmp_path: Path) -> None:
    reader = NyuV2(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    assert [Path(reader.source(index)).name for index in range(len(reader))] == [
        "sync_depth_00007.png",
        "sync_depth_00003.png",
    ]
    near, far = reader[0], reader[1]
    assert near.depth_m[1, 0] == np.float32(2.5) and near.valid[1:].all() and not near.valid[0].any()
    assert far.depth_m[1, 0] == np.float32(10.001) and not far.valid.any()  # beyond the usual 10 m
    assert near.camera is not None
    assert (near.camera.fx_px, near.camera.fy_px) == (518.8579, 519.46961)
    assert (near.camera.cx_px, near.camera.cy_px) == (325.58245, 253.73617)


@pytest.mark.parametrize(("split", "count"), [("train", 24231), ("test", 654)])
def test_the_official_split_is_read_where_its_scenes_are(tmp_path: Path, split: str, count: int) -> None:
    frames = split_frames(f"nyuv2_{split}")
    scenes = sorted({scene for scene, _ in frames})
    for scene in scenes[1:]:
        (tmp_path / scene).mkdir()
    reader = NyuV2(root=str(tmp_path), split=split)  # type: ignore[arg-type]
    with pytest.raises(
        ListError, match=rf"1 of the {len(scenes)} scenes of split {split} are missing, {scenes[0]} fir"
    ):
        len(reader)
    write_frame(tmp_path, *frames[0], raw=1234)
    assert len(reader) == count
    assert reader[0].depth_m[1, 1] == np.float32(1.234)
    sources = [reader.source(index) for index in range(count)]
    assert sources == sorted(sources)
    with pytest.raises(ListError, match=r"rgb_\d{5}\.jpg: does not exist"):
        reader[count - 1]


def test_resized_copies_are_refused(tmp_path: Path) -> None:
    write_frame(tmp_path, "den_0001", 1, 1000, shape=(240, 320))
    (tmp_path / "frames.txt").write_text("den_0001/rgb_00001.jpg den_0001/sync_depth_00001.png\n")
    with pytest.raises(DataError, match=r"is 240x320 .* NYU Depth V2 is for 480x640\. .* reader pairs"):
        NyuV2(root=str(tmp_path), list="frames.txt")[0]


def test_wrong_options_and_missing_paths_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="split is None; expected train or test, or a list file"):
        NyuV2(root=str(tmp_path))
    with pytest.raises(RecipeError, match="max_depth_m"):
        NyuV2(root=str(tmp_path), split="train", max_depth_m=0.0)
    with pytest.raises(RecipeError, match="root is"):
        NyuV2(root=str(tmp_path / "nowhere"), split="train").check_paths()
    with pytest.raises(RecipeError, match="list is"):
        NyuV2(root=str(tmp_path), list="nowhere.txt").check_paths()


def test_real_frames_at_pixels_read_by_hand(samples: Path) -> None:
    reader = NyuV2(root=str(samples / "nyu/sync"), list=str(samples / "nyu/bts_style_subset.txt"))
    reader.check_paths()
    assert len(reader) == 2
    sample = reader[1]
    assert sample.source.endswith("basement_0001a/sync_depth_00050.png")
    assert sample.depth_m[240, 320] == np.float32(6.566) and sample.depth_m[100, 500] == np.float32(4.913)
    np.testing.assert_allclose(sample.image[120, 160].astype(int), [147, 140, 114], atol=3)
    # The valid shares of checks.csv.
    assert [reader[index].valid.mean() for index in range(2)] == pytest.approx([0.7328, 0.7506], abs=6e-5)

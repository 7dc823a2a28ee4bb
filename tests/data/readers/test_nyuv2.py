"""NYU Depth V2 in the PNG layout: lists of BTS form, the official split, unit and intrinsics."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from scipy.io import loadmat

from finetune.data.readers.nyuv2 import NyuV2
from finetune.data.readers.nyuv2_labeled import labeled_frame_numbers
from finetune.data.readers.splits import split_frames
from finetune.utils.errors import DataError, ListError, RecipeError


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


def write_labeled(path: Path, frames: int = 20) -> None:
    """The labeled file as MATLAB writes it, columns first; frame n is 1 + n / 10 m, its measured depth has a hole."""
    with h5py.File(path, "w") as file:
        images = np.zeros((frames, 3, 640, 480), np.uint8)
        images[:, 0] = np.arange(frames, dtype=np.uint8)[:, None, None]
        images[:, 1, :100] = 255  # the first 100 columns are green
        depths = np.ones((frames, 640, 480), np.float32) * (1 + np.arange(frames, dtype=np.float32) / 10)[:, None, None]
        file["images"], file["depths"] = images, depths
        raw = depths.copy()
        raw[:, :, 5] = 0  # a row
        file["rawDepths"] = raw


def test_labeled_frames_of_the_mat_file(tmp_path: Path) -> None:
    write_labeled(tmp_path / "labeled.mat")
    options: dict[str, Any] = {"root": str(tmp_path), "labeled": "labeled.mat"}
    test, train = NyuV2(**options, split="test"), NyuV2(**options, split="train")
    test.check_paths()
    assert (len(train), len(test)) == (795, 654)
    # From 0, the test frames begin with 0, 1, 8, 13, those to train with 2.
    assert test.source(2).endswith("labeled.mat#8")
    # To a worker it goes unopened, and once it is open as well.
    assert pickle.loads(pickle.dumps(test))[0].depth_m[100, 100] == test[0].depth_m[100, 100] == np.float32(1.0)
    sample = pickle.loads(pickle.dumps(test))[2]
    assert sample.image.shape == (480, 640, 3)
    assert sample.image[300, 300].tolist() == [8, 0, 0]
    assert sample.image[300, 99].tolist() == [8, 255, 0]
    assert sample.depth_m[100, 100] == np.float32(1.8)
    assert not sample.valid[5].any() and sample.valid[6].all()
    assert sample.camera is not None and sample.camera.fx_px == 518.8579
    assert NyuV2(**options, split="test", filled=True)[2].valid.all()
    assert train[0].depth_m[100, 100] == np.float32(1.2)


def test_a_labeled_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "labeled.mat").write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(DataError, match=r"labeled\.mat#0: cannot be read .*Download nyu_depth_v2_labeled"):
        NyuV2(root=str(tmp_path), labeled="labeled.mat", split="test")[0]
    with pytest.raises(RecipeError, match=r"labeled is 'gone\.mat'"):
        NyuV2(root=str(tmp_path), labeled="gone.mat", split="test").check_paths()
    with pytest.raises(RecipeError, match="only labeled frames have filled depth"):
        NyuV2(root=str(tmp_path), split="test", filled=True)


def test_the_border_is_kept_ignored_or_cut_off(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    kept, ignored, cut = (NyuV2(**options, border=border)[0] for border in ("keep", "ignore", "crop"))
    assert kept.valid.sum() == 479 * 640  # the first row is a hole
    assert ignored.valid.sum() == (472 - 45) * (608 - 43)
    assert ignored.valid[45:472, 43:608].all()
    assert cut.image.shape == (427, 565, 3)
    assert cut.camera is not None and kept.camera is not None
    assert cut.camera.cx_px == pytest.approx(kept.camera.cx_px - 43)


def test_the_labeled_split_is_that_of_the_authors(samples: Path) -> None:
    numbers = loadmat(samples / "splits" / "nyu_official" / "splits.mat")
    for name in ("train", "test"):
        assert labeled_frame_numbers(name) == [int(number) - 1 for number in numbers[f"{name}Ndxs"].ravel()]

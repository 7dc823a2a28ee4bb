"""DIML in its native files: rooms and streets, sample and full set, confidence of the stereo match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.readers.diml import Diml
from finetune.utils.errors import DataError, ListError, RecipeError
from tests.normal_user import as_normal_user

INDOOR = "train/LR/01. Warehouse"
OUTDOOR = "test/HR/street"


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_frame(image: Path, depth: Path, millimeters: int) -> None:
    """An image and a depth map of 12x16 whose first row is a hole."""
    write(image, np.full((12, 16, 3), 90, np.uint8))
    pixels = np.full((12, 16), millimeters, np.uint16)
    pixels[0] = 0
    write(depth, pixels)


def write_street(folder: Path) -> None:
    """A frame of the sample set with confidence 0 to 255 from left to right."""
    write_frame(folder / "outleft/7.png", folder / "depthmap/7.png", 20000)
    write(folder / "confmap/7.png", np.linspace(0, 255, 16).astype(np.uint8)[None].repeat(12, 0))


def example(folder: Path) -> dict[str, object]:
    """Writes three frames of the indoor sample set, of two scenes and both splits; the options that read two."""
    for scene, stem in (("01. Warehouse", "a_1"), ("02. Cafe", "b_1")):
        of_scene = folder / "train" / "LR" / scene
        write_frame(of_scene / f"color/{stem}_c.png", of_scene / f"depth_filled/{stem}_depth_filled.png", 1500)
    of_test = folder / "test" / "LR" / "03. Office"
    write_frame(of_test / "color/t_c.png", of_test / "depth_filled/t_depth_filled.png", 2500)
    return {"root": str(folder), "scene": "indoor", "split": "train", "quality": "LR"}


def test_rooms_are_in_millimeters_and_by_split(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    reader = Diml(**options)
    reader.check_paths()
    assert [Path(reader.source(index)).name for index in range(len(reader))] == [
        "a_1_depth_filled.png",
        "b_1_depth_filled.png",
    ]
    sample = reader[0]
    assert sample.depth_m[5, 5] == np.float32(1.5)
    assert sample.valid.mean() == pytest.approx(11 / 12)
    assert len(Diml(**options | {"split": None})) == 3
    assert Diml(**options | {"split": "test"})[0].depth_m[5, 5] == np.float32(2.5)


def test_the_full_set_of_rooms(tmp_path: Path) -> None:
    batch = tmp_path / "Store" / "160101" / "1"
    write_frame(batch / "col/in_k_01_c.png", batch / "up_png/in_k_01_ud.png", 3210)
    (sample,) = [Diml(root=str(tmp_path), scene="indoor")[0]]
    assert sample.depth_m[3, 3] == np.float32(3.21)
    assert sample.source.endswith("up_png/in_k_01_ud.png")


def test_streets_keep_what_the_stereo_match_is_sure_of(tmp_path: Path) -> None:
    write_street(tmp_path / OUTDOOR)
    options: dict[str, Any] = {"root": str(tmp_path), "scene": "outdoor", "split": "test"}
    # Confidences 0, 17, 34, ..., 255: above 0.6 of 255, which is 153, lie 170 and up, the last six columns.
    assert Diml(**options)[0].valid[1].tolist() == [False] * 10 + [True] * 6
    assert Diml(**options, confidence=0.9)[0].valid[1].sum() == 2  # 238 is 0.933 of 255, and 255
    assert Diml(**options, confidence=None)[0].valid[1].all()
    assert not Diml(**options, confidence=None)[0].valid[0].any()
    assert Diml(**options)[0].depth_m[1, 15] == np.float32(20.0)


def test_the_full_set_of_streets(tmp_path: Path) -> None:
    write_frame(tmp_path / "s/left/3_left.png", tmp_path / "s/depth/3_depth.png", 5000)
    write(tmp_path / "s/conf/3_conf.png", np.full((12, 16), 255, np.uint8))
    assert Diml(root=str(tmp_path), scene="outdoor")[0].valid[1].all()


def test_no_confidence_map_is_said(tmp_path: Path) -> None:
    write_frame(tmp_path / "outleft/7.png", tmp_path / "depthmap/7.png", 5000)
    with pytest.raises(DataError, match=r"has no confidence map .* or set confidence: null"):
        Diml(root=str(tmp_path), scene="outdoor")[0]
    write(tmp_path / "confmap/7.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match="is 6x8, its depth map 12x16"):
        Diml(root=str(tmp_path), scene="outdoor")[0]


def test_a_list_names_the_frames(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / "some.txt").write_text(
        '"train/LR/02. Cafe/color/b_1_c.png" "train/LR/02. Cafe/depth_filled/b_1_depth_filled.png"\n'
    )
    reader = Diml(**options | {"list": "some.txt"})
    assert len(reader) == 1
    assert reader[0].source.endswith("b_1_depth_filled.png")


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    with pytest.raises(RecipeError, match="a share from 0 to below 1"):
        Diml(**options | {"confidence": 1.0})
    with pytest.raises(RecipeError, match="quality is 'HR'"):
        Diml(**options | {"quality": "HR"}).check_paths()
    with pytest.raises(ListError, match=r"holds no outleft/\*\.png or left/\*_left\.png below LR and train"):
        len(Diml(**options | {"scene": "outdoor"}))


def test_a_closed_scene_is_said(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    closed = tmp_path / "test"
    closed.chmod(0)
    with as_normal_user():
        assert len(Diml(**options)) == 2  # of the other split
        with pytest.raises(ListError, match=r"test: cannot be listed \(Permission denied\)"):
            len(Diml(**options | {"split": "test"}))
    closed.chmod(0o700)

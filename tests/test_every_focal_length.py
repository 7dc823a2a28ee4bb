"""The network sees one focal length in training and in each protocol, of every recipe that ships: a factor between the
two is a factor in every prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.readers.kitti import Kitti
from finetune.data.sample import DepthSample
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.protocol_settings import protocol_settings
from finetune.recipe.load import load_recipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if path.stem != "custom")

# Day, height, width and focal length of the raw drives; the KB crop of all of them is 352x1216, which 350x1204 shows.
KITTI = [
    ("2011_09_26", 375, 1242, 721.5377),
    ("2011_09_28", 370, 1224, 707.0493),
    ("2011_09_29", 374, 1238, 718.3351),
    ("2011_09_30", 370, 1226, 707.0912),
    ("2011_10_03", 376, 1241, 718.8560),
]
# Of the other data sets height, width and focal length of a frame, and of its width at the network's size, pixels.
FRAMES = {
    "nyuv2": (480, 640, 518.8579, 518),
    "hypersim": (768, 1024, 886.81, 686),
    "vkitti2": (375, 1242, 725.0087, 1722),
    "diml": (756, 1344, 1000.0, 518),
    "lidar": (1080, 1920, 1100.0, 616),
    "realsense": (480, 640, 615.0, 518),
    "room": (240, 320, 300.0, 168),
    "student": (480, 640, 615.0, 686),
    "scenes_tiny_relative": (84, 112, 100.0, 112),
    "scenes_tiny_relative_bare": (112, 154, 100.0, 154),
    "scenes_tiny_relative_finer": (112, 154, 100.0, 154),
    "scenes_tiny_relative_mounted": (112, 154, 100.0, 154),
}


class OneFrame(Reader):
    """A reader of one frame of a size, with a focal length."""

    def __init__(self, height: int, width: int, focal_px: float) -> None:
        self._sample = DepthSample(
            image=np.zeros((height, width, 3), np.uint8),
            depth_m=np.ones((height, width), np.float32),
            valid=np.ones((height, width), np.bool_),
            source="one",
            camera=Camera(fx_px=focal_px, fy_px=focal_px, cx_px=width / 2, cy_px=height / 2),
        )

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> DepthSample:
        return self._sample


def focal_lengths_px(train: Any, val: Any, input_size: tuple[int, int], crops: list[str]) -> list[tuple[float, float]]:
    """(fx, fy) at the network's size of the first frame in training, then under each image crop of a protocol."""
    preprocessing = Preprocessing(input_size=input_size)
    trained = TrainingSamples(
        [train],
        [1.0],
        preprocessing=preprocessing,
        augmentation=Augmentation(flip=0.0, color=0.0),
        ranges=[DepthRangePolicy(max_depth_m=None)],
        seed=0,
    )[0].sample
    assert trained.camera is not None and trained.image.shape[:2] == input_size
    found = [(trained.camera.fx_px, trained.camera.fy_px)]
    for image, view in ValidationSamples([val], preprocessing, crops)[0].views.values():
        assert view.camera is not None
        height, width = view.depth_m.shape
        found.append((view.camera.fx_px * image.shape[-1] / width, view.camera.fy_px * image.shape[-2] / height))
    return found


def crops_of(recipe: Any) -> list[str]:
    return [protocol_settings(name).image_crop for name in recipe.evaluation.protocols]


@pytest.mark.parametrize("path", [path for path in RECIPES if not path.stem.startswith("kitti")], ids=lambda p: p.stem)
def test_training_and_scoring_show_one_focal_length(path: Path) -> None:
    height, width, focal_px, seen_px = FRAMES.get(path.stem) or FRAMES[path.stem.partition("_")[0]]
    recipe = load_recipe(path, check_files=False)
    crops = crops_of(recipe) if recipe.evaluation.protocols else ["none"]
    frame = OneFrame(height, width, focal_px)
    for fx, fy in focal_lengths_px(frame, frame, recipe.data.input_size, crops):
        assert fx == pytest.approx(focal_px * seen_px / width)
        assert fy == pytest.approx(fx, rel=0.02)  # sides are multiples of the patch


@pytest.mark.parametrize(("day", "height", "width", "focal_px"), KITTI, ids=lambda value: str(value))
def test_kitti_is_trained_as_it_is_scored(day: str, height: int, width: int, focal_px: float, tmp_path: Path) -> None:
    drive = f"{day}_drive_0001_sync"
    image, depth = (
        tmp_path / "raw" / day / drive / "image_02" / "data" / "0.png",
        tmp_path / "data_depth_annotated" / "train" / drive / "proj_depth" / "groundtruth" / "image_02" / "0.png",
    )
    for file, pixels in ((image, np.zeros((height, width, 3), np.uint8)), (depth, np.full((height, width), 2560))):
        file.parent.mkdir(parents=True)
        cv2.imwrite(str(file), pixels.astype(np.uint8 if pixels.ndim == 3 else np.uint16))
    names = image.relative_to(tmp_path / "raw"), depth.relative_to(tmp_path / "data_depth_annotated" / "train")
    (tmp_path / "list.txt").write_text(f"{names[0]} {names[1]} {focal_px}\n")
    for path in (ROOT / "recipes" / "kitti_vits.yaml", ROOT / "recipes" / "kitti_vitl.yaml"):
        recipe = load_recipe(path, check_files=False)
        train, val = recipe.data.train[0].source, recipe.data.val[0].source
        assert isinstance(train, Kitti) and isinstance(val, Kitti)
        ours: dict[str, Any] = {"root": str(tmp_path), "split": None, "list": "list.txt"}
        train, val = dataclasses.replace(train, **ours), dataclasses.replace(val, **ours)
        for fx, fy in focal_lengths_px(train, val, recipe.data.input_size, crops_of(recipe)):
            assert fx == pytest.approx(focal_px * 1204 / 1216, rel=1e-6)
            assert fy == pytest.approx(focal_px * 350 / 352, rel=1e-6)


def test_a_zoom_between_the_two_is_seen() -> None:
    # As whole frames of KITTI in 350x1162 next to the KB crop: 721.5377 * 1162 / 1242 and * 1204 / 1216.
    frame = OneFrame(375, 1242, 721.5377)
    (trained, _), (scored, _) = focal_lengths_px(frame, frame, (350, 1162), ["kb"])
    assert trained == pytest.approx(675.06, abs=0.01)
    assert scored == pytest.approx(714.42, abs=0.01)

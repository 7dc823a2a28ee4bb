"""Virtual KITTI 2 in its native files: whole scenes, centimeters, sky."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.readers.vkitti2 import SPLITS, Vkitti2
from finetune.utils.errors import ListError, RecipeError

SAMPLES = os.environ.get("DEPTH_SAMPLES")


def write_frame(folder: Path, scene: str, variation: str, camera: int, number: int) -> None:
    for kind in ("rgb", "depth"):
        (folder / kind / scene / variation / f"frames/{kind}/Camera_{camera}").mkdir(parents=True, exist_ok=True)
    frames = f"{scene}/{variation}/frames"
    cv2.imwrite(
        str(folder / f"rgb/{frames}/rgb/Camera_{camera}/rgb_{number:05}.jpg"), np.full((12, 16, 3), 90, np.uint8)
    )
    depth = np.full((12, 16), 1234, np.uint16)
    depth[:4] = 65535
    depth[4] = 65534
    cv2.imwrite(str(folder / f"depth/{frames}/depth/Camera_{camera}/depth_{number:05}.png"), depth)


def example(folder: Path) -> dict[str, object]:
    """Writes a frame of each camera in two variations of Scene20; the options that read them."""
    for variation in ("fog", "clone"):
        for camera in (0, 1):
            write_frame(folder, "Scene20", variation, camera, 3)
    camera_file = {"width": 16, "height": 12, "fx": 15.0, "fy": 15.5, "cx": 7.5, "cy": 5.5}
    (folder / "camera.json").write_text(json.dumps(camera_file))
    return {"root": str(folder), "split": "val", "rgb": "rgb", "depth": "depth", "intrinsics": "camera.json"}


def test_centimeters_and_sky(tmp_path: Path) -> None:
    reader = Vkitti2(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    names = [reader.source(index).split("Scene20/")[1] for index in range(len(reader))]
    assert names == [f"{v}/frames/depth/Camera_{c}/depth_00003.png" for v in ("clone", "fog") for c in (0, 1)]
    sample = reader[0]
    assert sample.depth_m[6, 5] == np.float32(12.34)
    assert np.isinf(sample.depth_m[:4]).all() and sample.valid.all()
    assert sample.depth_m[4, 0] == np.float32(655.34)
    assert sample.camera is not None and sample.camera.fx_px == 15.0


def test_scenes_variations_and_cameras_choose(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    assert len(Vkitti2(**options | {"cameras": (1,), "variations": ("fog",)})) == 1
    with pytest.raises(ListError, match=r"has no variation rain\. Choose from clone, fog"):
        len(Vkitti2(**options | {"variations": ("rain",)}))
    with pytest.raises(ListError, match="has no Scene01"):
        len(Vkitti2(**options | {"split": "train"}))
    (tmp_path / "rgb/Scene02").mkdir()
    with pytest.raises(ListError, match="holds no rgb_"):
        len(Vkitti2(**options | {"split": None, "scenes": ("Scene02",)}))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"split": None}, "split"),
        ({"scenes": ("Scene01",)}, "scenes"),
        ({"cameras": ()}, "cameras"),
        ({"rgb": "no"}, "rgb"),
    ],
)
def test_a_wrong_option_names_its_key(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    with pytest.raises(RecipeError) as caught:
        Vkitti2(**options | change).check_paths()
    assert caught.value.key == key


def test_no_scene_is_on_both_sides() -> None:
    assert not set(SPLITS["train"]) & set(SPLITS["val"])


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_published_lists_name_files_as_the_reader_does(tmp_path: Path) -> None:
    assert SAMPLES
    packed = Path(SAMPLES) / "splits/depth_anything_v2/vkitti2_train.txt.gz"
    image, depth = gzip.decompress(packed.read_bytes()).decode().split("\n", 1)[0].split()[:2]
    scene, variation, *_ = image.split("/")[1:]
    number, camera = int(image[-9:-4]), int(image.split("Camera_")[1][0])
    write_frame(tmp_path, scene, variation, camera, number)
    reader = Vkitti2(root=str(tmp_path), scenes=(scene,), cameras=(0, 1), rgb="rgb", depth="depth")
    assert reader.source(0).endswith(depth.split("/", 1)[1])

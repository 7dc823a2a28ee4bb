"""What each reader of the registry gives is what its packed entry gives, to the last bit; a new one is found here."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.utils.registry import READERS
from tests.prepare.packing.small_packs import assert_same_frames, pack, recipe_of

TESTS = Path(__file__).resolve().parents[2]
ROW = {"reader": "pairs", "list": "list.txt"}


@pytest.mark.parametrize("name", [name for name in READERS if name not in ("packed", "scenes")])
def test_an_entry_packed_at_full_size_without_loss_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"packs_{name}", TESTS / "data" / "readers" / f"test_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entry = {"reader": name, **module.example(tmp_path / "data")}
    recipe = recipe_of(tmp_path, entry)
    assert_same_frames(recipe.data.train[0].source, pack(recipe, tmp_path / "out"))


def test_drawn_worlds_with_sky_give_the_same_samples(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, {"reader": "scenes", "count": 2, "size": [42, 56], "outdoors": 1.0, "seed": 3})
    reader = recipe.data.train[0].source
    assert np.isinf(reader[0].depth_m).any()
    assert_same_frames(reader, pack(recipe, tmp_path / "out"))


def write_files(folder: Path, kind: np.dtype[Any], most: int, *, color_bits: int = 8) -> None:
    """Two frames of 30x44 of numbers from 0, and a list of them with fx, fy, cx, cy and a confidence from 0 to 2."""
    rng, lines = np.random.default_rng(1), []
    for i in range(2):
        image = rng.integers(0, 2**color_bits, (30, 44, 3), np.uint16 if color_bits > 8 else np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), image)
        numbers = (rng.integers(1, most, (30, 44)) / (1 if kind.kind == "u" else 1000)).astype(kind)
        numbers[:3] = 0
        np.save(folder / f"{i}.npy", numbers)
        cv2.imwrite(str(folder / f"{i}_mask.png"), rng.integers(0, 3, (30, 44), dtype=np.uint8))
        lines.append(f"{i}.png {i}.npy {50 + i / 3} {51 + i / 7} 21.5 14.25 {i}_mask.png\n")
    (folder / "list.txt").write_text("".join(lines))


@pytest.mark.parametrize(
    ("kind", "most", "options", "is_whole_numbers"),
    [
        ("uint16", 9000, {"meters_per_unit": 0.001, "max_depth_m": 5.0, "min_depth_m": 0.5}, True),
        ("uint16", 9000, {"meters_per_unit": 0.00037, "invalid": [0, 5000]}, True),
        ("uint16", 65535, {"meters_per_unit": 1 / 512, "mask": "list", "mask_at_least": 2, "intrinsics": "list"}, True),
        ("uint16", 9000, {"meters_per_unit": 0.001, "mask": "*_mask.png", "edge_erosion_px": 1}, True),
        ("uint16", 9000, {"meters_per_unit": 0.001, "sky_mask": "*_mask.png"}, True),
        ("uint16", 65535, {"meters_per_unit": 0.001, "bits": "rotated"}, True),
        ("uint16", 65535, {"meters_per_unit": 0.001, "bits": "android_confidence"}, True),
        ("uint16", 9000, {"depth_is": "disparity", "px_per_unit": 1 / 256, "baseline_m": 0.1, "focal_px": 50}, False),
        ("uint16", 9000, {"depth_is": "inverse", "inverse_per_unit": 1e-4}, False),
        ("uint16", 9000, {"depth_is": "range", "meters_per_unit": 0.001, "intrinsics": "list"}, False),
        ("float32", 9000, {"meters_per_unit": 1.0, "intrinsics": "list"}, True),
        ("float64", 9000, {"meters_per_unit": 0.3048}, False),
    ],
)
def test_options_are_in_the_packed_frames(
    kind: str, most: int, options: dict[str, Any], is_whole_numbers: bool, tmp_path: Path
) -> None:
    write_files(tmp_path, np.dtype(kind), most)
    recipe = recipe_of(tmp_path, {**ROW, "root": str(tmp_path), **options})
    reader = recipe.data.train[0].source
    packed = pack(recipe, tmp_path / "out")
    assert_same_frames(reader, packed)
    assert (
        b'"meters_per_unit": null' not in (tmp_path / "out/train_0/shard-00000.tar").read_bytes()
    ) is is_whole_numbers
    if options.get("intrinsics") == "list":
        assert reader[0].camera != reader[1].camera and reader[0].camera is not None


@pytest.mark.parametrize("levels", [{}, {"image_black": 1000, "image_white": 60000}, {"image_percentiles": [1, 99]}])
def test_images_of_16_bits_are_packed_as_the_run_sees_them(levels: dict[str, Any], tmp_path: Path) -> None:
    write_files(tmp_path, np.dtype("uint16"), 9000, color_bits=16)
    recipe = recipe_of(tmp_path, {**ROW, "root": str(tmp_path), "meters_per_unit": 0.001}, **levels)
    packed = pack(recipe, tmp_path / "out")
    info = json.loads((tmp_path / "out/train_0/pack.json").read_text())
    assert info["image_levels"] == (recipe.data.image_levels and recipe.data.image_levels.to_mapping())
    assert_same_frames(recipe.data.train[0].source, packed)


@pytest.mark.parametrize("orientation", [3, 6])
def test_photographs_are_packed_upright_with_depth_and_camera(orientation: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    written, jpeg = cv2.imencode(".jpg", rng.integers(0, 255, (24, 36, 3), np.uint8))
    # APP1 of one tag: orientation, a short, big-endian.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + bytes(4)
    content = jpeg.tobytes()
    tagged = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:]
    assert written
    (tmp_path / "0.jpg").write_bytes(tagged)
    np.save(tmp_path / "0.npy", rng.integers(1, 9000, (24, 36), np.uint16))
    (tmp_path / "list.txt").write_text("0.jpg 0.npy 40 41 17 12\n")
    entry = {**ROW, "root": str(tmp_path), "meters_per_unit": 0.001, "intrinsics": "list", "exif_turns": "both"}
    recipe = recipe_of(tmp_path, entry)
    reader = recipe.data.train[0].source
    assert reader[0].image.shape == ((36, 24, 3) if orientation == 6 else (24, 36, 3))
    assert_same_frames(reader, pack(recipe, tmp_path / "out"))

"""Hypersim in its native files: the split, distance to depth, NaN, and the real depth map."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from finetune.data.readers.hypersim import Hypersim
from finetune.utils.errors import DataError, ListError

SAMPLES = os.environ.get("DEPTH_SAMPLES")
HEAD = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"


def write_frame(folder: Path, scene: str, frame: int, ray_m: np.ndarray) -> Path:
    images = folder / scene / "images"
    for kind in ("final_preview", "geometry_hdf5"):
        (images / f"scene_cam_00_{kind}").mkdir(parents=True, exist_ok=True)
    image = np.full((*ray_m.shape, 3), 90, np.uint8)
    cv2.imwrite(str(images / f"scene_cam_00_final_preview/frame.{frame:04}.tonemap.jpg"), image)
    path = images / f"scene_cam_00_geometry_hdf5/frame.{frame:04}.depth_meters.hdf5"
    with h5py.File(path, "w") as file:
        file["dataset"] = ray_m.astype(np.float16)
    return path


def example(folder: Path) -> dict[str, object]:
    """Writes two frames of a scene to train and names one that was not released; the options that read them."""
    folder.mkdir(parents=True, exist_ok=True)
    ray_m = np.full((768, 1024), 4.0)
    ray_m[0] = np.nan
    for frame in (0, 7):
        write_frame(folder, "ai_001_001", frame, ray_m)
    (folder / "metadata_images_split_scene_v1.csv").write_text(
        HEAD
        + "ai_001_001,cam_00,7,True,,train\nai_001_001,cam_00,0,True,,train\n"
        + "ai_001_001,cam_00,3,False,missing,train\nai_002_001,cam_00,0,True,,val\n"
    )
    return {"root": str(folder), "split": "train"}


def test_the_split_keeps_its_order_and_distance_becomes_depth(tmp_path: Path) -> None:
    reader = Hypersim(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    assert [Path(reader.source(index)).name[:10] for index in range(len(reader))] == ["frame.0007", "frame.0000"]
    sample = reader[0]
    # The bottom right pixel lies 511.5 and 383.5 px from the center: 4 / sqrt(1 + (511.5^2 + 383.5^2) / 886.81^2).
    assert sample.depth_m[767, 1023] == pytest.approx(4 * 886.81 / (511.5**2 + 383.5**2 + 886.81**2) ** 0.5, rel=1e-6)
    assert sample.depth_m[767, 1023] == pytest.approx(3.244, abs=1e-3)
    assert not sample.valid[0].any() and sample.valid[1:].all()
    assert sample.camera is not None and sample.camera.fx_px == 886.81
    assert not Hypersim(root=str(tmp_path), split="train", max_depth_m=3.0)[0].valid.any()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "scene_name,camera_name\n",
            r"v1\.csv:1: the header names scene_name, camera_name, and no frame_id\. Take the CSV",
        ),
        (HEAD, "names no frame of split train"),
        (HEAD + "ai_001_001,cam_00,frame,True,,train\n", r"v1\.csv:2: has a frame_id that is no whole number, 'frame'"),
        (HEAD + "ai_009_009,cam_00,0,True,,train\n", r"v1\.csv:2: .*ai_009_009.* does not exist"),
    ],
)
def test_faults_of_the_split_file_name_it(tmp_path: Path, text: str, found: str) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / "metadata_images_split_scene_v1.csv").write_text(text)
    with pytest.raises(ListError, match=found):
        Hypersim(**options)[0]


def test_a_damaged_file_and_another_size_are_named(tmp_path: Path) -> None:
    reader = Hypersim(**example(tmp_path))  # type: ignore[arg-type]
    Path(reader.source(0)).write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"frame\.0007\.depth_meters\.hdf5: is damaged"):
        reader[0]
    write_frame(tmp_path, "ai_001_001", 0, np.full((384, 512), 4.0))
    with pytest.raises(DataError, match=r"is 384x512 .* Hypersim is for 768x1024"):
        reader[1]


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_the_real_split_and_the_real_distances(tmp_path: Path) -> None:
    assert SAMPLES
    packed = Path(SAMPLES) / "splits/hypersim_official/metadata_images_split_scene_v1.csv.gz"
    (tmp_path / "metadata_images_split_scene_v1.csv").write_bytes(gzip.decompress(packed.read_bytes()))
    counts = {split: len(Hypersim(root=str(tmp_path), split=split)) for split in ("train", "val", "test")}
    rows = gzip.decompress(packed.read_bytes()).decode().splitlines()[1:]
    released = Counter(row.split(",")[-1] for row in rows if row.split(",")[3] == "True")
    assert counts == {split: released[split] for split in counts}
    # The frame that is there has no image of its own; a gray one stands in.
    name = "ai_037_002/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    with h5py.File(Path(SAMPLES) / "hypersim" / name) as file:
        ray_m = np.asarray(file["dataset"], np.float32)
    write_frame(tmp_path, "ai_037_002", 0, ray_m)
    (tmp_path / "metadata_images_split_scene_v1.csv").write_text(HEAD + "ai_037_002,cam_00,0,True,,train\n")
    sample = Hypersim(root=str(tmp_path), split="train")[0]
    assert (ray_m.min(), ray_m.max()) == (pytest.approx(2.96, abs=0.01), pytest.approx(13.23, abs=0.01))
    for row, column in ((383, 511), (100, 900), (700, 20)):
        x, y = column - 511.5, row - 383.5
        expected = ray_m[row, column] * 886.81 / (x**2 + y**2 + 886.81**2) ** 0.5
        assert sample.depth_m[row, column] == pytest.approx(expected, rel=1e-6)

"""KITTI with annotated depth: where the files lie, the Eigen split, unit and the camera of the day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.kitti import Kitti
from finetune.data.readers.splits import split_frames
from finetune.utils.errors import DataError, ListError, RecipeError

DRIVE = "2011_09_26_drive_0013_sync"


def write_frame(folder: Path, place: str, drive: str, frame: int, raw: int, shape: tuple[int, int]) -> str:
    """Writes image and depth below raw and data_depth_annotated; their line in a list of Eigen form."""
    image = f"{drive[:10]}/{drive}/image_02/data/{frame:010}.png"
    depth = f"{drive}/proj_depth/groundtruth/image_02/{frame:010}.png"
    image_path, depth_path = folder / "raw" / image, folder / "data_depth_annotated" / place / depth
    for path in (image_path, depth_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(image_path), np.full((*shape, 3), 60, np.uint8))
    values = np.zeros(shape, np.uint16)
    values[100:, ::2] = raw
    cv2.imwrite(str(depth_path), values)
    return f"{image} {depth} 721.5377\n"


def example(folder: Path) -> dict[str, object]:
    """Writes two frames, one annotated in val and one in train, and their list; the options that read them."""
    lines = [
        write_frame(folder, "val", DRIVE, 5, 2560, (375, 1242)),
        write_frame(folder, "train", "2011_10_03_drive_0027_sync", 9, 20_481, (376, 1241)),
    ]
    (folder / "frames.txt").write_text("".join(lines))
    return {"root": str(folder), "list": "frames.txt"}


def test_a_list_unit_range_and_the_camera_of_the_day(tmp_path: Path) -> None:
    reader = Kitti(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    assert ["val" in Path(reader.source(index)).parts for index in range(len(reader))] == [True, False]
    near, far = reader[0], reader[1]
    # 2560 / 256 = 10 m; 20481 / 256 = 80.0039 m is beyond the usual 80 m
    assert near.depth_m[100, 0] == 10.0 and near.valid.sum() == 275 * 621
    assert far.depth_m[100, 0] == np.float32(80.00390625) and not far.valid.any()
    assert near.camera is not None and far.camera is not None
    assert (near.camera.fx_px, near.camera.cx_px, near.camera.cy_px) == (721.5377, 609.5593, 172.854)
    assert (far.camera.fx_px, far.camera.cx_px, far.camera.cy_px) == (718.856, 607.1928, 185.2157)


def test_lines_without_depth_are_left_out_and_errors_keep_their_line(tmp_path: Path) -> None:
    options = example(tmp_path)
    lines = (tmp_path / "frames.txt").read_text().splitlines()
    image = lines[0].split()[0]
    (tmp_path / "frames.txt").write_text(f"{image} None 721.5377\n{lines[1]}\nx.png {DRIVE}/y.png 721.5377\n")
    reader = Kitti(**options)  # type: ignore[arg-type]
    assert len(reader) == 2
    with pytest.raises(ListError, match=r"frames\.txt:3: .*raw/x\.png does not exist"):
        reader[1]


def test_the_two_roots_may_lie_elsewhere_and_flat(tmp_path: Path) -> None:
    options = example(tmp_path)
    (tmp_path / "raw").rename(tmp_path / "images")
    (tmp_path / "data_depth_annotated/val").rename(tmp_path / "depth")
    (tmp_path / "frames.txt").write_text((tmp_path / "frames.txt").read_text().splitlines()[0])
    with pytest.raises(RecipeError, match="image_root is"):
        Kitti(**options).check_paths()  # type: ignore[arg-type]
    places = {"image_root": str(tmp_path / "images"), "depth_root": str(tmp_path / "depth")}
    reader = Kitti(**options, **places)  # type: ignore[arg-type]
    reader.check_paths()
    assert reader[0].depth_m[100, 0] == 10.0


@pytest.mark.parametrize(("split", "count"), [("eigen_train", 23158), ("eigen_test", 652)])
def test_the_official_split_is_read_where_its_drives_are(tmp_path: Path, split: str, count: int) -> None:
    frames = split_frames(f"kitti_{split}")
    drives = sorted({drive for drive, _ in frames})
    for number, drive in enumerate(drives[1:]):
        (tmp_path / "raw" / drive[:10] / drive).mkdir(parents=True)
        (tmp_path / "data_depth_annotated" / ("train", "val")[number % 2] / drive).mkdir(parents=True)
    with pytest.raises(
        ListError, match=rf"raw: 1 of the {len(drives)} drives of split {split} are missing, {drives[0]}"
    ):
        len(Kitti(root=str(tmp_path), split=split))  # type: ignore[arg-type]
    (tmp_path / "raw" / drives[0][:10] / drives[0]).mkdir()
    with pytest.raises(ListError, match=rf"data_depth_annotated: 1 of the {len(drives)} drives"):
        len(Kitti(root=str(tmp_path), split=split))  # type: ignore[arg-type]
    write_frame(tmp_path, "val", *frames[0], raw=512, shape=(375, 1242))
    reader = Kitti(root=str(tmp_path), split=split)  # type: ignore[arg-type]
    assert len(reader) == count
    assert reader[0].depth_m[100, 0] == 2.0
    parts = [Path(reader.source(index)).parts for index in range(count)]
    assert [(path[-5], int(Path(path[-1]).stem)) for path in parts] == frames


@pytest.mark.parametrize(
    ("drive", "shape", "focal_px"),
    [
        ("2011_09_28_drive_0001_sync", (370, 1224), 707.0493),
        ("2011_09_29_drive_0004_sync", (374, 1238), 718.3351),
        ("2011_09_30_drive_0016_sync", (370, 1226), 707.0912),
    ],
)
def test_other_days_have_other_cameras(tmp_path: Path, drive: str, shape: tuple[int, int], focal_px: float) -> None:
    (tmp_path / "frames.txt").write_text(write_frame(tmp_path, "train", drive, 1, 2560, shape))
    camera = Kitti(root=str(tmp_path), list="frames.txt")[0].camera
    assert camera is not None and camera.fx_px == camera.fy_px == focal_px


def test_cropped_copies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "frames.txt").write_text(write_frame(tmp_path, "val", DRIVE, 5, 2560, (352, 1216)))
    with pytest.raises(DataError, match=r"is 352x1216 .* KITTI of 2011_09_26 is for 375x1242\. .* reader pairs"):
        Kitti(root=str(tmp_path), list="frames.txt")[0]


def test_wrong_options_name_their_key(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="split is None; expected eigen_train or eigen_test, or a list file"):
        Kitti(root=str(tmp_path))
    with pytest.raises(RecipeError, match="min_depth_m"):
        Kitti(root=str(tmp_path), split="eigen_test", min_depth_m=-1.0)
    with pytest.raises(RecipeError, match="root is"):
        Kitti(root=str(tmp_path / "nowhere"), split="eigen_test").check_paths()


def test_real_frames_at_pixels_read_by_hand(samples: Path) -> None:
    root = samples / "kitti_depth"
    reader = Kitti(root=str(root), list="eigen_style_subset.txt")
    reader.check_paths()
    assert len(reader) == 2
    sample = reader[1]
    assert sample.source.endswith("val/2011_09_26_drive_0013_sync/proj_depth/groundtruth/image_02/0000000050.png")
    # 4035 / 256; of 96,134 returns 68 lie beyond 80 m
    assert sample.depth_m[250, 600] == 15.76171875 and sample.valid[250, 600]
    assert sample.image[10, 20].tolist() == [26, 47, 100]
    assert sample.camera is not None and sample.camera.fx_px == 721.5377
    everything = Kitti(root=str(root), list="eigen_style_subset.txt", max_depth_m=None)
    assert everything[1].valid.sum() - sample.valid.sum() == 68
    # The valid shares of checks.csv.
    assert [everything[index].valid.mean() for index in range(2)] == pytest.approx([0.1950, 0.2064], abs=6e-5)


def write_benchmark(folder: Path) -> None:
    """A frame of the depth benchmark's cropped validation selection."""
    root = folder / "depth_selection" / "val_selection_cropped"
    stem = "2011_09_26_drive_0002_sync_{}_0000000005_image_02"
    for name, kind, pixels in (
        ("image", "image", np.full((352, 1216, 3), 90, np.uint8)),
        ("groundtruth_depth", "groundtruth_depth", np.full((352, 1216), 256 * 7, np.uint16)),
    ):
        (root / name).mkdir(parents=True)
        assert cv2.imwrite(str(root / name / f"{stem.format(kind)}.png"), pixels)
    (root / "intrinsics").mkdir()
    (root / "intrinsics" / f"{stem.format('image')}.txt").write_text("721.5 0 596.5 0 722.5 149.8 0 0 1")


def test_the_validation_selection_of_the_benchmark(tmp_path: Path) -> None:
    write_benchmark(tmp_path)
    reader = Kitti(root=str(tmp_path), split="benchmark_val")
    reader.check_paths()
    (sample,) = [reader[index] for index in range(len(reader))]
    assert sample.depth_m[0, 0] == 7.0
    assert sample.camera == Camera(fx_px=721.5, fy_px=722.5, cx_px=596.5, cy_px=149.8)
    assert Kitti(root=str(tmp_path / "depth_selection" / "val_selection_cropped"), split="benchmark_val")[0].valid.all()
    assert Kitti(root=str(tmp_path), split="benchmark_val", crop="kb")[0].depth_m.shape == (352, 1216)
    with pytest.raises(RecipeError, match="a folder that holds depth_selection/val_selection_cropped"):
        Kitti(root=str(tmp_path / "depth_selection"), split="benchmark_val").check_paths()


def test_the_kb_crop_takes_the_camera_along(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    whole, cropped = Kitti(**options)[0], Kitti(**options, crop="kb")[0]
    assert whole.depth_m.shape == (375, 1242)
    assert cropped.depth_m.shape == (352, 1216)
    assert (cropped.depth_m == whole.depth_m[23:, 13:1229]).all()
    assert whole.camera is not None and cropped.camera is not None
    assert cropped.camera.cx_px == pytest.approx(whole.camera.cx_px - 13)
    assert cropped.camera.cy_px == pytest.approx(whole.camera.cy_px - 23)


def test_a_calibration_file_comes_before_the_table(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    reader = Kitti(**options)
    image = Path((reader.files(0) or "")[0])
    day = next(parent for parent in image.parents if len(parent.name) == 10)
    (day / "calib_cam_to_cam.txt").write_text(
        "calib_time: 09-Jan-2012\nS_rect_02: 1.242e+03 3.75e+02\n"
        "P_rect_02: 700.5 0 601.5 44.8 0 701.5 172.5 0.2 0 0 1 0.002\n"
    )
    assert Kitti(**options)[0].camera == Camera(fx_px=700.5, fy_px=701.5, cx_px=601.5, cy_px=172.5)
    # The right color camera has a projection of its own.
    with (day / "calib_cam_to_cam.txt").open("a") as file:
        file.write("S_rect_03: 1.242e+03 3.75e+02\nP_rect_03: 710 0 611 -339 0 711 182 2.2 0 0 1 0.003\n")
    line = (tmp_path / "frames.txt").read_text().splitlines()[0].split()
    for root, name in ((tmp_path / "raw", line[0]), (tmp_path / "data_depth_annotated" / "val", line[1])):
        right = root / name.replace("image_02", "image_03")
        right.parent.mkdir(parents=True)
        right.write_bytes((root / name).read_bytes())
    (tmp_path / "right.txt").write_text(" ".join(line).replace("image_02", "image_03") + "\n")
    right_camera = Kitti(**options | {"list": "right.txt"})[0].camera
    assert right_camera == Camera(fx_px=710.0, fy_px=711.0, cx_px=611.0, cy_px=182.0)
    (day / "calib_cam_to_cam.txt").write_text("nothing of use\n")
    with pytest.raises(ListError, match=r"calib_cam_to_cam\.txt: has no P_rect and S_rect of camera 2"):
        Kitti(**options)[0]

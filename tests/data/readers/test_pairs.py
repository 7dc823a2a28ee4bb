"""Own-sensor frames: a list or two folders, their unit and what is not a measurement."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from finetune.data.camera import Camera
from finetune.data.readers.pairs import Pairs
from finetune.data.readers.sensors import SENSORS, Sensor
from finetune.utils.errors import DataError, ListError, RecipeError

OPTIONS: dict[str, Any] = {"root": "room", "list": "train.txt", "meters_per_unit": 0.001}


def example(folder: Path) -> dict[str, object]:
    """Writes three frames of 12x16 with intrinsics; the options that read them."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(3):
        image = np.full((12, 16, 3), (10 * number, 20, 200), np.uint8)
        depth = np.full((12, 16), 1000 + number, np.uint16)
        depth[0] = 0
        cv2.imwrite(str(folder / f"rgb/{number}.png"), image)
        cv2.imwrite(str(folder / f"depth/{number}.png"), depth)
    (folder / "train.txt").write_text("rgb/2.png depth/2.png\nrgb/0.png depth/0.png\nrgb/1.png depth/1.png\n")
    camera = {"width": 16, "height": 12, "fx": 15.0, "fy": 15.5, "cx": 7.5, "cy": 5.5}
    (folder / "intrinsics.json").write_text(json.dumps(camera))
    return {**OPTIONS, "root": str(folder), "intrinsics": "intrinsics.json"}


def test_a_list_keeps_its_order_and_gives_meters_valid_and_camera(tmp_path: Path) -> None:
    reader = Pairs(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    assert [Path(reader.source(index)).name for index in range(len(reader))] == ["2.png", "0.png", "1.png"]
    sample = reader[0]
    assert sample.image[5, 5].tolist() == [200, 20, 20]
    assert sample.depth_m[5, 5] == np.float32(1.002) and not sample.valid[0].any() and sample.valid[1:].all()
    assert sample.camera is not None and (sample.camera.fx_px, sample.camera.cy_px) == (15.0, 5.5)


def test_two_folders_are_matched_by_stem(tmp_path: Path) -> None:
    example(tmp_path)
    reader = Pairs(root=str(tmp_path), image_dir="rgb", depth_dir="depth", meters_per_unit=0.001)
    reader.check_paths()
    assert [Path(reader.source(index)).name for index in range(len(reader))] == ["0.png", "1.png", "2.png"]
    assert reader[1].depth_m[5, 5] == np.float32(1.001)
    assert reader[1].camera is None
    (tmp_path / "depth/1.png").unlink()
    with pytest.raises(ListError, match=r"1\.png: does not exist"):
        reader[1]
    again = Pairs(root=str(tmp_path), image_dir="rgb", depth_dir="depth", meters_per_unit=0.001)
    with pytest.raises(ListError, match=r"1 of 3 images have no depth map \(1\)"):
        len(again)


def test_the_home_folder_is_put_in_wherever_a_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = example(tmp_path / "home" / "room")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/room/depth").rename(tmp_path / "home/room/sky")
    example(tmp_path / "home" / "room")
    (tmp_path / "list.txt").write_text("~/room/rgb/0.png ~/room/depth/0.png ~/room/depth/1.png\n")
    unit = {"meters_per_unit": 0.001, "root": str(tmp_path)}
    for written in (
        {**options, "root": "~/room"},
        {**unit, "list": "list.txt", "intrinsics": "~/room/intrinsics.json"},
        {**unit, "list": "list.txt", "mask": "list"},
        {**unit, "image_dir": "~/room/rgb", "depth_dir": "~/room/depth", "sky_mask": "~/room/sky"},
    ):
        reader = Pairs(**written)  # type: ignore[arg-type]
        reader.check_paths()
        assert reader[0].image.shape == (12, 16, 3)
    with pytest.raises(RecipeError, match=rf"root is '~/nothing'; expected .*\(here {tmp_path}/home/nothing\)"):
        Pairs(**{**options, "root": "~/nothing"}).check_paths()  # type: ignore[arg-type]


def test_paths_of_a_list_may_be_absolute_and_the_list_may_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = example(tmp_path / "room")
    monkeypatch.chdir(tmp_path)
    Path("mine.txt").write_text(f"rgb/0.png {tmp_path / 'room/depth/0.png'}\n")
    reader = Pairs(**{**options, "list": "mine.txt"})  # type: ignore[arg-type]
    reader.check_paths()
    assert reader[0].depth_m[5, 5] == np.float32(1.0)


def test_a_missing_file_of_a_pair_names_line_and_path(tmp_path: Path) -> None:
    options = example(tmp_path)
    (tmp_path / "train.txt").write_text("# frames\nrgb/0.png depth/0.png\n\nrgb/7.png depth/1.png\n")
    with pytest.raises(ListError) as caught:
        Pairs(**options)[1]  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'train.txt'}:4: {tmp_path / 'rgb/7.png'} does not exist. ")


def test_an_image_is_never_its_own_depth(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / "train.txt").write_text("rgb/0.png depth/0.png\ndepth/1.png depth/1.png\n")
    with pytest.raises(ListError, match=r"train\.txt:2: its image and its depth map are one file, depth/1\.png"):
        len(Pairs(**options))
    (tmp_path / "again").symlink_to(tmp_path / "depth")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "depth" / "2.png")
    lines = ("depth/0.png again/0.png", "rgb/../depth/1.png depth/1.png", "hard.png depth/2.png")
    (tmp_path / "train.txt").write_text("\n".join(lines))
    reader = Pairs(**options)
    for index in range(3):
        with pytest.raises(ListError, match=rf"train\.txt:{index + 1}: its image and its depth map are one file"):
            reader[index]
    one_array, two_arrays = tmp_path / "one.npz", tmp_path / "two.npz"
    depth = np.full((12, 16), 1000, np.uint16)
    np.savez(one_array, depth)
    np.savez(two_arrays, rgb=np.zeros((12, 16, 3), np.uint8), depth=depth)
    (tmp_path / "train.txt").write_text("one.npz one.npz\ntwo.npz two.npz\n")
    reader = Pairs(**options)
    with pytest.raises(ListError, match=r"train\.txt:1: its image and its depth map are one file"):
        reader[0]
    assert reader[1].depth_m[5, 5] == 1.0
    both: dict[str, Any] = {"root": str(tmp_path), "image_dir": "depth", "depth_dir": "again", "meters_per_unit": 0.001}
    with pytest.raises(ListError, match="do not tell which file is an image and which is depth"):
        len(Pairs(**both))


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    options = example(tmp_path)
    (tmp_path / "train.txt").write_text("# nothing yet\n")
    with pytest.raises(ListError, match=r"train\.txt: names no frame\. Write `image depth`"):
        len(Pairs(**options))  # type: ignore[arg-type]


def test_intrinsics_of_another_size_are_refused(tmp_path: Path) -> None:
    options = example(tmp_path)
    camera = {"width": 32, "height": 24, "fx": 30.0, "fy": 31.0, "cx": 15.5, "cy": 11.5}
    (tmp_path / "intrinsics.json").write_text(json.dumps(camera))
    with pytest.raises(DataError, match=r"intrinsics\.json is for 24x32\. If the images were resized, .* fx 15\.000"):
        Pairs(**options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"meters_per_unit": 0.0}, "meters_per_unit"),
        ({"meters_per_unit": float("inf")}, "meters_per_unit"),
        ({"min_depth_m": -1.0}, "min_depth_m"),
        ({"min_depth_m": 2.0, "max_depth_m": 1.0}, "max_depth_m"),
        ({"depth_is": "range"}, "intrinsics"),
        ({"depth_is": "disparity"}, "meters_per_unit"),
        ({"depth_is": "disparity", "meters_per_unit": None}, "baseline_m"),
        ({"depth_is": "disparity", "meters_per_unit": None, "baseline_m": 0.0}, "baseline_m"),
        ({"depth_is": "disparity", "meters_per_unit": None, "baseline_m": 0.1}, "focal_px"),
        ({"depth_is": "disparity", "meters_per_unit": None, "baseline_m": 0.1, "focal_px": -1.0}, "focal_px"),
        ({"depth_is": "disparity", "meters_per_unit": None, "baseline_m": 0.1, "px_per_unit": 0.0}, "px_per_unit"),
        ({"baseline_m": 0.1}, "baseline_m"),
        ({"focal_px": 500.0}, "focal_px"),
        ({"meters_per_unit": None}, "meters_per_unit"),
        ({"list": None}, "image_dir"),
        ({"list": None, "image_dir": "rgb"}, "depth_dir"),
        ({"image_dir": "rgb"}, "image_dir"),
    ],
)
def test_a_wrong_option_names_its_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Pairs(**{**OPTIONS, **change})
    assert caught.value.key == key


@pytest.mark.parametrize("change", [{"depth_is": "y"}, {"invalid": "none"}, {"metres_per_unit": 1.0}, {"root": 3}])
def test_options_of_a_wrong_type_or_name_are_pydantic_errors(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pairs(**{**OPTIONS, **change})


def test_distance_along_the_ray_becomes_depth(tmp_path: Path) -> None:
    options: dict[str, Any] = example(tmp_path) | {"depth_is": "range", "max_depth_m": 1.0}
    sample = Pairs(**options)[0]
    # Row 11, column 0: ray (0 - 7.5) / 15, (11 - 5.5) / 15.5, 1, so 1.002 / sqrt(1 + 0.25 + 0.125911) = 0.854225.
    assert sample.depth_m[11, 0] == pytest.approx(0.854226, abs=1e-6)
    # At the center the ray is nearly the axis: 1.002 / sqrt(1 + (0.5/15)^2 + (0.5/15.5)^2) = 1.000923, beyond 1 m.
    assert sample.depth_m[6, 8] == pytest.approx(1.000923, abs=1e-6)
    assert sample.valid[11, 0] and not sample.valid[6, 8]
    assert not sample.valid[0].any()


def test_disparity_becomes_depth(tmp_path: Path) -> None:
    options: dict[str, Any] = example(tmp_path) | {"depth_is": "disparity", "meters_per_unit": None}
    # 1002 units of 1/256 px are 3.914062 px; 15 px * 0.1 m / 3.914062 px is 0.383234 m.
    stereo = options | {"px_per_unit": 1 / 256, "baseline_m": 0.1}
    sample = Pairs(**stereo)[0]
    assert sample.depth_m[5, 5] == pytest.approx(0.383234, abs=1e-6)
    assert not sample.valid[0].any() and sample.valid[1:].all()
    assert Pairs(**stereo | {"focal_px": 30.0})[0].depth_m[5, 5] == pytest.approx(2 * 0.383234, abs=2e-6)
    assert not Pairs(**stereo | {"max_depth_m": 0.38})[0].valid.any()
    assert not Pairs(**stereo | {"min_depth_m": 0.39})[0].valid.any()


@pytest.mark.parametrize(("sensor", "unit"), [("realsense", 0.001), ("lidar_png", 1 / 256), ("kinect_v2", 0.001)])
def test_a_sensor_fills_what_is_not_given_and_says_so(sensor: str, unit: float) -> None:
    filled = Pairs(root="room", list="train.txt", sensor=sensor)  # type: ignore[arg-type]
    assert (filled.meters_per_unit, filled.invalid) == (unit, (0.0,))
    (note,) = filled.notes
    assert note.startswith(f"room: sensor {sensor} means meters_per_unit {unit:g}, invalid [0]")
    assert ("configurable" in note) == (sensor == "realsense")
    given = Pairs(root="room", list="train.txt", sensor=sensor, meters_per_unit=0.5, invalid=(7.0,))  # type: ignore[arg-type]
    assert (given.meters_per_unit, given.invalid) == (0.5, (7.0,))
    assert not Pairs(**OPTIONS).notes


def test_every_sensor_there_is_has_its_numbers() -> None:
    assert set(SENSORS) == set(get_args(Sensor))
    assert all(unit > 0 and 0.0 in invalid for unit, invalid, _ in SENSORS.values())


def test_missing_folders_and_files_name_their_key(tmp_path: Path) -> None:
    options = example(tmp_path)
    folders = {"list": None, "image_dir": "rgb", "depth_dir": "depth"}
    for change, key in (
        ({"root": str(tmp_path / "nowhere")}, "root"),
        ({"list": "val.txt"}, "list"),
        ({"intrinsics": "camera.json"}, "intrinsics"),
        ({**folders, "depth_dir": "depths"}, "depth_dir"),
    ):
        with pytest.raises(RecipeError) as caught:
            Pairs(**{**options, **change}).check_paths()  # type: ignore[arg-type]
        assert caught.value.key == key


def test_color_mapped_depth_names_the_file(tmp_path: Path) -> None:
    options = example(tmp_path)
    gray = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    cv2.imwrite(str(tmp_path / "depth/2.png"), cv2.applyColorMap(gray, cv2.COLORMAP_TURBO))
    with pytest.raises(DataError, match=r"depth/2\.png: has 3 channels: it looks color-mapped"):
        Pairs(**options)[0]  # type: ignore[arg-type]


def test_a_realsense_sequence_at_pixels_read_by_hand(samples: Path) -> None:
    reader = Pairs(
        root=str(samples / "realsense_lab_seq"), list="train.txt", meters_per_unit=0.001, intrinsics="intrinsics.json"
    )
    reader.check_paths()
    assert len(reader) == 49
    sample = reader[0]
    assert sample.source.endswith("depth/000005.png")
    assert sample.depth_m[120, 160] == np.float32(1.867) and sample.depth_m[200, 40] == np.float32(1.227)
    # Decoded by another library: JPEG decoders may differ by a step or two, red and blue differ by more.
    np.testing.assert_allclose(sample.image[10, 20].astype(int), [168, 182, 159], atol=3)
    assert sample.camera is not None and sample.camera.fx_px == pytest.approx(300.30702)


def test_real_saturated_values_are_invalid_only_when_named(samples: Path) -> None:
    folders = {"root": str(samples / "realsense_lab_native_unregistered"), "image_dir": "rgb", "depth_dir": "depth"}
    with_saturated = Pairs(**folders, meters_per_unit=0.001)[0]  # type: ignore[arg-type]
    without = Pairs(**folders, meters_per_unit=0.001, invalid=(0, 65535))[0]  # type: ignore[arg-type]
    assert with_saturated.depth_m[with_saturated.valid].max() == np.float32(65.535)
    assert without.depth_m[without.valid].max() < 65.0
    assert without.valid.sum() < with_saturated.valid.sum()


def test_the_intrinsics_of_real_cameras(samples: Path) -> None:
    room = Pairs(
        root=str(samples / "realsense_room"),
        image_dir="color",
        depth_dir="depth",
        meters_per_unit=0.001,
        intrinsics="cam_params_realsense.json",
    )
    camera = room[0].camera
    assert camera is not None
    assert (camera.fx_px, camera.fy_px) == pytest.approx((617.25, 617.54865))
    assert (camera.cx_px, camera.cy_px) == pytest.approx((317.39212, 245.98019))


def test_every_sample_that_is_plain_pairs_has_the_valid_share_and_range_of_its_check(
    samples: Path, tmp_path: Path
) -> None:
    with (samples / "checks.csv").open(newline="") as file:
        checks = {row["depth"]: row for row in csv.DictReader(file)}
    with (samples / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["encoding"] in ("png16", "npy-float32", "npz-float32")]
    rows = [row for row in rows if checks[row["depth"]]["rgb_size"] == checks[row["depth"]]["depth_size"]]
    assert len(rows) > 140
    for number, row in enumerate(rows):
        check = checks[row["depth"]]
        image, depth = (row[key].partition(":")[0] for key in ("rgb", "depth"))
        (tmp_path / f"{number}.txt").write_text(f'"{image}" "{depth}"\n')
        unit = 1.0 / float(row["units_per_meter"])
        reader = Pairs(root=str(samples), list=str(tmp_path / f"{number}.txt"), meters_per_unit=unit)
        sample = reader[0]
        assert sample.valid.mean() == pytest.approx(float(check["valid_ratio"]), abs=6e-5), row["depth"]
        measured = sample.depth_m[sample.valid]
        assert measured.min() == pytest.approx(float(check["min_m"]), abs=6e-4), row["depth"]
        assert measured.max() == pytest.approx(float(check["max_m"]), abs=6e-4), row["depth"]


def test_what_a_mask_covers_is_not_valid(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    mask = np.full((12, 16), 255, np.uint8)
    mask[8:] = 0
    cv2.imwrite(str(tmp_path / "robot.png"), mask)
    sample = Pairs(**options | {"mask": "robot.png"})[0]
    assert not sample.valid[8:].any()
    assert sample.valid[1:8].all()
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / "2.png"), 255 - mask)
    reader = Pairs(**options | {"mask": "masks"})
    reader.check_paths()
    assert reader[0].valid.sum() == 4 * 16  # frame 2 is the first of the list
    with pytest.raises(DataError, match=r"0\.png: has no mask of its stem in .*masks\. Write 0\.png there"):
        reader[1]


@pytest.mark.parametrize(
    ("values", "options", "kept"),
    [
        ((0, 1, 2), {}, (False, True, True)),
        ((0, 1, 2), {"mask_at_least": 2}, (False, False, True)),  # ARKit
        ((0, 54, 255), {"mask_at_least": 255}, (False, False, True)),  # Polycam
        ((0, 54, 255), {"mask_at_least": 54}, (False, True, True)),
        ((1, 50, 100), {"mask_at_most": 50}, (True, True, False)),  # ZED
        ((0.2, 0.9, np.nan), {"mask_at_least": 0.5}, (False, True, False)),
        ((0.2, np.nan, np.inf), {"mask_at_most": 0.5}, (True, False, False)),
        ((0.0, np.nan, 1.0), {}, (False, False, True)),
        ((10, 20, 30), {"mask_at_least": 20, "mask_at_most": 20}, (False, True, False)),
        ((True, False, True), {}, (True, False, True)),  # as numpy saves a comparison
    ],
)
def test_levels_of_confidence(
    tmp_path: Path, values: tuple[float, ...], options: dict[str, Any], kept: tuple[bool, ...]
) -> None:
    stored = np.asarray(values).dtype
    confidence = np.zeros((12, 16), np.uint8 if stored.kind == "i" else stored)
    for row, value in enumerate(values):
        confidence[row + 1] = value
    np.save(tmp_path / "confidence.npy", confidence)
    sample = Pairs(**{**example(tmp_path), "mask": "confidence.npy", **options})[0]
    assert tuple(sample.valid[1:4, 0]) == kept


def test_levels_that_cannot_be_meant(tmp_path: Path) -> None:
    options: dict[str, Any] = {**example(tmp_path), "mask_at_least": 2}
    with pytest.raises(RecipeError, match=r"mask_at_least is 2\.0; expected a number, together with mask"):
        Pairs(**options)
    with pytest.raises(RecipeError, match="expected at most mask_at_most, 1"):
        Pairs(**options | {"mask": "m.png", "mask_at_most": 1})


def test_side_files_by_ending_folder_and_column(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    mask = np.zeros((12, 16), np.float32)
    mask[4:8] = 1
    expected = int(mask.sum())

    def kept(place: str, name: str, **others: Any) -> int:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        np.save(path, mask)
        reader = Pairs(**options | {"mask": place} | others)
        reader.check_paths()
        found = int(reader[0].valid.sum())  # of frame 2
        path.unlink()
        return found

    # Next to the image, next to the depth map, in a folder of its own, with one of the usual endings.
    assert kept("*_depth_mask.npy", "rgb/2_depth_mask.npy") == expected
    assert kept("*_depth_mask.npy", "depth/2_depth_mask.npy") == expected
    assert kept("masks/*-m.npy", "masks/2-m.npy") == expected
    assert kept("masks", "masks/2_depth_mask.npy") == expected
    # A folder with the images in it: their masks, never themselves.
    assert kept("rgb", "rgb/2_depth_mask.npy") == expected
    with pytest.raises(DataError, match=r"2\.png: has no mask of its stem in .*rgb"):
        kept("rgb", "masks/2.npy")
    with pytest.raises(DataError, match=r"has no mask of its stem in .*rgb or .*depth\. Write 2_conf\.npy"):
        kept("*_conf.npy", "masks/2.npy")
    with pytest.raises(RecipeError, match="mask is 'nowhere/"):
        Pairs(**options | {"mask": "nowhere/*.npy"}).check_paths()

    def listed(text: str, **others: Any) -> int:
        (tmp_path / "train.txt").write_text(text)
        return kept("list", "masks/m.npy", **others)

    assert listed("rgb/2.png depth/2.png masks/m.npy") == expected
    assert listed("rgb/2.png depth/2.png 15 15 7 5 masks/m.npy", intrinsics="list") == expected
    assert listed("image,confidence,depth\nrgb/2.png,masks/m.npy,depth/2.png") == expected
    with pytest.raises(ListError, match=r"train\.txt:1: has no mask\. Write image depth mask in each line"):
        listed("rgb/2.png depth/2.png")
    with pytest.raises(ListError, match=r"train\.txt:1: .*gone\.npy is no file\. Correct the column of mask"):
        listed("rgb/2.png depth/2.png gone.npy")
    with pytest.raises(RecipeError, match="since there is no list"):
        Pairs(root=str(tmp_path), image_dir="rgb", depth_dir="depth", meters_per_unit=0.001, mask="list")


@pytest.mark.parametrize("key", ["mask", "sky_mask"])
def test_a_mask_is_neither_image_nor_depth(tmp_path: Path, key: str) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / "link.png").symlink_to(tmp_path / "rgb" / "2.png")
    with pytest.raises(ListError, match=rf"train\.txt:1: its image and its {key} are one file"):
        Pairs(**options | {key: "link.png"})[0]
    (tmp_path / "train.txt").write_text("rgb/2.png depth/2.png depth/../depth/2.png")
    with pytest.raises(ListError, match=rf"train\.txt:1: its depth map and its {key} are one file"):
        Pairs(**options | {key: "list"})[0]


def test_sky_is_valid_and_infinitely_far(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    sky = np.zeros((12, 16), np.uint8)
    sky[:3] = 1
    cv2.imwrite(str(tmp_path / "sky.png"), sky)
    sample = Pairs(**options | {"sky_mask": "sky.png", "max_depth_m": 5.0})[0]
    assert np.isinf(sample.depth_m[:3]).all()
    assert sample.valid[:3].all()
    assert sample.depth_m[3, 0] == np.float32(1.002)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    cv2.imwrite(str(tmp_path / "robot.png"), np.zeros((6, 8), np.uint8))
    with pytest.raises(DataError, match=r"robot\.png: the mask is 6x8, its frame 12x16"):
        Pairs(**options | {"mask": "robot.png"})[0]
    with pytest.raises(RecipeError, match=r"mask is 'gone\.png'; expected an existing file or folder"):
        Pairs(**options | {"mask": "gone.png"}).check_paths()


def test_a_frame_with_too_little_measured_cannot_be_read(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    assert Pairs(**options | {"min_valid_share": 11 / 12 - 1e-6})[0].valid.any()
    with pytest.raises(DataError, match=r"91\.67% of it was measured, less than min_valid_share 0\.95"):
        Pairs(**options | {"min_valid_share": 0.95})[0]
    with pytest.raises(RecipeError, match="a share from 0 to below 1"):
        Pairs(**options | {"min_valid_share": 5.0})


def test_pixels_beside_holes_and_jumps_are_left_out(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    depth = np.full((12, 16), 1000, np.uint16)
    depth[:, 8:] = 1100  # a jump of 10 %
    depth[:, 3] = 0
    depth[6:] += np.uint16(40)  # of 4 %: no jump
    depth[6:, 3] = 0
    cv2.imwrite(str(tmp_path / "depth/2.png"), depth)
    for pixels, left in ((0, [3]), (1, [2, 3, 4, 7, 8]), (2, [1, 2, 3, 4, 5, 6, 7, 8, 9])):
        valid = Pairs(**options | {"edge_erosion_px": pixels})[0].valid
        assert (valid == valid[0]).all()
        assert np.flatnonzero(~valid[0]).tolist() == left


def test_intrinsics_of_each_image(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    cameras = {
        name: {"width": 16, "height": 12, "fx": focal, "fy": focal, "cx": 7.5, "cy": 5.5}
        for name, focal in (("rgb/2.png", 20.0), ("0.png", 30.0))
    }
    (tmp_path / "intrinsics.json").write_text(json.dumps(cameras))
    reader = Pairs(**options)
    assert [reader[index].camera.fx_px for index in (0, 1)] == [20.0, 30.0]  # type: ignore[union-attr]
    with pytest.raises(ListError, match=r"holds no intrinsics of rgb/1\.png"):
        reader[2]
    # The path goes before the name of the file, and this before its stem.
    for name, focal in (("2.png", 50.0), ("2", 60.0), ("0", 70.0)):
        cameras[name] = cameras["0.png"] | {"fx": focal}
    (tmp_path / "intrinsics.json").write_text(json.dumps(cameras))
    reader = Pairs(**options)
    assert [reader[index].camera.fx_px for index in (0, 1)] == [20.0, 30.0]  # type: ignore[union-attr]
    cameras["0.png"]["fx"] = -1.0
    (tmp_path / "intrinsics.json").write_text(json.dumps(cameras))
    with pytest.raises(ListError, match=r"intrinsics\.json: 0\.png: has fx -1"):
        Pairs(**options)[0]


def test_intrinsics_as_columns_of_the_list(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path)) | {"intrinsics": "list"}
    (tmp_path / "train.txt").write_text("rgb/0.png depth/0.png 20 21 7.5 5.5\n\nrgb/1.png depth/1.png 30 31 7.5 5.5\n")
    reader = Pairs(**options)
    reader.check_paths()
    assert [(one.camera.fx_px, one.camera.fy_px) for one in (reader[0], reader[1]) if one.camera] == [
        (20, 21),
        (30, 31),
    ]
    (tmp_path / "train.txt").write_text("rgb/0.png depth/0.png 20 21\n")
    with pytest.raises(ListError, match=r"train\.txt:1: has no fx, fy, cx, cy after its two paths"):
        Pairs(**options)[0]
    (tmp_path / "train.txt").write_text("rgb/0.png depth/0.png 20 21 8 6\nrgb/1.png depth/1.png 20 -21 8 6\n")
    with pytest.raises(ListError, match=r"train\.txt:2: has fx 20, fy -21"):
        Pairs(**options)[0]


def test_with_intrinsics_in_the_list_an_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = dict(example(tmp_path)) | {"intrinsics": "list"}
    (tmp_path / "train.txt").write_text("rgb/0.png depth/0.png 10 11 7.5 5.5\n")
    decoded: list[Any] = []
    right = cv2.imdecode

    def counted(data: Any, *rest: Any) -> Any:
        decoded.append(data)
        return right(data, *rest)

    monkeypatch.setattr(cv2, "imdecode", counted)
    sample = Pairs(**options)[0]
    assert sample.camera == Camera(fx_px=10, fy_px=11, cx_px=7.5, cy_px=5.5)
    assert len(decoded) == 2  # the image and its depth


def test_the_range_of_a_stereo_camera_is_of_depth_and_ends_as_that_of_others(tmp_path: Path) -> None:
    options = dict(example(tmp_path)) | {"meters_per_unit": None, "intrinsics": None}
    # 100 px times 0.1 m: 5 px are 2 m, 4 px 2.5 m, 2 px 5 m.
    options |= {"depth_is": "disparity", "baseline_m": 0.1, "focal_px": 100.0, "min_depth_m": 2.0, "max_depth_m": 5.0}
    disparity = np.zeros((12, 16), np.uint16)
    disparity[1], disparity[2], disparity[3], disparity[4] = 5, 4, 2, 1
    cv2.imwrite(str(tmp_path / "depth/2.png"), disparity)
    sample = Pairs(**options)[0]  # type: ignore[arg-type]
    assert sample.depth_m[:6, 0].tolist() == [0.0, 2.0, 2.5, 5.0, 10.0, 0.0]
    assert sample.valid[:6, 0].tolist() == [False, False, True, True, False, False]


def test_a_larger_image_is_reduced_to_its_depth(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path)) | {"intrinsics": None}
    image = np.zeros((36, 48, 3), np.uint8)
    image[:18] = 90
    cv2.imwrite(str(tmp_path / "rgb/2.png"), image)
    camera = {"width": 48, "height": 36, "fx": 45.0, "fy": 45.0, "cx": 23.5, "cy": 17.5}
    (tmp_path / "large.json").write_text(json.dumps({"2": camera}))
    sample = Pairs(**options | {"reduce_image": True, "intrinsics": "large.json"})[0]
    assert sample.image.shape == (12, 16, 3)
    assert (sample.image[:6] == 90).all() and (sample.image[6:] == 0).all()
    assert sample.camera is not None and sample.camera.fx_px == 15.0 and sample.camera.cx_px == 7.5
    with pytest.raises(DataError, match=r"if the image is a larger one of the same view, set reduce_image: true"):
        Pairs(**options)[0]
    cv2.imwrite(str(tmp_path / "rgb/2.png"), np.zeros((36, 60, 3), np.uint8))
    with pytest.raises(DataError, match=r"its image .* is 36x60"):
        Pairs(**options | {"reduce_image": True})[0]


@pytest.mark.parametrize("reduce_image", [False, True])
@pytest.mark.parametrize(
    ("size", "advice"),
    [
        ((6, 8), "The image is the smaller one"),
        ((12, 15), "Their shapes differ"),
        ((24, 40), "Their shapes differ"),
        ((16, 12), "One of the two is turned by 90 degrees"),
    ],
)
def test_reduce_image_is_not_advised_where_it_does_not_help(
    tmp_path: Path, size: tuple[int, int], advice: str, reduce_image: bool
) -> None:
    options: dict[str, Any] = dict(example(tmp_path)) | {"intrinsics": None, "reduce_image": reduce_image}
    cv2.imwrite(str(tmp_path / "rgb/2.png"), np.zeros((*size, 3), np.uint8))
    with pytest.raises(DataError) as stopped:
        Pairs(**options)[0]
    assert advice in str(stopped.value)
    assert "set reduce_image" not in str(stopped.value)
    assert ("Sizes may differ only where the image is the larger one" in str(stopped.value)) == reduce_image

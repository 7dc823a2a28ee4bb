"""What the numbers of a depth file can be, by the reader pairs: 8 bits, inverse depth, disparity with an offset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from finetune.data.readers.pairs import Pairs
from finetune.losses.ssi import Ssi
from finetune.recipe.load import load_recipe
from finetune.utils.errors import DataError, ListError, RecipeError, RecipeFaults
from tests.conftest import RECIPE

COLUMNS = np.arange(16)


def reader_of(folder: Path, raw: np.ndarray, ending: str = ".npy", **options: Any) -> Pairs:
    """A frame of 12x16 pixels whose rows all hold ``raw``."""
    rows = np.repeat(raw[None], 12, axis=0)
    if ending == ".npy":
        np.save(folder / "0.npy", rows)
    else:
        assert cv2.imwrite(str(folder / f"0{ending}"), rows)
    cv2.imwrite(str(folder / "image.png"), np.zeros((12, 16, 3), np.uint8))
    (folder / "list.txt").write_text(f"image.png 0{ending}\n")
    return Pairs(root=str(folder), list="list.txt", **options)


def test_8_bits_are_read_where_it_is_said_and_the_step_is_told(tmp_path: Path) -> None:
    raw = np.array([0, 1, 128, 255] * 4, np.uint8)
    with pytest.raises(DataError, match=r"0\.png: depth is stored in 8 bits.* set allow_8_bit: true in pairs"):
        reader_of(tmp_path, raw, ".png", meters_per_unit=10 / 255)[0]
    reader = reader_of(tmp_path, raw, ".png", meters_per_unit=10 / 255, allow_8_bit=True)
    sample = reader[0]
    np.testing.assert_allclose(sample.depth_m[3, :4], [0, 10 / 255, 1280 / 255, 10], rtol=1e-6)
    assert sample.valid[3, :4].tolist() == [False, True, True, True]
    (note,) = reader.notes
    assert (
        note
        == f"{tmp_path}: allow_8_bit: 8-bit depth has 255 steps, each 0.0392157 m, the farthest of 255 of them 10 m"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depth_is": "disparity", "baseline_m": 0.1, "focal_px": 500.0, "px_per_unit": 0.25}, "each 0.25 px"),
        ({"depth_is": "inverse", "inverse_per_unit": 0.01}, "each 0.01/m"),
        ({"depth_is": "affine_inverse"}, "each 1/255 of the inverse depth"),
    ],
)
def test_the_step_of_8_bits_that_are_no_meters(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    reader = reader_of(tmp_path, np.arange(100, 116).astype(np.uint8), ".png", allow_8_bit=True, **options)
    assert said in reader.notes[0] and "meters" not in reader.notes[0]
    assert reader[0].valid.all()


def test_inverse_depth_needs_no_baseline(tmp_path: Path) -> None:
    # 1/m = raw / 32767.5: 65535 is 0.5 m, 32767.5 is 1 m, 1 is 32.8 km.
    raw = np.array([0, 1, 13107, 65535] * 4, np.uint16)
    options: dict[str, Any] = {"depth_is": "inverse", "inverse_per_unit": 1 / 32767.5, "max_depth_m": 10.0}
    sample = reader_of(tmp_path, raw, **options)[0]
    np.testing.assert_allclose(sample.depth_m[0, :4], [0, 32767.5, 2.5, 0.5], rtol=1e-6)
    assert sample.valid[0, :4].tolist() == [False, False, True, True]


def test_the_offset_of_middlebury_is_added_to_the_disparity(tmp_path: Path) -> None:
    # Middlebury: Z = baseline * f / (d + doffs). 0.2 * 1000 / (48.9 + 31.1) = 2.5; without the offset it is 4.09.
    raw = np.array([48.9, np.inf, -11.1, -31.1] * 4, np.float32)
    options: dict[str, Any] = {
        "depth_is": "disparity",
        "baseline_m": 0.2,
        "focal_px": 1000.0,
        "disparity_offset_px": 31.1,
    }
    sample = reader_of(tmp_path, raw, **options)[0]
    # A disparity below 0 is in front of infinity, as long as it is above minus the offset.
    assert sample.valid[0, :4].tolist() == [True, False, True, False]
    np.testing.assert_allclose(sample.depth_m[0, [0, 2]], [2.5, 10.0], rtol=1e-5)
    scaled = reader_of(tmp_path, np.round(raw[:1] * 256).repeat(16).astype(np.uint16), px_per_unit=1 / 256, **options)
    assert scaled[0].depth_m[0, 0] == pytest.approx(2.5, rel=1e-4)


@pytest.mark.parametrize("next_to", ["depth", "image", "intrinsics"])
def test_an_offset_that_a_calibration_names_is_not_left_out_in_silence(tmp_path: Path, next_to: str) -> None:
    for folder in ("depth", "image", "intrinsics"):
        (tmp_path / folder).mkdir()
    calibration = (
        "cam0=[1000 0 8; 0 1000 6; 0 0 1]\ncam1=[1000 0 39.1; 0 1000 6; 0 0 1]\n doffs= 31.1 \nbaseline= 200\n"
    )
    (tmp_path / next_to / "calib.txt").write_text(f"{calibration}width=16\nheight=12\n")
    np.save(tmp_path / "depth/0.npy", np.full((12, 16), 48.9, np.float32))
    cv2.imwrite(str(tmp_path / "image/0.png"), np.zeros((12, 16, 3), np.uint8))
    (tmp_path / "list.txt").write_text("image/0.png depth/0.npy\n")
    options: dict[str, Any] = {"root": str(tmp_path), "list": "list.txt", "depth_is": "disparity", "baseline_m": 0.2}
    if next_to == "intrinsics":
        (tmp_path / "intrinsics/calib.txt").rename(tmp_path / "intrinsics/scene.txt")
        options["intrinsics"] = "intrinsics/scene.txt"
    else:
        options["focal_px"] = 1000.0
    with pytest.raises(ListError, match=r"doffs 31\.1.* Set disparity_offset_px: 31\.1 in pairs"):
        Pairs(**options)[0]
    # 0.2 * 1000 / (48.9 + 31.1), and without an offset, which may be in the numbers already.
    for offset_px, depth_m in ((31.1, 2.5), (0.0, 200 / 48.9)):
        reader = Pairs(**options, disparity_offset_px=offset_px)
        assert reader[0].depth_m[0, 0] == pytest.approx(depth_m, rel=1e-5) and not reader.notes


def test_disparity_without_an_offset_is_noted_and_needs_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "calib.txt").write_text("P0: 7.2e+02 0 6.1e+02 0\n")  # of KITTI
    reader = reader_of(tmp_path, np.full(16, 50.0, np.float32), depth_is="disparity", baseline_m=0.2, focal_px=1000.0)
    assert reader[0].depth_m[0, 0] == pytest.approx(4.0, rel=1e-6)
    (note,) = reader.notes
    assert "disparity_offset_px" in note and "doffs" in note
    (tmp_path / "calib.txt").write_text("cam0=[1000 0 8; 0 1000 6; 0 0 1]\ndoffs=0\n")
    assert reader[0].valid.all()


@pytest.mark.parametrize("shift_and_scale", [(0.0, 1.0), (-3.0, 0.25), (5000.0, 7.0)])
def test_affine_labels_teach_the_same_whatever_scale_and_shift(
    tmp_path: Path, shift_and_scale: tuple[float, float]
) -> None:
    shift, scale = shift_and_scale
    inverse_m = 1.0 / (1.0 + COLUMNS / 4.0)
    sample = reader_of(tmp_path, shift + scale * inverse_m, depth_is="affine_inverse")[0]
    assert sample.valid.all() and sample.camera is None
    assert (sample.depth_m.min(), sample.depth_m.max()) == (pytest.approx(1.0), pytest.approx(10.0))
    target = torch.from_numpy(1.0 / sample.depth_m)[None, None]
    pred = torch.from_numpy(np.repeat(inverse_m[None], 12, 0)).float()[None, None]
    inside = torch.ones_like(target, dtype=torch.bool)
    assert Ssi().per_image(pred, target, inside).item() == pytest.approx(0.0, abs=1e-4)
    assert Ssi().per_image(pred.flip(-1), target, inside).item() > 0.5


def test_affine_labels_hold_0_and_invalid_values_that_are_named(tmp_path: Path) -> None:
    raw = np.array([0, 100, 200, 255] * 4, np.uint8)
    options = {"depth_is": "affine_inverse", "allow_8_bit": True}
    assert reader_of(tmp_path, raw, ".png", **options)[0].valid.all()
    named = reader_of(tmp_path, raw, ".png", invalid=(0, 255), **options)[0]
    assert named.valid[0, :4].tolist() == [False, True, True, False]
    np.testing.assert_allclose(named.depth_m[0, 1:3], [10.0, 1.0])
    flat = reader_of(tmp_path, np.full(16, 7.0), depth_is="affine_inverse")[0]
    assert flat.valid.all() and (flat.depth_m == 10.0).all()
    assert not reader_of(tmp_path, np.full(16, np.nan), depth_is="affine_inverse")[0].valid.any()


# Planes at 1 m and 4 m: f / (f - n) * (1 - n / z) is 4/3 * (1 - 1/2) = 2/3 at 2 m, and 4/3 * (1 - 5/8) = 1/2 at 1.6 m.
PLANES: dict[str, Any] = {"depth_is": "z_buffer", "z_near_m": 1.0, "z_far_m": 4.0}


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({}, np.array([2 / 3, 0.5, 1.0, np.nan] * 4, np.float32)),
        ({"z_buffer_range": "zero_to_one", "z_buffer_per_unit": 1 / 65535}, np.array([43690, 32767.5, 65535, 0] * 4)),
        ({"z_buffer_range": "one_to_zero"}, np.array([1 / 3, 0.5, 0.0, -0.0] * 4, np.float32)),
        ({"z_buffer_range": "minus_one_to_one"}, np.array([1 / 3, 0.0, 1.0, np.inf] * 4, np.float32)),
    ],
)
def test_a_depth_buffer_is_meters_between_its_planes(tmp_path: Path, options: dict[str, Any], raw: np.ndarray) -> None:
    reader = reader_of(tmp_path, raw, **PLANES, **options)
    sample = reader[0]
    assert sample.valid[0, :4].tolist() == [True, True, False, False]
    np.testing.assert_allclose(sample.depth_m[0, :4], [2.0, 1.6, 0.0, 0.0], rtol=1e-6)
    assert reader.stored_number(2.0) == pytest.approx(raw[0], rel=1e-6)
    nearer = reader_of(tmp_path, raw, **PLANES, **options, max_depth_m=1.8, min_depth_m=1.5)[0]
    assert nearer.valid[0, :4].tolist() == [False, True, False, False]


def test_a_depth_buffer_without_a_far_plane(tmp_path: Path) -> None:
    # 0.1 / z: what is at 10 km is as exact as what is near.
    raw = np.array([0.05, 1e-5, 0.0, 1.0] * 4, np.float32)
    options: dict[str, Any] = {
        "depth_is": "z_buffer",
        "z_near_m": 0.1,
        "z_far_m": float("inf"),
        "z_buffer_range": "one_to_zero",
    }
    sample = reader_of(tmp_path, raw, **options)[0]
    np.testing.assert_allclose(sample.depth_m[0, :4], [2.0, 1e4, 0.0, 0.1], rtol=1e-6)
    assert sample.valid[0, :4].tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("options", "raw", "said"),
    [
        # Meters, device coordinates and 16 bits, all taken for numbers from 0 to 1.
        ({}, np.full(16, 2.5, np.float32), "holds 2.5, but a depth buffer zero_to_one has numbers from 0 to 1"),
        ({}, np.linspace(-1, 1, 16, dtype=np.float32), "holds -1, but"),
        (
            {"z_buffer_range": "one_to_zero"},
            np.arange(16, dtype=np.uint16) + 30000,
            "one_to_zero has numbers from 0 to 1",
        ),
        ({"z_buffer_range": "minus_one_to_one"}, np.full(16, 1.5, np.float32), "has numbers from -1 to 1"),
        ({"z_buffer_per_unit": 1 / 255}, np.arange(16, dtype=np.uint16) + 300, "has numbers from 0 to 255"),
    ],
)
def test_numbers_that_no_such_depth_buffer_has_are_refused(
    tmp_path: Path, options: dict[str, Any], raw: np.ndarray, said: str
) -> None:
    with pytest.raises(DataError, match=r"0\.npy: holds .*z_buffer_range and z_buffer_per_unit") as caught:
        reader_of(tmp_path, raw, **PLANES, **options)[0]
    assert said in str(caught.value)


def test_codes_for_nothing_are_no_numbers_of_a_depth_buffer(tmp_path: Path) -> None:
    raw = np.array([0.5, -1.0, 0.5, 2.0] * 4, np.float32)
    sample = reader_of(tmp_path, raw, **PLANES, invalid=(-1.0, 2.0))[0]
    assert sample.valid[0, :4].tolist() == [True, False, True, False] and sample.depth_m[0, 0] == np.float32(1.6)
    # A few beyond the far plane are no reason to refuse the map.
    raw[1] = 0.75
    assert reader_of(tmp_path, np.abs(raw), **PLANES)[0].valid[0, :4].tolist() == [True, True, True, False]


def test_z_and_24_bits_through_the_reader(tmp_path: Path) -> None:
    points = np.stack([COLUMNS, COLUMNS + 1, COLUMNS + 1000.0], axis=-1)
    sample = reader_of(tmp_path, points, depth_channels="z", meters_per_unit=0.001)[0]
    np.testing.assert_allclose(sample.depth_m[0], (COLUMNS + 1000) / 1000)
    counts = 200_000 + COLUMNS * 5000
    blue_green_red = np.stack([counts // 65536, counts // 256 % 256, counts % 256], axis=-1).astype(np.uint8)
    unit = 1000 / (256**3 - 1)
    sample = reader_of(tmp_path, blue_green_red, ".png", depth_channels="rgb24", meters_per_unit=unit)[0]
    np.testing.assert_allclose(sample.depth_m[0], counts * unit, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"depth_is": "inverse"}, "inverse_per_unit"),
        ({"depth_is": "inverse", "inverse_per_unit": 0.0}, "inverse_per_unit"),
        ({"depth_is": "inverse", "inverse_per_unit": 1.0, "meters_per_unit": 0.001}, "meters_per_unit"),
        ({"depth_is": "inverse", "inverse_per_unit": 1.0, "baseline_m": 0.1}, "baseline_m"),
        ({"meters_per_unit": 0.001, "disparity_offset_px": 31.0}, "disparity_offset_px"),
        ({"meters_per_unit": 0.001, "inverse_per_unit": 1.0}, "inverse_per_unit"),
        ({"depth_is": "z_buffer", "z_far_m": 4.0}, "z_near_m"),
        ({"depth_is": "z_buffer", "z_near_m": 1.0}, "z_far_m"),
        ({"depth_is": "z_buffer", "z_near_m": 4.0, "z_far_m": 4.0}, "z_far_m"),
        ({"depth_is": "z_buffer", "z_near_m": 4.0, "z_far_m": float("nan")}, "z_far_m"),
        ({"depth_is": "z_buffer", "z_near_m": 1.0, "z_far_m": 4.0, "z_buffer_per_unit": 0.0}, "z_buffer_per_unit"),
        ({"depth_is": "z_buffer", "z_near_m": 1.0, "z_far_m": 4.0, "meters_per_unit": 1.0}, "meters_per_unit"),
        ({"meters_per_unit": 1.0, "z_near_m": 1.0}, "z_near_m"),
        ({"depth_is": "affine_inverse", "max_depth_m": 3.0}, "max_depth_m"),
        ({"depth_is": "affine_inverse", "min_depth_m": 3.0}, "min_depth_m"),
        ({"depth_is": "affine_inverse", "meters_per_unit": 1.0}, "meters_per_unit"),
        (
            {"depth_is": "disparity", "baseline_m": 1.0, "focal_px": 9.0, "disparity_offset_px": float("inf")},
            "disparity_offset_px",
        ),
    ],
)
def test_a_key_that_the_numbers_do_not_have_is_refused(options: Mapping[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Pairs(root="room", list="list.txt", **options)
    assert caught.value.key == key


def test_labels_without_a_unit_are_for_a_relative_head(frames: Path, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    text = RECIPE.format(output=tmp_path, checkpoint=tmp_path / "weights.pth", root=frames)
    path.write_text(text.replace("meters_per_unit: 0.001", "depth_is: affine_inverse", 1))
    with pytest.raises(RecipeFaults) as caught:
        load_recipe(path, check_files=False)
    said = str(caught.value)
    assert "data.train.0.depth_is is 'affine_inverse' and model.head is 'metric'" in said and "inverse_per_unit" in said


@pytest.mark.parametrize(
    ("options", "raw"),
    [
        ({"meters_per_unit": 0.001}, 2500),
        ({"depth_is": "inverse", "inverse_per_unit": 0.0001}, 4000),
        (
            {
                "depth_is": "disparity",
                "baseline_m": 0.1,
                "focal_px": 500.0,
                "px_per_unit": 0.5,
                "disparity_offset_px": 5.0,
            },
            30,
        ),
    ],
)
def test_the_stored_number_of_a_depth(tmp_path: Path, options: dict[str, Any], raw: int) -> None:
    # 1 / 4000 * 10000 = 2.5; 500 * 0.1 / (30 * 0.5 + 5) = 2.5
    reader = reader_of(tmp_path, np.full(16, raw, np.uint16), **options)
    assert reader[0].depth_m[0, 0] == np.float32(2.5)
    assert reader.stored_number(2.5) == pytest.approx(raw)
    labels = Pairs(root="room", list="list.txt", depth_is="affine_inverse")
    assert labels.stored_number(2.5) is None

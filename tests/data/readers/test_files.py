"""Decoding of images, depth maps and intrinsics, on files written here."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.data.readers import files
from finetune.data.readers.files import DepthCoding, read_depth, read_frame, read_image
from finetune.data.readers.intrinsics import read_intrinsics
from finetune.utils.errors import DataError, ListError, RecipeError

MILLIMETERS = DepthCoding(meters_per_unit=0.001)


def write(path: Path, pixels: NDArray) -> Path:
    """Writes what OpenCV calls an image: color in the order blue, green, red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def red_then_blue(dtype: type = np.uint8) -> NDArray:
    """(8, 16, 3), blue-green-red: the left half pure red, the right half pure blue."""
    pixels: NDArray = np.zeros((8, 16, 3), dtype)
    pixels[:, :8, 2] = np.iinfo(dtype).max
    pixels[:, 8:, 0] = np.iinfo(dtype).max
    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "A.PNG", "größe 室.png"])
def test_colors_come_as_red_green_blue(tmp_path: Path, name: str) -> None:
    image = read_image(write(tmp_path / name, red_then_blue()))
    assert image.shape == (8, 16, 3) and image.dtype == np.uint8
    # WebP is lossy here; a swap of red and blue would be off by 255.
    np.testing.assert_allclose(image[4, 2].astype(int), [255, 0, 0], atol=4)
    np.testing.assert_allclose(image[4, 13].astype(int), [0, 0, 255], atol=4)


def test_jpeg_colors_come_as_red_green_blue(tmp_path: Path) -> None:
    image = read_image(write(tmp_path / "a.jpg", red_then_blue()))
    np.testing.assert_allclose(image[4, 1].astype(int), [255, 0, 0], atol=4)


def test_16_bit_images_are_divided_by_257_and_rounded(tmp_path: Path) -> None:
    assert read_image(write(tmp_path / "a.png", red_then_blue(np.uint16)))[0, 0].tolist() == [255, 0, 0]
    levels = np.array([[0, 128, 129, 257, 385, 386, 65535]], np.uint16)
    # 128 / 257 = 0.498, 129 / 257 = 0.502, 385 / 257 = 1.498, 386 / 257 = 1.502
    assert read_image(write(tmp_path / "b.png", levels))[0, :, 0].tolist() == [0, 0, 1, 1, 1, 2, 255]


def test_gray_becomes_three_equal_channels_and_alpha_is_dropped(tmp_path: Path) -> None:
    gray = read_image(write(tmp_path / "gray.png", np.full((4, 6), 77, np.uint8)))
    assert gray.shape == (4, 6, 3) and (gray == 77).all()
    transparent = np.dstack([red_then_blue(), np.zeros((8, 16), np.uint8)])
    np.testing.assert_array_equal(read_image(write(tmp_path / "alpha.png", transparent))[0, 0], [255, 0, 0])


def test_an_exif_tag_does_not_turn_the_image_away_from_its_depth(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", red_then_blue())
    tag = struct.pack("<HHII", 0x0112, 3, 1, 6)  # orientation 6: turn by 90 degrees
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 0)
    data = path.read_bytes()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:])
    turned = cv2.imread(str(path))
    assert turned is not None and turned.shape == (16, 8, 3)  # OpenCV does see the tag
    assert read_image(path).shape == (8, 16, 3)


def test_images_from_numpy_files(tmp_path: Path) -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.save(tmp_path / "a.npy", image)
    np.savez(tmp_path / "b.npz", rgb=image, depth=np.ones((2, 3)))
    np.savez(tmp_path / "c.npz", image=image, depth=np.ones((2, 3)))
    np.savez(tmp_path / "d.npz", image)
    for name in ("a.npy", "b.npz", "c.npz", "d.npz"):
        np.testing.assert_array_equal(read_image(tmp_path / name), image)


def test_float_images_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3, 3), np.float32))
    with pytest.raises(DataError, match=r"a\.npy: its image is float32"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", np.uint16), ("a.png", np.uint8), ("a.tiff", np.uint16), ("a.pgm", np.uint16)]
)
def test_depth_comes_as_it_is_stored(tmp_path: Path, name: str, dtype: type) -> None:
    raw: NDArray = np.array([[0, 1, 2], [100, 254, 255]], dtype) * (257 if dtype is np.uint16 else 1)
    read = read_depth(write(tmp_path / name, raw.astype(dtype)))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, raw)


def test_float_depth_from_tiff_npy_and_npz(tmp_path: Path) -> None:
    raw = np.array([[0.5, np.nan], [np.inf, -1.0]], np.float32)
    write(tmp_path / "a.tiff", raw)
    np.save(tmp_path / "b.npy", raw)
    np.save(tmp_path / "c.npy", raw[None])
    np.save(tmp_path / "d.npy", raw[..., None])
    np.savez_compressed(tmp_path / "e.npz", raw)
    np.savez(tmp_path / "f.npz", depth=raw, confidence=np.ones((2, 2)))
    for name in ("a.tiff", "b.npy", "c.npy", "d.npy", "e.npz", "f.npz"):
        read = read_depth(tmp_path / name)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, raw)


def test_what_is_no_depth_map_is_refused_with_its_name_and_a_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"color\.png: has 3 channels: it looks color-mapped\. Export the measured"):
        read_depth(write(tmp_path / "color.png", red_then_blue()))
    with pytest.raises(DataError, match=r"a\.jpg: is a JPEG"):
        read_depth(write(tmp_path / "a.jpg", np.ones((2, 2), np.uint8)))
    np.savez(tmp_path / "two.npz", near=np.ones((2, 2)), far=np.ones((2, 2)))
    with pytest.raises(DataError, match=r"two\.npz: holds the arrays near, far\. Name the one to read depth, or set"):
        read_depth(tmp_path / "two.npz")
    assert read_depth(tmp_path / "two.npz", key="far").shape == (2, 2)
    with pytest.raises(DataError, match=r"holds the arrays near, far, and depth_key is z\. Set depth_key to"):
        read_depth(tmp_path / "two.npz", key="z")
    np.save(tmp_path / "flat.npy", np.ones(7))
    with pytest.raises(DataError, match=r"flat\.npy: is an array of shape \(7,\)"):
        read_depth(tmp_path / "flat.npy")
    with pytest.raises(DataError, match=r"holds numbers without a name, and depth_key is depth\. Leave out depth_key"):
        read_depth(tmp_path / "flat.npy", key="depth")
    np.save(tmp_path / "truth.npy", np.ones((2, 2), bool))
    with pytest.raises(DataError, match=r"truth\.npy: holds values of type bool"):
        read_depth(tmp_path / "truth.npy")


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.npy", "a.npz"])
@pytest.mark.parametrize("read", [read_image, read_depth])
def test_broken_files_are_one_sentence(tmp_path: Path, name: str, read: type) -> None:
    path = tmp_path / name
    raw = np.random.default_rng(0).integers(0, 65535, (64, 64), dtype=np.uint16)
    if name.endswith("npz"):
        np.savez(path, raw)
    elif name.endswith("npy"):
        np.save(path, raw)
    else:
        write(path, raw)
    whole = path.read_bytes()
    read(path)
    for content in (
        whole[: len(whole) // 2],
        whole[:-20],
        whole[:30],
        b"",
        b"version https://git-lfs.github.com/spec/v1",
    ):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        read(path)
    path.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read(path)


def test_a_truncated_jpeg_is_not_taken_for_a_half_gray_image(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.jpg: is a damaged or truncated JPEG"):
        read_image(path)
    path.write_bytes(b"version https")
    with pytest.raises(DataError, match=r"a\.jpg: is no image: it begins with b'version http'"):
        read_image(path)


def test_meters_and_valid_by_hand() -> None:
    coding = DepthCoding(meters_per_unit=0.001, invalid=(0.0, 65535.0), min_depth_m=0.3, max_depth_m=7.9)
    depth_m, valid = coding.to_meters(np.array([[0, 1, 300, 301], [7900, 7901, 65534, 65535]], np.uint16))
    assert depth_m.dtype == np.float32 and valid.dtype == np.bool_
    # Above 0.3 and up to 7.9, both as float32; what is beyond stays readable, so that a wrong unit can be noticed.
    assert valid.tolist() == [[False, False, False, True], [True, False, False, False]]
    np.testing.assert_array_equal(depth_m, np.array([[0, 0.001, 0.3, 0.301], [7.9, 7.901, 65.534, 65.535]], np.float32))


def test_nan_infinity_and_negative_depth_are_not_valid() -> None:
    raw = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 1e39, 2.0]], np.float64)
    depth_m, valid = DepthCoding(meters_per_unit=1.0, invalid=()).to_meters(raw)
    assert valid.tolist() == [[False, False, False, False, False, False, True]]
    assert np.isfinite(depth_m).all()


def test_invalid_is_compared_before_scaling() -> None:
    raw = np.array([[2.0, 0.1, 0.2]], np.float32)
    assert DepthCoding(meters_per_unit=10.0, invalid=(2.0,)).to_meters(raw)[1].tolist() == [[False, True, True]]
    assert DepthCoding(meters_per_unit=10.0, invalid=(0.1,)).to_meters(raw)[1].tolist() == [[True, False, True]]
    eight_bit = np.array([[0, 255]], np.uint8)
    assert DepthCoding(meters_per_unit=1.0, invalid=(0.0, 65535.0)).to_meters(eight_bit)[1].tolist() == [[False, True]]


def test_the_range_of_depths_is_checked() -> None:
    files.require_depth_range(0.0, None)
    files.require_depth_range(0.3, 10.0)
    for low, high, key in ((-0.1, None, "min_depth_m"), (float("nan"), None, "min_depth_m"), (2.0, 2.0, "max_depth_m")):
        with pytest.raises(RecipeError) as caught:
            files.require_depth_range(low, high)
        assert caught.value.key == key


INTRINSICS = {"width": 16, "height": 8, "fx": 10.0, "fy": 11.0, "cx": 7.5, "cy": 3.5}


@pytest.mark.parametrize(
    "content",
    [
        INTRINSICS,
        {"width": 16, "height": 8, "intrinsic_matrix": [10, 0, 0, 0, 11, 0, 7.5, 3.5, 1]},
        {"width": 16, "height": 8, "K": [[10, 0, 7.5], [0, 11, 3.5], [0, 0, 1]], "D": [0, 0, 0, 0, 0]},
        {"width": 16, "height": 8, "K": [10, 0, 7.5, 0, 11, 3.5, 0, 0, 1]},
    ],
)
def test_the_three_forms_of_intrinsics(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "intrinsics.json"
    path.write_text(json.dumps(content))
    intrinsics = read_intrinsics(path)
    camera = intrinsics.camera
    assert (camera.fx_px, camera.fy_px, camera.cx_px, camera.cy_px) == (10.0, 11.0, 7.5, 3.5)
    assert (intrinsics.height, intrinsics.width) == (8, 16)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "cannot be read as intrinsics"),
        ("[1, 2]", "not a JSON object"),
        (json.dumps({**INTRINSICS, "fx": "wide"}), "cannot be read as intrinsics"),
        (json.dumps({key: value for key, value in INTRINSICS.items() if key != "width"}), "has no width"),
        (json.dumps({key: value for key, value in INTRINSICS.items() if key != "cx"}), "has no cx"),
        (json.dumps({**INTRINSICS, "fy": -480.0}), "fy -480.0"),
        (json.dumps({"width": 16, "height": 8, "K": [1, 2, 3]}), "K has 3 numbers, not 9"),
    ],
)
def test_intrinsics_that_cannot_be_used_name_their_file(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "intrinsics.json"
    path.write_text(text)
    with pytest.raises(ListError, match=found) as caught:
        read_intrinsics(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_frame_whose_parts_differ_in_size_is_refused(tmp_path: Path) -> None:
    image = str(write(tmp_path / "a.jpg", red_then_blue()))
    small = str(write(tmp_path / "small.png", np.ones((4, 8), np.uint16)))
    with pytest.raises(DataError, match=r"small\.png: depth is 4x8 .* its image .*a\.jpg is 8x16\. Export both"):
        read_frame(image, small, MILLIMETERS, None)
    depth = str(write(tmp_path / "a.png", np.full((8, 16), 1500, np.uint16)))
    (tmp_path / "i.json").write_text(json.dumps({**INTRINSICS, "width": 32, "height": 16}))
    # Twice as large: fx 10 -> 5, and the center (7.5 + 0.5) / 2 - 0.5 = 3.5
    with pytest.raises(DataError, match=r"a\.jpg: is 8x16 .* is for 16x32\. .* fx 5\.000, fy 5\.500, cx 3\.500"):
        read_frame(image, depth, MILLIMETERS, read_intrinsics(tmp_path / "i.json"))
    sample = read_frame(image, depth, MILLIMETERS, None)
    assert sample.source == depth and sample.valid.all() and sample.depth_m[0, 0] == np.float32(1.5)


@pytest.mark.parametrize(
    "coding",
    [
        DepthCoding(meters_per_unit=0.001, invalid=(0.0, 65535.0, 7.0), max_depth_m=7.9),
        DepthCoding(meters_per_unit=1 / 256, min_depth_m=0.5, offset=-0.25),
        DepthCoding(meters_per_unit=1.0, bits="float16"),
        DepthCoding(meters_per_unit=0.001, bits="android_confidence", max_depth_m=4.0),
    ],
)
def test_numbers_of_16_bits_are_looked_up_as_others_are_converted(coding: DepthCoding) -> None:
    stored = np.random.default_rng(0).permutation(1 << 16).astype(np.uint16).reshape(256, 256)[::-1, ::2]
    other = stored if coding.bits else stored.astype(np.int64)
    depth_m, valid = coding.to_meters(stored)
    expected_m, measured = coding._convert(other)
    assert depth_m.dtype == np.float32 and valid.dtype == np.bool_
    assert np.array_equal(depth_m, expected_m) and np.array_equal(valid, measured)
    depth_m[:], valid[:] = 1.0, True  # the next map is not made of the same memory
    assert np.array_equal(coding.to_meters(stored)[0], expected_m)

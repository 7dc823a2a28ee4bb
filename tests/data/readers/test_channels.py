"""Depth maps of several channels, out of files of every kind that holds some."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.files import read_depth
from finetune.utils.errors import DataError

RNG = np.random.default_rng(0)


def write(path: Path, channels: np.ndarray) -> Path:
    """(H, W, C) in the order red, green, blue, alpha, or x, y, z."""
    swapped = np.concatenate([channels[..., 2::-1], channels[..., 3:]], axis=2)
    assert cv2.imwrite(str(path), swapped)
    return path


def points() -> np.ndarray:
    return RNG.random((4, 5, 3), dtype=np.float32)


def test_z_of_points_from_tiff_and_numpy(tmp_path: Path) -> None:
    xyz = points()
    write(tmp_path / "a.tiff", xyz)
    np.save(tmp_path / "b.npy", xyz)
    np.save(tmp_path / "c.npy", xyz.transpose(2, 0, 1))
    for name in ("a.tiff", "b.npy"):
        np.testing.assert_array_equal(read_depth(tmp_path / name, "z"), xyz[..., 2])
        np.testing.assert_array_equal(read_depth(tmp_path / name, "r"), xyz[..., 0])
        with pytest.raises(DataError, match=r"3 channels of floats, as a map of points .* Set depth_channels: z"):
            read_depth(tmp_path / name)
    wide = RNG.random((3, 6, 8))
    np.save(tmp_path / "d.npy", wide)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy", "z"), wide[2])


def test_24_bits_in_either_order(tmp_path: Path) -> None:
    # 1000 m in 2**24 - 1 steps: 12.5 m is 209715, which is 51 + 256 * 51 + 65536 * 3.
    counts = np.array([[209715, 0, 16777215], [1, 256, 65536]])
    low_first = np.stack([counts % 256, counts // 256 % 256, counts // 65536], axis=-1).astype(np.uint8)
    assert low_first[0, 0].tolist() == [51, 51, 3]
    opaque = np.full((2, 3, 1), 255, np.uint8)
    carla = write(tmp_path / "a.png", np.concatenate([low_first, opaque], axis=2))
    np.testing.assert_array_equal(read_depth(carla, "rgb24"), counts)
    np.testing.assert_array_equal(read_depth(write(tmp_path / "b.png", low_first[..., ::-1]), "bgr24"), counts)
    np.testing.assert_array_equal(read_depth(write(tmp_path / "c.png", low_first), "rgb24"), counts)


def test_more_colors_than_a_map_has_are_named_as_24_bits(tmp_path: Path) -> None:
    counts = np.arange(30 * 40).reshape(30, 40) * 37
    path = write(
        tmp_path / "a.png", np.stack([counts % 256, counts // 256 % 256, counts // 65536], -1).astype(np.uint8)
    )
    with pytest.raises(
        DataError, match=r"depth in 24 bits, .*depth_channels: rgb24 and meters_per_unit: 5\.960465e-05"
    ):
        read_depth(path)
    colored = cv2.applyColorMap((counts % 256).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    with pytest.raises(DataError, match="it looks color-mapped"):
        read_depth(write(tmp_path / "b.png", colored))


def test_gray_in_several_channels_is_one(tmp_path: Path) -> None:
    gray = np.arange(20, dtype=np.uint16).reshape(4, 5, 1) * 700
    opaque = np.full_like(gray, 65535)
    for name, parts in (("rgb.png", [gray] * 3), ("rgba.png", [gray] * 3 + [opaque])):
        np.testing.assert_array_equal(read_depth(write(tmp_path / name, np.concatenate(parts, 2))), gray[..., 0])
    np.save(tmp_path / "gray_alpha.npy", np.concatenate([gray, opaque], 2))
    np.testing.assert_array_equal(read_depth(tmp_path / "gray_alpha.npy"), gray[..., 0])
    nan = np.full((4, 5, 3), np.nan)
    np.save(tmp_path / "nan.npy", nan)
    assert np.isnan(read_depth(tmp_path / "nan.npy")).all()


def test_an_alpha_that_differs_is_left_aside_only_when_it_is_said(tmp_path: Path) -> None:
    gray = np.arange(20, dtype=np.uint16).reshape(4, 5, 1) * 700
    path = write(tmp_path / "a.png", np.concatenate([gray] * 3 + [gray], 2))
    with pytest.raises(DataError, match=r"gray with an alpha channel that differs .* Set depth_channels: gray"):
        read_depth(path)
    np.testing.assert_array_equal(read_depth(path, "gray"), gray[..., 0])


def test_a_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    one = tmp_path / "one.npy"
    np.save(one, np.ones((4, 5)))
    with pytest.raises(DataError, match=r"has one channel, and depth_channels is rgb24\. Leave depth_channels out"):
        read_depth(one, "rgb24")
    np.save(one, points())
    with pytest.raises(DataError, match="is float32, and depth_channels rgb24 needs 8 bits each"):
        read_depth(one, "rgb24")
    with pytest.raises(DataError, match="has channels that differ, and depth_channels is gray"):
        read_depth(one, "gray")
    np.save(one, np.stack([np.arange(20.0).reshape(4, 5)] * 2, -1) * [1, 2])
    with pytest.raises(DataError, match="has 2 channels, and depth_channels z needs three"):
        read_depth(one, "z")
    np.save(one, np.ones((6, 5, 7)))
    with pytest.raises(DataError, match=r"is an array of shape \(6, 5, 7\)"):
        read_depth(one, "z")

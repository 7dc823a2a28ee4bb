"""Pixels of every encoding that is read: exact where the encoding is exact."""

from __future__ import annotations

import struct
from typing import Any, cast

import cv2
import numpy as np
import pytest

from finetune.prepare.bag.image_messages import (
    holds_color,
    holds_depth,
    read_color,
    read_compressed_color,
    read_compressed_depth,
    read_depth,
)
from finetune.prepare.bag.messages import CompressedMessage, ImageMessage, decode_image, decode_message
from finetune.utils.errors import DataError
from tests.prepare.bag.written_bags import (
    COMPRESSED,
    IMAGE,
    compressed,
    compressed_depth,
    encode,
    image,
    make_raw,
)

random = np.random.default_rng(7)
RGB = random.integers(0, 256, (6, 8, 3), np.uint8)
GRAY = random.integers(0, 256, (6, 8), np.uint8)
COUNTS = random.integers(1, 65536, (6, 8)).astype(np.uint16)
COUNTS[0, 0] = 0


def raw_image(pixels: np.ndarray, encoding: str, *, ros1: bool = True, **more: Any) -> ImageMessage:
    raw = make_raw(IMAGE, image(pixels, encoding, **more), ros1=ros1)
    return decode_image(raw, ros1=ros1)[0]


def packed(data: bytes, kind: str, *, ros1: bool = True) -> CompressedMessage:
    message = decode_message(make_raw(COMPRESSED, compressed(data, kind), ros1=ros1), COMPRESSED, ros1=ros1)
    return cast(CompressedMessage, message)


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 9)], axis=2)


@pytest.mark.parametrize("ros1", [True, False])
@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("pixels", "encoding", "expected"),
    [
        (RGB, "rgb8", RGB),
        (RGB[..., ::-1], "bgr8", RGB),
        (with_alpha(RGB), "rgba8", RGB),
        (with_alpha(RGB[..., ::-1]), "bgra8", RGB),
        (GRAY, "mono8", np.repeat(GRAY[..., None], 3, axis=2)),
        (GRAY, "8UC1", np.repeat(GRAY[..., None], 3, axis=2)),
        # 257 * x is x in 16 bits.
        (GRAY.astype(np.uint16) * 257, "mono16", np.repeat(GRAY[..., None], 3, axis=2)),
        (RGB[..., ::-1].astype(np.uint16) * 257, "bgr16", RGB),
    ],
)
def test_color_comes_back_exactly(
    pixels: np.ndarray, encoding: str, expected: np.ndarray, padding: int, bigendian: bool, ros1: bool
) -> None:
    message = raw_image(pixels, encoding, padding=padding, bigendian=bigendian, ros1=ros1)
    found = read_color(message, "here")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (16, 257)])
def test_bayer_keeps_what_the_sensor_measured(pattern: str, bits: int, factor: int) -> None:
    mosaic = random.integers(0, 256, (12, 10)).astype(np.uint8)
    stored = mosaic.astype(np.uint16) * 257 if factor == 257 else mosaic
    found = read_color(raw_image(stored, f"bayer_{pattern}{bits}"), "here")
    for i, color in enumerate(pattern):
        row, column = divmod(i, 2)
        channel = "rgb".index(color)
        # OpenCV copies the rim from its neighbors; inside, a measured channel stays as it is.
        np.testing.assert_array_equal(
            found[2 + row : -2 : 2, 2 + column : -2 : 2, channel], mosaic[2 + row : -2 : 2, 2 + column : -2 : 2]
        )
    plain = np.zeros((8, 8), np.uint8)
    for i, color in enumerate(pattern):
        plain[i // 2 :: 2, i % 2 :: 2] = (200, 120, 40)["rgb".index(color)]
    flat = read_color(raw_image(plain, f"bayer_{pattern}8"), "here")
    np.testing.assert_array_equal(flat, np.full((8, 8, 3), (200, 120, 40), np.uint8))


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", (1, 0)), ("yuv422_yuy2", (0, 1)), ("YUYV", (0, 1))])
def test_yuv_of_gray_is_gray(encoding: str, order: tuple[int, int]) -> None:
    # Luma 16 to 235 becomes 0 to 255; chroma 128 is gray. BT.601: round(1.164 * (Y - 16)).
    luma = np.array([[16, 126, 235, 81]] * 2, np.uint8)
    pixels = np.full((2, 4, 2), 128, np.uint8)
    pixels[..., order.index(0)] = luma
    found = read_color(raw_image(pixels, encoding), "here")
    np.testing.assert_allclose(found[0, :, 0], [0, 128, 255, 76], atol=1)
    assert (found == found[..., :1]).all()


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16"])
def test_whole_numbers_are_millimeters(encoding: str, bigendian: bool) -> None:
    message = raw_image(COUNTS, encoding, bigendian=bigendian, padding=4)
    found = read_depth(message, None, "here")
    np.testing.assert_array_equal(found, (COUNTS / 1000).astype(np.float32))
    np.testing.assert_array_equal(read_depth(message, 0.00025, "here"), (COUNTS * 0.00025).astype(np.float32))


@pytest.mark.parametrize(("encoding", "dtype"), [("32FC1", np.float32), ("64FC1", np.float64)])
@pytest.mark.parametrize("bigendian", [False, True])
def test_floats_are_meters_and_what_is_no_depth_is_0(encoding: str, dtype: type, bigendian: bool) -> None:
    depth: np.ndarray = np.array([[1.25, np.nan, np.inf], [-np.inf, -2.0, 0.1]], dtype)
    found = read_depth(raw_image(depth, encoding, bigendian=bigendian), None, "here")
    np.testing.assert_array_equal(found, np.array([[1.25, 0, 0], [0, 0, 0.1]], np.float32))
    in_millimeters = read_depth(raw_image(depth * 1000, encoding, bigendian=bigendian), 0.001, "here")
    np.testing.assert_allclose(in_millimeters, found, rtol=1e-6)


def test_compressed_color() -> None:
    png = read_compressed_color(packed(encode(".png", RGB[..., ::-1]), "rgb8; png compressed bgr8"), "here")
    np.testing.assert_array_equal(png, RGB)
    swapped = read_compressed_color(packed(encode(".png", RGB), "rgb8; png compressed rgb8"), "here")
    np.testing.assert_array_equal(swapped, RGB)
    data = encode(".jpg", RGB[..., ::-1])
    jpeg = read_compressed_color(packed(data, "bgr8; jpeg compressed bgr8", ros1=False), "here")
    np.testing.assert_array_equal(jpeg, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))
    gray = read_compressed_color(packed(encode(".png", GRAY), "mono8; png compressed "), "here")
    np.testing.assert_array_equal(gray, np.repeat(GRAY[..., None], 3, axis=2))
    alpha = read_compressed_color(packed(encode(".png", with_alpha(RGB[..., ::-1])), "png"), "here")
    np.testing.assert_array_equal(alpha, RGB)
    bayer = read_compressed_color(packed(encode(".png", GRAY), "bayer_rggb8; png compressed "), "here")
    np.testing.assert_array_equal(bayer, read_color(raw_image(GRAY, "bayer_rggb8"), "here"))


def test_compressed_depth_of_whole_numbers_is_exact() -> None:
    for data, kind in (
        (compressed_depth(COUNTS), "16UC1; compressedDepth"),
        (compressed_depth(COUNTS), "16UC1; compressedDepth png"),
        (encode(".png", COUNTS), "16UC1; png compressed "),
        (encode(".png", COUNTS), "png"),
    ):
        found = read_compressed_depth(packed(data, kind), None, "here")
        np.testing.assert_array_equal(found, (COUNTS / 1000).astype(np.float32))


def test_compressed_depth_of_floats_by_hand() -> None:
    # depth_max 10 m, quantization 100: a = 100 * 101 = 10100, b = 1 - a / 10 = -1009, q = a / depth + b.
    # At 2.5 m, q = 4040 - 1009 = 3031, and back 10100 / (3031 + 1009) = 2.5 m; at 2 m 5050 - 1009 = 4041.
    counts = np.array([[3031, 4041, 0, 1]], np.uint16)
    message = packed(compressed_depth(counts, 10100.0, -1009.0), "32FC1; compressedDepth png")
    found = read_compressed_depth(message, None, "here")
    np.testing.assert_array_equal(found, np.array([[2.5, 2.0, 0.0, 10.0]], np.float32))


def test_compressed_depth_loses_less_than_a_step_of_its_quantization() -> None:
    depth_m = np.linspace(0.4, 9.5, 4000, dtype=np.float32).reshape(40, 100)
    factor, shift = np.float32(10100.0), np.float32(1 - 10100.0 / 10)
    counts = (factor / depth_m + shift).astype(np.uint16)
    found = read_compressed_depth(
        packed(compressed_depth(counts, float(factor), float(shift)), "32FC1; compressedDepth"), None, "here"
    )
    # q is rounded down, so depth comes back larger, by at most one step: depth^2 / (a - depth).
    off = found - depth_m
    assert (off > -1e-5).all() and (off <= depth_m**2 / (10100 - depth_m) + 1e-5).all()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (lambda: read_color(raw_image(RGB, "8UC3"), "here"), "has encoding '8UC3', which is not read as an image"),
        (lambda: read_depth(raw_image(RGB, "rgb8"), None, "here"), "has encoding 'rgb8', which is not read as depth"),
        (lambda: read_depth(raw_image(GRAY, "mono8"), None, "here"), "has encoding 'mono8', which is not read"),
        (
            lambda: read_compressed_depth(packed(encode(".jpg", GRAY), "16UC1; jpeg compressed"), None, "here"),
            "is depth as JPEG, which changes depth values",
        ),
        (
            lambda: read_compressed_depth(packed(encode(".png", GRAY), "png"), None, "here"),
            "is a picture of uint8 of shape (6, 8), and depth is one of 16 bits",
        ),
        (
            lambda: read_compressed_depth(packed(bytes(20), "16UC1; compressedDepth rvl"), None, "here"),
            "compressed by RVL, which is not supported",
        ),
        (
            lambda: read_compressed_depth(packed(bytes(7), "16UC1; compressedDepth"), None, "here"),
            "of 7 bytes, without a picture",
        ),
        (
            lambda: read_compressed_depth(
                packed(compressed_depth(COUNTS)[:60], "16UC1; compressedDepth"), None, "here"
            ),
            "is a damaged or truncated PNG",
        ),
        (
            lambda: read_compressed_color(packed(encode(".jpg", RGB)[:200], "jpeg"), "here"),
            "is a damaged or truncated JPEG",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(message: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        message()
    assert words in str(caught.value)
    assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)


def test_an_image_with_too_few_bytes() -> None:
    fields = image(RGB, "rgb8")
    fields["data"] = fields["data"][:-1]
    message = decode_image(make_raw(IMAGE, fields, ros1=True), ros1=True)[0]
    with pytest.raises(DataError, match="is 8x6 of rgb8 in rows of 24 bytes, but has 143 bytes"):
        read_color(message, "here")


def test_depth_units_at_the_end_of_a_message_of_the_sdk() -> None:
    raw = make_raw(IMAGE, image(COUNTS, "mono16"), ros1=True)
    message, unit = decode_image(raw + struct.pack("<f", 0.00025), ros1=True)
    assert unit == np.float32(0.00025)
    np.testing.assert_array_equal(read_depth(message, None, "here"), (COUNTS / 1000).astype(np.float32))
    assert decode_image(raw, ros1=True)[1] == 0.0
    with pytest.raises(ValueError, match="Invalid sequence length"):
        decode_image(raw + b"123", ros1=True)


def test_encoding_given_by_the_user_wins() -> None:
    np.testing.assert_array_equal(read_color(raw_image(RGB, "8UC3"), "here", "bgr8"), RGB[..., ::-1])


def test_an_encoding_of_fewer_bytes_than_the_message_has_is_refused() -> None:
    with pytest.raises(DataError, match=r"has rows of 24 bytes, and 8 pixels of mono8 take 8 bytes\. .*says rgb8, or"):
        read_color(raw_image(RGB, "rgb8"), "here", "mono8")
    padded = decode_image(make_raw(IMAGE, image(RGB[..., 0], "mono8", padding=3), ros1=True), ros1=True)[0]
    np.testing.assert_array_equal(read_color(padded, "here", "8UC1"), np.repeat(RGB[..., :1], 3, axis=2))


def test_what_an_encoding_can_hold() -> None:
    assert holds_depth("16UC1") and holds_depth("32FC1; compressedDepth png") and holds_depth("mono16")
    assert not holds_depth("rgb8") and not holds_depth("bgr8; jpeg compressed bgr8")
    assert holds_color("bgr8; jpeg compressed bgr8") and holds_color("jpeg") and holds_color("bayer_rggb8")
    assert not holds_color("16UC1; compressedDepth") and not holds_color("16UC1; png compressed ")

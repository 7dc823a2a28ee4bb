"""TIFFs whose strips are short, and TIFFs that lie on their side."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.tiff import tiff_as_stored, tiff_is_short
from finetune.utils.errors import DataError

DEPTH = np.arange(40 * 30, dtype=np.uint16).reshape(40, 30)


def tiff(
    pixels: np.ndarray,
    *,
    orientation: int = 1,
    order: Literal["<", ">"] = "<",
    strips: int = 1,
    count: int | None = None,
) -> bytes:
    """One gray image, not compressed, as the specification's first example; ``count``: bytes that a strip claims."""
    height, width = pixels.shape
    rows = -(-height // strips)
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    row_bytes = width * pixels.itemsize
    counts = [min(rows, height - first) * row_bytes for first in range(0, height, rows)]
    claimed = counts if count is None else [count] * len(counts)
    start = 8 + len(data)
    lists = struct.pack(f"{order}{len(counts)}I", *(8 + sum(counts[:place]) for place in range(len(counts))))
    lists += struct.pack(f"{order}{len(counts)}I", *claimed)
    inline = len(counts) == 1
    offsets, lengths = (8, claimed[0]) if inline else (start, start + 4 * len(counts))
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, pixels.itemsize * 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, len(counts), offsets),
        (274, 3, 1, orientation),
        (277, 3, 1, 1),
        (278, 4, 1, rows),
        (279, 4, len(counts), lengths),
        (339, 3, 1, {"f": 3, "u": 1, "i": 2}[pixels.dtype.kind]),
    ]
    fields = b"".join(
        # A short value stands in the first two of the four bytes.
        struct.pack(f"{order}HHI{'Hxx' if kind == 3 else 'I'}", key, kind, many, value)
        for key, kind, many, value in tags
    )
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start + len(lists))
    return head + data + lists + struct.pack(f"{order}H", len(tags)) + fields + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_depth_and_images_come_as_stored_whatever_the_orientation(
    tmp_path: Path, orientation: int, order: Literal["<", ">"]
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(DEPTH, orientation=orientation, order=order))
    np.testing.assert_array_equal(read_depth(tmp_path / "a.tif"), DEPTH)
    image = (DEPTH % 251).astype(np.uint8)
    (tmp_path / "b.tif").write_bytes(tiff(image, orientation=orientation, order=order))
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif")[..., 0], image)


def test_a_turned_tiff_is_turned_where_that_is_asked_for(tmp_path: Path) -> None:
    image = (DEPTH % 251).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(image, orientation=6))  # by a quarter, clockwise, to be seen upright
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", upright=True)[..., 0], np.rot90(image, -1))


@pytest.mark.parametrize("strips", [1, 4, 7])
def test_sound_strips_are_read(tmp_path: Path, strips: int) -> None:
    for pixels in (DEPTH, DEPTH.astype(np.float32) / 7, DEPTH.astype(np.int16)):
        (tmp_path / "a.tif").write_bytes(tiff(pixels, strips=strips))
        np.testing.assert_array_equal(read_depth(tmp_path / "a.tif"), pixels)


def test_strips_that_are_short_or_end_beyond_the_file_are_refused(tmp_path: Path) -> None:
    whole = tiff(DEPTH)
    for data in (
        tiff(DEPTH, count=DEPTH.nbytes - 60),
        tiff(DEPTH, count=0),
        tiff(DEPTH, strips=4, count=59),
        tiff(DEPTH, strips=4, count=10**6),
        whole[:-40],
        whole[:9],
    ):
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tif: is a damaged or truncated TIFF"):
            read_depth(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [1, 5, 8, 32946])
def test_what_opencv_writes_is_sound(compression: int) -> None:
    for pixels in (DEPTH, DEPTH.astype(np.float32), np.dstack([DEPTH % 256] * 3).astype(np.uint8)):
        data = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, compression])[1].tobytes()
        assert not tiff_is_short(data)
        assert tiff_as_stored(data) == data
    assert not tiff_is_short(b"\x89PNG") and tiff_as_stored(b"\x89PNG") == b"\x89PNG"


@pytest.mark.parametrize(("compression", "name"), [(50000, "Zstandard"), (34925, "LZMA")])
def test_a_compression_that_is_not_decoded_is_named(
    tmp_path: Path, compression: int, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), np.ones((4, 5), np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<HHI", 259, 3, 1))  # the tag of compression: one short number
    struct.pack_into("<H", data, place + 8, compression)
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"a\.tif: is a TIFF compressed by {name}, which is not supported"):
        read_depth(path)
    assert capfd.readouterr().err == ""


def test_half_floats_in_a_tiff_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), np.ones((4, 5), np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    data = bytearray(path.read_bytes())
    place = data.index(struct.pack("<HHI", 258, 3, 1))
    struct.pack_into("<H", data, place + 8, 16)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tif: is a TIFF of half floats, which is not supported"):
        read_depth(path)

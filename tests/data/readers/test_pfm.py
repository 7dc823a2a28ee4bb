"""PFM as programs write it: either byte order, any scale, bottom row first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finetune.data.readers.files import read_depth
from finetune.data.readers.pfm import decode_pfm
from finetune.utils.errors import DataError

DEPTH = np.array([[1.5, 2.5, 3.5], [4.5, np.inf, 0.0]], np.float32)


def pfm(scale: str, order: str, kind: str = "Pf", newline: str = "\n") -> bytes:
    header = f"{kind}{newline}3 2{newline}{scale}{newline}"
    return header.encode() + DEPTH[::-1].astype(f"{order}f4").tobytes()


@pytest.mark.parametrize(
    ("scale", "order"), [("-1.0", "<"), ("1.0", ">"), ("-0.003922", "<"), ("255", ">"), ("-1e-3", "<"), ("-0.5", "<")]
)
def test_only_the_sign_of_the_scale_means_anything(tmp_path: Path, scale: str, order: str) -> None:
    (tmp_path / "a.pfm").write_bytes(pfm(scale, order))
    read = read_depth(tmp_path / "a.pfm")
    assert read.dtype == np.float32 and read.dtype.isnative
    np.testing.assert_array_equal(read, DEPTH)


def test_header_in_one_line_and_windows_line_ends() -> None:
    one_line = b"Pf 3 2 -1\n" + DEPTH[::-1].tobytes()
    for data in (one_line, pfm("-1", "<", newline="\r\n")):
        decoded = decode_pfm(data)
        assert decoded is not None
        np.testing.assert_array_equal(decoded, DEPTH)


def test_three_channels_are_points_or_colors() -> None:
    points = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    decoded = decode_pfm(b"PF\n3 2\n-1\n" + points[::-1].tobytes())
    assert decoded is not None
    np.testing.assert_array_equal(decoded, points)


@pytest.mark.parametrize(
    "data",
    [
        pfm("-1", "<")[:-1],
        b"Pf\n3 2\n",
        b"Pf\n0 2\n-1\n",
        b"Pf\n99999999 99999999\n-1\n" + bytes(64),
        b"Pf\n3 2\n-\n" + bytes(64),
        b"Pf\n-3 2\n-1\n" + bytes(64),
    ],
)
def test_what_is_damaged_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.pfm: is a damaged or truncated PFM"):
        read_depth(tmp_path / "a.pfm")

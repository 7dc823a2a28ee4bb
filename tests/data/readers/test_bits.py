"""Bits that are no plain number, by hand, and through the reader that has the key."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.bits import decode_bits
from finetune.data.readers.pairs import Pairs
from finetune.utils.errors import DataError


def test_bits_by_hand() -> None:
    # 1000 = 0b1111101000 turned left by three is 8000; 9000 = 0b10001100101000, of 16 bits turned: 6464 + 1.
    rotated, _ = decode_bits(np.array([[8000, (9000 << 3) % 65536 + 1]], np.uint16), "rotated")
    assert rotated.tolist() == [[1000, 9000]]
    # Half floats: 1.0 is 0x3C00, 2.5 is 0x4100, infinity 0x7C00.
    floats, _ = decode_bits(np.array([[0x3C00, 0x4100, 0x7C00]], np.uint16), "float16")
    assert floats.tolist() == [[1.0, 2.5, np.inf]]
    # Confidence 0 is 100 %, 1 is 0 %, 7 is 100 %.
    raw = np.array([[1234, 1 << 13 | 1234, 7 << 13 | 1234]], np.uint16)
    millimeters, confident = decode_bits(raw, "android_confidence")
    assert millimeters.tolist() == [[1234] * 3]
    assert confident.tolist() == [[True, False, True]]
    swapped, _ = decode_bits(np.array([[0xE803, 0x0001]], np.uint16), "swapped")  # 1000 is 0x03E8
    assert swapped.tolist() == [[1000, 256]]
    big_endian, _ = decode_bits(np.array([[0x3C00]], ">u2"), "float16")
    assert big_endian.tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("bits", "stored", "unit", "depth_m", "valid"),
    [
        ("rotated", [8000, 0, 14_400], 0.001, [1.0, 0.0, 1.8], [True, False, True]),
        ("float16", [0x3C00, 0, 0x7C00], 1.0, [1.0, 0.0, 0.0], [True, False, False]),
        ("android_confidence", [1500, 0x2000 | 1500, 0x6000 | 1500], 0.001, [1.5, 1.5, 1.5], [True, False, True]),
        (None, [1500, 0, 65535], 0.001, [1.5, 0.0, 65.535], [True, False, True]),
    ],
)
def test_pairs_reads_them(
    tmp_path: Path, bits: str | None, stored: list[int], unit: float, depth_m: list[float], valid: list[bool]
) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((1, 3, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a.png"), np.array([stored], np.uint16))
    (tmp_path / "l.txt").write_text("a.jpg a.png\n")
    sample = Pairs(root=str(tmp_path), list="l.txt", meters_per_unit=unit, bits=bits)[0]  # type: ignore[arg-type]
    assert sample.depth_m[0].tolist() == pytest.approx(depth_m)
    assert sample.valid[0].tolist() == valid


def test_a_pgm_of_either_byte_order(tmp_path: Path) -> None:
    millimeters = np.array([[1000, 1500, 0]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((1, 3, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "high_first.pgm"), millimeters)
    (tmp_path / "low_first.pgm").write_bytes(b"P5\n3 1\n65535\n" + millimeters.astype("<u2").tobytes())
    for name, bits in (("high_first", None), ("low_first", "swapped")):
        (tmp_path / "l.txt").write_text(f"a.jpg {name}.pgm\n")
        sample = Pairs(root=str(tmp_path), list="l.txt", meters_per_unit=0.001, bits=bits)[0]  # type: ignore[arg-type]
        assert sample.depth_m[0].tolist() == pytest.approx([1.0, 1.5, 0.0])
        assert sample.valid[0].tolist() == [True, True, False]


def test_bits_are_of_16(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((2, 3, 3), np.uint8))
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float32))
    (tmp_path / "l.txt").write_text("a.jpg a.npy\n")
    reader = Pairs(root=str(tmp_path), list="l.txt", meters_per_unit=0.001, bits="rotated")
    with pytest.raises(DataError, match=r"a\.npy: holds float32, and bits: rotated is for unsigned 16 bits"):
        reader[0]

"""Files of other formats: each is named, with what to do, and none is called damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.formats import explain_fault
from finetune.data.readers.matching import match_frames
from finetune.utils.errors import DataError, ListError

MM = np.full((240, 320), 1500, np.uint16)
PNG = cv2.imencode(".png", MM)[1].tobytes()
CASES = {
    "a.he5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "is HDF5 under another ending", "Name it .h5"),
    "b.mat": (b"MATLAB 7.3 MAT-file" + bytes(493) + b"\x89HDF\r\n\x1a\n", "is a MATLAB file", "h5py"),
    "c.bin": (b"320&240&1&" + bytes(4 * 320 * 240), "is a depth map of COLMAP, 320x240", "reshape(240, 320)"),
    "d.bin": (b"320&240&3&" + bytes(100), "is a map of COLMAP with 3 channels, normals", "16-bit PNG"),
    "e.png": (struct.pack("<iff", 1, 0, 0) + PNG, "is a message of ROS' compressedDepth", "first 12 bytes"),
    "f.png": (struct.pack("<iff", 2, 100.5, 0.25) + PNG, "compressedDepth", "100.5 / (value - 0.25)"),
    "g.raw": (MM.tobytes(), "153600 bytes of numbers without a header", "'<u2').reshape(240, 320)"),
    "h.raw": (MM[:, :319].tobytes(), "without a header, which give neither size nor type. ", "np.fromfile"),
    "i.mp4": (b"\0\0\0\x20ftypisom" + bytes(50), "is an MP4 or QuickTime video", "ffmpeg"),
    "j.heic": (b"\0\0\0\x20ftypheic" + bytes(50), "is HEIC", "JPEG or PNG"),
    "k.avi": (b"RIFF\0\0\0\0AVI LIST", "is an AVI video", "ffmpeg"),
    "l.mkv": (b"\x1a\x45\xdf\xa3" + bytes(50), "Azure Kinect", "ffmpeg"),
    "m.bag": (b"#ROSBAG V2.0\n" + bytes(50), "is a ROS bag", "`finetune prepare bag` writes"),
    "n.db3": (b"SQLite format 3\0" + bytes(50), "such as a bag of ROS 2", "`finetune prepare bag` writes"),
    "o.png": (b"\x93NUMPY\x01\0" + bytes(50), "is a NumPy array under another ending", "Name it .npy"),
    "p.png": (b"\x1f\x8b\x08" + bytes(50), "is gzip", "Unpack it"),
    "q.ply": (b"ply\nformat ascii 1.0\n", "is a PLY point cloud", "Project the points"),
    "r.png": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS", "git lfs pull"),
    "s.jpg": (b"<!DOCTYPE html><html>", "is a web page", "Download"),
    "t.png": (bytes(4096), "holds 4096 zeros and nothing else", "Write it again"),
    "u.depth": (b"bvx2" + bytes(99), "compressed by LZFSE", "Unpack it"),
    "v.jp2": (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "is JPEG 2000", "PNG"),
}


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES.keys())
@pytest.mark.parametrize("read", [read_image, read_depth])
def test_it_is_named_with_what_to_do(tmp_path: Path, name: str, case: tuple[bytes, str, str], read: type) -> None:
    data, found, fix = case
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name}: ") and found in said and fix in said
    assert "damaged" not in said and "\n" not in said


def test_what_the_fix_for_ros_says_gives_the_depth() -> None:
    decoded = cv2.imdecode(np.frombuffer(CASES["e.png"][0][12:], np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, MM)


def test_what_the_fix_for_colmap_says_gives_the_depth(tmp_path: Path) -> None:
    depth = np.arange(12, dtype="<f4").reshape(3, 4)
    (tmp_path / "a.bin").write_bytes(b"4&3&1&" + depth.tobytes())
    fix = explain_fault((tmp_path / "a.bin").read_bytes(), "a.bin").fix
    expression = fix[fix.index("np.fromfile") : fix.index(", times")]
    read = eval(expression, {"np": np, "FILE": str(tmp_path / "a.bin")})
    np.testing.assert_array_equal(read, depth)


def test_a_jpeg_under_another_ending_is_no_depth(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".jpg", np.full((16, 16), 90, np.uint8))[1].tobytes())
    with pytest.raises(DataError, match="is a JPEG, which changes depth values"):
        read_depth(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").shape == (16, 16, 3)


def test_a_folder_of_another_format_is_named(tmp_path: Path) -> None:
    for folder in ("rgb", "colmap", "raw", "lossy", "scans"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        (tmp_path / f"rgb/{number}.jpg").write_bytes(b"x")
        (tmp_path / f"colmap/{number}.jpg.geometric.bin").write_bytes(b"320&240&1&" + bytes(4 * 320 * 240))
        (tmp_path / f"raw/{number}.raw").write_bytes(MM.tobytes())
        (tmp_path / f"lossy/{number}.jpg").write_bytes(b"\xff\xd8\xff")
        (tmp_path / f"scans/{number}.he5").write_bytes(CASES["a.he5"][0])
    for folder, found, fix in (
        (
            "colmap",
            r"3 files whose name ends in \.bin: 0\.jpg\.geometric\.bin is a depth map of COLMAP",
            "fromfile",
        ),
        (
            "raw",
            r"3 files whose name ends in \.raw: 0\.raw is 153600 bytes of numbers without a header",
            "fromfile",
        ),
        ("lossy", r"but 3 files whose name ends in \.jpg\. Correct", "write the files as one of these kinds"),
        ("scans", r"but 3 files whose name ends in \.he5: 0\.he5 is HDF5", "Name it .h5"),
    ):
        with pytest.raises(ListError, match=rf"{folder}: holds no \.png.*{found}") as caught:
            match_frames(str(tmp_path / "rgb"), str(tmp_path / folder))
        assert fix in str(caught.value) and "damaged" not in str(caught.value)

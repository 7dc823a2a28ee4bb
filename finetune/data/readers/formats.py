"""Recognize a file's format by its first bytes, and say what to do with a format that is not supported."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8"
TIFF_SIGNATURES = (b"II*\x00", b"MM\x00*")
EXR_SIGNATURE = b"\x76\x2f\x31\x01"
_HDF5 = b"\x89HDF\r\n\x1a\n"

# Formats that are decoded: a file that is one of them and cannot be decoded is damaged.
_DECODED = {
    PNG_SIGNATURE[:4]: "PNG",
    JPEG_SIGNATURE: "JPEG",
    TIFF_SIGNATURES[0]: "TIFF",
    TIFF_SIGNATURES[1]: "TIFF",
    b"BM": "BMP",
    b"P5": "PGM",
    b"P6": "PPM",
    b"Pf": "PFM",
    b"PF": "PFM",
    EXR_SIGNATURE: "OpenEXR",
}
_AS_DEPTH = "Write depth as 16-bit PNG, or as .npy"
_FRAMES = "Write its frames as images, such as `ffmpeg -i FILE -start_number 0 frames/%06d.png`, with a depth map each"
_UNPACK = "Unpack it"
_RECORDING = "`finetune prepare bag` writes its images and depth maps as files"
_POINTS = "Project the points into the image, and write their depth as 16-bit PNG or .npy"
_LINK = "Download the file itself"
# Formats that are recognized but not supported: first bytes -> what it is called, and what to do.
_NAMED: dict[bytes, tuple[str, str]] = {
    _HDF5: (
        "HDF5 under another ending",
        "Name it .h5",
    ),
    b"CDF\x01": ("netCDF", _AS_DEPTH),
    b"CDF\x02": ("netCDF", _AS_DEPTH),
    b"MATLAB 5.0": ("a MATLAB file", f"{_AS_DEPTH}, by scipy.io.loadmat"),
    b"MATLAB 7.3": ("a MATLAB file", f"{_AS_DEPTH}, by h5py"),
    b"\x93NUMPY": ("a NumPy array under another ending", "Name it .npy"),
    b"PK\x03\x04": ("a zip archive", f"{_UNPACK}; one that NumPy wrote must be named .npz"),
    b"\x1f\x8b": ("gzip", _UNPACK),
    b"BZh": ("bzip2", _UNPACK),
    b"\xfd7zXZ\x00": ("xz", _UNPACK),
    b"7z\xbc\xaf'\x1c": ("a 7-Zip archive", _UNPACK),
    b"Rar!": ("a RAR archive", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("Zstandard", _UNPACK),
    b"\x04\x22\x4d\x18": ("LZ4", _UNPACK),
    b"bvx": ("compressed by LZFSE, as Apple's devices and Record3D do", f"{_UNPACK}, and write depth as .npy"),
    b"#ROSBAG": ("a ROS bag", _RECORDING),
    b"\x89MCAP0\r\n": ("an MCAP recording", _RECORDING),
    b"SQLite format 3": ("an SQLite database, such as a bag of ROS 2", _RECORDING),
    b"\x1a\x45\xdf\xa3": ("a Matroska or WebM video, or a recording of an Azure Kinect", _FRAMES),
    b"\x00\x00\x00\x0cjP  ": ("JPEG 2000", "Write it as PNG"),
    b"\xff\x4f\xff\x51": ("JPEG 2000", "Write it as PNG"),
    b"\xff\x0a": ("JPEG XL", "Write it as PNG"),
    b"\x00\x00\x00\x0cJXL ": ("JPEG XL", "Write it as PNG"),
    b"II+\x00": ("BigTIFF", "Write it as PNG, TIFF or .npy"),
    b"MM\x00+": ("BigTIFF", "Write it as PNG, TIFF or .npy"),
    b"GIF8": ("GIF, which has 256 colors", "Write the original as PNG"),
    b"#?RADIANCE": ("Radiance HDR", "Write images as 8-bit or 16-bit PNG"),
    b"DDS ": ("a DDS texture", "Write it as PNG"),
    b"%PDF": ("PDF", "Write the image itself as PNG"),
    b"SIMPLE  =": ("FITS", _AS_DEPTH),
    b"NRRD": ("NRRD", _AS_DEPTH),
    b"PAR1": ("Parquet", "Write its images and depth maps as files"),
    b"ply\n": ("a PLY point cloud", _POINTS),
    b"ply\r": ("a PLY point cloud", _POINTS),
    b"# .PCD": ("a PCD point cloud", _POINTS),
    b"LASF": ("a LAS point cloud", _POINTS),
    b"version https://git-lfs": ("a pointer of Git LFS, and not the file", "Run `git lfs pull` where it came from"),
    b"<!DOCTYPE": ("a web page, which a download leaves if it needs a login", _LINK),
    b"<!doctype": ("a web page, which a download leaves if it needs a login", _LINK),
    b"<html": ("a web page, which a download leaves if it needs a login", _LINK),
    b"<?xml": ("XML", _LINK),
}
_COLMAP = re.compile(rb"(\d{1,6})&(\d{1,6})&(\d)&")
_ROS_HEADER_BYTES = 12
# Endings of buffers without a header, and sizes (width, height) of depth cameras.
RAW_SUFFIXES = (".raw", ".bin", ".dat", ".depth", ".z16")
_SIZES = (
    *((160, 120), (256, 192), (320, 240), (424, 240), (480, 270), (480, 360), (512, 424), (320, 288), (640, 360)),
    *((640, 400), (640, 480), (640, 576), (768, 576), (848, 480), (1024, 768), (1024, 1024), (1280, 720), (1280, 800)),
    *((1920, 1080), (1920, 1440)),
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Why a file is not read as an image.

    Attributes:
        found: what its bytes are, in words that follow the name of the file.
        fix: what to do.
    """

    found: str
    fix: str


def explain_fault(data: bytes, name: str) -> Fault:
    """
    Args:
        data: the bytes of a file that cannot be decoded.
        name: of the file.
    """
    again = "Write it again, or leave the frame out"
    named = _recognize(data)
    if named is not None:
        return named
    if not data.strip(b"\x00"):
        return Fault(found=f"holds {len(data)} zeros and nothing else, which a crash leaves behind", fix=again)
    decoded = "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
    decoded = decoded or next((kind for first, kind in _DECODED.items() if data.startswith(first)), None)
    if decoded:
        return Fault(found=f"is a damaged or truncated {decoded}", fix=again)
    if Path(name).suffix.lower() in RAW_SUFFIXES:
        return _explain_raw(len(data))
    return Fault(found=f"is no image: it begins with {data[:12]!r}", fix=again)


def foreign_fault(data: bytes, name: str, size_bytes: int) -> Fault | None:
    """
    Args:
        data: the first bytes of a file.
        name: of the file.
        size_bytes: of the whole file.

    Returns:
        What the file is, if its format is recognized but not supported; else None.
    """
    named = _recognize(data)
    return named or (_explain_raw(size_bytes) if Path(name).suffix.lower() in RAW_SUFFIXES else None)


def _recognize(data: bytes) -> Fault | None:
    """The fault of a file whose format is recognized but not supported."""
    found = _recognize_container(data) or next((what for first, what in _NAMED.items() if data.startswith(first)), None)
    if found is None and data[512:520] == _HDF5:
        found = _NAMED[_HDF5]
    if found is not None:
        kind, fix = found
        return Fault(found=f"is {kind}, which is not supported", fix=fix)
    if data[_ROS_HEADER_BYTES:].startswith((PNG_SIGNATURE, JPEG_SIGNATURE + b"\xff")):
        return _explain_ros(data)
    colmap = _COLMAP.match(data)
    return None if colmap is None else _explain_colmap(*(int(number) for number in colmap.groups()))


def _recognize_container(data: bytes) -> tuple[str, str] | None:
    """What a container is called and what to do with it; its brand follows the first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "an AVI video", _FRAMES
    if data[4:8] != b"ftyp":
        return None
    brand = data[8:12]
    if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return "HEIC, as phones save photos", "Write it as JPEG or PNG"
    if brand in (b"avif", b"avis"):
        return "AVIF", "Write it as PNG"
    return "an MP4 or QuickTime video", _FRAMES


def _explain_ros(data: bytes) -> Fault:
    """ROS' compressedDepth: an integer, two numbers, then a PNG of depth, or of inverse depth if they are not 0.

    Source: compressed_depth_image_transport, ``compression_common.h`` and ``codec.cpp``.
    """
    _, scale, shift = struct.unpack("<iff", data[:_ROS_HEADER_BYTES])
    fix = f"Cut off the first {_ROS_HEADER_BYTES} bytes of each file; what follows is a 16-bit PNG"
    if scale:
        fix += f" of inverse depth: write {scale:g} / (value - {shift:g}), which is meters, as .npy"
    return Fault(found="is a message of ROS' compressedDepth: a PNG after a header", fix=fix)


def _explain_colmap(width: int, height: int, channels: int) -> Fault:
    """A dense map of COLMAP. Source: COLMAP's ``scripts/python/read_write_dense.py``."""
    if channels != 1:
        return Fault(found=f"is a map of COLMAP with {channels} channels, normals and not depth", fix=_AS_DEPTH)
    numbers = f"np.fromfile(FILE, '<f4', offset=len(b'{width}&{height}&1&')).reshape({height}, {width})"
    return Fault(
        found=f"is a depth map of COLMAP, {width}x{height}",
        fix=f"Write it as .npy, {numbers}, times the meters per unit: a reconstruction has no scale of its own",
    )


def _explain_raw(size_bytes: int) -> Fault:
    """A buffer without a header, whose size suggests what it holds."""
    fits = [
        (kind, width, height)
        for kind, size in (("<u2", 2), ("<f4", 4))
        for width, height in _SIZES
        if width * height * size == size_bytes
    ]
    kind, width, height = fits[0] if fits else ("<u2", 640, 480)
    perhaps = f"; {width}x{height} of {kind} would fit" if fits else ""
    return Fault(
        found=f"is {size_bytes} bytes of numbers without a header, which give neither size nor type{perhaps}",
        fix="Write it as .npy with both, such as "
        f"np.save('depth.npy', np.fromfile(FILE, '{kind}').reshape({height}, {width}))",
    )

"""Points from files that libraries write, and what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

from finetune.prepare.point_files import PointFormat, point_stem, read_points
from finetune.utils.errors import DataError

# Every number is exact in float32, and in LAS with a scale of 1/128.
POINTS = np.array([[1.5, -2.25, 0.5], [10.0, 3.0, -1.0], [0.25, 0.5, 30.0]])
FIVE = np.concatenate([POINTS, [[0.5, 1], [0.25, 2], [0.125, 3]]], axis=1).astype(np.float32)
RAW = PointFormat()


def write_ply(path: Path, *, text: bool) -> None:
    kinds = [("x", "f8"), ("y", "f8"), ("z", "f8"), ("red", "u1")]
    vertices = np.array([(*point, 7) for point in POINTS], dtype=kinds)
    PlyData([PlyElement.describe(vertices, "vertex")], text=text).write(str(path))


def write_las(path: Path) -> None:
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.scales, header.offsets = np.full(3, 1 / 128), np.array([1.0, 0.0, 0.0])
    las = laspy.LasData(header)
    las.x, las.y, las.z = POINTS.T
    las.write(path)


def write_pcd(encoding: Encoding) -> Callable[[Path], None]:
    return lambda path: PointCloud.from_xyzi_points(FIVE[:, :4]).save(path, encoding=encoding)


WRITERS: dict[str, Callable[[Path], None]] = {
    "kitti.bin": lambda path: FIVE[:, :4].tofile(path),
    "nuscenes.pcd.bin": lambda path: FIVE.tofile(path),
    "a.pcd": write_pcd(Encoding.ASCII),
    "b.pcd": write_pcd(Encoding.BINARY),
    "c.PCD": write_pcd(Encoding.BINARY_COMPRESSED),
    "a.ply": lambda path: write_ply(path, text=True),
    "b.ply": lambda path: write_ply(path, text=False),
    "a.las": write_las,
    "a.laz": write_las,
    "a.npy": lambda path: np.save(path, POINTS),
    "a.npz": lambda path: np.savez_compressed(path, points=POINTS),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_points_that_a_library_wrote(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    points = read_points(tmp_path / name, RAW)
    np.testing.assert_array_equal(points, POINTS)
    assert points.dtype == np.float64


def test_named_columns(tmp_path: Path) -> None:
    swapped = FIVE[:, [3, 1, 0, 2, 4]]
    np.save(tmp_path / "a.npy", swapped)
    swapped.tofile(tmp_path / "a.bin")
    named = PointFormat(columns=("i", "y", "x", "z", "ring"))
    for file in ("a.npy", "a.bin"):
        np.testing.assert_array_equal(read_points(tmp_path / file, named), POINTS)
    with pytest.raises(DataError, match=r"a\.npy: has 5 columns, and nothing says which .* --columns x,y,z,c4,c5"):
        read_points(tmp_path / "a.npy", RAW)
    with pytest.raises(DataError, match="has 5 columns, and --columns names 3"):
        read_points(tmp_path / "a.npy", PointFormat(columns=("x", "y", "z")))
    # 3 points of 5 float32 are 60 bytes: points of 3 or of 5, not of 4.
    with pytest.raises(DataError, match=r"has 60 bytes, which are not points of 4 float32 .*, but of 3 or 5\."):
        read_points(tmp_path / "a.bin", RAW)


def test_fields_of_a_structured_array_and_arrays_of_an_archive(tmp_path: Path) -> None:
    records = np.zeros(3, dtype=[("z", "f4"), ("t", "f8"), ("x", "f4"), ("y", "f4")])
    for i, axis in enumerate("xyz"):
        records[axis] = POINTS[:, i]
    np.savez(tmp_path / "a.npz", points=records, other=np.zeros(4))
    np.testing.assert_array_equal(read_points(tmp_path / "a.npz", PointFormat(key="points")), POINTS)
    with pytest.raises(DataError, match=r"holds points, other\. Name the array of the points: --points-key points"):
        read_points(tmp_path / "a.npz", RAW)
    np.save(tmp_path / "b.npy", np.zeros(3, dtype=[("x", "f4"), ("y", "f4"), ("t", "f8")]))
    with pytest.raises(DataError, match="has the fields x, y, t, without z"):
        read_points(tmp_path / "b.npy", RAW)
    np.save(tmp_path / "c.npy", np.zeros((2, 3, 4)))
    with pytest.raises(DataError, match=r"holds an array of shape \(2, 3, 4\)"):
        read_points(tmp_path / "c.npy", RAW)


def test_points_without_a_return_are_left_out_and_units_applied(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.concatenate([POINTS * 1000, [[0, 0, 0], [np.nan, 1, 1], [np.inf, 1, 1]]]))
    np.testing.assert_allclose(read_points(tmp_path / "a.npy", PointFormat(meters_per_unit=0.001)), POINTS)
    # Distances of 2749, 10488 and 30005: the one in the middle is named.
    with pytest.raises(
        DataError, match=r"points 1\.049e\+04 m away .* as points in millimeters are\. .* --meters-per-unit 0\.001;"
    ):
        read_points(tmp_path / "a.npy", RAW)


def test_projected_points_are_pixels_with_a_depth(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", [[0.0, 0.0, 5.0], [3.5, 2.0, 0.0], [600.0, 100.0, 2.0]])
    projected = PointFormat(columns=("u", "v", "z"))
    np.testing.assert_array_equal(read_points(tmp_path / "a.npy", projected), [[0, 0, 5], [600, 100, 2]])


@pytest.mark.parametrize("suffix", [".pcd", ".ply", ".npy", ".npz", ".las", ".laz"])
def test_damaged_files_are_one_sentence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"\x93nothing of the kind\n" * 3)
    with pytest.raises(
        DataError, match=rf"a\{suffix}: is no .* that can be read .*\. Write it again, or leave it out\."
    ):
        read_points(path, RAW)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_points(path, RAW)


@pytest.mark.parametrize("name", ["a.pcd", "b.ply", "a.laz"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 30])
    with pytest.raises(DataError, match=r"that can be read|bytes"):
        read_points(path, RAW)


def test_stems_without_the_two_endings_of_nuscenes() -> None:
    assert point_stem(Path("n__LIDAR_TOP__1532402927647951.pcd.bin")) == "n__LIDAR_TOP__1532402927647951"
    assert point_stem(Path("0001.bin")) == "0001"

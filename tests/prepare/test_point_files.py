"""Points from files that libraries write, and what is wrong with others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import laspy
import numpy as np
import pytest
from numpy.typing import NDArray
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

from finetune.prepare.point_files import PointFormat, point_stem, read_points
from finetune.utils.errors import DataError

SAMPLES = os.environ.get("DEPTH_SAMPLES")
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


def scan_room() -> NDArray[np.float64]:
    """(2400, 6) x, y, z, intensity, ring, time: 8 rings of a scanner that turns in a room of 12 x 8 x 3 m."""
    angles, slopes = np.meshgrid(np.linspace(0, 2 * np.pi, 300, endpoint=False), np.linspace(-0.4, 0.2, 8))
    across, along = np.cos(angles), np.sin(angles)
    reach_m = np.minimum.reduce([6 / np.abs(across).clip(1e-9), 4 / np.abs(along).clip(1e-9), 1.5 / np.abs(slopes)])
    intensity = np.random.default_rng(0).integers(0, 100, angles.shape)
    rings = np.broadcast_to(np.arange(8.0)[:, None], angles.shape)
    columns = (across * reach_m, along * reach_m, slopes * reach_m, intensity, rings, angles / 63)
    return np.stack(columns, axis=-1).reshape(-1, 6)


@pytest.mark.parametrize("order", ["ring after ring", "turn"])
@pytest.mark.parametrize("count", [3, 4, 5, 6])
@pytest.mark.parametrize(("name", "assumed"), [("a.bin", 4), ("a.pcd.bin", 5)])
def test_another_count_of_columns_that_fits_is_refused(
    tmp_path: Path, name: str, assumed: int, count: int, order: str
) -> None:
    points = scan_room()[:, :count].astype(np.float32)
    if order == "turn":
        points = points.reshape(8, 300, count).swapaxes(0, 1).reshape(-1, count)
    points[::7] = 0  # no return
    points.tofile(tmp_path / name)
    columns = ("x", "y", "z", "intensity", "ring", "time")[:count]
    if count == assumed:
        assert len(read_points(tmp_path / name, RAW)) == np.count_nonzero(points[:, :3].any(axis=1))
    else:
        asks = f"looks like points of {count} float32, .* as points of {assumed} .*--columns {','.join(columns)};"
        with pytest.raises(DataError, match=asks):
            read_points(tmp_path / name, RAW)
    named = read_points(tmp_path / name, PointFormat(columns=columns))
    np.testing.assert_array_equal(named, points[points[:, :3].any(axis=1), :3])


@pytest.mark.skipif(SAMPLES is None, reason="DEPTH_SAMPLES names no folder of samples")
def test_a_real_sweep_has_the_columns_of_its_data_set(tmp_path: Path) -> None:
    file = Path(str(SAMPLES)) / "kitti_object/training/velodyne_reduced/000000.bin"
    assert len(read_points(file, RAW)) == 20297
    sweep = np.fromfile(file, np.float32).reshape(-1, 4)[:20280]
    for every in (1, 8):
        sweep[::every].tofile(tmp_path / "a.bin")
        assert len(read_points(tmp_path / "a.bin", RAW)) == len(sweep[::every])
    np.random.default_rng(0).permutation(sweep).tofile(tmp_path / "a.bin")
    assert len(read_points(tmp_path / "a.bin", RAW)) == len(sweep)
    sweep[:, :3].tofile(tmp_path / "a.bin")
    with pytest.raises(DataError, match="looks like points of 3 float32"):
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

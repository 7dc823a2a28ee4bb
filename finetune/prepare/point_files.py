"""Read the points of a LiDAR sweep from the files that drivers, data sets and surveyors write."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from finetune.prepare.point_columns import find_other_count
from finetune.utils.errors import DataError
from finetune.utils.paths import read_bytes, require_regular
from finetune.utils.text import did_you_mean, nearest

_Read = TypeVar("_Read")
POINT_SUFFIXES = (".bin", ".pcd", ".ply", ".npy", ".npz", ".las", ".laz")
_XYZ = ("x", "y", "z")
# A pixel and the depth in it: points that somebody has projected already.
_UVZ = ("u", "v", "z")
# KITTI: x, y, z, reflectance. nuScenes: x, y, z, intensity, ring. Source: the readme of KITTI's raw data, section
# "Velodyne"; LidarPointCloud.from_file of nuscenes-devkit.
_KITTI_COLUMNS = (*_XYZ, "reflectance")
_NUSCENES_COLUMNS = (*_XYZ, "intensity", "ring")
# What drivers write, for a sentence that asks which columns there are.
_USUAL_COLUMNS = (*_XYZ, "intensity", "ring", "time")
_INSTALL = "Run `pip install -e '.[lidar]'` in the folder of this repository"
_AGAIN = "Write it again, or leave it out"
# No LiDAR reaches this far; millimeters, and coordinates of a map, do.
_MAX_MEDIAN_M = 500.0


@dataclass(frozen=True, kw_only=True)
class PointFormat:
    """What the files do not say themselves.

    Attributes:
        columns: names of the columns of ``.bin``, ``.npy`` and ``.npz``, of which x, y, z (or u, v, z: a pixel and its
            depth) are taken; None: as the data sets have them.
        key: the array of an ``.npz``; None: the only one.
        meters_per_unit: a stored coordinate times this is meters.
    """

    columns: Sequence[str] | None = None
    key: str | None = None
    meters_per_unit: float = 1.0

    @property
    def is_projected(self) -> bool:
        """Whether the points are pixels with a depth, so that no calibration is needed."""
        return self.columns is not None and all(name in self.columns for name in _UVZ)


def list_point_suffix(path: Path) -> str:
    """The ending by which the format is chosen: ``.pcd.bin`` of nuScenes is one."""
    return ".pcd.bin" if path.name.lower().endswith(".pcd.bin") else path.suffix.lower()


def point_stem(path: Path) -> str:
    """The name of a point file without its ending."""
    return path.name[: len(path.name) - len(list_point_suffix(path))]


def read_points(path: Path, options: PointFormat) -> NDArray[np.float64]:
    """
    Args:
        path: ``.bin`` of KITTI (four float32 a point), ``.pcd.bin`` of nuScenes (five), ``.pcd`` of PCL, ``.ply``,
            ``.npy``, ``.npz``, ``.las`` or ``.laz``.
        options: what the file does not say.

    Returns:
        (N, 3) x, y, z in the frame of the file, meters; or u, v in pixels and z in meters, if ``options`` says so.
        Points without a return, which are not finite or at the origin, are left out.

    Raises:
        DataError: the file cannot be read, has no such columns, or its coordinates are no meters around a sensor.
    """
    suffix = list_point_suffix(path)
    try:
        require_regular(path)
        points = _READERS[suffix](path, options)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", _AGAIN) from None
    points = np.asarray(points, dtype=np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if options.is_projected:
        points[:, 2] *= options.meters_per_unit
        return points[points[:, 2] > 0]
    points = points[np.any(points != 0, axis=1)] * options.meters_per_unit
    if len(points):
        _require_meters(path, points, options.meters_per_unit)
    return points


def _require_meters(path: Path, points: NDArray[np.float64], meters_per_unit: float) -> None:
    median_m = float(np.median(np.linalg.norm(points, axis=1)))
    if median_m <= _MAX_MEDIAN_M:
        return
    fix = (
        f"If they are millimeters, give --meters-per-unit {meters_per_unit / 1000:g}; if they are coordinates of a "
        "map, move them into the frame of the sensor"
    )
    raise DataError(path, f"has points {median_m:.4g} m away in the median, as points in millimeters are", fix)


def _read_bin(path: Path, options: PointFormat, names: Sequence[str] = _KITTI_COLUMNS) -> NDArray[np.floating]:
    data = read_bytes(path)
    columns = options.columns or names
    size = 4 * len(columns)
    if len(data) % size:
        fitting = [count for count in range(3, 9) if len(data) % (4 * count) == 0]
        listed = f", but of {' or '.join(map(str, fitting))}" if fitting else ""
        raise DataError(
            path,
            f"has {len(data)} bytes, which are not points of {len(columns)} float32 ({','.join(columns)}){listed}",
            "Give the names of its columns, such as --columns x,y,z,intensity,ring",
        )
    numbers = np.frombuffer(data, dtype="<f4")
    if options.columns is None:
        _require_count(path, numbers, columns)
    return _take_columns(path, numbers.reshape(-1, len(columns)), columns, options)


def _require_count(path: Path, numbers: NDArray[np.floating], columns: Sequence[str]) -> None:
    """
    Raises:
        DataError: the file is of so many numbers that its points may have another count of columns, and they seem to.
    """
    other = find_other_count(numbers, len(columns))
    if other is not None:
        raise DataError(
            path,
            f"looks like points of {other} float32, as its numbers repeat by {other}, and would be read as points of "
            f"{len(columns)} ({','.join(columns)})",
            f"Give the names of its columns, such as --columns {','.join(_USUAL_COLUMNS[:other])}; if there are "
            f"{len(columns)} all the same, --columns {','.join(columns)}",
        )


def _read_nuscenes(path: Path, options: PointFormat) -> NDArray[np.floating]:
    return _read_bin(path, options, _NUSCENES_COLUMNS)


def _read_pcd(path: Path, options: PointFormat) -> NDArray[np.floating]:
    try:
        from pypcd4 import PointCloud
    except ImportError:
        raise DataError(path, "is a PCD file, and the package pypcd4 is not installed", _INSTALL) from None
    return _decode(path, lambda: _take_fields(path, PointCloud.from_path(path).pc_data), "PCD file")


def _read_ply(path: Path, options: PointFormat) -> NDArray[np.floating]:
    try:
        from plyfile import PlyData
    except ImportError:
        raise DataError(path, "is a PLY file, and the package plyfile is not installed", _INSTALL) from None
    return _decode(path, lambda: _take_fields(path, PlyData.read(str(path))["vertex"].data), "PLY file")


def _read_las(path: Path, options: PointFormat) -> NDArray[np.floating]:
    try:
        import laspy
    except ImportError:
        raise DataError(path, "is a LAS file, and the package laspy is not installed", _INSTALL) from None
    # Its scale and offset are in the header: x, y, z are in the units of the survey.
    return _decode(path, lambda: np.asarray(laspy.read(path).xyz), "LAS file")


def _read_npy(path: Path, options: PointFormat) -> NDArray[np.floating]:
    array = _decode(path, lambda: np.load(path, allow_pickle=False), "array")
    return _take_array(path, array, options)


def _read_npz(path: Path, options: PointFormat) -> NDArray[np.floating]:
    def load() -> dict[str, NDArray[np.generic]]:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    arrays = _decode(path, load, "archive of arrays")
    if options.key is None and len(arrays) == 1:
        return _take_array(path, next(iter(arrays.values())), options)
    if options.key not in arrays:
        found = f"holds {', '.join(arrays) or 'nothing'}"
        raise DataError(path, found, f"Name the array of the points: --points-key {next(iter(arrays), 'NAME')}")
    return _take_array(path, arrays[options.key], options)


_READERS: dict[str, Callable[[Path, PointFormat], NDArray[np.floating]]] = {
    ".bin": _read_bin,
    ".pcd.bin": _read_nuscenes,
    ".pcd": _read_pcd,
    ".ply": _read_ply,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".las": _read_las,
    ".laz": _read_las,
}


def _decode(path: Path, read: Callable[[], _Read], what: str) -> _Read:
    """
    What a library reads.

    Raises:
        DataError: it cannot read the file; whatever it raises for that.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read()
    except DataError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - each library has errors of its own for a damaged file
        found = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(path, f"is no {what} that can be read ({found})", _AGAIN) from None


def _take_array(path: Path, array: NDArray[np.generic], options: PointFormat) -> NDArray[np.floating]:
    """x, y, z of an array with named fields, or of one with columns."""
    if array.dtype.names:
        return _take_fields(path, array.reshape(-1))
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(path, f"holds an array of shape {array.shape}, not points with columns", "Write (N, columns)")
    if options.columns is None and array.shape[1] != 3:
        example = ",".join((*_XYZ, *(f"c{i}" for i in range(4, array.shape[1] + 1))))
        raise DataError(
            path, f"has {array.shape[1]} columns, and nothing says which are x, y, z", f"Name them: --columns {example}"
        )
    columns = options.columns or _XYZ
    if len(columns) != array.shape[1]:
        raise DataError(
            path,
            f"has {array.shape[1]} columns, and --columns names {len(columns)} ({','.join(columns)})",
            "Name every column, in its order",
        )
    return _take_columns(path, array.astype(np.float64), columns, options)


def _take_columns(
    path: Path, array: NDArray[np.floating], columns: Sequence[str], options: PointFormat
) -> NDArray[np.floating]:
    wanted = _UVZ if options.is_projected else _XYZ
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(
            path, f"has the columns {','.join(columns)}, without {missing[0]}", "Name x, y and z among them"
        )
    return array[:, [list(columns).index(name) for name in wanted]]


def _take_fields(path: Path, records: NDArray[np.generic]) -> NDArray[np.floating]:
    names = records.dtype.names or ()
    missing = [name for name in _XYZ if name not in names]
    if missing:
        fix = f"Name the fields x, y and z{did_you_mean(nearest(missing[0], list(names)))}"
        raise DataError(path, f"has the fields {', '.join(names) or 'of no name'}, without {missing[0]}", fix)
    fields = records.view(np.recarray)
    return np.stack([np.asarray(fields[name], dtype=np.float64) for name in _XYZ], axis=1)

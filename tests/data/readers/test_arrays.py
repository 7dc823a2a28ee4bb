"""Arrays by name in HDF5 and NumPy files, as the reader pairs takes them."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.arrays import holds_several, load_array
from finetune.data.readers.files import read_depth, read_image
from finetune.data.readers.matching import match_frames
from finetune.data.readers.pairs import Pairs
from finetune.utils.errors import DataError, ListError

h5py = pytest.importorskip("h5py")
DEPTH = np.array([[1.5, 2.5, 3.5], [4.5, 0.25, 0.0]], np.float32)
IMAGE = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)


def write(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name.replace("__", "/"), data=values, compression="gzip" if values.ndim else None)
    return path


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.uint16])
def test_the_only_array_or_the_one_named_depth(tmp_path: Path, kind: type) -> None:
    stored: np.ndarray = (2 * DEPTH).astype(kind)
    for path in (
        write(tmp_path / "a.h5", anything=stored),
        write(tmp_path / "b.hdf5", depth=stored, rgb=IMAGE),
        write(tmp_path / "c.H5", camera__left__z=stored, time=np.array(3.0), K=np.ones(9)),
    ):
        found = read_depth(path)
        assert found.dtype == kind
        np.testing.assert_array_equal(found, stored)


def test_a_key_names_one_of_several(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", left__z=DEPTH, right__z=DEPTH + 1)
    np.testing.assert_array_equal(read_depth(path, key="right/z"), DEPTH + 1)
    np.testing.assert_array_equal(read_depth(path, key="/left/z"), DEPTH)
    with pytest.raises(DataError, match=r"a\.h5: holds the arrays left/z, right/z\. Name the one .*set depth_key"):
        read_depth(path)
    with pytest.raises(DataError, match=r"holds the arrays left/z, right/z, and depth_key is z\. Set depth_key to one"):
        read_depth(path, key="z")
    with pytest.raises(DataError, match=r"b\.h5: holds no array"):
        read_depth(write(tmp_path / "b.h5", time=np.array(3.0)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_image_and_depth_of_one_file(tmp_path: Path, axes: tuple[int, ...]) -> None:
    for name in ("1", "2"):
        write(tmp_path / f"{name}.h5", rgb=np.repeat(IMAGE, 2, axis=1).transpose(axes), depth=np.repeat(DEPTH, 2, 1))
    assert match_frames(str(tmp_path), str(tmp_path)) == [("1.h5", "1.h5"), ("2.h5", "2.h5")]
    sample = Pairs(root=str(tmp_path), image_dir=".", depth_dir=".", meters_per_unit=1.0)[1]
    np.testing.assert_array_equal(sample.image, np.repeat(IMAGE, 2, axis=1))
    np.testing.assert_array_equal(sample.depth_m, np.repeat(DEPTH, 2, axis=1))
    assert holds_several(tmp_path / "1.h5")
    alone = write(tmp_path / "3.h5", depth=DEPTH)
    assert not holds_several(alone)
    (tmp_path / "list.txt").write_text("3.h5 3.h5\n")
    with pytest.raises(ListError, match=r"its image and its depth map are one file"):
        Pairs(root=str(tmp_path), list="list.txt", meters_per_unit=1.0)[0]


def test_pairs_takes_the_key(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), IMAGE)
    write(tmp_path / "a.h5", near=DEPTH, measured=DEPTH + 1)
    (tmp_path / "list.txt").write_text("a.jpg a.h5\n")
    sample = Pairs(root=str(tmp_path), list="list.txt", meters_per_unit=1.0, depth_key="measured")[0]
    np.testing.assert_array_equal(sample.depth_m, DEPTH + 1)


def test_damage_and_a_missing_package_are_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5", depth=np.random.default_rng(0).random((40, 40), dtype=np.float32))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], b"no HDF5", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.h5: is no HDF5 file of numbers, or is truncated"):
            read_depth(path)
        with pytest.raises(DataError, match=r"a\.h5: is no HDF5 file"):
            read_image(path)
    path.write_bytes(whole)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"package h5py is not installed\. Run `pip install -e '\.\[hdf5\]'`"):
        load_array(path, ("depth",))

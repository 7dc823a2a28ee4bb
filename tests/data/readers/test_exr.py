"""OpenEXR: the channel that is depth by its name, and what is said without the package."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.data.readers.files import read_depth
from finetune.data.readers.matching import match_frames
from finetune.utils.errors import DataError

DEPTH = np.array([[1.5, 2.5, 3.5], [4.5, 0.25, 0.0]], np.float32)


def write(path: Path, **channels: np.ndarray) -> Path:
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    exr.File(header, {name.replace("__", "."): values for name, values in channels.items()}).write(str(path))
    return path


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("name", ["R", "Z", "Y", "anything"])
def test_one_channel_of_any_name(tmp_path: Path, kind: type, name: str) -> None:
    np.testing.assert_array_equal(read_depth(write(tmp_path / "a.exr", **{name: DEPTH.astype(kind)})), DEPTH)


def test_depth_beside_colors_by_its_name(tmp_path: Path) -> None:
    colors = {name: np.zeros_like(DEPTH) for name in "RGB"}
    np.testing.assert_array_equal(read_depth(write(tmp_path / "a.exr", **colors, Z=DEPTH)), DEPTH)
    np.testing.assert_array_equal(read_depth(write(tmp_path / "b.exr", **colors, ViewLayer__Depth__Z=DEPTH)), DEPTH)


def test_three_colors_are_gray_or_a_channel_that_is_named(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_depth(write(tmp_path / "gray.exr", R=DEPTH, G=DEPTH, B=DEPTH)), DEPTH)
    points = write(tmp_path / "xyz.exr", R=DEPTH + 1, G=DEPTH + 2, B=DEPTH)
    with pytest.raises(DataError, match=r"xyz\.exr: has 3 channels of floats, .* Set depth_channels: z"):
        read_depth(points)
    np.testing.assert_array_equal(read_depth(points, "z"), DEPTH)
    np.testing.assert_array_equal(read_depth(points, "r"), DEPTH + 1)
    with pytest.raises(DataError, match=r"has the channels near, other\. Set depth_key in pairs"):
        read_depth(write(tmp_path / "other.exr", near=DEPTH, other=DEPTH))


def test_a_key_names_the_channel(tmp_path: Path) -> None:
    path = write(tmp_path / "a.exr", near=DEPTH, WorldDepth__R=DEPTH + 1, Z=DEPTH + 2)
    np.testing.assert_array_equal(read_depth(path, key="WorldDepth.R"), DEPTH + 1)
    np.testing.assert_array_equal(read_depth(path, key="near"), DEPTH)
    with pytest.raises(DataError, match=r"holds the arrays WorldDepth\.R, Z, near, and depth_key is far\. Set"):
        read_depth(path, key="far")


def test_all_parts_of_a_file_are_looked_at(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    colors = {name: np.zeros((2, 3), np.float16) for name in "RGB"}
    parts = [exr.Part(dict(header), colors, "beauty"), exr.Part(dict(header), {"Z": DEPTH}, "depth")]
    exr.File(parts).write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_depth(tmp_path / "a.exr"), DEPTH)
    parts = [exr.Part(dict(header), {"Z": DEPTH + 1}, "left"), exr.Part(dict(header), {"Z": DEPTH}, "right")]
    exr.File(parts).write(str(tmp_path / "b.exr"))
    np.testing.assert_array_equal(read_depth(tmp_path / "b.exr", key="right.Z"), DEPTH)


def test_a_damaged_file_is_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.exr", Z=np.random.default_rng(0).random((40, 40), dtype=np.float32))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:20], whole[:4]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.exr: is a damaged OpenEXR file"):
            read_depth(path)
    assert capfd.readouterr() == ("", "")  # of the library, which says a line for each chunk


def test_without_the_package_the_line_to_install_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(100))
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(DataError, match=r"package OpenEXR is not installed\. Run `pip install -e '\.\[exr\]'`"):
        read_depth(tmp_path / "a.exr")


def test_exr_and_pfm_are_found_in_folders(tmp_path: Path) -> None:
    for name in ("rgb/1.jpg", "rgb/2.jpg", "depth/1.exr", "depth/2.PFM"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = match_frames(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    assert found == [("1.jpg", "1.exr"), ("2.jpg", "2.PFM")]

"""Recordings in the layout of TUM RGB-D: pairing by time, unit, and the real sample."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.camera import Camera
from finetune.data.readers.files import DepthCoding
from finetune.data.readers.tum import Tum, pair_by_time
from finetune.utils.errors import ListError, RecipeError
from tests.normal_user import as_normal_user

SAMPLES = os.environ.get("DEPTH_SAMPLES")


def example(folder: Path) -> dict[str, object]:
    """Writes four depth maps and three color images, of which two are near in time; the options that read them."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    color_s, depth_s = (10.00, 10.10, 10.20), (10.012, 10.105, 10.15, 10.9)
    for seconds in color_s:
        cv2.imwrite(
            str(folder / f"rgb/{seconds:.3f}.png"),
            np.full((12, 16, 3), (round(seconds * 100) % 256, 20, 200), np.uint8),
        )
    for place, seconds in enumerate(depth_s):
        depth = np.full((12, 16), 5000 * (place + 1), np.uint16)
        depth[0] = 0
        cv2.imwrite(str(folder / f"depth/{seconds:.3f}.png"), depth)
    for name, stamps in (("rgb", color_s), ("depth", depth_s)):
        lines = [f"{seconds:.6f} {name}/{seconds:.3f}.png\n" for seconds in reversed(stamps)]
        (folder / f"{name}.txt").write_text("# timestamp filename\n" + "".join(lines))
    camera = {"width": 16, "height": 12, "fx": 15.0, "fy": 15.5, "cx": 7.5, "cy": 5.5}
    (folder / "camera.json").write_text(json.dumps(camera))
    return {"root": str(folder), "intrinsics": "camera.json"}


def test_each_depth_map_goes_with_the_nearest_image_in_time(tmp_path: Path) -> None:
    reader = Tum(**example(tmp_path))  # type: ignore[arg-type]
    reader.check_paths()
    assert [Path(reader.source(index)).name for index in range(len(reader))] == ["10.012.png", "10.105.png"]
    first = reader[0]
    assert first.image[5, 5].tolist() == [200, 20, 1000 % 256]
    assert first.depth_m[5, 5] == np.float32(1.0)  # 5000 / 5000
    assert not first.valid[0].any() and first.valid[1:].all()
    assert first.camera is not None and first.camera.fy_px == 15.5
    wide = Tum(root=str(tmp_path), tolerance_s=0.06)
    assert [Path(wide.source(index)).name for index in range(len(wide))] == ["10.012.png", "10.105.png", "10.150.png"]


def test_pairing_by_hand() -> None:
    color = [(0.0, "a"), (1.0, "b"), (1.03, "c")]
    # 1.02 is nearest to c, and 1.01 then has b; 5 has nobody.
    assert pair_by_time(color, [(5.0, "z"), (1.02, "y"), (1.01, "x")], 0.05) == [("b", "x"), ("c", "y")]
    assert pair_by_time(color, [(0.02, "w")], 0.02) == [("a", "w")]
    assert pair_by_time(color, [(0.03, "w")], 0.02) == []


@pytest.mark.parametrize("line", ["1 rgb/10.000.png 1 depth/10.012.png\n", "1 depth/10.012.png 1 rgb/10.000.png\n"])
def test_associations_are_read_either_way_round(tmp_path: Path, line: str) -> None:
    example(tmp_path)
    (tmp_path / "associations.txt").write_text(f"# pairs\n{line}")
    reader = Tum(root=str(tmp_path), associations="associations.txt")
    reader.check_paths()
    assert len(reader) == 1
    assert Path(reader.source(0)).name == "10.012.png"
    assert reader[0].depth_m[5, 5] == np.float32(1.0)


@pytest.mark.parametrize(
    "line",
    [
        "1 rgb/10.000.png\t1 depth/10.012.png\n",
        "1, rgb/10.000.png, 1, depth/10.012.png\n",
        "color_timestamp,color,depth_timestamp,depth\n1,rgb/10.000.png,1,depth/10.012.png\n",
        "depth,depth_timestamp,color,color_timestamp\ndepth/10.012.png,1,rgb/10.000.png,1\n",
    ],
)
def test_columns_are_separated_as_in_other_lists(tmp_path: Path, line: str) -> None:
    example(tmp_path)
    (tmp_path / "associations.txt").write_text(line)
    reader = Tum(root=str(tmp_path), associations="associations.txt")
    assert [Path(path).name for path in reader._listing.files(0)] == ["10.000.png", "10.012.png"]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("depth.txt", "1.0\n", r"depth\.txt:1: has 1 columns"),
        ("rgb.txt", "# a\nnow rgb/a.png\n", r"rgb\.txt:2: 'now' is no time stamp"),
        ("rgb.txt", "\udcff", r"rgb\.txt: is not UTF-8 text\. Restore it from the recording"),
        ("rgb.txt", "99.0 rgb/a.png\n", "none of its 4 depth maps is within 0.02 s of one of 1 color images"),
    ],
)
def test_faults_of_a_list_name_the_line(tmp_path: Path, name: str, text: str, found: str) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ListError, match=found):
        len(Tum(**options))


@pytest.mark.parametrize(
    ("change", "key"), [({"tolerance_s": -1.0}, "tolerance_s"), ({"meters_per_unit": 0.0}, "meters_per_unit")]
)
def test_a_wrong_option_names_its_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Tum(root="x", **change)
    assert caught.value.key == key


@pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
def test_the_real_sample() -> None:
    assert SAMPLES
    reader = Tum(root=str(Path(SAMPLES) / "tum_rgbd"), associations="associations.txt")
    sample = reader[0]
    raw: Any = cv2.imread(reader.source(0), cv2.IMREAD_UNCHANGED)
    assert sample.depth_m.shape == (480, 640)
    assert sample.valid.mean() == pytest.approx(0.8081, abs=5e-5)  # of samples/checks.csv
    assert np.median(sample.depth_m[sample.valid]) == pytest.approx(2.415, abs=5e-4)
    for row, column in ((240, 320), (100, 500), (400, 200)):
        assert sample.depth_m[row, column] == pytest.approx(int(raw[row, column]) / 5000, abs=1e-6)


def test_a_folder_that_is_paired_already_needs_no_lists(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    pairs = [(reader.source(index)) for reader in [Tum(**options)] for index in range(len(reader))]
    (tmp_path / "rgb.txt").unlink()
    with pytest.raises(RecipeError, match=r"a folder that holds rgb\.txt and depth\.txt, or associations\.txt"):
        Tum(**options).check_paths()
    color = sorted(path.name for path in (tmp_path / "rgb").iterdir())[0]
    depth = Path(pairs[0]).name
    (tmp_path / "associations.txt").write_text(f"1.0 rgb/{color} 1.0 depth/{depth}\n")
    reader = Tum(**options)
    reader.check_paths()
    assert reader.source(0) == pairs[0]


def write_pair(color: Path, depth: Path, raw: int, hole: int = 0) -> None:
    """An image of 480x640 and a depth map of one value whose first row is a hole."""
    for path in (color, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(color), np.full((480, 640, 3), 90, np.uint8))
    pixels = np.full((480, 640), raw, np.uint16)
    pixels[0] = hole
    assert cv2.imwrite(str(depth), pixels)


@pytest.mark.parametrize(
    ("layout", "color", "depth", "raw", "depth_m", "hole", "fx_px"),
    [
        ("redwood", "color/00007.jpg", "depth/00007.png", 1861, 1.861, 0, 525.0),
        ("redwood", "image/0000007-000000123456.jpg", "depth/0000007-000000123999.png", 1861, 1.861, 0, 525.0),
        ("sevenscenes", "seq-01/frame-000007.color.png", "seq-01/frame-000007.depth.png", 1861, 1.861, 65535, 585.0),
        ("threedmatch", "seq-01/frame-000007.color.png", "seq-01/frame-000007.depth.png", 1861, 1.861, 0, None),
        # Rotated by three bits: 1861 has nothing in the three that come round.
        ("sun3d", "image/0000007-000000123456.jpg", "depth/0000007-000000123999.png", 1861 << 3, 1.861, 0, None),
        ("ycb", "0001/000007-color.png", "0001/000007-depth.png", 18610, 1.861, 0, None),
    ],
)
def test_layouts_of_other_data_sets(
    tmp_path: Path, layout: Any, color: str, depth: str, raw: int, depth_m: float, hole: int, fx_px: float | None
) -> None:
    write_pair(tmp_path / color, tmp_path / depth, raw, hole)
    reader = Tum(root=str(tmp_path), layout=layout)
    reader.check_paths()
    assert len(reader) == 1
    sample = reader[0]
    assert sample.depth_m[5, 5] == np.float32(depth_m)
    assert not sample.valid[0].any() and sample.valid[1:].all()
    assert (sample.camera and sample.camera.fx_px) == fx_px
    (tmp_path / "camera-intrinsics.txt").write_text("570.3 0 320\n0 571.3 240\n0 0 1\n")
    camera = Tum(root=str(tmp_path), layout=layout)[0].camera
    assert camera == Camera(fx_px=570.3, fy_px=571.3, cx_px=320.0, cy_px=240.0)


def test_the_lowest_bits_of_sun3d_stand_first(tmp_path: Path) -> None:
    raw = np.array([[(1861 << 3) & 0xFFFF, 40_000]], np.uint16)
    coding = DepthCoding(meters_per_unit=0.001, bits="rotated")
    depth_m, _ = coding.to_meters(raw)
    # 40000 = 0b1001110001000000: shifted down by 3 it is 5000, its three lowest bits are 0.
    assert depth_m.tolist() == [[pytest.approx(1.861), pytest.approx(5.0)]]
    depth_m, _ = coding.to_meters(np.array([[8 * 100 + 1]], np.uint16))
    assert depth_m[0, 0] == pytest.approx((100 + (1 << 13)) / 1000)


def test_a_closed_folder_of_a_recording_is_said(tmp_path: Path) -> None:
    (tmp_path / "seq-01").mkdir(mode=0)
    with as_normal_user(), pytest.raises(ListError, match=r"seq-01: cannot be listed \(Permission denied\)"):
        len(Tum(root=str(tmp_path), layout="sevenscenes"))


def test_a_layout_without_a_pair_is_said(tmp_path: Path) -> None:
    write_pair(tmp_path / "color/1.jpg", tmp_path / "depth/2.png", 1000)
    with pytest.raises(
        ListError, match="holds 1 color images and 1 depth maps of this layout, and no two of one frame"
    ):
        len(Tum(root=str(tmp_path), layout="redwood"))
    with pytest.raises(
        RecipeError, match=r"associations is 'a\.txt'; expected nothing; names pair the files of redwood"
    ):
        Tum(root=str(tmp_path), layout="redwood", associations="a.txt")
    (tmp_path / "camera-intrinsics.txt").write_text("three words only")
    write_pair(tmp_path / "color/1.jpg", tmp_path / "depth/1.png", 1000)
    with pytest.raises(ListError, match="is not three rows of three numbers"):
        Tum(root=str(tmp_path), layout="redwood")[0]


@pytest.mark.parametrize(
    ("folder", "layout", "count", "valid", "median_m", "fx_px"),
    [
        # Valid share and median of the first frame as checks.csv next to the samples has them.
        ("redwood_icl", "redwood", 3, 0.8696, 1.861, 525.0),
        ("sevenscenes_native", "sevenscenes", 2, 0.8917, 1.878, 585.0),
        ("threedmatch_sun3d", "threedmatch", 1, 0.8669, 3.120, 570.342205),
        ("ycb_video", "ycb", 1, 0.7298, 0.964, None),
        ("icl_nuim_tum_layout", "icl_nuim", 2, 1.0, 3.030, 481.2),
    ],
)
def test_real_recordings(
    samples: Path, folder: str, layout: Any, count: int, valid: float, median_m: float, fx_px: float | None
) -> None:
    reader = Tum(root=str(samples / folder), layout=layout)
    reader.check_paths()
    assert len(reader) == count
    sample = reader[0]
    assert sample.valid.mean() == pytest.approx(valid, abs=1e-4)
    assert np.median(sample.depth_m[sample.valid]) == pytest.approx(median_m, abs=1e-3)
    assert (sample.camera and sample.camera.fx_px) == (pytest.approx(fx_px, rel=1e-6) if fx_px else None)


# (row, column) -> meters: raw values looked up in the files by hand, times the unit of each data set.
POINTS = [
    ("redwood_icl", "redwood", {(240, 320): 2.195, (400, 200): 1.344, (300, 500): 2.007}),
    ("sevenscenes_native", "sevenscenes", {(240, 320): 1.382, (400, 200): 1.899, (300, 500): 1.252}),
    ("threedmatch_sun3d", "threedmatch", {(240, 320): 2.485, (400, 200): 1.970, (300, 500): 2.156}),
    ("ycb_video", "ycb", {(240, 320): 0.933, (300, 500): 1.063, (420, 450): 0.867}),
    ("icl_nuim_tum_layout", "icl_nuim", {(240, 320): 3.378, (400, 200): 3.364, (300, 500): 3.409}),
]


@pytest.mark.parametrize(("folder", "layout", "points"), POINTS)
def test_pixels_of_real_recordings(
    samples: Path, folder: str, layout: Any, points: dict[tuple[int, int], float]
) -> None:
    sample = Tum(root=str(samples / folder), layout=layout)[0]
    for (row, column), depth_m in points.items():
        assert sample.valid[row, column]
        assert sample.depth_m[row, column] == pytest.approx(depth_m, abs=1e-6)


def test_a_recording_of_another_sensor_has_its_own_unit(tmp_path: Path) -> None:
    options: dict[str, Any] = example(tmp_path)
    raw = np.full((12, 16), 5000, np.uint16)
    raw[0], raw[1] = 0, 65535
    cv2.imwrite(str(tmp_path / "depth/10.012.png"), raw)
    sample = Tum(**options, sensor="realsense")[0]
    assert sample.depth_m[5, 5] == np.float32(5.0) and not sample.valid[0].any() and sample.valid[1].all()
    named = Tum(**options, sensor="realsense", invalid=(0.0, 65535.0))
    assert not named[0].valid[:2].any() and named[0].valid[2:].all()
    assert Tum(**options, sensor="realsense", meters_per_unit=0.00025)[0].depth_m[5, 5] == np.float32(1.25)
    assert named.notes[0].startswith(
        f"{tmp_path}: sensor realsense means meters_per_unit 0.001, invalid [0, 65535]; a Re"
    )


def test_the_unit_that_is_assumed_is_printed(tmp_path: Path) -> None:
    options: dict[str, Any] = example(tmp_path)
    (note,) = Tum(**options).notes
    assert note.startswith(
        f"{tmp_path}: meters_per_unit is that of TUM RGB-D, 0.0002; for a recording by another device"
    )
    assert "set sensor, or meters_per_unit (0.001 for a RealSense)" in note
    assert Tum(**options, meters_per_unit=0.0002).notes == ()
    assert Tum(root=str(tmp_path), layout="redwood").notes == ()


def test_values_that_are_invalid_can_be_said_of_every_layout(tmp_path: Path) -> None:
    assert Tum(root=str(tmp_path), layout="sevenscenes").invalid == (0.0, 65535.0)
    assert Tum(root=str(tmp_path), layout="sevenscenes", invalid=(0.0, 1.0)).invalid == (0.0, 1.0)
    assert Tum(root=str(tmp_path)).invalid == (0.0,)

"""Recordings in the layout of TUM RGB-D: pairing by time, unit, and the real sample."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.errors import ListError, RecipeError
from finetune.readers.tum import Tum, paired

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
    assert paired(color, [(5.0, "z"), (1.02, "y"), (1.01, "x")], 0.05) == [("b", "x"), ("c", "y")]
    assert paired(color, [(0.02, "w")], 0.02) == [("a", "w")]
    assert paired(color, [(0.03, "w")], 0.02) == []


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
    ("name", "text", "found"),
    [
        ("depth.txt", "1.0\n", r"depth\.txt:1: has 1 columns"),
        ("rgb.txt", "# a\nnow rgb/a.png\n", r"rgb\.txt:2: 'now' is no time stamp"),
        ("rgb.txt", "99.0 rgb/a.png\n", "none of its 4 depth maps is within 0.02 s of one of 1 color images"),
    ],
)
def test_faults_of_a_list_name_the_line(tmp_path: Path, name: str, text: str, found: str) -> None:
    options: dict[str, Any] = dict(example(tmp_path))
    (tmp_path / name).write_text(text)
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

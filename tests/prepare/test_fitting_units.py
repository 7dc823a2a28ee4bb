"""Units that fit numbers, and the words that a user adds to the call."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.prepare.depth_options import add_depth_arguments
from finetune.prepare.fitting_units import list_units, require_unit
from finetune.utils.errors import FinetuneError


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_depth_arguments(parser)
    return parser.parse_args(words)


def said(paths: list[Path], *words: str) -> list[str]:
    with pytest.raises(FinetuneError) as caught:
        require_unit(paths, arguments(*words))
    assert caught.value.exit_status == 2
    return str(caught.value).splitlines()


def write(folder: Path, name: str, raw: np.ndarray) -> Path:
    if name.endswith(".npy"):
        np.save(folder / name, raw)
    else:
        assert cv2.imwrite(str(folder / name), raw)
    return folder / name


def test_every_unit_is_a_line_to_type(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 3000, 40 * 50).reshape(40, 50).astype(np.uint16)
    paths = [write(tmp_path, f"{i}.png", ramp) for i in range(2)]
    first, *rows = said(paths)
    # Whole numbers below 1000 to 3000: the median is 1999.5, three quarters end at 2499.25.
    assert first == (
        f"{paths[0]} and 1 more depth map: numbers around 1999.5, 75 % of them up to 2499.25, and nothing says what 1 "
        "is in meters. Nothing was written; add to the call what the device or the data set says:"
    )
    assert rows[0] == (
        "  --meters-per-unit 0.001       millimeters: half within 2 m, 75 % within 2.5 m; for a sensor of these, "
        "--sensor realsense | kinect_v2 | azure_kinect | zed | arkit"
    )
    assert rows[1].startswith("  --meters-per-unit 0.00390625  KITTI's 1/256 m: half within 7.81 m")
    assert all(row.startswith("  --meters-per-unit ") for row in rows)
    for words in (["--sensor", "arkit"], ["--meters-per-unit", "0.5"], ["--depth-is", "disparity"]):
        require_unit(paths, arguments(*words))


def test_a_code_for_sky_and_stray_returns_change_nothing(tmp_path: Path) -> None:
    meters = np.full((40, 50), 1.5, np.float32)
    meters[:10] = 65504.0
    meters[10, :3] = 900.0
    meters[11, :3] = np.nan
    assert [row.split()[1] for row in said([write(tmp_path, "a.npy", meters)])[1:]] == ["1"]


def test_numbers_that_fit_no_unit(tmp_path: Path) -> None:
    huge = np.full((20, 20), 1e9) + np.arange(20)
    (line,) = said([write(tmp_path, "a.npy", huge)])
    assert "no usual unit fits. Give --meters-per-unit as the device or the data set says." in line
    (line,) = said([write(tmp_path, "b.npy", np.zeros((20, 20)))])
    assert "no number above 0 is in them" in line


def test_packed_bits_are_asked_for_first(tmp_path: Path) -> None:
    # A floor from 1 to 8 m, with low byte first: neighbors differ by hundreds of raw steps.
    ramp = np.linspace(1000, 8000, 60)[:, None] + np.zeros(80)
    path = write(tmp_path, "a.png", ramp.astype(np.uint16).byteswap())
    (line,) = said([path])
    assert "Add --bits swapped to the call, then the units that fit are listed. Nothing was written." in line
    assert said([path], "--bits", "swapped")[1].startswith("  --meters-per-unit 0.001 ")


def test_units_are_those_of_a_desk_a_room_or_a_street() -> None:
    assert [unit.meters for unit in list_units(0.5, 0.8)] == [1.0]
    # 0.098 m, 0.25 m and 25 m; in millimeters 0.025 m, nearer than 3 % of 1 m.
    assert [unit.meters for unit in list_units(25.0, 70.0)] == [1 / 256, 0.01, 1.0]

"""``finetune prepare bag`` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.commands import prepare
from finetune.data.readers.files import read_depth
from tests.conftest import ROOT
from tests.prepare.bag.written_bags import (
    COMPRESSED,
    IMAGE,
    INFO,
    KINDS,
    START_NS,
    Recording,
    camera_info,
    compressed,
    image,
    write_bag,
)

COLOR, DEPTH = "/camera/color/image_raw/compressed", "/camera/aligned_depth_to_color/image_raw"
STEP_NS = 66_666_667


def record_samples(folder: Path, path: Path, kind: str) -> Path:
    """A bag of real frames: their JPEG files as CompressedImage, depth in millimeters as Image."""
    camera = json.loads((folder / "intrinsics.json").read_text())
    made = Recording()
    fields = camera_info(camera["width"], camera["height"], camera["fx"], (camera["cx"], camera["cy"]), "color")
    made.add("/camera/color/camera_info", INFO, START_NS, fields)
    for k, file in enumerate(sorted((folder / "rgb").iterdir())):
        stamp_ns = START_NS + k * STEP_NS
        color = compressed(file.read_bytes(), "rgb8; jpeg compressed bgr8", stamp_ns, "color")
        made.add(COLOR, COMPRESSED, stamp_ns + 9_000_000, color)
        counts = read_depth(folder / "depth" / f"{file.stem}.png")
        depth = image(counts, "16UC1", stamp_ns + 2_000_000, "color")
        made.add(DEPTH, IMAGE, stamp_ns + 11_000_000, depth)
    return write_bag(path, kind, made)


def small_bag(path: Path, count: int = 8) -> Path:
    made = Recording()
    for k in range(count):
        stamp_ns = START_NS + k * STEP_NS
        made.add("/color", IMAGE, stamp_ns, image(np.full((24, 32, 3), 20 * k, np.uint8), "rgb8", stamp_ns))
        made.add("/depth", IMAGE, stamp_ns, image(np.full((24, 32), 1000 + k, np.uint16), "16UC1", stamp_ns))
    return write_bag(path, "ros1", made)


def test_a_folder_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = small_bag(tmp_path / "rec.bag"), tmp_path / "out"
    call = ["bag", str(path), "--color", "/color", "--depth", "/depth", "--output", str(output), "--no-check"]
    assert prepare.main(call) == 0
    said = capsys.readouterr().out
    assert "8 color messages and depth messages are matched by time" in said
    assert f"{output}: 8 frames" in said
    assert [np.unique(read_depth(file)).tolist() for file in sorted((output / "depth").iterdir())] == [
        [1000 + k] for k in range(8)
    ]


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        ([], 2, "--color and --depth are not given. Name the topics, such as --color /color --depth /depth."),
        (["--color", "/colour", "--depth", "/depth"], 2, "has no topic /colour for --color."),
        (["--color", "/depth", "--depth", "/depth"], 1, "has encoding '16UC1', which is not read as an image."),
        (["--color", "/color", "--depth", "/color"], 1, "has encoding 'rgb8', which is not read as depth."),
        (["--color", "/color", "--depth", "/depth", "--color-info", "/x"], 2, "has no topic /x."),
        (["--color", "/color", "--depth", "/depth", "--calibration", "none.json"], 2, "none.json: no such file."),
    ],
)
def test_refused_with_nothing_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, expected: str
) -> None:
    path = small_bag(tmp_path / "rec.bag")
    assert prepare.main(["bag", str(path), *words, "--output", str(tmp_path / "out")]) == status
    said = capsys.readouterr()
    assert expected in said.err
    assert said.err.startswith("finetune stopped: ") and said.err.count("\n") == 1
    if not words:
        assert "  /depth: 8 of Image, 32x24 16UC1, frame camera\n" in said.out
    assert [entry.name for entry in tmp_path.iterdir()] == ["rec.bag"]


def test_what_is_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rec.bag").write_text("a note")
    assert prepare.main(["bag", str(tmp_path / "rec.bag"), "--output", str(tmp_path / "out")]) == 2
    assert "rec.bag: is no bag: it begins with b'a note'. Give a .bag of ROS 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_numbers_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (
        (["--tolerance", "0"], "0 is not a number of seconds above 0"),
        (["--meters-per-unit", "mm"], "mm is not a number of meters above 0"),
    ):
        with pytest.raises(SystemExit):
            prepare.main(["bag", "a.bag", "--output", "out", *words])
        assert expected in capsys.readouterr().err


@pytest.mark.slow  # five commands of seconds to a minute
def test_three_commands_from_a_bag_to_weights(tmp_path: Path) -> None:
    folder = os.environ.get("DEPTH_SAMPLES")
    if not folder:
        pytest.skip("set DEPTH_SAMPLES to the folder of real RGB-D samples to run this")
    sample = Path(folder) / "realsense_lab_seq"
    originals = sorted((sample / "depth").iterdir())
    for kind in KINDS:
        path = record_samples(sample, tmp_path / f"lab_{kind}{'.bag' * (kind == 'ros1')}", kind)
        output = tmp_path / kind
        call("prepare", "bag", path, "--color", COLOR, "--depth", DEPTH, "--output", output, "--no-check")
        written = sorted((output / "depth").iterdir())
        assert len(written) == len(originals) == 61
        for file, original in zip(written, originals, strict=True):
            np.testing.assert_array_equal(read_depth(file), read_depth(original))
    recipe, runs = tmp_path / KINDS[0] / "recipe.yaml", tmp_path / "runs"
    call("check", recipe)
    call("train", recipe, "run.steps=4", "optim.warmup_steps=0", f"output={runs}")
    assert list(runs.rglob("*.safetensors"))


def call(*words: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "finetune", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""Sound frames made wrong in twenty ways: ``finetune check`` names the true fault first, with the right fix."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.commands import check
from tests.conftest import CHECKPOINT, ROOT

RECIPE = """\
name: wrong
model: {{checkpoint: {checkpoint}, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{{reader: pairs, root: {root}, list: train.txt, meters_per_unit: 0.001, intrinsics: intrinsics.json}}]
  val: [{{reader: pairs, root: {root}, list: val.txt, meters_per_unit: 0.001, intrinsics: intrinsics.json}}]
  workers: 0
loss: [{{kind: silog}}]
run: {{steps: 100, batch_size: 2}}
"""
MOST = {"train": 16, "val": 4}


@dataclass(frozen=True)
class Frames:
    """Frames of millimeters in a folder, to be made wrong."""

    root: Path

    def listed(self, part: str) -> list[list[str]]:
        return [line.split() for line in (self.root / f"{part}.txt").read_text().splitlines()]

    def write_list(self, part: str, lines: list[list[str]]) -> None:
        (self.root / f"{part}.txt").write_text("".join(" ".join(line) + "\n" for line in lines))

    def depth(self, change: Callable[[NDArray[np.uint16]], NDArray[Any]], suffix: str = ".png") -> None:
        """Write every depth map anew, changed, under its name with another suffix if there is one."""
        for part in MOST:
            lines = self.listed(part)
            for line in lines:
                raw: Any = cv2.imread(str(self.root / line[1]), cv2.IMREAD_UNCHANGED)
                line[1] = line[1].removesuffix(".png") + suffix
                path = self.root / line[1]
                np.save(path, change(raw)) if suffix == ".npy" else cv2.imwrite(str(path), change(raw))
            self.write_list(part, lines)

    def camera(self) -> dict[str, float]:
        camera: dict[str, float] = json.loads((self.root / "intrinsics.json").read_text())
        return camera

    def set_focal(self, fx: float) -> None:
        camera = self.camera()
        (self.root / "intrinsics.json").write_text(json.dumps({**camera, "fx": fx, "fy": fx}))


def disparity(raw: NDArray[np.uint16]) -> NDArray[np.float32]:
    # Of a camera with a focal length of 300 px and a baseline of 5 cm, in pixels.
    return np.where(raw > 0, 300 * 0.05 / np.maximum(raw / 1000, 1e-3), 0).astype(np.float32)


def color_mapped(raw: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.asarray(cv2.applyColorMap((raw / 40).clip(0, 255).astype(np.uint8), cv2.COLORMAP_JET), dtype=np.uint8)


def moved(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    moved = np.zeros_like(raw)
    moved[:, 12:] = raw[:, :-12]
    return moved


def range_of(frames: Frames) -> Callable[[NDArray[np.uint16]], NDArray[np.uint16]]:
    camera = frames.camera()

    def change(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
        y, x = np.mgrid[: raw.shape[0], : raw.shape[1]]
        length = np.sqrt(1 + ((x - camera["cx"]) / camera["fx"]) ** 2 + ((y - camera["cy"]) / camera["fy"]) ** 2)
        return np.round(raw * length).astype(np.uint16)

    return change


def half(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.ascontiguousarray(raw[::2, ::2])


def others_depth(frames: Frames) -> None:
    for part, count in MOST.items():
        lines = frames.listed(part)
        frames.write_list(part, [[line[0], lines[(place + count // 2) % count][1]] for place, line in enumerate(lines)])


def swap(frames: Frames) -> None:
    for part in MOST:
        frames.write_list(part, [line[::-1] for line in frames.listed(part)])


def with_sentinel(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    return np.where(raw == 0, np.uint16(65535), raw)


def cut(frames: Frames, name: str) -> None:
    path = frames.root / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def repeat_train(frames: Frames) -> None:
    frames.write_list("val", frames.listed("train")[:4])


# What is made wrong, key=value of the call, name of the finding, a piece of its evidence, a piece of its fix.
Fault = tuple[Callable[[Frames], None], tuple[str, ...], str, str, str]
UNIT = "data.{part}.0.meters_per_unit={value}"
FAULTS: dict[str, Fault] = {
    "millimeters as meters": (
        lambda frames: None,
        tuple(UNIT.format(part=part, value=1.0) for part in MOST),
        "unit",
        "looks like millimeters",
        "meters_per_unit: 0.001",
    ),
    "meters as millimeters": (
        lambda frames: frames.depth(lambda raw: (raw / 1000).astype(np.float32), ".npy"),
        (),
        "unit",
        "looks like meters",
        "meters_per_unit: 1",
    ),
    "disparity as depth": (
        lambda frames: frames.depth(disparity, ".npy"),
        tuple(UNIT.format(part=part, value=1.0) for part in MOST),
        "depth_is",
        "look like disparity",
        "depth_is: disparity",
    ),
    "8 bits": (
        lambda frames: frames.depth(lambda raw: (raw / 40).clip(0, 255).astype(np.uint8)),
        (),
        "files",
        "stored in 8 bits",
        "Export it as 16-bit PNG",
    ),
    "color-mapped": (lambda frames: frames.depth(color_mapped), (), "files", "looks color-mapped", "16-bit PNG"),
    "65535 not listed": (
        lambda frames: frames.depth(with_sentinel),
        (),
        "sentinel",
        "exactly 65535",
        "invalid: [0, 65535]",
    ),
    "moved by 12 px": (lambda frames: frames.depth(moved), (), "registration", " px left", "Register depth to color"),
    "mirrored": (lambda frames: frames.depth(np.fliplr), (), "mirrored", "mirrored left to right", "Mirror the depth"),
    "another frame's depth": (others_depth, (), "registration", "does not belong to its image", "of its own image"),
    "swapped columns": (swap, (), "files", "image and depth are swapped", "the image first and the depth map second"),
    "missing file": (
        lambda frames: (frames.root / frames.listed("train")[3][1]).unlink(),
        (),
        "files",
        "does not exist",
        "Correct the line",
    ),
    "truncated PNG": (
        lambda frames: cut(frames, frames.listed("train")[3][1]),
        (),
        "files",
        "is a damaged or truncated PNG",
        "Write it again",
    ),
    "half resolution": (lambda frames: frames.depth(half), (), "files", "120x160", "Export both at one size"),
    "constant": (
        lambda frames: frames.depth(lambda raw: np.full_like(raw, 2000)),
        (),
        "constant",
        "the same depth at all its pixels",
        "Export the depth that was measured",
    ),
    "range for z": (
        lambda frames: frames.depth(range_of(frames)),
        (),
        "depth_is",
        "distance along the ray",
        "depth_is: range",
    ),
    "focal length in millimeters": (
        lambda frames: frames.set_focal(4.6),
        (),
        "focal",
        "looks like millimeters",
        "fx and fy in pixels",
    ),
    "validation inside training": (repeat_train, (), "repeated", "share 4 frames", "Take what is shared out"),
    "max depth 2": (lambda frames: None, ("model.max_depth_m=2",), "max_depth", "beyond", "Set model.max_depth_m: "),
    "max depth 200": (
        lambda frames: None,
        ("model.max_depth_m=200",),
        "max_depth",
        "model.max_depth_m 200",
        "Set model.max_depth_m: ",
    ),
    "empty list": (
        lambda frames: frames.write_list("train", []),
        (),
        "files",
        "names no frame",
        "Write `image depth`",
    ),
}


SAMPLES = os.environ.get("DEPTH_SAMPLES")
# Folders of sound frames: the one that ships, and a real camera's.
SOURCES = [
    pytest.param(ROOT / "data" / "room", id="room"),
    pytest.param(
        Path(SAMPLES or ".") / "realsense_lab_seq",
        id="realsense_lab_seq",
        marks=[pytest.mark.slow, pytest.mark.skipif(not SAMPLES, reason="set DEPTH_SAMPLES to run this")],
    ),
]


def copied(source: Path, folder: Path) -> tuple[Frames, Path]:
    """A few frames of a folder, and a recipe for them."""
    frames = Frames(folder / "frames")
    frames.root.mkdir()
    for part, count in MOST.items():
        lines = [line.split()[:2] for line in (source / f"{part}.txt").read_text().splitlines()]
        # Evenly spread: neighbors of one video look alike, and another frame's depth would nearly fit.
        lines = [lines[place] for place in np.linspace(0, len(lines) - 1, count).round().astype(int)]
        for name in (name for line in lines for name in line):
            (frames.root / name).parent.mkdir(exist_ok=True)
            shutil.copy(source / name, frames.root / name)
        frames.write_list(part, lines)
    (frames.root / "intrinsics.json").write_text((source / "intrinsics.json").read_text())
    recipe = folder / "wrong.yaml"
    recipe.write_text(RECIPE.format(checkpoint=CHECKPOINT, root=frames.root))
    return frames, recipe


def first_finding(recipe: Path, *overrides: str) -> dict[str, str]:
    out = recipe.with_suffix(".json")
    status = check.main([str(recipe), *overrides, "--no-step", "--json", str(out)])
    findings: list[dict[str, str]] = json.loads(out.read_text())["findings"]
    assert status == (1 if any(one["severity"] == "stop" for one in findings) else 0)
    return findings[0]


@pytest.mark.parametrize("source", SOURCES)
def test_sound_frames_are_not_stopped(source: Path, tmp_path: Path) -> None:
    _, recipe = copied(source, tmp_path)
    assert first_finding(recipe)["severity"] == "note"


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_true_fault_comes_first(source: Path, name: str, tmp_path: Path) -> None:
    make_wrong, overrides, finding, evidence, fix = FAULTS[name]
    frames, recipe = copied(source, tmp_path)
    make_wrong(frames)
    first = first_finding(recipe, *overrides)
    assert first["name"] == finding
    assert evidence in first["evidence"]
    assert fix in first["fix"]
    assert first["severity"] in ("stop", "warn")

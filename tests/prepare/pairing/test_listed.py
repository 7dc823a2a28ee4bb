"""Lists that pair files: TUM's two lists of times, associations of either order, and lines of image and depth."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.prepare.pairing.listed import find_list, read_recording
from finetune.prepare.pairing.recordings import Found
from finetune.utils.errors import ListError
from tests.prepare.pairing.folders import write_frames

T0 = 1305031102.0


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Six frames at 10 Hz whose files say nothing of each other."""
    write_frames(tmp_path, "rgb/c{}.png", "depth/{}.png", range(6))
    return tmp_path


def names(found: Found) -> list[tuple[str, str]]:
    return [(frame.image.name, frame.depth.name) for frame in found.frames]


def write_stamps(root: Path, depth_later_s: float = 0.02) -> None:
    for name, later, form in (("rgb", 0.0, "c{}"), ("depth", depth_later_s, "{}")):
        lines = [f"{T0 + i / 10 + later:.6f} {name}/{form.format(i)}.png" for i in range(6)]
        (root / f"{name}.txt").write_text("\n".join(["# timestamp filename", *lines]))


@pytest.mark.parametrize(
    "line",
    [
        "{color_s:.6f} rgb/c{i}.png {depth_s:.6f} depth/{i}.png",
        "{depth_s:.6f} depth/{i}.png {color_s:.6f} rgb/c{i}.png",
    ],
)
def test_associations_of_either_order(recording: Path, line: str) -> None:
    lines = [line.format(color_s=T0 + i / 10, depth_s=T0 + i / 10 + 0.01, i=i) for i in range(5)]
    (recording / "associations.txt").write_text("\n".join([*lines, lines[0].replace("c0", "c9")]))
    write_stamps(recording)
    path = find_list(recording)
    assert path == recording / "associations.txt"  # what a program paired wins over the times that it paired
    found = read_recording(path, "desk", None)
    assert names(found) == [(f"c{i}.png", f"{i}.png") for i in range(5)]
    assert [frame.time_s for frame in found.frames] == pytest.approx([T0 + i / 10 for i in range(5)])
    assert found.notes == [
        f"5 frames of {recording} paired by associations.txt",
        f"{path} names files that do not exist in 1 line: c9.png",
        "left over, which no line names: 1 image, c5.png",
        "left over, which no line names: 1 depth map, 5.png",
    ]


def test_numbers_in_the_place_of_times_are_no_times(recording: Path) -> None:
    lines = [f"{i} depth/{i}.png {i} rgb/c{i}.png" for i in range(6)]  # as ICL-NUIM has them
    (recording / "associations.txt").write_text("\n".join(lines))
    frames = read_recording(recording / "associations.txt", "room", None).frames
    assert len(frames) == 6 and all(frame.time_s is None for frame in frames)


def test_two_lists_of_times(recording: Path) -> None:
    write_stamps(recording)
    path = find_list(recording)
    assert path == recording / "rgb.txt"
    found = read_recording(path, "desk", None)
    assert names(found) == [(f"c{i}.png", f"{i}.png") for i in range(6)]
    assert found.notes[1].startswith("6 images and depth maps are matched by time, 20.0 ms apart in the median")
    with pytest.raises(ListError, match="pairs no files"):
        read_recording(path, "desk", 0.01)
    write_stamps(recording, depth_later_s=-T0)
    with pytest.raises(ListError, match="so they are of other clocks"):
        read_recording(path, "desk", None)


def test_lines_of_image_and_depth(recording: Path) -> None:
    (recording / "associations.txt").write_text("rgb/c3.png depth/1.png\nrgb/c0.png depth/2.png\n")
    found = read_recording(recording / "associations.txt", "desk", None)
    assert names(found) == [("c3.png", "1.png"), ("c0.png", "2.png")]
    (recording / "mine.txt").write_text("gone/0.png depth/1.png\n")
    with pytest.raises(ListError, match=r"mine\.txt: names 1 frame, and the files of none exist, .*gone/0\.png first"):
        read_recording(recording / "mine.txt", "desk", None)


def test_a_folder_without_a_list(tmp_path: Path) -> None:
    (tmp_path / "rgb.txt").write_text("")
    assert find_list(tmp_path) is None

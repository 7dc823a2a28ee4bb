"""Which depth belongs to which images, in folders of several recordings and cameras."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from finetune.prepare.pairing.recordings import Found, pair_series
from finetune.prepare.pairing.series import find_series
from finetune.utils.errors import ListError
from tests.prepare.pairing.folders import SIZE, write_depth, write_frames, write_image


def pair(root: Path) -> Found:
    series = find_series(root, "", reads_8_bit=False, reads_channels=False)
    return pair_series(series, [root], root.name, None)


def listed(found: Found, root: Path) -> list[tuple[str, str, str]]:
    return [
        (frame.recording, frame.image.relative_to(root).as_posix(), frame.depth.relative_to(root).as_posix())
        for frame in found.frames
    ]


@pytest.mark.parametrize(
    ("image", "depth", "recordings"),
    [
        ("a/rgb/{}.jpg", "a/depth/{}.png", ["a", "b"]),
        ("rgb/a/{}.jpg", "depth/a/{}.png", ["a", "b"]),
        ("a/rgb{}.png", "a/depth{}.png", ["a", "b"]),
        ("x/a/color/{}.jpg", "x/a/depth_aligned/{}.png", ["x/a", "x/b"]),
        ("raw/a/image_02/data/{}.png", "annotated/val/a/proj_depth/groundtruth/image_02/{}.png", ["a", "b"]),
        ("a_rgb_{}.png", "a_depth_{}.png", ["a", "b"]),
    ],
)
def test_recordings_of_equal_names_are_kept_apart(
    tmp_path: Path, image: str, depth: str, recordings: list[str]
) -> None:
    for name in "ab":
        # Only a part of the path, or the first letter of the name, says which recording it is.
        of_name = [form.replace("/a", f"/{name}") if "/a" in form else name + form[1:] for form in (image, depth)]
        if image.startswith("raw"):
            of_name[1] = depth.replace("val/a", f"val/{name}")
        write_frames(tmp_path, of_name[0], of_name[1])
    found = pair(tmp_path)
    assert Counter(frame.recording for frame in found.frames) == dict.fromkeys(recordings, 3)
    assert [frame.stem for frame in found.frames[:3]] != [] and found.notes[0].startswith("6 frames paired by ")
    for frame in found.frames:
        name = frame.recording[-1]
        assert all(name in path.relative_to(tmp_path).as_posix() for path in (frame.image, frame.depth))


def test_what_is_left_over_is_counted_and_named(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{:02}.jpg", "depth/{:02}.png", range(20))
    write_image(tmp_path / "rgb/20.jpg")
    for number in (30, 31, 32, 33):
        write_depth(tmp_path / f"depth/{number}.png")
    write_image(tmp_path / "confidence/00.png", channels=1)
    assert pair(tmp_path).notes == [
        "20 frames paired by equal stems: rgb/00.jpg with depth/00.png",
        "left over, without a depth map: 1 image, 20.jpg",
        "left over, without an image: 4 depth maps, 30.png, 31.png, 32.png, ...",
        "not used: confidence/*.png (1 file, neither images nor depth)",
    ]


def test_images_of_one_recording_are_never_paired_with_depth_of_another(tmp_path: Path) -> None:
    write_frames(tmp_path, "a/rgb/{}.jpg", "a/depth/{}.png")
    write_frames(tmp_path, "b/rgb/{}.jpg", "c/depth/{}.png")
    found = pair(tmp_path)
    assert {frame.recording for frame in found.frames} == {"a"}
    assert found.notes[1:] == [
        "not used: b/rgb/*.jpg (3 files, images)",
        "not used: c/depth/*.png (3 files, depth maps)",
    ]


def test_two_folders_of_unlike_names_are_a_pair_where_there_are_no_others(tmp_path: Path) -> None:
    write_frames(tmp_path, "camera/{}.png", "lidar/{}.png")
    assert listed(pair(tmp_path), tmp_path)[0] == (tmp_path.name, "camera/0.png", "lidar/0.png")


def test_cameras_of_one_recording_are_one_recording(tmp_path: Path) -> None:
    for camera in ("cam_01", "cam_02"):
        write_frames(tmp_path, f"drive/{camera}/rgb/{{}}.png", f"drive/{camera}/depth/{{}}.png")
    frames = pair(tmp_path).frames
    assert {frame.recording for frame in frames} == {"drive"}
    assert [frame.stem for frame in frames] == [f"cam_0{camera}_{number}" for number in range(3) for camera in (1, 2)]
    for frame in frames:
        assert frame.image.parent.parent == frame.depth.parent.parent


def test_color_comes_before_infrared_and_left_before_right(tmp_path: Path) -> None:
    write_frames(tmp_path, "color/{}.png", "depth/{}.png")
    for number in range(3):
        write_image(tmp_path / f"ir/{number}.png", channels=1)
    found = pair(tmp_path)
    assert {frame.image.parent.name for frame in found.frames} == {"color"}
    assert found.notes[-1] == "not used: ir/*.png (3 files, images)"


def test_what_fits_equally_is_asked_for(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.png", "depth/{}.png")
    write_frames(tmp_path, "color/{}.png", "depth/{}.png")
    with pytest.raises(ListError, match=r"several images fit depth/\*\.png: color/\*\.png \(3 files\), rgb/\*"):
        pair(tmp_path)
    for path in (tmp_path / "color").iterdir():
        path.unlink()
    write_frames(tmp_path, "rgb/{}.png", "depths/{}.png")
    with pytest.raises(ListError, match=r"several depth maps fit rgb/\*\.png: depth/\*\.png .*--depth 'depth/\*\.png'"):
        pair(tmp_path)


def test_archives_hold_both(tmp_path: Path) -> None:
    for number in (2, 10):
        np.savez(tmp_path / f"{number}.npz", rgb=np.ones((*SIZE, 3), np.uint8), depth=np.ones(SIZE, np.float32))
    found = pair(tmp_path)
    assert found.notes == ["image and depth are in one file: 2 frames"]
    assert [frame.stem for frame in found.frames] == ["2", "10"]
    assert all(frame.image == frame.depth for frame in found.frames)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), r"holds no images and no depth maps\. Name a folder"),
        (("rgb/0.jpg",), r"holds no depth map next to rgb/\*\.jpg \(1 file\)\. .* with --depth PATTERN"),
        (("depth/0.npy",), r"holds no image next to depth/\*\.npy \(1 file\)\. .* with --images PATTERN"),
        (("rgb/0.jpg", "depth/0.jpg"), r"depth/\*\.jpg: is no plain depth: 1 file of 8 bits, colors or"),
    ],
)
def test_a_kind_that_is_missing(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (write_depth if name.endswith(".npy") else write_image)(tmp_path / name)
    with pytest.raises(ListError, match=said):
        pair(tmp_path)


def test_formats_that_are_not_read_are_named_with_what_to_do(tmp_path: Path) -> None:
    write_image(tmp_path / "rgb/0.jpg")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/0.raw").write_bytes(bytes(320 * 240 * 2))
    with pytest.raises(ListError, match=r"no depth that can be read, but 1 file whose name ends in \.raw: 0\.raw is"):
        pair(tmp_path)
    (tmp_path / "d/0.raw").unlink()
    (tmp_path / "d/0.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ListError, match=r"but d/0\.png is a pointer of Git LFS, and not the file.*git lfs pull"):
        pair(tmp_path)

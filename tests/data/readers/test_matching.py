"""Which image and which depth map of one or two folders are a frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.data.readers.matching import frame_key, match_frames
from finetune.utils.errors import ListError


def touch(folder: Path, *names: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return str(folder)


def test_stems_are_matched_and_sorted(tmp_path: Path) -> None:
    for name in ("rgb/10.jpg", "rgb/2.PNG", "rgb/.hidden.jpg", "rgb/notes.txt", "rgb/sub/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth/2.npy").touch()
    (tmp_path / "depth/10.png").touch()
    pairs = match_frames(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    assert pairs == [("10.jpg", "10.png"), ("2.PNG", "2.npy")]


def test_stems_without_counterpart_are_counted_and_named_both_ways(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    for stem in ("a", "b", "c", "d", "e"):
        (tmp_path / f"rgb/{stem}.jpg").touch()
    for stem in ("e", "f"):
        (tmp_path / f"depth/{stem}.png").touch()
    with pytest.raises(ListError) as caught:
        match_frames(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    assert "4 of 5 images have no depth map (a, b, c, ...); 1 of 2 depth maps have no image (f)" in str(caught.value)
    (tmp_path / "rgb/e.png").touch()
    with pytest.raises(ListError, match=r"rgb: holds e\.jpg and e\.png, with the same stem"):
        match_frames(str(tmp_path / "rgb"), str(tmp_path / "depth"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ListError, match=r"empty: holds no \.png"):
        match_frames(str(tmp_path / "empty"), str(tmp_path / "depth"))
    with pytest.raises(ListError, match=r"nowhere: cannot be read"):
        match_frames(str(tmp_path / "nowhere"), str(tmp_path / "depth"))


@pytest.mark.parametrize(
    ("stem", "key"),
    [
        ("0412_color", "0412"),
        ("rgb0412", "0412"),
        ("depth-0412", "0412"),
        ("frame-000001.depth", "frame-000001"),
        ("Left_0412", "0412"),
        ("0412_left_depth", "0412"),
        ("roomColor7", "room7"),
        ("RGB_7", "7"),
        ("a_rgb_7", "a_7"),
        ("colorful_7", "colorful_7"),
        ("0412", "0412"),
    ],
)
def test_the_key_of_a_frame(stem: str, key: str) -> None:
    assert frame_key(stem) == key


@pytest.mark.parametrize(
    ("image", "depth", "side"),
    [
        ("{}_color.png", "{}_depth.tiff", ()),
        ("rgb{}.png", "depth{}.png", ("conf{}.png",)),
        ("frame-{}.color.jpg", "frame-{}.depth.png", ()),
        ("{}.png", "{}_depth.npy", ("{}_depth_mask.npy",)),  # DIODE
        ("ir_{}.png", "depth_{}.png", ()),
        ("{}.jpg", "{}.png", ()),
        ("{}.png", "{}.npy", ()),
        ("sky_valid_{}_rgb.png", "sky_valid_{}_depth.png", ("sky_valid_{}_mask.png",)),
    ],
)
def test_one_folder_of_both_kinds(tmp_path: Path, image: str, depth: str, side: tuple[str, ...]) -> None:
    numbers = ("0002", "0010", "0001")
    folder = touch(tmp_path / "all", *(name.format(number) for number in numbers for name in (image, depth, *side)))
    expected = [(image.format(number), depth.format(number)) for number in sorted(numbers)]
    assert match_frames(folder, folder) == expected
    # A link to the folder is the folder.
    (tmp_path / "link").symlink_to(folder)
    assert match_frames(folder, str(tmp_path / "link")) == expected


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("0.png", "1.png"), "the names in it do not tell which file is an image and which is depth"),
        (("0.npy", "1.npy"), "the names in it do not tell"),
        (("0_depth.png", "1_depth.png"), "the names in it do not tell"),
        (("0_rgb.png", "0_ir.png", "0_depth.png"), r"holds 2 images of frame '0' \(0_ir.png, 0_rgb.png\)"),
        (("0_rgb.png", "1_rgb.png", "0_depth.png"), r"1 of 2 images have no depth map \(1\)"),
    ],
)
def test_one_folder_that_does_not_tell_them_apart(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    folder = touch(tmp_path, *names)
    with pytest.raises(ListError, match=f"{found}.*name the pairs in a list file"):
        match_frames(folder, folder)


def test_archives_may_hold_both(tmp_path: Path) -> None:
    folder = touch(tmp_path, "0.npz", "1.npz")
    assert match_frames(folder, folder) == [("0.npz", "0.npz"), ("1.npz", "1.npz")]


def test_words_for_the_kind_in_two_folders(tmp_path: Path) -> None:
    images = touch(tmp_path / "image_left", "000_left.png", "001_left.png")
    depths = touch(tmp_path / "depth_left", "000_left_depth.npy", "001_left_depth.npy")
    assert match_frames(images, depths) == [
        ("000_left.png", "000_left_depth.npy"),
        ("001_left.png", "001_left_depth.npy"),
    ]
    touch(tmp_path / "depth_left", "000_left_depth_mask.npy", "001_left_depth_mask.npy")
    assert len(match_frames(images, depths)) == 2
    touch(tmp_path / "depth_left", "002_left_depth.npy")
    with pytest.raises(ListError, match="have no image"):
        match_frames(images, depths)

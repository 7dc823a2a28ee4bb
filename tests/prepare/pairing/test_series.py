"""What the files of a folder are: images, depth, masks, pictures of depth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.prepare.pairing.file_content import find_content
from finetune.prepare.pairing.series import find_series, narrow_series
from finetune.utils.errors import ListError
from tests.normal_user import as_normal_user
from tests.prepare.pairing.folders import SIZE, write_depth, write_frames, write_image


def kinds(root: Path, *, reads_8_bit: bool = False, reads_channels: bool = False) -> dict[str, str]:
    found = find_series(root, "", reads_8_bit=reads_8_bit, reads_channels=reads_channels)
    return {one.label: one.kind for one in found}


@pytest.mark.parametrize(
    ("image", "depth", "labels"),
    [
        ("rgb/{:04}.png", "depth/{:04}.png", ("rgb/*.png", "depth/*.png")),
        ("rgb{:04}.png", "depth{:04}.png", ("rgb*.png", "depth*.png")),
        ("{:04}.jpg", "{:04}.png", ("*.jpg", "*.png")),
        ("{:04}.png", "{:04}.npy", ("*.png", "*.npy")),
        ("A{:04}.png", "B{:04}.png", ("A*.png", "B*.png")),  # the numbers in the files tell
        ("left/a_{}.jpg", "left_depth/a_{}.png", ("left/a_*.jpg", "left_depth/a_*.png")),
        ("depth/left/x{}.png", "depth/left/y{}.png", ("depth/left/x*.png", "depth/left/y*.png")),
        ("a/1.{}.png", "depth_left/1.{}.png", ("a/*.png", "depth_left/*.png")),
    ],
)
def test_images_and_depth(tmp_path: Path, image: str, depth: str, labels: tuple[str, str]) -> None:
    write_frames(tmp_path, image, depth)
    assert kinds(tmp_path) == {labels[0]: "image", labels[1]: "depth"}


def test_infrared_of_16_bits_is_an_image_and_masks_are_neither(tmp_path: Path) -> None:
    for name in ("ir/1.png", "depth/1.png"):
        write_depth(tmp_path / name)
    write_image(tmp_path / "masks/1.png", channels=1)
    write_image(tmp_path / "depth/1_conf.png", channels=1)
    assert kinds(tmp_path) == {
        "ir/*.png": "image",
        "depth/*.png": "depth",
        "masks/*.png": "other",
        "depth/*_conf.png": "other",
    }


def test_pictures_of_depth_are_depth_only_where_the_call_says_so(tmp_path: Path) -> None:
    write_image(tmp_path / "depth/1.png", channels=1)
    write_image(tmp_path / "depth_color/1.png")
    assert kinds(tmp_path) == {"depth/*.png": "picture", "depth_color/*.png": "picture"}
    assert kinds(tmp_path, reads_8_bit=True)["depth/*.png"] == "depth"
    assert kinds(tmp_path, reads_channels=True)["depth_color/*.png"] == "depth"


def test_a_folder_of_many_forms_of_names_is_told_apart_by_its_words(tmp_path: Path) -> None:
    for letter in "abcdefghijklmnop":
        write_image(tmp_path / f"{letter}x_color.png")
        write_depth(tmp_path / f"{letter}x_depth.png")
    assert kinds(tmp_path) == {"*color*.png": "image", "*depth*.png": "depth"}


def test_hidden_files_are_left_out_and_links_in_a_circle_end(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.png", "depth/{}.png")
    write_frames(tmp_path, ".old/rgb/{}.png", ".old/depth/{}.png")
    write_image(tmp_path / "rgb/._1.png")
    write_frames(tmp_path, "made/image/{}.png", "made/depth/{}.png")
    (tmp_path / "made/prepare.json").touch()  # by an earlier call
    (tmp_path / "again").symlink_to(tmp_path)
    assert kinds(tmp_path) == {"rgb/*.png": "image", "depth/*.png": "depth"}


def test_half_a_recording_is_not_left_out_because_it_is_closed(tmp_path: Path) -> None:
    write_frames(tmp_path, "lab/rgb/{}.png", "lab/depth/{}.png")
    write_frames(tmp_path, "hall/rgb/{}.png", "hall/depth/{}.png")
    (tmp_path / "hall").chmod(0)
    with as_normal_user(), pytest.raises(ListError, match=r"hall: cannot be listed \(Permission denied\)"):
        kinds(tmp_path)
    (tmp_path / "hall").chmod(0o700)


def test_a_pattern_says_which_files_are_of_a_kind(tmp_path: Path) -> None:
    write_frames(tmp_path, "lab/a/{}.png", "lab/b/{}.png")
    found = find_series(tmp_path, "", reads_8_bit=False, reads_channels=False)
    narrowed = narrow_series(found, "lab/b/[12].png".replace("[12]", "2"), "depth")
    assert {(one.label, one.kind): list(one.names) for one in narrowed if one.label == "lab/b/*.png"} == {
        ("lab/b/*.png", "depth"): ["2.png"],
        ("lab/b/*.png", "other"): ["0.png", "1.png"],
    }
    with pytest.raises(ListError, match=r"--depth nowhere/\*: matches no file\. Write the path from the folder on"):
        narrow_series(found, "nowhere/*", "depth")


def test_where_and_by_which_camera_a_series_was_recorded(tmp_path: Path) -> None:
    write_frames(tmp_path, "day1/images/cam_01/{}.png", "day1/depth_maps/cam_01/frame_{}.png")
    found = find_series(tmp_path, "drive", reads_8_bit=False, reads_channels=False)
    assert {(one.place, one.camera) for one in found} == {(("drive", "day1", "cam_01"), "cam_01")}
    assert {one.label for one in found} == {
        "drive/day1/images/cam_01/*.png",
        "drive/day1/depth_maps/cam_01/frame_*.png",
    }


def test_the_content_of_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.ones((40, 3)))
    np.save(tmp_path / "poses.npy", np.ones((40, 4, 4)))
    np.save(tmp_path / "xyz.npy", np.ones((*SIZE, 3), np.float32))
    np.save(tmp_path / "image.npy", np.ones((3, *SIZE), np.uint8))
    np.save(tmp_path / "depth.npy", np.ones((1, *SIZE), np.float16))
    np.savez(tmp_path / "both.npz", rgb=np.ones((*SIZE, 3), np.uint8), depth=np.ones(SIZE, np.float32))
    np.savez(tmp_path / "one.npz", K=np.eye(3), depth=np.ones(SIZE, np.float32))
    expected = {"points": "unknown", "poses": "unknown", "xyz": "channels", "image": "color", "depth": "depth"}
    assert {name: find_content([tmp_path / f"{name}.npy"]) for name in expected} == expected
    assert find_content([tmp_path / "both.npz"]) == "both"
    assert find_content([tmp_path / "one.npz"]) == "depth"


def test_a_damaged_first_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "1.png").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "2.png"), np.ones(SIZE, np.uint16))
    assert find_content([tmp_path / f"{i}.png" for i in range(3)]) == "depth"
    assert find_content([tmp_path / "0.png", tmp_path / "gone.png"]) == "unknown"

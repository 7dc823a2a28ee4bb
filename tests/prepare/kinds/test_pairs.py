"""Kind pairs: folders as people own them, through to a frame; what is refused leaves nothing behind."""

from __future__ import annotations

import argparse
import json
import pickle
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import prepare
from finetune.data.readers.files import read_image
from finetune.data.readers.pairs import Pairs
from finetune.prepare.kinds.pairs import add_arguments, find_frames, open_source
from finetune.prepare.recording import FrameSource
from finetune.recipe.load import load_recipe
from finetune.utils.errors import ListError
from tests.prepare.pairing.folders import SIZE, write_depth, write_frames, write_image

INTRINSICS = {"width": 8, "height": 6, "fx": 7.0, "fy": 7.0, "cx": 3.5, "cy": 2.5}


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def open_folder(*words: object) -> FrameSource:
    return open_source(parse(*words, "--sensor", "realsense"))


@pytest.mark.parametrize(
    ("image", "depth"),
    [
        ("rgb{:04}.png", "depth{:04}.png"),
        ("rgb/rgb{:04}.jpg", "depth/depth{:04}.png"),
        ("{:04}.jpg", "{:04}.png"),
        ("color/frame_{}.png", "depth/{:06}.png"),
    ],
)
def test_a_frame_is_its_own_files(tmp_path: Path, image: str, depth: str) -> None:
    write_frames(tmp_path, image, depth)
    write_depth(tmp_path / depth.format(1), 2500)
    source = pickle.loads(pickle.dumps(open_folder(tmp_path)))
    assert len(source.keys) == 3 and {key.recording for key in source.keys} == {tmp_path.name}
    frame = source.load_frame(1)
    assert frame.image_file == tmp_path / image.format(1)
    np.testing.assert_array_equal(frame.image, read_image(frame.image_file))
    np.testing.assert_allclose(frame.depth_m[1], np.full(SIZE[1], 2.5))
    assert frame.source == str(tmp_path / depth.format(1)) and frame.camera is None


def test_several_sources_and_the_cameras_of_each(tmp_path: Path) -> None:
    for name, fx in (("kitchen", 7.0), ("hall", 9.0)):
        write_frames(tmp_path, f"{name}/rgb/{{}}.png", f"{name}/depth/{{}}.png")
        (tmp_path / name / "intrinsics.json").write_text(json.dumps({**INTRINSICS, "fx": fx}))
    write_frames(tmp_path, "stairs/rgb/{}.png", "stairs/depth/{}.png")
    source = open_folder(tmp_path / "kitchen", tmp_path / "hall", tmp_path / "stairs")
    assert [key.recording for key in source.keys] == ["kitchen"] * 3 + ["hall"] * 3 + ["stairs"] * 3
    frames = [source.load_frame(index) for index in (0, 3, 6)]
    assert [frame.camera and frame.camera.fx_px for frame in frames if frame] == [7.0, 9.0, None]
    paths = [tmp_path / name / "intrinsics.json" for name in ("hall", "kitchen")]
    assert source.notes[-1] == f"the cameras are those of {paths[0]}, {paths[1]}"


def test_cameras_by_path_name_or_stem_and_given_ones_win(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.png", "depth/{}.png", range(3))
    cameras = {name: {**INTRINSICS, "fx": fx} for name, fx in (("rgb/0.png", 5.0), ("1.png", 6.0), ("2", 7.0))}
    (tmp_path / "intrinsics.json").write_text(json.dumps(cameras))
    source = open_folder(tmp_path)
    assert [frame.camera.fx_px for i in range(3) if (frame := source.load_frame(i)) and frame.camera] == [5.0, 6.0, 7.0]
    (tmp_path / "mine.json").write_text(json.dumps({**INTRINSICS, "fx": 8.0}))
    source = open_folder(tmp_path, "--intrinsics", tmp_path / "mine.json")
    frame = source.load_frame(0)
    assert frame is not None and frame.camera is not None and frame.camera.fx_px == 8.0


def test_files_whose_names_begin_with_a_dot_are_counted(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.png", "depth/{}.png")
    for name in (".x..y", "._1", ".z"):  # ._1 is a file that a Mac writes next to 1
        write_frames(tmp_path, f"rgb/{name}.png", f"depth/{name}.png", range(1))
    for words in ((), ("--images", "rgb/*", "--depth", "depth/*")):
        source = open_folder(tmp_path, *words)
        assert len(source.keys) == 3
        for folder in ("rgb", "depth"):
            assert f"not used: {folder}/.* (2 files, whose names begin with a dot)" in source.notes


def test_lists_and_folders_are_found_together(tmp_path: Path) -> None:
    write_frames(tmp_path, "desk/rgb/c{}.png", "desk/depth/{}.png")
    lines = [f"{10 + i / 10} rgb/c{i}.png {10.01 + i / 10} depth/{2 - i}.png" for i in range(3)]
    (tmp_path / "desk/associations.txt").write_text("\n".join(lines))
    write_frames(tmp_path, "hall/rgb/{}.png", "hall/depth/{}.png")
    found = find_frames(parse(tmp_path))
    assert [(frame.recording, frame.depth.name) for frame in found.frames] == [
        *(("desk", f"{2 - i}.png") for i in range(3)),
        *(("hall", f"{i}.png") for i in range(3)),
    ]
    (tmp_path / "mine.txt").write_text("desk/rgb/c0.png hall/depth/1.png\n")
    found = find_frames(parse(tmp_path / "mine.txt"))
    (frame,) = found.frames
    assert (frame.recording, frame.image.name, frame.depth.name) == ("mine", "c0.png", "1.png")


def test_patterns_choose_where_several_fit(tmp_path: Path) -> None:
    write_frames(tmp_path, "lab/rgb/{}.png", "lab/depth/{}.png")
    write_frames(tmp_path, "lab/color/{}.png", "lab/depth_filled/{}.png")
    with pytest.raises(ListError, match="several images fit"):
        find_frames(parse(tmp_path))
    found = find_frames(parse(tmp_path, "--images", "lab/rgb/*", "--depth", "lab/depth_filled/*.png"))
    assert {(frame.image.parent.name, frame.depth.parent.name) for frame in found.frames} == {("rgb", "depth_filled")}


def test_depth_that_is_smaller_than_its_image(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.png", "depth/{}.png")
    cv2.imwrite(str(tmp_path / "rgb/0.png"), np.zeros((12, 16, 3), np.uint8))
    (tmp_path / "intrinsics.json").write_text(json.dumps({**INTRINSICS, "width": 16, "height": 12}))
    frame = open_folder(tmp_path).load_frame(0)
    assert frame is not None and frame.image.shape == (12, 16, 3) and frame.depth_m.shape == SIZE
    assert frame.image_file == tmp_path / "rgb/0.png"
    assert frame.camera is not None and frame.camera.fx_px == pytest.approx(7.0)  # of the image, as it was given


@pytest.mark.slow
def test_5000_files_are_listed_in_seconds(tmp_path: Path) -> None:
    for part in range(5):
        for kind in ("rgb", "depth"):
            (tmp_path / f"{part}/{kind}").mkdir(parents=True)
            for i in range(1000):
                # Their names tell; what is in empty files does not.
                (tmp_path / f"{part}/{kind}/{1305031102 + i / 30 + 0.007 * (kind == 'depth'):.6f}.png").touch()
    start_s = time.perf_counter()
    found = find_frames(parse(tmp_path))
    assert len(found.frames) == 5000 and len({frame.recording for frame in found.frames}) == 5
    assert time.perf_counter() - start_s < 20  # 1.2 s on an idle core


def test_the_command_writes_nothing_without_a_unit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path, "in/rgb/{}.png", "in/depth/{}.png")
    assert prepare.main(["pairs", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and not (tmp_path / "out").exists()
    first, second, *_ = said.err.splitlines()
    assert first.startswith(f"finetune stopped: {tmp_path}/in/depth/0.png and 2 more depth maps: numbers around 1500, ")
    assert second.startswith("  --meters-per-unit 0.001       millimeters: half within 1.5 m")


def test_the_command_copies_images_and_keeps_depth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path, f"in/{name}/rgb/{{}}.jpg", f"in/{name}/depth/{{}}.png", range(4))
    output = tmp_path / "out"
    call = ["pairs", str(tmp_path / "in"), "--sensor", "realsense", "--output", str(output), "--no-check"]
    assert prepare.main(call) == 0
    said = capsys.readouterr().out
    assert "8 frames paired by equal stems: a/rgb/0.jpg with a/depth/0.png" in said
    assert (output / "image/a/2.jpg").read_bytes() == (tmp_path / "in/a/rgb/2.jpg").read_bytes()
    recipe = load_recipe(str(output / "recipe.yaml"), [])
    train = recipe.data.train[0].source
    # One recording trains and the other one validates.
    assert isinstance(train, Pairs) and len(train) == 4 and len(recipe.data.val[0].source) == 4
    np.testing.assert_allclose(train[2].depth_m[1], np.full(SIZE[1], 1.5))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder. Name a folder of images and depth maps, or a list"),
        (["in", "--depth", "gone/*"], "--depth gone/*: matches no file"),
        (["in/rgb"], "rgb: holds no depth map next to *.png (3 files)"),
        (["in", "--depth-is", "range"], "--intrinsics is None; expected a JSON file"),
        (["in", "--tolerance", "-1"], "-1 is not a number of seconds from 0 up"),
        (["mixed"], "mixed/a/depth/0.png: holds whole numbers, and "),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path, "in/rgb/{}.png", "in/depth/{}.png")
    write_frames(tmp_path, "mixed/a/rgb/{}.png", "mixed/a/depth/{}.png")
    write_frames(tmp_path, "mixed/b/rgb/{}.png", "mixed/b/depth/{}.npy")
    call = ["pairs", *words, "--sensor", "kinect_v2", "--output", "out"]
    try:
        status = prepare.main(call)
    except SystemExit as stopped:  # of arguments
        status = int(str(stopped.code))
    assert status == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_one_frame_of_another_size_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path, "in/rgb/{}.png", "in/depth/{}.png")
    cv2.imwrite(str(tmp_path / "in/rgb/1.png"), np.zeros((9, 5, 3), np.uint8))
    output = tmp_path / "out"
    assert prepare.main(["pairs", str(tmp_path / "in"), "--sensor", "zed", "--output", str(output)]) == 1
    assert "in/depth/1.png: depth is 6x8 (height x width), its image" in capsys.readouterr().err
    assert not output.exists()


def test_images_are_written_upright_where_their_tag_turns_them(tmp_path: Path) -> None:
    write_frames(tmp_path, "rgb/{}.jpg", "depth/{}.png", range(1))
    path = tmp_path / "rgb/0.jpg"
    data = path.read_bytes()
    # Orientation 6: the first row of the file is the right side.
    tag = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    path.write_bytes(data[:2] + tag + data[2:])
    frame = open_folder(tmp_path).load_frame(0)
    assert frame is not None and frame.image_file is None
    np.testing.assert_array_equal(frame.image, read_image(path, upright=True))
    assert frame.depth_m[:, -1].std() > 0 and frame.depth_m[:, 0].std() == 0  # turned with its image
    write_image(path)
    again = open_folder(tmp_path).load_frame(0)
    assert again is not None and again.image_file == path

"""Images or a video with depth files of every format: the meters and the cameras that come out."""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.data.readers.files import read_image
from finetune.prepare.depth_options import name_options
from finetune.prepare.kinds import frames
from finetune.prepare.recording import FrameSource
from finetune.utils.errors import DataError, FinetuneError, ListError
from tests.data.readers.test_orientation import save_tagged

SIZE = (24, 32)


def depth_of(i: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W) millimeters that differ at every pixel, with a hole."""
    counts = (1000 * (i + 1) + np.arange(size[0] * size[1]).reshape(size)).astype(np.uint16)
    counts[:3, :5] = 0
    return counts


def write_images(folder: Path, count: int = 3, size: tuple[int, int] = SIZE) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03}.png"), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    return folder


def write_depths(folder: Path, ending: str, count: int = 3) -> Path:
    """The meters of ``depth_of`` as floats, with NaN for the hole where the format has it."""
    folder.mkdir(parents=True)
    for i in range(count):
        path, depth_m = folder / f"{i:03}{ending}", depth_of(i).astype(np.float32) / 1000
        if ending == ".npy":
            np.save(path, np.where(depth_m > 0, depth_m, np.nan))
        elif ending in (".tiff", ".pfm"):
            cv2.imwrite(str(path), depth_m)
        elif ending == ".h5":
            h5py = pytest.importorskip("h5py")
            with h5py.File(path, "w") as file:
                file["depth"] = depth_m
        else:
            exr = pytest.importorskip("OpenEXR")
            with exr.File({}, {"Z": depth_m}) as file:
                file.write(str(path))
    return folder


def open_frames(*words: object) -> FrameSource:
    parser = argparse.ArgumentParser()
    frames.add_arguments(parser)
    return frames.open_source(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize("count", [0, 2])
def test_images_whose_names_begin_with_a_dot_are_counted(tmp_path: Path, count: int) -> None:
    images, depths = write_images(tmp_path / "rgb"), write_depths(tmp_path / "depth", ".npy")
    for name in [f".{i}.png" for i in range(count)] + ["._000.png", ".notes.txt"]:
        (images / name).write_bytes((images / "000.png").read_bytes())
    notes = open_frames(images, depths, "--meters-per-unit", 1).notes
    said = f"not used: 2 images of {images} whose names begin with a dot, .0.png first"
    assert list(notes) == ([said] if count else [])


def write_camera(path: Path, **more: object) -> Path:
    path.write_text(json.dumps({"width": 32, "height": 24, "fx": 30.0, "fy": 30.0, "cx": 15.5, "cy": 11.5, **more}))
    return path


@pytest.mark.parametrize("ending", [".npy", ".tiff", ".pfm", ".h5", ".exr"])
def test_floats_of_every_format_are_the_same_meters(tmp_path: Path, ending: str) -> None:
    images, depths = write_images(tmp_path / "rgb"), write_depths(tmp_path / "depth", ending)
    source = open_frames(images, depths, "--meters-per-unit", 1)
    assert [key.stem for key in source.keys] == ["000", "001", "002"]
    for i in range(3):
        frame = source.load_frame(i)
        assert frame is not None
        np.testing.assert_array_equal(frame.depth_m, depth_of(i).astype(np.float32) / 1000)
        assert frame.image_file == images / f"{i:03}.png" and frame.camera is None


def test_millimeters_invalid_numbers_and_the_camera(tmp_path: Path) -> None:
    images = write_images(tmp_path / "rgb")
    depths = tmp_path / "depth"
    depths.mkdir()
    for i in range(3):
        counts = depth_of(i)
        counts[-1] = 65535
        cv2.imwrite(str(depths / f"{i:03}.png"), counts)
    camera = write_camera(tmp_path / "camera.json")
    source = open_frames(images, depths, "--sensor", "realsense", "--invalid", "0,65535", "--intrinsics", camera)
    frame = source.load_frame(1)
    assert frame is not None and frame.camera is not None
    assert (frame.depth_m[-1] == 0).all() and (frame.depth_m[:3, :5] == 0).all()
    assert frame.depth_m[5, 7] == np.float32((2000 + 5 * 32 + 7) / 1000)
    assert frame.camera.fx_px == 30.0


def test_distances_along_the_ray_become_depth(tmp_path: Path) -> None:
    images, depths = write_images(tmp_path / "rgb", 1), write_depths(tmp_path / "depth", ".npy", 1)
    camera = write_camera(tmp_path / "camera.json")
    frame = open_frames(
        images, depths, "--meters-per-unit", 1, "--depth-is", "range", "--intrinsics", camera
    ).load_frame(0)
    assert frame is not None
    # The ray of pixel (20, 30) is ((30 - 15.5) / 30, (20 - 11.5) / 30, 1), of length 1.146250
    assert frame.depth_m[20, 30] == pytest.approx((1000 + 20 * 32 + 30) / 1000 / 1.146250, rel=1e-5)


def test_depth_smaller_than_its_image_stays_small(tmp_path: Path) -> None:
    images, depths = write_images(tmp_path / "rgb", size=(48, 64)), write_depths(tmp_path / "depth", ".npy")
    camera = write_camera(tmp_path / "camera.json", width=64, height=48)
    frame = open_frames(images, depths, "--meters-per-unit", 1, "--intrinsics", camera).load_frame(0)
    assert frame is not None and frame.camera is not None
    assert frame.image.shape == (48, 64, 3) and frame.depth_m.shape == SIZE
    assert (frame.camera.fx_px, frame.camera.cx_px) == pytest.approx((30.0, 15.5))


def write_video(path: Path, count: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (32, 24))
    for i in range(count):
        writer.write(np.full((24, 32, 3), 20 * i, np.uint8))
    writer.release()
    return path


def test_a_video_pairs_in_order_or_by_number(tmp_path: Path) -> None:
    video = write_video(tmp_path / "drive.avi", 6)
    all_of_them = open_frames(video, write_depths(tmp_path / "all", ".npy", 6), "--meters-per-unit", 1)
    assert "its 6 frames and the 6 depth maps are paired in their order" in all_of_them.notes[0]
    assert [key.time_s for key in all_of_them.keys] == pytest.approx([0.1 * i for i in range(6)])
    some = write_depths(tmp_path / "some", ".npy", 2)
    (some / "001.npy").rename(some / "004.npy")
    source = open_frames(video, some, "--meters-per-unit", 1)
    assert [key.stem for key in source.keys] == ["000000", "000004"]
    # Out of order, so the video is read again from its beginning.
    for index, brightness in ((1, 80), (0, 0)):
        frame = source.load_frame(index)
        assert frame is not None and frame.image_file is None
        assert abs(float(frame.image.mean()) - brightness) < 3
        np.testing.assert_array_equal(frame.depth_m, depth_of(index).astype(np.float32) / 1000)


def test_a_video_whose_depth_has_no_numbers_of_frames(tmp_path: Path) -> None:
    video, depths = write_video(tmp_path / "drive.avi", 3), write_depths(tmp_path / "depth", ".npy", 2)
    for path, name in zip(sorted(depths.iterdir()), ("7.npy", "9.npy"), strict=True):
        path.rename(depths / name)
    with pytest.raises(ListError, match=r"holds 2 depth maps, and .*drive.avi 3 frames"):
        open_frames(video, depths, "--meters-per-unit", 1)


def test_a_missing_unit_names_those_that_fit(tmp_path: Path) -> None:
    images = write_images(tmp_path / "rgb", 1)
    depths = tmp_path / "depth"
    depths.mkdir()
    cv2.imwrite(str(depths / "000.png"), depth_of(0))
    with pytest.raises(FinetuneError) as refused:
        open_frames(images, depths)
    assert "nothing says what 1 is in meters" in str(refused.value)
    assert "--meters-per-unit 0.001       millimeters: half within 1.39 m" in str(refused.value)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--meters-per-unit", 0], "--meters-per-unit is 0.0; expected a number above 0"),
        (["--meters-per-unit", 1, "--depth-is", "range"], "--intrinsics is None; expected a JSON file"),
        (["--depth-is", "disparity"], "--baseline-m is None"),
        (["--meters-per-unit", 1, "--intrinsics", "no.json"], "no.json"),
    ],
)
def test_wrong_options_are_named_as_they_are_typed(tmp_path: Path, words: list[object], found: str) -> None:
    images, depths = write_images(tmp_path / "rgb", 1), write_depths(tmp_path / "depth", ".npy", 1)
    with pytest.raises(FinetuneError) as refused:
        open_frames(images, depths, *words)
    assert found in str(refused.value)


def test_depth_of_another_shape_is_refused(tmp_path: Path) -> None:
    images, depths = write_images(tmp_path / "rgb", size=(24, 40)), write_depths(tmp_path / "depth", ".npy")
    with pytest.raises(DataError, match="depth is 24x32"):
        open_frames(images, depths, "--meters-per-unit", 1).load_frame(0)


def test_depth_of_an_image_that_is_turned_by_half_is_turned_as_the_call_says(tmp_path: Path) -> None:
    images, depths = write_images(tmp_path / "rgb", 1), write_depths(tmp_path / "depth", ".npy", 1)
    stored = next(images.iterdir())
    save_tagged(images / "000.jpg", read_image(stored), 3)
    if stored.suffix != ".jpg":
        stored.unlink()
    with pytest.raises(DataError) as refused:
        open_frames(images, depths, "--meters-per-unit", 1).load_frame(0)
    assert "Set --exif-turns both if depth" in str(name_options(refused.value))
    turned, as_stored = (
        open_frames(images, depths, "--meters-per-unit", 1, "--exif-turns", words).load_frame(0)
        for words in ("both", "image")
    )
    assert turned is not None and as_stored is not None
    np.testing.assert_array_equal(turned.depth_m, as_stored.depth_m[::-1, ::-1])


def test_sentences_of_readers_name_what_a_call_has(tmp_path: Path) -> None:
    images, depths = write_images(tmp_path / "rgb", 1), tmp_path / "depth"
    depths.mkdir()
    with pytest.raises(ListError) as refused:
        open_frames(images, depths, "--meters-per-unit", 1)
    said = str(name_options(refused.value))
    assert "Correct IMAGES and DEPTH" in said and "_dir" not in said

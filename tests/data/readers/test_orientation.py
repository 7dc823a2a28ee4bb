"""Images that are stored as the sensor lay, and what goes with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from finetune.data.camera import Camera
from finetune.data.readers.files import read_image
from finetune.data.readers.orientation import orientation_of, turn_camera_upright, turn_sample_upright, turn_upright
from finetune.data.readers.pairs import Pairs
from finetune.data.sample import DepthSample
from finetune.inference.image_input import to_image_array
from finetune.utils.errors import DataError


def save_tagged(path: Path, pixels: np.ndarray, orientation: int) -> None:
    """An image as stored, RGB, with the tag."""
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, lossless=True, quality=100)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tag_is_read_and_obeyed_as_the_decoder_does(tmp_path: Path, ending: str, orientation: int) -> None:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8] = (250, 0, 0)
    pixels[8:, 8:16] = (0, 250, 0)
    path = tmp_path / f"a{ending}"
    save_tagged(path, pixels, orientation)
    assert orientation_of(path.read_bytes()) == orientation
    assert (turn_upright(read_image(path), orientation) == read_image(path, upright=True)).all()
    assert read_image(path, upright=True).shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\0", b"\x89PNG\r\n\x1a\n\0\0", b"RIFF....WEBP", b"II*\0"]
)
def test_a_file_that_says_none_is_upright(data: bytes) -> None:
    assert orientation_of(data) == 1


def test_every_cut_of_a_tagged_file_is_answered(tmp_path: Path) -> None:
    save_tagged(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), 6)
    data = (tmp_path / "a.jpg").read_bytes()
    assert {orientation_of(data[:length]) for length in range(len(data))} == {1, 6}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_stay_in_place_but_for_the_turn(orientation: int) -> None:
    """A pixel's point, its image turned, has the same depth and the same distance to the axis."""
    camera = Camera(fx_px=20.0, fy_px=30.0, cx_px=10.0, cy_px=4.0)
    depth_m = np.linspace(1, 2, 16 * 24).reshape(16, 24).astype(np.float32)
    stored = DepthSample(
        image=np.zeros((16, 24, 3), np.uint8), depth_m=depth_m, valid=depth_m > 1.1, source="a", camera=camera
    )
    upright = turn_sample_upright(stored, orientation)
    assert upright.camera == turn_camera_upright(camera, orientation, 16, 24)
    assert upright.camera is not None
    before, after = camera.back_project(depth_m), upright.camera.back_project(upright.depth_m)
    assert turn_upright(np.linalg.norm(before, axis=-1), orientation) == pytest.approx(np.linalg.norm(after, axis=-1))
    assert (turn_upright(stored.valid, orientation) == upright.valid).all()


def test_a_turn_to_the_right_by_hand() -> None:
    # Tag 6: the top of the scene is at the right of the stored image. Row 0 becomes the last column.
    stored = np.array([[1, 2, 3], [4, 5, 6]])
    assert turn_upright(stored, 6).tolist() == [[4, 1], [5, 2], [6, 3]]
    camera = turn_camera_upright(Camera(fx_px=20.0, fy_px=30.0, cx_px=2.0, cy_px=0.0), 6, 2, 3)
    # The pixel in row 0, column 2, value 3, is now in row 2, column 1.
    assert camera == Camera(fx_px=30.0, fy_px=20.0, cx_px=1.0, cy_px=2.0)


DEPTH = np.arange(1000, 1000 + 12 * 16, dtype=np.uint16).reshape(12, 16)
IMAGE = np.stack([np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)] * 3, axis=-1)
CAMERA = Camera(fx_px=15.0, fy_px=14.0, cx_px=7.0, cy_px=4.0)


def write_tagged(folder: Path, orientation: int, depth: np.ndarray, camera: tuple[int, int, Camera]) -> dict[str, Any]:
    """A frame whose image is stored as the sensor lay; the options that read it."""
    save_tagged(folder / "a.png", IMAGE, orientation)
    cv2.imwrite(str(folder / "d.png"), depth)
    height, width, of = camera
    values = {"width": width, "height": height, "fx": of.fx_px, "fy": of.fy_px, "cx": of.cx_px, "cy": of.cy_px}
    (folder / "camera.json").write_text(json.dumps(values))
    (folder / "list.txt").write_text("a.png d.png\n")
    return {"root": str(folder), "list": "list.txt", "meters_per_unit": 0.001, "intrinsics": "camera.json"}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth_is_upright", [False, True])
@pytest.mark.parametrize("camera_is_upright", [False, True])
def test_a_frame_is_upright_with_all_that_belongs_to_it(
    tmp_path: Path, orientation: int, depth_is_upright: bool, camera_is_upright: bool
) -> None:
    upright_camera = turn_camera_upright(CAMERA, orientation, 12, 16)
    upright_shape = (16, 12) if orientation > 4 else (12, 16)
    # Of a flip or a half turn the sizes do not tell: there, intrinsics are taken for those of the depth map.
    camera_is_upright = camera_is_upright if orientation > 4 else depth_is_upright
    camera = (*upright_shape, upright_camera) if camera_is_upright else (12, 16, CAMERA)
    depth = turn_upright(DEPTH, orientation) if depth_is_upright else DEPTH
    options = write_tagged(tmp_path, orientation, depth, camera)
    mask = np.full(IMAGE.shape[:2], 255, np.uint8)
    mask[:, :5] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), turn_upright(mask, orientation) if depth_is_upright else mask)
    if 1 < orientation < 5:
        with pytest.raises(
            DataError, match=rf"a\.png: has the EXIF orientation {orientation}, and the sizes do not tell"
        ):
            Pairs(**options)[0]
        options |= {"exif_turns": "image" if depth_is_upright else "both"}
    sample = Pairs(**options, mask="mask.png")[0]
    assert (sample.image == read_image(tmp_path / "a.png", upright=True)).all()
    assert (sample.depth_m == (turn_upright(DEPTH, orientation) * 0.001).astype(np.float32)).all()
    assert (sample.valid == turn_upright(mask > 0, orientation)).all()
    assert sample.camera == upright_camera


def test_a_square_image_and_a_larger_one(tmp_path: Path) -> None:
    options = write_tagged(tmp_path, 6, DEPTH, (12, 16, CAMERA))
    # An image of twice the size stands or lies as its depth map.
    save_tagged(tmp_path / "a.png", IMAGE.repeat(2, 0).repeat(2, 1), 6)
    del options["intrinsics"]
    for depth in (DEPTH, turn_upright(DEPTH, 6)):
        cv2.imwrite(str(tmp_path / "d.png"), depth)
        sample = Pairs(**options, reduce_image=True)[0]
        assert (sample.image == turn_upright(IMAGE, 6)).all()
        assert sample.depth_m[0, 0] == np.float32(DEPTH[-1, 0] / 1000)
    save_tagged(tmp_path / "a.png", IMAGE[:, :12], 6)
    cv2.imwrite(str(tmp_path / "d.png"), DEPTH[:, :12])
    with pytest.raises(DataError, match="sizes do not tell"):
        Pairs(**options)[0]
    assert (Pairs(**options, exif_turns="both")[0].image == turn_upright(IMAGE[:, :12], 6)).all()


def test_a_phone_s_frames_are_evaluated_as_predict_sees_them(tmp_path: Path) -> None:
    options = write_tagged(tmp_path, 6, DEPTH, (12, 16, CAMERA))
    assert (Pairs(**options)[0].image == to_image_array(tmp_path / "a.png")).all()

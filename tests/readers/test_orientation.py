"""Images that are stored as the sensor lay, and what goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finetune.camera import Camera
from finetune.readers.files import read_image
from finetune.readers.orientation import orientation_of, turned, turned_camera, turned_sample
from finetune.sample import DepthSample


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
    assert (turned(read_image(path), orientation) == read_image(path, upright=True)).all()
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
    upright = turned_sample(stored, orientation)
    assert upright.camera == turned_camera(camera, orientation, 16, 24)
    assert upright.camera is not None
    before, after = camera.back_project(depth_m), upright.camera.back_project(upright.depth_m)
    assert turned(np.linalg.norm(before, axis=-1), orientation) == pytest.approx(np.linalg.norm(after, axis=-1))
    assert (turned(stored.valid, orientation) == upright.valid).all()


def test_a_turn_to_the_right_by_hand() -> None:
    # Tag 6: the top of the scene is at the right of the stored image. Row 0 becomes the last column.
    stored = np.array([[1, 2, 3], [4, 5, 6]])
    assert turned(stored, 6).tolist() == [[4, 1], [5, 2], [6, 3]]
    camera = turned_camera(Camera(fx_px=20.0, fy_px=30.0, cx_px=2.0, cy_px=0.0), 6, 2, 3)
    # The pixel in row 0, column 2, value 3, is now in row 2, column 1.
    assert camera == Camera(fx_px=30.0, fy_px=20.0, cx_px=1.0, cy_px=2.0)

"""``data.decode: reduced``: training, evaluation, prediction of files and packed data see the same pixels of a JPEG."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.data.augmentation import Augmentation
from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_image_file, read_network_image
from finetune.data.readers.packed import Packed
from finetune.data.readers.pairs import Pairs
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from finetune.data.validation_dataset import ValidationSamples
from finetune.inference.predictor import Predictor, load_model
from finetune.prepare.packing.pack_plan import PackChoice
from finetune.prepare.packing.run_pack import PackOptions, pack_recipe
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.utils.errors import FinetuneError, RecipeError
from tests.small_models import write_model

SIZE = (28, 42)
REDUCED, FULL = Preprocessing(input_size=SIZE, decode="reduced"), Preprocessing(input_size=SIZE)
CAMERA = {"fx": 90.0, "fy": 90.0, "cx": 60.0, "cy": 40.0}


def ramps(height: int, width: int) -> np.ndarray:
    """(H, W, 3): red grows to the right, green downwards, so that a pixel's color says where it is."""
    down, across = np.mgrid[:height, :width]
    return np.stack([across * 200 / width + 20, down * 200 / height + 20, np.full_like(down, 90)], -1).astype(np.uint8)


def write_jpeg(path: Path, height: int, width: int, orientation: int | None = None) -> Path:
    options = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, content = cv2.imencode(".jpg", ramps(height, width)[..., ::-1], options)
    assert done
    data = content.tobytes()
    if orientation is not None:  # an EXIF block of one entry, right after the first marker
        tiff = b"II*\0\x08\0\0\0" + b"\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
        block = b"Exif\0\0" + tiff
        data = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    path.write_bytes(data)
    return path


def write_frames(folder: Path, height: int, width: int, count: int = 3) -> dict[str, Any]:
    """An entry with frames whose depth in millimeters also says where a pixel is."""
    for name in ("color", "depth"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        write_jpeg(folder / f"color/{i}.jpg", height, width)
        depth = 1000 + 10 * np.mgrid[:height, :width][1] + i
        cv2.imwrite(str(folder / f"depth/{i}.png"), depth.astype(np.uint16))
    (folder / "camera.json").write_text(json.dumps({"width": width, "height": height, **CAMERA}))
    return {
        "reader": "pairs",
        "root": str(folder),
        "image_dir": "color",
        "depth_dir": "depth",
        "meters_per_unit": 0.001,
        "intrinsics": "camera.json",
    }


def reader_of(entry: dict[str, Any]) -> Pairs:
    return Pairs(**{key: value for key, value in entry.items() if key != "reader"})


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((55, 84), 1),  # one row short of twice the network's 28x42
        ((56, 84), 2),
        ((111, 200), 2),
        ((112, 168), 4),
        ((400, 600), 4),
        ((57, 85), 2),
    ],
)
def test_a_jpeg_is_decoded_at_a_part_of_its_size_if_the_network_sees_no_more(
    tmp_path: Path, size: tuple[int, int], scale: int
) -> None:
    path = write_jpeg(tmp_path / "a.jpg", *size)
    found = read_image_file(path, network=REDUCED)
    assert (found.scale, found.size) == (scale, size)
    assert found.pixels.shape == (-(-size[0] // scale), -(-size[1] // scale), 3)
    assert read_image_file(path, network=FULL).scale == 1 and read_image_file(path).pixels.shape == (*size, 3)
    # Each pixel is the mean of those that it stands for; JPEG rounds.
    means = ramps(*size)[: size[0] // scale * scale, : size[1] // scale * scale].astype(float)
    means = means.reshape(size[0] // scale, scale, size[1] // scale, scale, 3).mean((1, 3))
    assert np.abs(found.pixels[: means.shape[0], : means.shape[1]] - means).max() <= 5
    assert np.abs(found.full().astype(int) - ramps(*size)).max() <= 10 and found.full().shape == (*size, 3)


def test_other_files_are_decoded_in_full(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), ramps(112, 168))
    np.save(tmp_path / "a.npy", ramps(112, 168))
    for name in ("a.png", "a.npy"):
        assert read_image_file(tmp_path / name, network=REDUCED).scale == 1


@pytest.mark.parametrize(("size", "scale"), [((112, 168), 2), ((113, 168), 1), ((168, 112), 4)])
def test_a_tag_that_turns_an_image_is_obeyed(tmp_path: Path, size: tuple[int, int], scale: int) -> None:
    # Turned, 112x168 is 168x112, of which the network sees 63 rows of 42 pixels: 2.7 times as many.
    path = write_jpeg(tmp_path / "turned.jpg", *size, orientation=6)
    found = read_network_image(path, REDUCED)
    assert (found.scale, found.size) == (scale, size[::-1])
    upright = np.rot90(ramps(*size), -1)
    assert np.abs(found.full().astype(int) - upright).max() <= 8


@pytest.mark.parametrize("size", [(56, 84), (57, 85), (112, 170), (115, 171), (300, 500)])
def test_the_network_sees_the_same_place_in_each_pixel(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_jpeg(tmp_path / "a.jpg", *size)
    reduced, full = read_image_file(path, network=REDUCED), read_image_file(path)
    assert reduced.scale > 1
    seen, expected = REDUCED(reduced.pixels, size=reduced.size), FULL(full.pixels)
    assert seen.shape == expected.shape
    # How far a column, or a row, seems to be from its place, in pixels of the network: ramps of 200 levels say it.
    for channel, axis in ((0, 0), (1, 1)):
        levels = (seen - expected)[channel].mean(axis) * FULL.std[channel] * 255
        assert np.abs(levels).max() * len(levels) / 200 < 0.22


@pytest.mark.parametrize("size", [(112, 168), (115, 170), (57, 200)])
def test_image_depth_and_camera_of_a_training_sample_belong_together(tmp_path: Path, size: tuple[int, int]) -> None:
    entry = write_frames(tmp_path, *size)
    made = {}
    for name, preprocessing in (("reduced", REDUCED), ("full", FULL)):
        samples = TrainingSamples(
            [reader_of(entry)],
            [1.0],
            preprocessing=preprocessing,
            augmentation=Augmentation(flip=0.5, color=0.0),
            ranges=[DepthRangePolicy(max_depth_m=10.0)],
            seed=0,
        )
        made[name] = [samples[k].sample for k in range(6)]
    for reduced, full in zip(made["reduced"], made["full"], strict=True):
        assert reduced.image_scale == 1 and np.array_equal(reduced.depth_m, full.depth_m)
        assert np.array_equal(reduced.valid, full.valid) and reduced.camera == full.camera
        assert np.abs(reduced.image.astype(int) - full.image).max() <= 5
    assert any(not np.array_equal(a.image, b.image) for a, b in zip(made["reduced"], made["full"], strict=True))


LARGER = Preprocessing(input_size=(56, 84), decode="reduced")  # as small as a recipe may ask for


def predictor_of(tmp_path: Path, preprocessing: Preprocessing) -> Predictor:
    return replace(load_model(str(write_model(tmp_path / "model.safetensors"))), preprocessing=preprocessing)


def test_prediction_of_a_file_sees_the_pixels_of_evaluation_and_an_array_is_full(tmp_path: Path) -> None:
    entry = write_frames(tmp_path / "frames", 115, 170)
    predictor = predictor_of(tmp_path, REDUCED)
    path = tmp_path / "frames/color/0.jpg"
    validation = ValidationSamples([reader_of(entry)], REDUCED)[0]
    assert validation.sample.image_scale == 4 and validation.sample.camera == Camera(
        fx_px=90.0, fy_px=90.0, cx_px=60.0, cy_px=40.0
    )
    file = read_network_image(path, REDUCED)
    assert np.array_equal(validation.image[0].numpy(), REDUCED(file.pixels, size=file.size))
    (expected,) = predictor.predict_batch(validation.image, [(115, 170)], [None])
    assert np.array_equal(predictor.predict(path), expected) and expected.shape == (115, 170)
    array = read_image_file(path).pixels
    assert np.array_equal(predictor.predict(array), predictor_of(tmp_path, FULL).predict(array))
    assert not np.array_equal(predictor.predict(array), expected)


def recipe_of(folder: Path, entry: dict[str, Any], decode: str) -> Recipe:
    path = folder / f"{decode}.yaml"
    model = {"checkpoint": None, "encoder": "tiny", "max_depth_m": 10.0}
    data = {"input_size": LARGER.input_size, "train": [entry], "val": [entry], "decode": decode}
    path.write_text(json.dumps({"model": model, "data": data}))
    return load_recipe(path)


@pytest.mark.parametrize(("size", "whole_name"), [("full", "train"), ("working", "val")])
def test_packed_frames_are_those_that_were_read(tmp_path: Path, size: Any, whole_name: str) -> None:
    entry = write_frames(tmp_path / "frames", 231, 341)
    choice = PackChoice(size=size, images="png")
    pack_recipe(recipe_of(tmp_path, entry, "reduced"), PackOptions(output=tmp_path / "packed", choice=choice))
    # At full size data.train and data.val are one entry, which is packed once.
    train, val = (Packed(root=str(tmp_path / "packed" / name)) for name in ("train_0", f"{whole_name}_0"))
    unpacked = reader_of(entry).decoded_for(LARGER)
    for i in range(len(unpacked)):
        sample, whole = val.decoded_for(LARGER)[i], unpacked[i]
        assert sample.image_scale == whole.image_scale == 4 and np.array_equal(sample.image, whole.image)
        assert np.array_equal(sample.depth_m, whole.depth_m) and sample.camera == whole.camera
        kept = train.decoded_for(LARGER)[i]
        seen = kept if size == "working" else LARGER.whole(231, 341)(kept)
        assert np.array_equal(seen.image, LARGER.whole(231, 341)(whole).image)
    with pytest.raises(RecipeError, match=r"data\.decode: full"):
        train.decoded_for(FULL)
    with pytest.raises(RecipeError, match="input_size 14x28"):
        val.decoded_for(Preprocessing(input_size=(14, 28), decode="reduced"))
    packed = {"reader": "packed", "root": str(tmp_path / f"packed/{whole_name}_0")}
    assert recipe_of(tmp_path, packed, "reduced").data.decode == "reduced"
    with pytest.raises(FinetuneError, match=r"data\.decode"):
        recipe_of(tmp_path, packed, "full")

"""How a graph takes images: each form gets what it was exported for."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.data.preprocessing import Preprocessing
from finetune.inference.input_form import InputForm
from finetune.utils.errors import FinetuneError

PREPROCESSING = Preprocessing(input_size=(28, 42))
IMAGE = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)


def test_a_file_of_before_takes_one_normalized_image() -> None:
    form = InputForm.from_metadata({"input_size": [28, 42]})
    assert form == InputForm(is_uint8=False, batch=1, input_size=(28, 42), frame_size=None)
    np.testing.assert_array_equal(form.prepare(IMAGE, PREPROCESSING)[0], PREPROCESSING(IMAGE))


def test_metadata_say_the_form() -> None:
    said = {"input_size": "any", "input_type": "uint8", "batch": "any", "frame_size": None}
    assert InputForm.from_metadata(said) == InputForm(is_uint8=True, batch=None)
    whole = {"input_size": [28, 42], "input_type": "uint8", "batch": 3, "frame_size": [40, 60]}
    form = InputForm.from_metadata(whole)
    np.testing.assert_array_equal(form.prepare(IMAGE, PREPROCESSING)[0], IMAGE)
    assert form.fill_batch(IMAGE[None]).shape == (3, 40, 60, 3)
    with pytest.raises(FinetuneError, match=r"m accepts 40x60 \(height x width\) only, and the image is 28x42"):
        form.require_size(np.zeros((1, 28, 42, 3), np.uint8), "m")


def test_uint8_is_resized_before_and_stays_uint8() -> None:
    form = InputForm(is_uint8=True)
    pixels = form.prepare(IMAGE, PREPROCESSING)
    assert (pixels.shape, pixels.dtype) == ((1, 28, 42, 3), np.uint8)
    np.testing.assert_array_equal(form.at_network_size(IMAGE, PREPROCESSING), pixels[0])
    # What the model sees, rounded to the nearest level, and cut off where it passes 0 and 255.
    seen = (PREPROCESSING(IMAGE).transpose(1, 2, 0) * PREPROCESSING.std + PREPROCESSING.mean) * 255
    assert seen.min() < -1 and seen.max() > 256
    assert np.abs(pixels[0] - np.clip(seen, 0, 255)).max() <= 0.5 + 1e-4
    assert form.rounds and not InputForm().rounds and not InputForm(is_uint8=True, frame_size=(40, 60)).rounds
    same = np.ascontiguousarray(IMAGE[:28, :42])
    np.testing.assert_array_equal(form.prepare(same, PREPROCESSING)[0], same)
    np.testing.assert_array_equal(form.mirror(pixels)[0, :, 0], pixels[0, :, -1])


@pytest.mark.parametrize(
    ("form", "shape", "dtype", "sentence"),
    [
        (
            InputForm(batch=3),
            (2, 3, 28, 42),
            "float32",
            "takes 3 images at a time, and was given 2. Give it as many, or",
        ),
        (InputForm(batch=3), (4, 3, 28, 42), "float32", "takes 3 images at a time, and was given 4"),
        (InputForm(), (2, 3, 28, 42), "float32", "takes 1 image at a time, and was given 2"),
        (InputForm(batch=None), (0, 3, 28, 42), "float32", "m was given no image"),
        (
            InputForm(),
            (3, 28, 42),
            "float32",
            r"takes \(B, 3, H, W\) floating, normalized, and was given \(3, 28, 42\)",
        ),
        (InputForm(), (1, 28, 42, 3), "float32", r"takes \(B, 3, H, W\) .*, and was given \(1, 28, 42, 3\) float32"),
        (InputForm(), (1, 3, 28, 42), "uint8", r"floating, normalized, and was given \(1, 3, 28, 42\) uint8"),
        (
            InputForm(is_uint8=True),
            (1, 28, 42, 3),
            "float32",
            r"takes \(B, H, W, 3\) uint8, RGB, and was given .* float32",
        ),
        (InputForm(), (1, 3, 28, 43), "float32", "m accepts multiples of 14, and was given 28x43"),
    ],
)
def test_what_is_no_input_of_the_graph_is_refused(
    form: InputForm, shape: tuple[int, ...], dtype: str, sentence: str
) -> None:
    with pytest.raises(FinetuneError, match=sentence):
        form.require_pixels(np.zeros(shape, dtype), "m")


def test_as_many_images_as_the_graph_takes_or_one_are_accepted() -> None:
    for form, counts in ((InputForm(batch=3), (1, 3)), (InputForm(batch=None), (1, 2, 5))):
        for count in counts:
            form.require_pixels(np.zeros((count, 3, 28, 42), np.float32), "m")


def test_a_focal_length_is_that_of_the_input() -> None:
    # From 40x60 to 28x42 a focal length shrinks to 0.7 times: 70 px there are 100 px in the frame.
    whole = InputForm(is_uint8=True, frame_size=(40, 60))
    assert whole.focal_px(70.0, (40, 60), (28, 42)) == pytest.approx(100.0)
    assert InputForm(is_uint8=True).focal_px(70.0, (40, 60), (28, 42)) == 70.0

"""Annotated images through a network, through folders of predictions, and through the original network."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_image
from finetune.evaluation.ordinal_pairs import AnnotatedImage, read_annotations
from finetune.inference.pair_scores import PredictionFolder, predict_by_network, score_annotated_images
from finetune.inference.predictor import load_model
from finetune.models.encoder_specs import ENCODERS
from finetune.utils.errors import DataError
from tests.drawn_weights import adjusted, draw, drawn_model, last_layer_that_varies
from tests.small_models import write_model


def annotated(folder: Path, pairs: int = 10, size: tuple[int, int] = (40, 60)) -> list[AnnotatedImage]:
    """Three drawn pictures in folders named as scenes, with pairs of points at random."""
    generator = np.random.default_rng(0)
    height, width = size
    content = {}
    for name in ("images/indoor/a.png", "images/outdoor/b.png", "images/outdoor/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        blots = cv2.GaussianBlur(generator.uniform(0, 255, (height, width, 3)).astype(np.float32), (0, 0), 4)
        blots = (blots - blots.min()) / np.ptp(blots) * 255
        cv2.imwrite(str(folder / name), blots.astype(np.uint8))
        points = [[int(generator.integers(height)), int(generator.integers(width))] for _ in range(2 * pairs)]
        content[name] = [
            {"point1": points[2 * i], "point2": points[2 * i + 1], "closer_point": "point1"} for i in range(pairs)
        ]
    (folder / "annotations.json").write_text(json.dumps(content))
    return read_annotations(folder / "annotations.json")


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_a_network_is_asked_at_the_size_of_the_image(tmp_path: Path, max_depth_m: float | None) -> None:
    images = annotated(tmp_path)
    model = load_model(str(write_model(tmp_path / "m.safetensors", max_depth_m)))
    results = score_annotated_images(images, tmp_path, predict_by_network(model), model.kind)
    assert len(results) == 30
    for result in results:
        prediction = model.predict(str(tmp_path / result.image))
        near, far = (prediction[int(row), int(column)] for row, column in (result.pair.near, result.pair.far))
        assert (result.near_value, result.far_value) == (near, far)
        assert result.is_right == (near < far if max_depth_m else near > far)
    assert 0 < sum(result.is_right for result in results) < 30


def test_predictions_in_a_folder_give_the_same(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    model = load_model(str(write_model(tmp_path / "m.safetensors")))
    of_network = score_annotated_images(images, tmp_path, predict_by_network(model), "metric")
    stems = tuple(Path(image.name).stem for image in images)
    for below in ("indoor/a", "outdoor/b", "outdoor/c"):
        path = tmp_path / "full" / "images" / f"{below}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, model.predict(str(tmp_path / "images" / f"{below}.png")))
    folder = PredictionFolder(folder=tmp_path / "full", kind="metric", stems=stems)
    found = score_annotated_images(images, tmp_path, folder, "metric")
    assert [result.is_right for result in found] == [result.is_right for result in of_network]
    flat = PredictionFolder(folder=tmp_path / "full" / "images" / "outdoor", kind="metric", stems=stems)
    assert np.array_equal(flat(images[1], tmp_path / images[1].name), folder(images[1], tmp_path / images[1].name))


def test_a_smaller_prediction_is_resized_bilinearly(tmp_path: Path) -> None:
    # A ramp stays a ramp: with align_corners the first and the last column keep their values.
    images = annotated(tmp_path)
    np.save(tmp_path / "a.npy", np.tile(np.linspace(1, 7, 15), (10, 1)))
    folder = PredictionFolder(folder=tmp_path, kind="metric", stems=("a", "b", "c"))
    found = folder(images[0], tmp_path / images[0].name)
    np.testing.assert_allclose(found, np.tile(np.linspace(1, 7, 60), (40, 1)), rtol=1e-6)


def test_a_sky_without_a_number_is_left_to_the_points(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    content = np.ones((40, 60), np.float32)
    content[:3] = np.inf
    np.save(tmp_path / "a.npy", content)
    folder = PredictionFolder(folder=tmp_path, kind="metric", stems=("a", "b", "c"))
    found = folder(images[0], tmp_path / images[0].name)
    assert np.isnan(found[:3]).all() and (found[3:] == 1.0).all()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (np.zeros((40, 60), np.uint8), "has 8 bits"),
        (np.full((40, 60), np.nan, np.float32), "holds no finite number"),
        (np.ones((60, 40), np.float32), "turned on its side"),
        (None, "no such file"),
    ],
)
def test_a_prediction_that_cannot_be_scored_is_one_sentence(
    content: np.ndarray | None, found: str, tmp_path: Path
) -> None:
    images = annotated(tmp_path)
    if content is not None:
        np.save(tmp_path / "a.npy", content)
    folder = PredictionFolder(folder=tmp_path, kind="metric", stems=("a", "b", "c"))
    with pytest.raises(DataError, match=found):
        folder(images[0], tmp_path / images[0].name)


def test_a_stem_of_two_images_is_not_guessed(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    np.save(tmp_path / "a.npy", np.ones((40, 60)))
    folder = PredictionFolder(folder=tmp_path, kind="metric", stems=("a", "a", "c"))
    with pytest.raises(DataError, match="could be of 2 images"):
        folder(images[0], tmp_path / images[0].name)


def test_a_missing_image_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    images = annotated(tmp_path)
    model = load_model(str(write_model(tmp_path / "m.safetensors")))
    with pytest.raises(DataError, match=f"Give --images {tmp_path}, where images/indoor/a.png is"):
        score_annotated_images(images, tmp_path / "images", predict_by_network(model), "metric")
    (tmp_path / "images/outdoor/c.png").unlink()
    with pytest.raises(DataError, match=r"c\.png: no such file"):
        score_annotated_images(images, tmp_path, predict_by_network(model), "metric")


@pytest.mark.original
def test_the_original_network_is_right_about_the_same_pairs(tmp_path: Path) -> None:
    from depth_anything_v2.dpt import DepthAnythingV2

    images = annotated(tmp_path, size=(240, 320))
    spec = ENCODERS["vits"]
    network = DepthAnythingV2("vits", spec.features, out_channels=list(spec.out_channels)).eval()
    first = read_image(tmp_path / images[0].name)
    seen = torch.from_numpy(Preprocessing(input_size=(518, 518))(first))[None]
    last_layer = last_layer_that_varies(drawn_model("vits", None), seen)
    weights = adjusted(draw({name: tensor.shape for name, tensor in network.state_dict().items()}), last_layer)
    torch.save(weights, tmp_path / "drawn.pth")
    network.load_state_dict(weights, strict=True)
    model = load_model(tmp_path / "drawn.pth", kind="relative")
    results = score_annotated_images(images, tmp_path, predict_by_network(model), "relative")
    theirs = {image.name: network.infer_image(cv2.imread(str(tmp_path / image.name))) for image in images}
    expected = []
    for result in results:
        rows_and_columns = ((int(row), int(column)) for row, column in (result.pair.near, result.pair.far))
        near, far = (theirs[result.image][place] for place in rows_and_columns)
        # Nearer than the difference of both networks no pair may be, or the comparison says nothing.
        assert abs(near - far) > 1e-3 * np.ptp(theirs[result.image]) or near == far
        expected.append(bool(near > far))
    assert [result.is_right for result in results] == expected
    assert 5 < sum(expected) < 25

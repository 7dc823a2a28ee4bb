"""Depth files of another system: found by name, placed and resized as the protocol says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.pairs import Pairs
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest, evaluate
from finetune.evaluation.prediction_files import Predictions
from finetune.evaluation.protocols import Protocol
from finetune.utils.errors import DataError, ResultError
from finetune.utils.kinds import Kind
from tests.evaluation.test_evaluator import one_process


def predictions(root: Path, folder: Path, names: list[str], meters_per_unit: float | None = None) -> Predictions:
    """For frames of 4x6 pixels with these names, below ``root``."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / f"{name}.png"), np.zeros((4, 6, 3), np.uint8))
        np.save(root / f"{name}.npy", np.ones((4, 6), np.float32))
    (root / "all.txt").write_text("".join(f"{name}.png {name}.npy\n" for name in names))
    readers = [Pairs(root=str(root), list="all.txt", meters_per_unit=1.0)]
    samples = ValidationSamples(readers, Preprocessing(input_size=(56, 70)))
    folder.mkdir(exist_ok=True)
    return Predictions(folder=folder, readers=readers, samples=samples, meters_per_unit=meters_per_unit)


def asked(
    size: tuple[int, int], number: int = 0, *, image_crop: str = "none", align_corners: bool = True
) -> PredictionRequest:
    image = torch.zeros(1, 3, 56, 70)
    return PredictionRequest(image=image, size=size, number=number, image_crop=image_crop, align_corners=align_corners)


def one(found: Predictions, wanted: PredictionRequest) -> np.ndarray:
    (prediction,) = found([wanted])
    return prediction


@pytest.mark.parametrize(("align_corners", "row"), [(True, [0.0, 1.0, 2.0, 3.0]), (False, [0.0, 0.75, 2.25, 3.0])])
def test_a_file_of_another_size_is_resized_as_the_protocol_says(
    tmp_path: Path, align_corners: bool, row: list[float]
) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    np.save(tmp_path / "depth" / "0.npy", np.array([[0.0, 3.0], [6.0, 9.0]]))
    prediction = one(found, asked((4, 4), align_corners=align_corners))
    assert prediction[0].tolist() == pytest.approx(row)
    assert prediction[:, 0].tolist() == pytest.approx([2 * value for value in row])


def test_a_file_of_the_size_asked_for_is_taken_as_it_is(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    stored = np.random.default_rng(0).uniform(1, 9, (4, 6)).astype(np.float32)
    np.save(tmp_path / "depth" / "0.npy", stored)
    assert (one(found, asked((4, 6))) == stored).all()


def test_the_unit_is_multiplied_in_and_a_png_goes_before_an_array(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"], meters_per_unit=0.001)
    cv2.imwrite(str(tmp_path / "depth" / "0.png"), np.full((4, 6), 2500, np.uint16))
    np.save(tmp_path / "depth" / "0.npy", np.full((4, 6), 9000.0))
    assert one(found, asked((4, 6))) == pytest.approx(2.5)
    (tmp_path / "depth" / "0.png").unlink()
    assert one(found, asked((4, 6))) == pytest.approx(9.0)


def test_of_a_whole_kitti_frame_what_the_kb_crop_leaves_is_taken(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    whole = np.arange(375 * 1242, dtype=np.float64).reshape(375, 1242)
    np.save(tmp_path / "depth" / "0.npy", whole)
    kb = asked((352, 1216), image_crop="kb")
    assert (one(found, kb) == whole[23:375, 13:1229]).all()
    np.save(tmp_path / "depth" / "0.npy", whole[23:375, 13:1229])
    assert (one(found, kb) == whole[23:375, 13:1229]).all()
    np.save(tmp_path / "depth" / "0.npy", whole[:351])
    with pytest.raises(DataError, match=r"0\.npy: is 351x1242, smaller than the KB crop"):
        one(found, kb)


def test_equal_names_in_two_folders_are_told_apart_by_the_folder(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["a/0", "b/0", "b/1"])
    for name, depth_m in (("a/0", 1.0), ("b/0", 2.0), ("1", 3.0)):
        (tmp_path / "depth" / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / "depth" / f"{name}.npy", np.full((4, 6), depth_m))
    # The last one lies in no folder, and needs none: there is one frame of its name.
    assert [one(found, asked((4, 6), number))[0, 0] for number in range(3)] == [1.0, 2.0, 3.0]


def test_a_file_that_could_be_of_two_frames_is_of_none(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["a/0", "b/0"])
    np.save(tmp_path / "depth" / "0.npy", np.ones((4, 6)))
    with pytest.raises(DataError, match=r"0\.npy: could be of 2 frames of data\.val.*such as \S+depth/b/0\.npy"):
        one(found, asked((4, 6), 1))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((6, 4), "is 6x4, its frame 4x6: it is turned on its side. Write it height x width, upright"),
        ((1, 1), "is 1x1, its frame 4x6, which is another aspect. Write the whole frame"),
        ((3, 6), "is 3x6, its frame 4x6, which is another aspect"),
        ((0, 6), "of shape"),
    ],
)
def test_a_file_of_another_aspect_is_refused(tmp_path: Path, shape: tuple[int, int], said: str) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    np.save(tmp_path / "depth" / "0.npy", np.ones(shape))
    with pytest.raises(DataError, match=said):
        one(found, asked((4, 6)))


def test_a_file_that_is_hardly_a_picture_is_refused_and_one_of_the_network_is_not(tmp_path: Path) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    np.save(tmp_path / "depth" / "0.npy", np.ones((1, 1)))
    with pytest.raises(DataError, match=r"is 1x1, its frame 90x90\. Write the whole frame"):
        one(found, asked((90, 90)))
    # 48x64 as the network sees it: both sides rounded to patches.
    np.save(tmp_path / "depth" / "0.npy", np.ones((56, 70)))
    assert one(found, asked((48, 64))).shape == (48, 64)


@pytest.mark.parametrize(
    ("stored", "unit", "said"),
    [
        (
            1300.0,
            None,
            "1300 times the measured depth in the median, so a stored 1 is no 1 m. Say --meters-per-unit 0.001",
        ),
        (
            0.8,
            0.001,
            "0.0008 times the measured depth in the median, so a stored 1 is no 0.001 m. Say --meters-per-unit 1",
        ),
        (2.0, None, None),
        (91.0, None, "so a stored 1 is no 1 m. Say --meters-per-unit 0.01$"),  # centimeters
        (200.0, None, "so a stored 1 is no 1 m. Say --meters-per-unit 0.00390625$"),  # KITTI's files as they are
        (1.0, 0.01, "so a stored 1 is no 0.01 m. Say --meters-per-unit 1$"),
        (30.0, None, None),  # wrong, but no unit that we know
    ],
)
def test_millimeters_are_not_meters(tmp_path: Path, stored: float, unit: float | None, said: str | None) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0", "1"], unit)
    for name in ("0", "1"):
        np.save(tmp_path / "depth" / f"{name}.npy", np.full((4, 6), stored))
    if said is None:
        found.require_unit()
        return
    with pytest.raises(DataError, match=said.replace("$", ", or, if the predictions")):
        found.require_unit()


# A ramp from 1 m to 3.3 m, in three sizes; what a camera measured is the ramp itself.
RAMP_M = np.linspace(1.0, 3.3, 24).reshape(4, 6)


@pytest.mark.parametrize(
    ("head", "stored", "said"),
    [
        (
            "metric",
            1 / RAMP_M,
            "fall where the measured depth grows (rank correlation -1.00 in the median of 2 frames)",
        ),
        ("metric", 100 - RAMP_M[::, ::2], "fall where the measured depth grows"),
        ("metric", RAMP_M**2, None),
        ("metric", np.full((4, 6), 2.0), None),  # a constant has no ranks
        ("metric", RAMP_M[::-1, ::-1] * (np.arange(6) % 2) + RAMP_M * (np.arange(6) % 2 == 0), None),  # half of it
        ("relative", 1 / RAMP_M, None),
        ("relative", RAMP_M, "grow with the measured depth (rank correlation 1.00 in the median of 2 frames)"),
    ],
)
def test_inverse_depth_is_not_scored_as_depth(tmp_path: Path, head: Kind, stored: np.ndarray, said: str | None) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0", "1"])
    for name in ("0", "1"):
        np.save(tmp_path / "data" / f"{name}.npy", RAMP_M.astype(np.float32))
        np.save(tmp_path / "depth" / f"{name}.npy", stored)
    if said is None:
        found.require_direction(head)
        return
    with pytest.raises(DataError, match=r"data\.accept=\[depth_is\]") as caught:
        found.require_direction(head)
    assert said in str(caught.value)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_no_number_where_nothing_was_measured_is_left_to_what_counts(tmp_path: Path, nothing: float) -> None:
    found = predictions(tmp_path / "data", tmp_path / "depth", ["0"])
    np.save(tmp_path / "data" / "0.npy", np.array([[0] * 6, *[[1, 1, 2, 2, 3, 3]] * 3], np.float32))
    stored = np.array([[nothing] * 6, *[[1, 1, 2, 2, 3, 3]] * 3], np.float32)
    np.save(tmp_path / "depth" / "0.npy", stored)
    found.require_unit()
    found.require_direction("metric")
    np.testing.assert_array_equal(one(found, asked((4, 6)))[1:], stored[1:])
    assert not np.isfinite(one(found, asked((4, 6)))[0]).any()
    # Rows 1 and 2 of 8 are between rows 0 and 1 of 4, where there is nothing to take a mean of.
    larger = one(found, asked((8, 12)))
    assert not np.isfinite(larger[:3]).any()
    row = np.interp(np.arange(12) * 5 / 11, np.arange(6), [1, 1, 2, 2, 3, 3])
    np.testing.assert_allclose(larger[3:], [row] * 5, rtol=1e-6)
    protocol = Protocol(name="plain", min_depth_m=0.1, max_depth_m=10.0)
    (table,) = evaluate(one_process(), found.samples, {"predictions": found}, [protocol], workers=0)
    assert table.rows["predictions"]["abs_rel"] == 0.0
    # 18 pixels count, and one of them has no number.
    stored[1, 0] = nothing
    np.save(tmp_path / "depth" / "0.npy", stored)
    with pytest.raises(ResultError, match=r"0\.npy: predictions predicts NaN or infinity at 5\.6% of the pix"):
        evaluate(one_process(), found.samples, {"predictions": found}, [protocol], workers=0)
    np.save(tmp_path / "depth" / "0.npy", np.full((4, 6), nothing))
    with pytest.raises(DataError, match=r"0\.npy: holds no finite number\. Write a depth wherever depth was measured"):
        one(found, asked((4, 6)))

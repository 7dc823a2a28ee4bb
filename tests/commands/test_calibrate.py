"""A scale from a few labels, in every file that comes of the model, and taken back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from finetune.commands import evaluate, export
from finetune.commands.calibrate import main
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.readers.files import read_image
from finetune.data.sample import DepthSample
from finetune.evaluation.alignment import fit_log_scale
from finetune.inference.calibration import Calibration, LabeledFrame, fit_calibration, predict_labeled_frames
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.utils.errors import DataError
from tests.commands.test_predict import picture, with_orientation
from tests.small_models import small_model, write_model

RECIPE = """\
name: camera
output: {folder}/runs
model: {{checkpoint: null, encoder: tiny, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{{reader: pairs, root: {folder}, list: train.txt, meters_per_unit: 1.0}}]
  val: [{{reader: pairs, root: {folder}, list: val.txt, meters_per_unit: 1.0}}]
  workers: 0
loss: [{{kind: silog}}]
optim: {{warmup_steps: 1}}
run: {{steps: 2, batch_size: 1, threads: 1}}
"""

# What is asked of a preprocessing before an image is read, and of a network.
AS_STORED, UP_TO_10_M = SimpleNamespace(image_levels=None, decode="full"), SimpleNamespace(end_m=10.0)


class OneFrame(Reader):
    def __init__(self, sample: DepthSample) -> None:
        self._sample = sample

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> DepthSample:
        return self._sample


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and frames whose measured depth is 1.25 times its predictions."""
    folder = tmp_path_factory.mktemp("camera")
    model = load_model(write_model(folder / "model.safetensors"))
    for number in range(5):
        image = np.roll(picture(48, 64), 9 * number, axis=1)
        assert cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
        np.save(folder / f"{number}.npy", 1.25 * model.predict(image))
    (folder / "train.txt").write_text("".join(f"{number}.png {number}.npy\n" for number in range(4)))
    (folder / "val.txt").write_text("4.png 4.npy\n")
    (folder / "camera.yaml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def calibrated(camera: Path) -> Path:
    out = camera / "calibrated.safetensors"
    call = [str(camera / "model.safetensors"), "--recipe", str(camera / "camera.yaml"), "--output", str(out)]
    assert main(call) == 0
    return out


def test_a_scale_comes_back_and_predictions_carry_it(camera: Path, calibrated: Path) -> None:
    before, after = load_model(camera / "model.safetensors"), load_model(calibrated)
    assert after.max_depth_m == pytest.approx(12.5, rel=1e-6)
    image = picture(48, 64)
    assert after.predict(image) == pytest.approx(1.25 * before.predict(image), rel=1e-5)
    record = after.metadata["calibration"]
    assert (record["frames"], record["original_max_depth_m"]) == (4, 10.0)
    assert record["abs_rel_before"] == pytest.approx(0.2, rel=1e-5)
    assert record["abs_rel_after"] == pytest.approx(0.0, abs=1e-5)


def test_evaluate_and_exports_carry_it(camera: Path, calibrated: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    call = ["--recipe", str(camera / "camera.yaml"), "--json", str(table)]
    assert evaluate.main([str(calibrated), *call]) == 0
    assert json.loads(table.read_text())[0]["rows"]["finetuned"]["abs_rel"] == pytest.approx(0.0, abs=1e-5)
    assert export.main([str(calibrated), "--to", "official", "--output", str(tmp_path / "official.pth")]) == 0
    official, ours = load_model(tmp_path / "official.pth"), load_model(calibrated)
    assert official.max_depth_m == ours.max_depth_m
    assert official.predict(picture()) == pytest.approx(ours.predict(picture()), rel=1e-6)


def test_a_fractional_max_depth_is_refused_by_the_format_that_cannot_hold_it(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(calibrated), "--to", "huggingface", "--output", str(tmp_path / "hf")]) == 2
    assert "12 or 13" in capsys.readouterr().err


def test_undo_gives_the_same_file_back(camera: Path, calibrated: Path, tmp_path: Path) -> None:
    twice, undone = tmp_path / "twice.safetensors", tmp_path / "undone.safetensors"
    labels = tmp_path / "known.csv"
    labels.write_text(f"{camera / '0.png'}, 3, 5, 2.5\n")
    assert main([str(calibrated), "--known-distances", str(labels), "--output", str(twice)]) == 0
    after = load_model(twice)
    record = after.metadata["calibration"]
    assert record["original_max_depth_m"] == 10.0
    assert 10.0 * record["scale"] == pytest.approx(after.max_depth_m, rel=1e-6)
    assert record["scale"] != pytest.approx(1.25, rel=1e-3)
    assert main([str(twice), "--undo", "--output", str(undone)]) == 0
    assert undone.read_bytes() == (camera / "model.safetensors").read_bytes()


def test_known_distances_by_hand(
    camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(camera))
    model = load_model(camera / "model.safetensors")
    predictions = [model.predict(read_image(camera / f"{number}.png")) for number in range(2)]
    labels, out = camera / "known.csv", tmp_path / "out.safetensors"
    # Points of image 0 at 1.1 and 1.3 times the prediction, of image 1 at 1.2: medians 1.196 and 1.2 in logarithms.
    labels.write_text(
        f"# x to the right\nimage, x, y, depth_m\n0.png, 3, 5, {1.1 * predictions[0][5, 3]}\n"
        f"0.png 60 40 {1.3 * predictions[0][40, 60]}\n\n"
        f"~/1.png, 10, 20, {1.2 * predictions[1][20, 10]}\n"
    )
    assert main([str(camera / "model.safetensors"), "--known-distances", str(labels), "--output", str(out)]) == 0
    expected = np.sqrt(np.sqrt(1.1 * 1.3) * 1.2)
    assert load_model(out).max_depth_m == pytest.approx(10 * expected, rel=1e-5)
    assert f"scale {expected:.4f} from 3 pixels of 2 frames" in capsys.readouterr().out


def test_known_distances_are_of_the_image_as_a_viewer_shows_it(camera: Path, tmp_path: Path) -> None:
    encoded, jpeg = cv2.imencode(".jpg", picture(48, 64)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert encoded
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_orientation(jpeg.tobytes(), 6))  # to be shown a quarter turned: 48 wide, 64 high
    model = load_model(camera / "model.safetensors")
    shown = model.predict(read_image(turned, upright=True))
    assert shown.shape == (64, 48)
    labels, out = tmp_path / "known.csv", tmp_path / "out.safetensors"
    labels.write_text(f"turned.jpg, 5, 60, {1.5 * shown[60, 5]}\n")
    assert main([str(camera / "model.safetensors"), "--known-distances", str(labels), "--output", str(out)]) == 0
    assert load_model(out).max_depth_m == pytest.approx(15.0, rel=1e-5)


def test_a_model_of_another_format_becomes_a_file_of_ours(camera: Path, tmp_path: Path) -> None:
    official, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    assert export.main([str(camera / "model.safetensors"), "--to", "official", "--output", str(official)]) == 0
    assert main([str(official), "--recipe", str(camera / "camera.yaml"), "--output", str(out)]) == 0
    assert load_model(out).max_depth_m == pytest.approx(12.5, rel=1e-6)
    assert load_model(out).preprocessing == load_model(official).preprocessing


def frames(*scales: float, noise: float = 0.0) -> list[LabeledFrame]:
    draw = np.random.default_rng(0)
    found = []
    for number, scale in enumerate(scales):
        pred_m = draw.uniform(1, 5, 200)
        found.append(
            LabeledFrame(name=str(number), pred_m=pred_m, target_m=scale * pred_m * np.exp(draw.normal(0, noise, 200)))
        )
    return found


def test_leave_one_out_by_hand() -> None:
    found = fit_calibration(frames(1.0, 1.0, 1.3))
    assert found.scale == pytest.approx(1.0)
    assert found.before == pytest.approx((0.3 / 1.3) / 3)
    # Without the third: 1. Without one of the others: the middle of 1 and 1.3, in logarithms.
    middle = np.sqrt(1.3)
    assert found.left_out == pytest.approx((2 * (middle - 1) + 0.3 / 1.3) / 3)


def test_a_minority_of_wrong_pixels_does_not_move_the_scale() -> None:
    pred_m = np.linspace(1, 5, 101)
    target_m = 1.5 * pred_m
    target_m[:30] = 40.0
    assert fit_log_scale(pred_m, target_m) == pytest.approx(1.5, rel=0.2)
    assert fit_log_scale(pred_m, np.where(np.arange(101) % 4, 1.5 * pred_m, 40.0)) == pytest.approx(1.5)


def test_only_pixels_that_tell_of_scale_are_compared() -> None:
    # Of 8 pixels: one right, another not measured, sky, a prediction of 0, and predictions at the end of the range.
    prediction = np.array([[2.0, 3.0, 4.0, 0.0, 9.4, 9.6, 10.0, 5.0]], np.float32)
    depth_m = np.array([[3.0, 77.0, np.inf, 4.0, 14.1, 30.0, 40.0, 7.5]], np.float32)
    valid = np.array([[True, False, True, True, True, True, True, True]])
    sample = DepthSample(image=np.zeros((1, 8, 3), np.uint8), depth_m=depth_m, valid=valid, source="frame")
    predictor: Any = SimpleNamespace(
        network=UP_TO_10_M,
        max_depth_m=10.0,
        canonical=None,
        predict_at=lambda image, focal_px, size: prediction,
        preprocessing=AS_STORED,
    )
    recipe: Any = SimpleNamespace(data=SimpleNamespace(train=[SimpleNamespace(source=OneFrame(sample))]))
    (found,) = predict_labeled_frames(predictor, recipe, 20)
    assert found.pred_m.tolist() == pytest.approx([2.0, 9.4, 5.0])
    assert found.target_m.tolist() == pytest.approx([3.0, 14.1, 7.5])
    assert fit_calibration([found]).scale == pytest.approx(1.5)


def test_frames_without_a_pixel_to_compare_are_left_out_and_none_at_all_is_an_error() -> None:
    nothing = DepthSample(
        image=np.zeros((1, 2, 3), np.uint8),
        depth_m=np.ones((1, 2), np.float32),
        valid=np.zeros((1, 2), bool),
        source="",
    )
    predictor: Any = SimpleNamespace(
        network=UP_TO_10_M,
        max_depth_m=10.0,
        canonical=None,
        predict_at=lambda image, focal_px, size: np.ones((1, 2), np.float32),
        preprocessing=AS_STORED,
    )
    recipe: Any = SimpleNamespace(data=SimpleNamespace(train=[SimpleNamespace(source=OneFrame(nothing))]))
    assert predict_labeled_frames(predictor, recipe, 20) == []
    with pytest.raises(DataError, match="no pixel has both a measured depth and a prediction"):
        fit_calibration([])


def warnings(found: Calibration) -> str:
    return "\n".join(found.warnings)


def test_a_pure_scale_warns_of_nothing() -> None:
    assert not fit_calibration(frames(1.4, 1.4, 1.4, noise=0.01)).warnings
    # Nothing is gained, but there is nothing to gain either.
    assert not fit_calibration(frames(1.0, 1.0, 1.0, noise=0.02)).warnings


def test_what_is_not_a_scale_is_said() -> None:
    assert "one scale hardly helps (" in warnings(fit_calibration(frames(1.0, 1.0, noise=0.5)))
    assert "each frame needs a different scale (" in warnings(fit_calibration(frames(0.6, 1.0, 1.5, 2.0)))
    pred_m = np.linspace(1, 5, 200)
    shifted = [LabeledFrame(name="x", pred_m=pred_m, target_m=pred_m + 0.6) for _ in range(2)]
    assert "near pixels need the scale " in warnings(fit_calibration(shifted))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.png, 3, 5\n", "known.csv:1: is '0.png, 3, 5'; expected image, x, y, meters"),
        ("0.png, 3, 5, -1\n", "expected image, x, y, meters"),
        ("gone.png, 3, 5, 1\n", "known.csv:1: gone.png is no file below"),
        ("0.png, 64, 5, 1\n", "(64, 5) is outside of"),
        ("\n# nothing\n", "has no distances"),
    ],
)
def test_labels_that_are_none(
    camera: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    labels, out = camera / "known.csv", tmp_path / "out.safetensors"
    labels.write_text(text)
    assert main([str(camera / "model.safetensors"), "--known-distances", str(labels), "--output", str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_calls_that_cannot_be_meant(
    camera: Path, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, recipe = str(camera / "model.safetensors"), ["--recipe", str(camera / "camera.yaml")]
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    out = ["--output", str(tmp_path / "out.safetensors")]
    for call, said in (
        ([model, *recipe, "--output", str(calibrated)], "already there"),
        ([model, *recipe, "--output", "out.pth"], "a weights file ends in .safetensors"),
        ([relative, *recipe, *out], "is relative: it has no scale"),
        ([model, "--undo", *out], "was never calibrated"),
    ):
        assert main(call) == 2
        assert said in capsys.readouterr().err
    for call in ([model, *out], [model, *recipe, "--undo", *out], [model, "a=b", "--undo", *out]):
        with pytest.raises(SystemExit):
            main(call)


def test_what_was_scored_before_does_not_count_for_other_predictions(camera: Path, tmp_path: Path) -> None:
    scored = {"rows": {"finetuned": {"abs_rel": 0.25}}}
    metadata = {"preprocessing": Preprocessing(input_size=(28, 42)).to_mapping(), "evaluation": scored}
    save_native(tmp_path / "scored.safetensors", small_model(10.0), metadata)
    after, undone = tmp_path / "after.safetensors", tmp_path / "undone.safetensors"
    recipe = ["--recipe", str(camera / "camera.yaml")]
    assert main([str(tmp_path / "scored.safetensors"), *recipe, "--output", str(after)]) == 0
    assert "evaluation" not in load_model(after).metadata
    assert main([str(after), "--undo", "--output", str(undone)]) == 0
    assert load_model(undone).metadata["evaluation"] == scored

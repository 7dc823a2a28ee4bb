"""A canonical model in every command: meters follow the lens, and no camera is a sentence with the ways on."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import calibrate, evaluate, export, predict
from finetune.data.camera import Camera
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.exif import DIAGONAL_35MM, guess_camera
from finetune.evaluation.protocols import Protocol
from finetune.inference.predictor import Predictor, load_model
from finetune.models.checkpoints.save import save_native
from finetune.models.training_camera import TrainingCamera
from finetune.training.focal_sweep import without_crops
from finetune.utils.errors import FinetuneError
from tests.small_models import BASE, small_model

# A frame of 48x64 is seen at 42x56, so a lens of 64 px is one of 56 px at the network's size.
SIZE, FACTOR = (42, 56), 0.875
CANONICAL = TrainingCamera(mode="canonical", focal_px=56.0, seen_px=(50.0, 90.0), zoom=(1.0, 1.6), max_depth_m=8.0)
ONE_LENS = TrainingCamera(mode="none", focal_px=56.0, seen_px=(56.0, 56.0), max_depth_m=8.0)
HEAD_M = 10.0


def write_weights(path: Path, camera: TrainingCamera | None) -> Path:
    model = small_model(HEAD_M)
    model.camera = camera
    save_native(path, model, {"preprocessing": Preprocessing(input_size=SIZE).to_mapping(), "base": BASE, "name": "m"})
    return path


def picture() -> np.ndarray:
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 3, y * 5, x + y], axis=-1).astype(np.uint8)


def with_focal_length(jpeg: bytes, focal_mm: int) -> bytes:
    """A JPEG whose EXIF data hold FocalLengthIn35mmFilm alone: an EXIF directory (34665) with tag 41989, 16 bit."""

    def entry(tag: int, kind: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, 1, value)

    first = (1).to_bytes(2, "little") + entry(34665, 4, 26) + bytes(4)
    second = (1).to_bytes(2, "little") + entry(41989, 3, focal_mm) + bytes(4)
    exif = b"Exif\x00\x00II*\x00" + (8).to_bytes(4, "little") + first + second
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, images, and frames whose measured meters are those of the canonical model at 64 px, and a recipe."""
    folder = tmp_path_factory.mktemp("cameras")
    weights = write_weights(folder / "canonical.safetensors", CANONICAL)
    write_weights(folder / "one_lens.safetensors", ONE_LENS)
    write_weights(folder / "old.safetensors", None)
    cv2.imwrite(str(folder / "plain.png"), picture()[..., ::-1])
    _, jpeg = cv2.imencode(".jpg", picture()[..., ::-1])
    (folder / "phone.jpg").write_bytes(with_focal_length(jpeg.tobytes(), 35))
    model = load_model(weights)
    for number in range(3):
        image = np.roll(picture(), 5 * number, axis=1)
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
        np.save(folder / f"{number}.npy", model.predict(image, camera=(64.0, 64.0, 31.5, 23.5)))
    (folder / "train.txt").write_text("0.png 0.npy\n")
    (folder / "val.txt").write_text("1.png 1.npy\n2.png 2.npy\n")
    of_lens = {"width": 64, "height": 48, "fx": 64.0, "fy": 64.0, "cx": 31.5, "cy": 23.5}
    (folder / "lens.json").write_text(json.dumps(of_lens))
    entry = f"reader: pairs, root: {folder}, meters_per_unit: 1.0, intrinsics: lens.json"
    (folder / "small.yaml").write_text(
        f"""\
output: {folder}/runs
model: {{checkpoint: null, encoder: tiny, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{{{entry}, list: train.txt}}]
  val: [{{{entry}, list: val.txt}}]
  workers: 0
optim: {{warmup_steps: 1}}
run: {{steps: 2, batch_size: 2, threads: 1}}
"""
    )
    return folder


def ask(folder: Path, weights: str, image: str, *options: str, output: Path) -> int:
    call = [str(folder / f"{weights}.safetensors"), str(folder / image), "--output", str(output), "--device", "cpu"]
    return predict.main([*call, *options])


def test_the_guess_from_exif_by_hand(folder: Path) -> None:
    assert pytest.approx(43.27, abs=0.005) == DIAGONAL_35MM
    found = guess_camera(folder / "phone.jpg", 48, 64)
    assert found is not None
    # The diagonal of 64x48 is 80 px: 35 / 43.2666 * 80.
    assert found.focal_px == pytest.approx(64.716, abs=1e-3)
    assert guess_camera(folder / "plain.png", 48, 64) is None
    assert guess_camera(folder / "small.yaml", 48, 64) is None


def test_python_takes_the_camera_and_meters_follow_it(folder: Path) -> None:
    model = load_model(folder / "canonical.safetensors")
    plain = load_model(folder / "old.safetensors").predict(picture())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at_64 = model.predict(picture(), camera=(64.0, 64.0, 31.5, 23.5))
        at_96 = model.predict(picture(), camera=Camera(fx_px=95.0, fy_px=97.0, cx_px=31.5, cy_px=23.5))
        cloud = model.points(picture(), (96.0, 96.0, 31.5, 23.5))
    assert np.array_equal(at_64, plain)  # 64 px are the canonical 56 at the network's size
    np.testing.assert_allclose(at_96, 1.5 * plain, rtol=1e-6)
    np.testing.assert_allclose(cloud.xyz_m[:, 2], 1.5 * plain.ravel(), rtol=1e-6)
    batch = np.zeros((1, 3, 42, 56), np.float32)
    import torch

    np.testing.assert_allclose(model(torch.from_numpy(batch), 112.0), 2 * model(torch.from_numpy(batch), 56.0))


def test_python_without_a_camera_is_refused_and_a_guess_warns(folder: Path) -> None:
    model = load_model(folder / "canonical.safetensors")
    with pytest.raises(ValueError, match=r'give camera=\(fx, fy, cx, cy\) in pixels, or camera="training"'):
        model.predict(picture())
    with pytest.raises(ValueError, match="only with focal_px"):
        import torch

        model(torch.zeros(1, 3, 42, 56))
    with pytest.raises(ValueError, match="camera is 'mine'; expected fx, fy, cx, cy"):
        model.predict(picture(), camera="mine")  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="the camera of the training is assumed, 56 px at the network's size"):
        assumed = model.predict(picture(), camera="training")
    assert np.array_equal(assumed, model.predict(picture(), camera=(64.0, 64.0, 31.5, 23.5)))
    with pytest.warns(UserWarning, match=r"phone\.jpg: its focal length is taken from EXIF, 65 px, which is a guess"):
        model.predict(folder / "phone.jpg")
    with pytest.warns(UserWarning, match="more than 25 % outside of the 50 to 90 px of the training"):
        model.predict(picture(), camera=(150.0, 150.0, 31.5, 23.5))


def test_predict_scales_by_the_lens_and_says_what_it_guessed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, options in {
        "given": ["--intrinsics", "96,96,31.5,23.5"],
        "field": ["--hfov", "53.130102"],  # 2 atan(0.5): 64 px for 64 columns
        "size": ["--intrinsics", "192,192,63.5,47.5", "--intrinsics-size", "128,96"],
    }.items():
        assert ask(folder, "canonical", "plain.png", *options, output=tmp_path / name) == 0
    (folder / "list.csv").write_text("image,fx,fy,cx,cy\nplain.png,128,128,31.5,23.5\n")
    assert ask(folder, "canonical", "list.csv", output=tmp_path / "list") == 0
    depth_m = {name: np.load(tmp_path / name / "plain.npy") for name in ("given", "field", "size", "list")}
    for name, ratio in {"given": 1.5, "size": 1.5, "list": 2.0}.items():
        np.testing.assert_allclose(depth_m[name], ratio * depth_m["field"], rtol=1e-5)
    capsys.readouterr()
    assert ask(folder, "canonical", "phone.jpg", output=tmp_path / "phone") == 0
    assert "1 of 1, " in (said := capsys.readouterr().out)
    assert "phone.jpg first (65 px): the focal length is taken from EXIF, which is a guess; give --intrinsics" in said


def test_predict_without_a_camera_is_refused_with_the_ways_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(folder, "canonical", "plain.png", output=tmp_path) == 2
    said = capsys.readouterr().err
    assert "plain.png: " in said and "predicts meters only with the camera of the image" in said
    for way in ("--intrinsics FX,FY,CX,CY", "--hfov DEGREES", "fx, fy, cx, cy", "--camera training"):
        assert way in said


def test_the_training_camera_is_said_on_every_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(folder, "canonical", "plain.png", "--camera", "training", "--range", "auto", output=tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("[training camera assumed, 56 px at the network's size] ") for line in lines)
    recipe = ["--recipe", str(folder / "small.yaml")]
    assert evaluate.main([str(folder / "canonical.safetensors"), *recipe, "--camera", "training"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert all(line.startswith("[training camera assumed, 56 px at the network's size] ") for line in lines)
    with pytest.raises(SystemExit):
        ask(folder, "canonical", "plain.png", "--camera", "training", "--hfov", "60", output=tmp_path)
    assert "--camera training leaves no use for --hfov: give one of them" in capsys.readouterr().err


def test_predict_warns_of_far_lenses_and_of_a_head_that_ends_early(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 8 m of the recipe need 56 / (10 / 8) = 44.8 px; a lens of 48 px is 42 at the network's size, within 25 % of 50.
    assert ask(folder, "canonical", "plain.png", "--intrinsics", "48,48,31.5,23.5", output=tmp_path) == 0
    said = capsys.readouterr().out
    assert "predictions end at 7.5 m, nearer than the max_depth_m 8 of the recipe" in said
    assert "more than 25 %" not in said
    assert ask(folder, "canonical", "plain.png", "--intrinsics", "140,140,31.5,23.5", output=tmp_path) == 0
    assert "is 122 px at the network's size, more than 25 % outside of the 50 to 90 px" in capsys.readouterr().out


def test_a_model_of_one_lens_says_what_another_does_to_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(folder, "one_lens", "plain.png", "--intrinsics", "128,128,31.5,23.5", output=tmp_path) == 0
    said = capsys.readouterr().out
    assert "is 112 px at the network's size, and the model was trained for 56 px with data.camera.mode none" in said
    assert "expect predictions of about 0.50 times the true depth" in said
    assert ask(folder, "one_lens", "plain.png", "--intrinsics", "66,66,31.5,23.5", output=tmp_path) == 0
    assert "warning" not in capsys.readouterr().out
    # Files that do not say their lens have no use for a camera without points.
    assert ask(folder, "old", "plain.png", "--hfov", "60", output=tmp_path) == 2
    assert "--hfov is for point clouds: add --points" in capsys.readouterr().err
    zoomed = TrainingCamera(mode="none", focal_px=56.0, seen_px=(56.0, 56.0), zoom=(1.0, 1.6), max_depth_m=8.0)
    model = load_model(write_weights(tmp_path / "zoomed.safetensors", zoomed))
    with pytest.warns(UserWarning, match="its zoom taught depth divided by the zoom, which is wrong for a lens"):
        model.points(picture(), (128.0, 128.0, 31.5, 23.5))


def test_evaluate_takes_the_reader_s_camera_and_a_sweep_keeps_the_meters(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, page = tmp_path / "table.json", tmp_path / "page.html"
    call = [str(folder / "canonical.safetensors"), "--recipe", str(folder / "small.yaml"), "--json", str(table)]
    assert evaluate.main([*call, "--focal-sweep", "--html", str(page)]) == 0
    (found,) = json.loads(table.read_text())
    assert found["rows"]["finetuned"]["abs_rel"] < 1e-6
    sweep = found["focal_sweep"]
    assert [point["zoom"] for point in sweep] == [0.7, 0.85, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6]
    assert sweep[2]["abs_rel"] < 1e-6 and sweep[2]["focal_px"] == pytest.approx(56.0)
    # 48x64 cut to 34x46 is shown at 42x56: 64 px become (42 / 34 + 56 / 46) / 2 * 64.
    assert sweep[6]["focal_px"] == pytest.approx((42 / 34 + 56 / 46) / 2 * 64)
    assert "focal sweep: the same frames" in capsys.readouterr().out
    assert "cropped and resized to other focal lengths" in page.read_text()


def test_evaluate_without_a_camera_is_refused_or_given_one(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [str(folder / "canonical.safetensors"), "--recipe", str(folder / "small.yaml"), "data.val.0.intrinsics=null"]
    assert evaluate.main(call) == 2
    said = capsys.readouterr().err
    assert "has no camera, and the model predicts meters only with one" in said and "--camera training" in said
    table = tmp_path / "table.json"
    assert evaluate.main([*call, "--intrinsics", "64,64,31.5,23.5", "--json", str(table)]) == 0
    assert json.loads(table.read_text())[0]["rows"]["finetuned"]["abs_rel"] < 1e-6


def test_calibrate_says_when_the_lens_explains_its_scale(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames whose meters are those of a lens of 96 px, for a model that was trained for one of 64."""
    frames = tmp_path / "frames"
    frames.mkdir()
    model = load_model(folder / "canonical.safetensors")
    for number in range(2):
        image = np.roll(picture(), 5 * number, axis=1)
        cv2.imwrite(str(frames / f"{number}.png"), image[..., ::-1])
        np.save(frames / f"{number}.npy", model.predict(image, camera=(96.0, 96.0, 31.5, 23.5)))
    (frames / "train.txt").write_text("0.png 0.npy\n1.png 1.npy\n")
    lens = {"width": 64, "height": 48, "fx": 96.0, "fy": 96.0, "cx": 31.5, "cy": 23.5}
    (frames / "lens.json").write_text(json.dumps(lens))
    recipe = ["--recipe", str(folder / "small.yaml"), f"data.train.0.root={frames}"]
    for name in ("one_lens", "canonical", "old"):
        weights = str(folder / f"{name}.safetensors")
        assert calibrate.main([weights, *recipe, "--output", str(tmp_path / f"{name}.safetensors")]) == 0
        said = capsys.readouterr().out
        scale = "1.0000" if name == "canonical" else "1.5000"
        assert f"scale {scale} from" in said
        explained = "the scale is what the focal ratio predicts (84 px at the network's size against 56 in training"
        assert (explained in said) == (name == "one_lens")
    assert load_model(tmp_path / "canonical.safetensors").canonical == CANONICAL


def test_official_needs_a_camera_and_folds_it_into_the_max_depth(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.pth"
    call = [str(folder / "canonical.safetensors"), "--to", "official", "--output", str(out)]
    image = ["--image", str(folder / "plain.png")]
    assert export.main([*call, *image]) == 2
    said = capsys.readouterr().err
    assert "which format official cannot hold. Write it for one camera: --for-camera FX" in said and "onnx" in said
    with pytest.raises(SystemExit):
        export.main([*call, "--for-camera", "96"])
    assert "--for-camera is in pixels of one image size: give --image" in capsys.readouterr().err
    assert export.main([*call, *image, "--for-camera", "96"]) == 0
    described = json.loads(out.with_suffix(".json").read_text())
    assert described["max_depth_m"] == pytest.approx(15.0)
    assert described["for_camera"] == {"focal_px": 96.0, "width": 64, "height": 48}
    model = load_model(out)
    assert model.canonical is None
    at_96 = load_model(folder / "canonical.safetensors").predict(picture(), camera=(96.0, 96.0, 31.5, 23.5))
    np.testing.assert_allclose(model.predict(picture()), at_96, rtol=1e-4)
    other = [str(folder / "one_lens.safetensors"), *call[1:-1], str(tmp_path / "n.pth")]
    assert export.main([*other, *image, "--for-camera", "96"]) == 2
    assert "--for-camera is for canonical models" in capsys.readouterr().err


def test_huggingface_takes_whole_meters_alone(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [str(folder / "canonical.safetensors"), "--to", "huggingface", "--output", str(tmp_path / "hub")]
    image = ["--image", str(folder / "plain.png")]
    assert export.main([*call, *image, "--for-camera", "70"]) == 2
    said = capsys.readouterr().err
    assert "for a camera of 70 px the max depth is 10.9375 m, and transformers takes whole meters only" in said


@pytest.mark.slow
def test_huggingface_names_the_camera_in_its_card(folder: Path, tmp_path: Path) -> None:
    call = [str(folder / "canonical.safetensors"), "--to", "huggingface", "--output", str(tmp_path / "hub")]
    assert export.main([*call, "--image", str(folder / "plain.png"), "--for-camera", "96"]) == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "made for one camera: a focal length of 96 px at images of 64x48" in card
    assert json.loads((tmp_path / "hub" / "config.json").read_text())["max_depth"] == 15


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [[], ["--dynamic"]])
def test_onnx_takes_the_focal_length_as_an_input(
    folder: Path, tmp_path: Path, dynamic: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    out = tmp_path / "m.onnx"
    call = [str(folder / "canonical.safetensors"), "--to", "onnx", "--output", str(out)]
    image = ["--image", str(folder / "plain.png")]
    assert export.main([*call, *image, *dynamic]) == 0
    assert "the input focal_px is (fx + fy) / 2 of the camera at the size of the input image" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out))
    assert [tensor.name for tensor in session.get_inputs()] == ["image", "focal_px"]
    pixels = Preprocessing(input_size=SIZE)(picture())[None]
    near, far = (session.run(None, {"image": pixels, "focal_px": np.array([f], np.float32)})[0] for f in (56, 84))
    np.testing.assert_allclose(far, 1.5 * near, rtol=1e-5)


def test_a_protocol_for_a_sweep_has_no_crops() -> None:
    assert without_crops(Protocol(min_depth_m=0.1, max_depth_m=10.0)).name == "plain"
    cut = Protocol(name="kitti_eigen_garg+flip=true+crop=eigen", min_depth_m=0.1, max_depth_m=80.0)
    assert without_crops(cut).name == "kitti_eigen_garg+flip=true+image_crop=none+crop=none"


def test_a_camera_that_cannot_be_is_named(folder: Path) -> None:
    model: Predictor = load_model(folder / "canonical.safetensors")
    with pytest.raises(FinetuneError, match="under a tenth of the width"):
        model.predict(picture(), camera=(3.0, 3.0, 31.5, 23.5))

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from finetune.commands.predict import main
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_depth, read_image
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.save import save_native
from finetune.reporting.images import colorize
from tests.normal_user import as_normal_user, closed_folder
from tests.small_models import make_overflow, small_model, write_model

ROOT = Path(__file__).resolve().parents[2]


def picture(height: int = 30, width: int = 44) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 5 % 256, y * 8 % 256, (x * y) % 256], axis=-1).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture() if pixels is None else pixels)
    return path


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF segment that holds this one tag: type 3 (16 bit), count 1, little endian."""
    entry = (0x0112).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    directory = (1).to_bytes(2, "little") + entry + orientation.to_bytes(4, "little") + bytes(4)
    exif = b"Exif\x00\x00II*\x00" + (8).to_bytes(4, "little") + directory
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


@pytest.fixture
def metric(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "metric.safetensors"))


@pytest.fixture
def relative(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "relative.safetensors", None))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("flip", [False, True])
def test_confidence_is_the_disagreement_with_the_mirrored_image(
    metric: str, relative: str, tmp_path: Path, flip: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_image(tmp_path / "in" / "a.png")
    for weights in (metric, relative):
        out = tmp_path / Path(weights).stem
        call = [weights, str(image), "--output", str(out), "--device", "cpu", *(["--flip"] if flip else [])]
        assert main(call) == 0
        plain = np.asarray(cv2.imread(str(out / "a_preview.png")))
        # What was done without it is not done yet.
        assert main([*call, "--confidence", "--skip-existing"]) == 0
        model, pixels = load_model(weights), read_image(image)
        one, mirrored = model.predict(pixels), model.predict(np.ascontiguousarray(pixels[:, ::-1]))[:, ::-1]
        stored = np.asarray(cv2.imread(str(out / "a_unsure.png"), cv2.IMREAD_UNCHANGED))
        assert stored.dtype == np.uint16 and stored.max() > 10
        assert np.abs(stored / 10_000 - np.abs(np.log(one) - np.log(mirrored))).max() <= 0.6e-4
        both = np.asarray(cv2.imread(str(out / "a_preview.png")))
        assert both.shape[1] == 2 * plain.shape[1]
        assert (both[: plain.shape[0], : plain.shape[1]] == plain).all()
        capsys.readouterr()
        assert main([*call, "--confidence", "--skip-existing"]) == 0
        assert "1 were there already" in capsys.readouterr().out


def test_confidence_is_not_for_videos(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "walk.mp4").write_bytes(b"")
    call = [metric, str(tmp_path / "walk.mp4"), "--output", str(tmp_path / "out"), "--confidence"]
    assert main(call) == 2
    assert "walk.mp4: --confidence is for images. Name images alone, or leave it out" in capsys.readouterr().err


def test_metric_files_hold_meters_and_millimeters(metric: str, tmp_path: Path) -> None:
    image, out = write_image(tmp_path / "in" / "a.b.png"), tmp_path / "new" / "out"
    assert main([metric, str(image), "--output", str(out), "--device", "cpu"]) == 0
    assert names(out) == ["a.b.npy", "a.b.png", "a.b_preview.png"]
    depth_m = np.load(out / "a.b.npy")
    assert (depth_m.dtype, depth_m.shape) == (np.float32, (30, 44))
    np.testing.assert_array_equal(depth_m, load_model(metric).predict(read_image(image)))
    depth_mm = read_depth(out / "a.b.png")
    assert depth_mm.dtype == np.uint16
    assert np.abs(depth_mm / 1000.0 - depth_m).max() <= 0.0005 + 1e-6


def test_preview_has_the_colors_of_zero_to_max_depth_and_a_legend_below(metric: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png", cv2.resize(picture(), (320, 240)))
    assert main([metric, str(image), "--output", str(tmp_path / "out")]) == 0
    preview = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / "a_preview.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(preview[:240], colorize(np.load(tmp_path / "out" / "a.npy"), 0.0, 10.0))
    legend = preview[240:]
    # The bar spans all colors; a quarter of it is the color of a quarter of the max depth.
    rows = [row for row in legend if np.array_equal(row[80], colorize(np.array([[2.508]]), 0.0, 10.0)[0, 0])]
    assert rows
    assert legend.shape[1] == 320
    assert legend.shape[0] >= 20


def test_a_relative_model_writes_no_meters(relative: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    assert main([relative, str(image), "--output", str(out)]) == 0
    assert names(out) == ["a_inverse.npy", "a_preview.png"]
    np.testing.assert_array_equal(np.load(out / "a_inverse.npy"), load_model(relative).predict(read_image(image)))
    assert "is relative: inverse depth without a unit, no meters" in capsys.readouterr().out


def test_near_is_blue_in_a_relative_preview_as_in_a_metric_one(tmp_path: Path) -> None:
    from finetune.inference.outputs import write_relative

    prediction = np.array([[1.0, 3.0]], np.float32).repeat(40, 0).repeat(20, 1)
    write_relative(prediction, tmp_path / "a", "relative")
    # The same numbers are the other way round where they are depth.
    write_relative(prediction[:, ::-1], tmp_path / "b", "relative_depth")
    assert (tmp_path / "a_preview.png").read_bytes() == (tmp_path / "b_preview.png").read_bytes()
    assert {path.name for path in tmp_path.glob("*.npy")} == {"a_inverse.npy", "b_relative.npy"}
    preview = cv2.cvtColor(cv2.imread(str(tmp_path / "a_preview.png")), cv2.COLOR_BGR2RGB)
    blue, red = colorize(np.array([[0.0, 1.0]]), 0.0, 1.0)[0]
    assert preview[0, 0].tolist() == red.tolist()
    assert preview[0, -1].tolist() == blue.tolist()


def test_folders_unreadable_files_and_what_is_no_image(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    write_image(folder / "one.png")
    write_image(folder / "two.JPG")
    write_image(folder / ".hidden.png")
    write_image(folder / "deeper" / "three.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "broken.png").write_bytes((folder / "one.png").read_bytes()[:60])
    # Named twice, an image is still one.
    assert main([metric, str(folder), str(folder / "one.png"), "--output", str(out)]) == 1
    assert names(out) == [f"{stem}{end}" for stem in ("one", "two") for end in (".npy", ".png", "_preview.png")]
    said = capsys.readouterr()
    assert f"{out}: 2 of 3 images done" in said.out
    assert said.err.startswith(f"finetune stopped: {folder / 'broken.png'}: is a damaged or truncated PNG.")


@pytest.mark.parametrize("form", ["gray", "rgba", "gray16", "rgb16", "npy"])
def test_forms_of_images(metric: str, tmp_path: Path, form: str) -> None:
    pixels = picture()
    path = tmp_path / "a.png"
    if form == "npy":
        path = tmp_path / "a.npy"
        np.save(path, pixels)
        expected = pixels
    else:
        gray = pixels[..., 0]
        expected = pixels if form in ("rgba", "rgb16") else np.repeat(gray[..., None], 3, axis=2)
        stored = {
            "gray": gray,
            "rgba": np.dstack([pixels[..., ::-1], np.full_like(gray, 9)]),
            "gray16": gray.astype(np.uint16) * 257,
            "rgb16": pixels[..., ::-1].astype(np.uint16) * 257,
        }[form]
        write_image(path, stored)
    assert main([metric, str(path), "--output", str(tmp_path / "out")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npy"), load_model(metric).predict(expected))


def test_a_photograph_is_turned_as_its_tag_says(metric: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    encoded, data = cv2.imencode(".jpg", picture(30, 44))
    assert encoded
    path.write_bytes(with_orientation(data.tobytes(), 6))
    assert main([metric, str(path), "--output", str(tmp_path / "out")]) == 0
    depth_m = np.load(tmp_path / "out" / "a.npy")
    assert depth_m.shape == (44, 30)
    # Tag 6: shown after a quarter turn clockwise. A reader of frames with depth leaves it as it is.
    turned = np.rot90(read_image(path), -1)
    np.testing.assert_array_equal(depth_m, load_model(metric).predict(turned))


def test_beyond_what_16_bits_hold_there_is_no_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_model(tmp_path / "far.safetensors", 200.0))
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"of an earlier call")
    assert main([model, str(image), "--output", str(out)]) == 1
    assert names(out) == ["a.npy", "a_preview.png"]
    assert np.load(out / "a.npy").max() > 65.535
    sentence = capsys.readouterr().err
    assert f"1 of 1 images, {image} first, reach beyond 65.535 m" in sentence
    assert sentence.endswith("they have no .png. Use their .npy, which is in meters, or --png-units-per-meter 327.\n")


SIZE = {"preprocessing": Preprocessing(input_size=(28, 42)).to_mapping()}


def test_damaged_weights_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = small_model(10.0)
    make_overflow(network)
    save_native(tmp_path / "m.safetensors", network, SIZE)
    image, out = write_image(tmp_path / "a.png", picture(8, 8)), tmp_path / "out"
    assert main([str(tmp_path / "m.safetensors"), str(image), "--output", str(out)]) == 1
    assert names(out) == []
    assert "not a number everywhere" in capsys.readouterr().err


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence of a call that is wrong before a model is looked for."""
    assert main(["no_model", *arguments]) == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("finetune stopped: ")
    assert sentence.endswith(".\n")
    assert sentence.count("\n") == 1
    return sentence


def test_two_images_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = (write_image(tmp_path / side / "0001.png") for side in ("left", "right"))
    sentence = refusal([str(tmp_path / "left"), str(right), "--output", str(tmp_path / "out")], capsys)
    assert f"{left} and {right} would both be written to {tmp_path / 'out' / '0001.npy'}" in sentence
    same_folder = [str(write_image(tmp_path / name)) for name in ("a.png", "a_preview.jpg")]
    assert "a_preview.png" in refusal([*same_folder, "--output", str(tmp_path / "out")], capsys)


def test_an_image_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path / "in" / "a.png")
    assert "is both an image to read and a file to write" in refusal(
        [str(image), "--output", str(image.parent)], capsys
    )
    assert "is both input and output" in refusal([str(image.parent), "--output", str(image.parent)], capsys)
    taken = refusal([str(image), "--output", str(image)], capsys)
    assert f"{image}: cannot be written (a file has its name). Name an --output where this user may write" in taken


def test_nothing_to_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    out = ["--output", str(tmp_path / "out")]
    assert "no image in there" in refusal([str(tmp_path / "empty"), *out], capsys)
    assert "no such file or folder" in refusal([str(tmp_path / "gone.png"), *out], capsys)


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = write_image(tmp_path / "a.png")
    sentence = refusal([str(image), "--output", str(tmp_path / "out")], capsys)
    assert sentence.startswith("finetune stopped: no_model: no such file.")


def test_an_official_file_is_told_what_it_is_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from finetune.models.checkpoints.official import Official

    image, path, out = write_image(tmp_path / "a.png", picture(8, 8)), tmp_path / "bare.pth", str(tmp_path / "out")
    torch.save(Official.from_ours(small_model(10.0).state_dict()), path)
    assert main([str(path), str(image), "--output", out, "--kind", "metric"]) == 2
    assert capsys.readouterr().err.endswith("Set --max-depth to the meters it was trained with.\n")
    size = ["--input-size", "28x42"]
    assert main([str(path), str(image), "--output", out, "--kind", "metric", "--max-depth", "5", *size]) == 0
    assert np.load(tmp_path / "out" / "a.npy").max() < 5.0
    assert main([str(path), str(image), "--output", out, *size]) == 0
    assert "If it is metric, set --kind and --max-depth" in capsys.readouterr().err
    for value in ("-5", "nan", "abc"):
        with pytest.raises(SystemExit):
            main([str(path), str(image), "--output", out, "--max-depth", value])
        assert f"--max-depth: {value} is not a positive number of meters" in capsys.readouterr().err


def test_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.commands.predict.load_predictor", interrupt)
    image = write_image(tmp_path / "a.png")
    assert main(["model", str(image), "--output", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.endswith("interrupted. Images that are done stay; call again for the others.\n")


def test_help_is_quick() -> None:
    start = time.perf_counter()
    shown = subprocess.run([sys.executable, "finetune/predict.py", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert time.perf_counter() - start < 1.0
    assert shown.returncode == 0
    assert "millimeters" in shown.stdout


@pytest.mark.slow
def test_the_file_runs_as_a_program(metric: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / "a.png")
    command = [sys.executable, "finetune/predict.py", metric, str(image), "--output", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert names(tmp_path / "out") == ["a.npy", "a.png", "a_preview.png"]


def test_a_pattern_of_very_many_parts_is_one_sentence(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = "/".join(["a"] * 2000) + "/*.jpg"
    assert main([metric, pattern, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said == ("finetune stopped: a pattern of 2001 parts, *.jpg last, is too long to search. Name a folder.\n")


@pytest.mark.parametrize(("pattern", "hint"), [("*.jpg", ""), ("*/*.jpg", ""), ("folder/*.jpg", "folder")])
def test_a_pattern_in_a_folder_that_may_not_be_listed_says_so(
    metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str, hint: str
) -> None:
    with closed_folder() as closed:
        with as_normal_user():
            assert main([metric, str(closed / pattern), "--output", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
    if hint:
        expected = f"{closed / pattern}: matches no image; there is no permission to look it up in {closed}. Fix the"
    else:
        expected = f"{closed}: cannot be listed (Permission denied). Make it a folder that this user may read"
    assert said.startswith(f"finetune stopped: {expected}")


def test_a_weights_file_of_a_run_that_may_not_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_model(tmp_path / "run" / "best" / "model.safetensors")
    image = write_image(tmp_path / "a.png")
    call = [str(tmp_path / "run"), str(image), "--output", str(tmp_path / "out")]
    weights.chmod(0)
    with as_normal_user():
        assert main(call) == 2
    assert capsys.readouterr().err == (
        f"finetune stopped: {weights}: cannot be read (Permission denied). Make it a file that this user may read.\n"
    )
    weights.parent.chmod(0)
    try:
        with as_normal_user():
            assert main(call) == 2
    finally:
        weights.parent.chmod(0o700)
    assert f"run: cannot be read; there is no permission to look it up in {weights.parent}. " in capsys.readouterr().err


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without a Mac's GPU")
def test_the_gpu_of_a_mac_is_accepted_and_refused_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.safetensors")
    image = write_image(tmp_path / "image.png")
    call = [str(model), str(image), "--output", str(tmp_path / "out"), "--device", "mps"]
    assert main(call) == 2
    assert "device mps: not usable here" in capsys.readouterr().err


def write_folder(folder: Path, count: int) -> Path:
    """Images of two sizes, that the network sees in two sizes."""
    for number in range(count):
        write_image(folder / f"{number}.png", np.roll(picture(30 + 20 * (number % 2), 44), number, axis=1))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_write_what_one_call_writes(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = str(write_folder(tmp_path / "in", 5))
    assert main([metric, images, "--output", str(tmp_path / "one")]) == 0
    for shard in ("0/2", "1/2"):
        assert main([metric, images, "--output", str(tmp_path / "parts"), "--shard", shard]) == 0
    assert "3 of 3 images of shard 0/2 done" in (said := capsys.readouterr().out)
    assert "2 of 2 images of shard 1/2 done" in said
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")
    # More shards than images: some have nothing to do.
    assert main([metric, images, "--output", str(tmp_path / "more"), "--shard", "7/9"]) == 0
    assert "0 of 0 images of shard 7/9 done" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["2/2", "3/2", "1", "1/", "a/b", "-1/2", "0/0"])
def test_a_shard_that_there_is_not_is_refused(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model", "image.png", "--output", "out", f"--shard={shard}"])
    assert f"{shard} is not I/N with I from 0 to N-1, such as 0/8" in capsys.readouterr().err


def test_batches_write_what_images_alone_do(metric: str, tmp_path: Path) -> None:
    images = str(write_folder(tmp_path / "in", 5))
    for size in ("1", "4"):
        assert main([metric, images, "--output", str(tmp_path / size), "--batch-size", size]) == 0
    assert names(tmp_path / "4") == names(tmp_path / "1")
    for path in (tmp_path / "1").glob("*.npy"):
        np.testing.assert_allclose(np.load(tmp_path / "4" / path.name), np.load(path), rtol=1e-5, atol=0)


def test_another_precision_says_what_it_costs(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, out = write_image(tmp_path / "a.png"), tmp_path / "out"
    assert main([metric, str(image), "--output", str(out), "--precision", "bf16"]) == 0
    said = capsys.readouterr().out
    full, own = load_model(metric).predict(read_image(image)), np.load(out / "a.npy")
    assert 0 < np.abs(own - full).max() < 0.1
    assert f"{image}: bf16 differs from float32 by {np.median(np.abs(own - full)):.2g} m in the median" in said
    assert f"by {np.abs(own - full).max():.2g} m at most" in said
    assert main([metric, str(image), "--output", str(out), "--device", "cpu"]) == 0
    assert "differs from" not in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_write_what_one_does(metric: str, tmp_path: Path) -> None:
    images = write_folder(tmp_path / "in", 6)
    (images / "broken.png").write_bytes(b"no image")
    assert main([metric, str(images), "--output", str(tmp_path / "one")]) == 1
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "finetune/predict.py"]
    call = [*launch, metric, str(images), "--output", str(tmp_path / "two")]
    ended = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.count("6 of 7 images done") == 1
    assert ended.stderr.count("broken.png: is no image") == 1
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_a_killed_call_goes_on_with_nothing_half_and_nothing_twice(metric: str, tmp_path: Path) -> None:
    images = str(write_folder(tmp_path / "in", 60))
    out = tmp_path / "out"
    command = [sys.executable, "finetune/predict.py", metric, images, "--output", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(list(out.glob("*.npy"))) < 3:
            assert process.poll() is None
            time.sleep(0.001)
    finally:
        process.kill()
        process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("*.npy")}
    assert 3 <= len(done) < 60
    assert main([metric, images, "--output", str(out), "--skip-existing"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert main([metric, images, "--output", str(tmp_path / "whole")]) == 0
    assert contents(out) == contents(tmp_path / "whole")

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch

from finetune.commands.label import main
from finetune.data.preprocessing import Preprocessing
from finetune.data.readers.files import read_image
from finetune.data.readers.pseudo import Pseudo
from finetune.inference.network_batches import limit_threads
from finetune.inference.predictor import load_model
from finetune.inference.pseudo_labels.run_labels import CONFIDENCE_RULE, GUESS_RULE
from finetune.models.checkpoints.save import save_native
from tests.small_models import make_overflow, small_model, write_model

ROOT = Path(__file__).resolve().parents[2]


def write_images(folder: Path, count: int, size: tuple[int, int] = (30, 44)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        assert cv2.imwrite(str(folder / f"{i:03d}.png"), cv2.GaussianBlur(pixels, (0, 0), 3))
    return folder


def write_video(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (44, 30))
    for i in range(frames):
        writer.write(np.full((30, 44, 3), 10 * i, np.uint8))
    writer.release()
    return path


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_numbers(path: Path) -> np.ndarray:
    found = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert found.dtype == np.uint16
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def relative(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "relative.safetensors", None))


@pytest.fixture
def metric(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "metric.safetensors"))


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_a_label_is_what_the_teacher_predicts(
    kind: str, relative: str, metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = {"relative": relative, "metric": metric}[kind], tmp_path / "out"
    images = write_images(tmp_path / "in", 2)
    assert main([weights, str(images), "--output", str(out), "--device", "cpu"]) == 0
    assert f"2 labeled, 0 refused\n{out}: complete, 2 labels, 0 refused" in capsys.readouterr().out
    about = json.loads((out / "labels.json").read_text())
    assert (about["format"], about["kind"], about["anchor"], about["anchor_model"]) == (1, kind, "none", None)
    assert (about["labels"], about["refused"], about["inputs"]["count"]) == (2, 0, 2)
    model = load_model(weights)
    for row, name in zip(read_rows(out), ("000", "001"), strict=True):
        assert row["image"] == str(images / f"{name}.png") and row["teacher"] == about["teacher"]["digest"]
        assert (row["label"], row["confidence"]) == (f"labels/{name}.png", f"confidence/{name}.png")
        pixels = read_image(images / f"{name}.png")
        with limit_threads(1):  # as the command does; two threads add in another order
            one, mirrored = model.predict(pixels), model.predict(np.ascontiguousarray(pixels[:, ::-1]))[:, ::-1]
        unit = float(row["unit"])
        assert unit == float(one.max()) / 65535
        assert np.abs(read_numbers(out / row["label"]) * unit - one).max() <= unit / 2 * 1.001
        stored = read_numbers(out / row["confidence"])
        assert stored.max() > 10 and np.abs(stored / 10_000 - np.abs(np.log(one / mirrored))).max() <= 0.6e-4


def test_shards_together_write_what_one_call_does(
    relative: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "in", 5)
    (images / "broken.png").write_bytes(b"no image")
    call = [relative, str(images), str(write_video(tmp_path / "walk.avi", 3)), "--device", "cpu", "--output"]
    assert main([*call, str(tmp_path / "one")]) == 0
    assert "8 labeled, 1 refused" in capsys.readouterr().out
    for part, left in ((2, 5), (0, 2)):
        assert main([*call, str(tmp_path / "all"), "--shard", f"{part}/3"]) == 0
        assert f"{left} of 7 inputs are left; the shard that ends last" in capsys.readouterr().out
        assert not (tmp_path / "all" / "labels.json").exists()
    assert main([*call, str(tmp_path / "all"), "--shard", "1/3"]) == 0
    assert f"{tmp_path / 'all'}: complete, 8 labels, 1 refused" in capsys.readouterr().out
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    # Again, nothing is left to do.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")}
    assert main([*call, str(tmp_path / "one")]) == 0
    assert "0 labeled, 0 refused, 7 were there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*")} == before


def test_every_so_manieth_frame_of_a_video_is_labeled(relative: str, tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "walk.avi", 5), tmp_path / "out"
    assert main([relative, str(video), "--output", str(out), "--every", "2"]) == 0
    rows = read_rows(out)
    assert [row["image"] for row in rows] == [f"images/walk/{number:06d}.png" for number in (0, 2, 4)]
    brightness = [np.asarray(cv2.imread(str(out / row["image"]))).mean() for row in rows]
    assert brightness == pytest.approx([0, 20, 40], abs=2)
    assert all(read_numbers(out / row["label"]).shape == (30, 44) for row in rows)
    reader = Pseudo(root=str(out))
    assert len(reader) == 3 and reader.depth_is == "affine_inverse"
    assert reader[1].image.mean() == pytest.approx(20, abs=2) and reader[1].valid.all()


def test_what_cannot_be_labeled_has_a_line_that_says_why(
    relative: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    (images / "broken.png").write_bytes(b"no image")
    (images / "walk.mp4").write_bytes(b"no video")
    assert main([relative, str(images), "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"refused: {images / 'broken.png'}: is no image" in said and "1 labeled, 2 refused" in said
    rows = {Path(row["image"]).name: row for row in read_rows(out)}
    assert rows["broken.png"]["refused"].startswith(f"{images / 'broken.png'}: is no image")
    assert "cannot be decoded as a video" in rows["walk.mp4"]["refused"]
    assert not rows["broken.png"]["label"] and not rows["walk.mp4"]["label"] and rows["000.png"]["label"]


def test_a_folder_without_a_single_label_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = small_model(None)
    make_overflow(broken)
    weights, out = tmp_path / "broken.safetensors", tmp_path / "out"
    save_native(weights, broken, {"preprocessing": Preprocessing(input_size=(28, 42)).to_mapping()})
    assert main([str(weights), str(write_images(tmp_path / "in", 2)), "--output", str(out)]) == 1
    said = capsys.readouterr()
    assert "the prediction is not a number everywhere" in said.out
    assert said.err.endswith(f"{out}: no image has a label. See why in {out / 'labels.csv'}.\n")


def test_other_options_are_refused_and_overwrite_makes_the_folder_again(
    relative: str, metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = write_images(tmp_path / "in", 1), tmp_path / "out"
    assert main([relative, str(images), "--output", str(out)]) == 0
    before = contents(out)
    assert main([metric, str(images), "--output", str(out)]) == 2
    said = capsys.readouterr().err
    assert "out: was made with another kind and another teacher" in said and "--overwrite" in said
    assert contents(out) == before
    assert main([metric, str(images), "--output", str(out), "--overwrite"]) == 0
    assert json.loads((out / "labels.json").read_text())["kind"] == "metric"


def test_a_folder_of_other_files_is_refused_before_the_teacher_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert main([str(tmp_path / "no.pth"), str(images), "--output", str(tmp_path / "out")]) == 2
    assert "out: exists and holds files that finetune label did not write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shard", "3/3"], "argument --shard: 3/3 is not I/N with I from 0 to N-1, such as 0/8."),
        (["--shard", "0/2", "--overwrite"], "--overwrite would remove what other shards do"),
        (["--anchor", "metric"], "argument --anchor: metric needs a metric model: write --anchor metric MODEL."),
        (["--anchor", "dense"], "argument --anchor: dense is not none, sparse, or metric MODEL. "),
        (["--anchor", "sparse"], "--anchor sparse needs the measured depth: name the recipe whose data.train has it"),
        (["--recipe", "a.yaml"], "--recipe says where measured depth is: add --anchor sparse, or leave it out"),
        (["--min-inliers", "0.3"], "--min-inliers is for anchoring: add --anchor sparse or --anchor metric MODEL"),
    ],
)
def test_a_wrong_call_is_one_sentence(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["teacher", "images", "--output", "out", *options])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


def write_varied_model(path: Path, max_depth_m: float | None) -> str:
    """A small model whose prediction varies by a factor of two and more over an image."""
    network = small_model(max_depth_m)
    with torch.no_grad():
        network.state_dict()["head.last.weight"].mul_(40)
    save_native(path, network, {"preprocessing": Preprocessing(input_size=(28, 42)).to_mapping()})
    return str(path)


def write_recipe(folder: Path, depth_m: dict[str, np.ndarray]) -> Path:
    """A recipe whose data.train has this depth for images of ``folder / "in"``; 0 is not measured."""
    for name, values in depth_m.items():
        (folder / "depth").mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / "depth" / f"{name}.png"), np.rint(1e4 * values).astype(np.uint16))
    (folder / "list.txt").write_text("".join(f"in/{name}.png depth/{name}.png\n" for name in depth_m))
    entry = f"{{reader: pairs, root: {folder}, list: list.txt, meters_per_unit: 0.0001}}"
    recipe = folder / "measured.yaml"
    recipe.write_text(
        f"""model: {{checkpoint: {ROOT / "data/tiny_relative.safetensors"}, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{entry}]
  val: [{entry}]
run: {{steps: 1}}
"""
    )
    return recipe


def test_labels_are_anchored_to_what_is_measured_and_frames_with_too_little_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, out = write_varied_model(tmp_path / "teacher.safetensors", None), tmp_path / "out"
    images = write_images(tmp_path / "in", 3, (60, 88))
    model, rng = load_model(teacher), np.random.default_rng(0)
    whole = {name: 1 / (0.3 * model.predict(images / f"{name}.png") - 0.2) for name in ("000", "001")}
    measured = {name: np.where(rng.random((60, 88)) < 0.06, values, 0) for name, values in whole.items()}
    measured["001"][:, 8:] = 0  # about 30 points on the left margin are left, fewer than 30 after the next line
    measured["001"][20:] = 0
    recipe = write_recipe(tmp_path, measured)
    call = [teacher, "--anchor", "sparse", str(images), "--recipe", str(recipe), "--output", str(out)]
    assert main([*call, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    points = np.count_nonzero(measured["001"])
    assert f"refused: {images / '001.png'}: cannot be anchored: it has {points} points, and 30 are the least" in said
    assert f"002.png: cannot be anchored: no frame of data.train of {recipe} has this image" in said
    about = json.loads((out / "labels.json").read_text())
    assert (about["kind"], about["anchor"], about["labels"], about["refused"]) == ("metric", "sparse", 1, 2)
    row, *others = read_rows(out)
    assert float(row["scale"]) == pytest.approx(0.3, rel=0.01) and float(row["shift"]) == pytest.approx(-0.2, rel=0.01)
    assert float(row["inlier_share"]) > 0.97 and float(row["residual"]) < 0.005
    assert not any(other["label"] or other["scale"] for other in others)
    label_m = read_numbers(out / row["label"]) * float(row["unit"])
    labeled = label_m > 0
    assert labeled.mean() > 0.6 and np.abs(label_m / whole["000"] - 1)[labeled].mean() < 0.01
    # The reader reads what was written, and leaves out what was refused.
    reader = Pseudo(root=str(out))
    assert len(reader) == 1
    sample = reader[0]
    assert (sample.valid == labeled).all() and np.abs(sample.depth_m - label_m)[labeled].max() < 1e-5
    assert reader.depth_is == "z" and "2 whose label was refused" in reader.notes[0]
    # The confidence compares depths: those of scale and shift, for both predictions.
    pixels = read_image(images / "000.png")
    one, mirrored = model.predict(pixels), model.predict(np.ascontiguousarray(pixels[:, ::-1]))[:, ::-1]
    scale, shift = float(row["scale"]), float(row["shift"])
    least = 1e-3 * float((scale * np.maximum(one, mirrored) + shift).max())
    logs = [np.log(np.maximum(scale * x.astype(np.float64) + shift, least)) for x in (one, mirrored)]
    stored = read_numbers(out / row["confidence"])
    is_mirrors = np.abs(stored / 10_000 - np.minimum(np.abs(logs[0] - logs[1]), 6.5535)) <= 0.6e-4
    # Outside of the points, the label is a guess and is as unsure as points may differ.
    assert is_mirrors.mean() > 0.7 and (stored[~is_mirrors] >= 1000).all()
    # A folder from before labels had guesses does not go on with them.
    assert about["confidence"] == CONFIDENCE_RULE + GUESS_RULE
    (out / "labels.json").write_text(json.dumps(about | {"confidence": CONFIDENCE_RULE}))
    assert main([*call, "--device", "cpu"]) == 2
    assert "out: was made with another confidence. " in capsys.readouterr().err


def test_labels_are_anchored_to_a_metric_model_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metric = write_varied_model(tmp_path / "metric.safetensors", 10.0)
    images, out = write_images(tmp_path / "in", 1, (60, 88)), tmp_path / "out"
    # To itself: nothing changes.
    assert main([metric, "--output", str(out), "--anchor", "metric", metric, str(images)]) == 0
    (row,) = read_rows(out)
    assert float(row["scale"]) == pytest.approx(1, abs=1e-3) and float(row["shift"]) == pytest.approx(0, abs=0.01)
    assert float(row["inlier_share"]) == 1 and float(row["residual"]) < 1e-3
    depth_m = load_model(metric).predict(images / "000.png")
    assert np.abs(read_numbers(out / row["label"]) * float(row["unit"]) / depth_m - 1).max() < 2e-3
    about = json.loads((out / "labels.json").read_text())
    assert (about["anchor"], about["anchor_model"]) == (
        "metric",
        {"model": metric, "digest": about["teacher"]["digest"]},
    )
    capsys.readouterr()
    # A map of one depth is no anchor.
    flat = str(write_model(tmp_path / "flat.safetensors"))
    assert main([metric, str(images), "--output", str(tmp_path / "no"), "--anchor", "metric", flat]) == 1
    assert "000.png: cannot be anchored: " in (said := capsys.readouterr()).out
    assert "no image has a label" in said.err
    relative = str(write_model(tmp_path / "relative.safetensors", None))
    assert main([metric, str(images), "--output", str(tmp_path / "no2"), "--anchor", "metric", relative]) == 2
    assert f"{relative}: is a relative model, which knows no meters" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_five_times_a_folder_is_that_of_one_call(relative: str, tmp_path: Path, processes: int) -> None:
    images, video = write_images(tmp_path / "in", 100), write_video(tmp_path / "walk.avi", 20)
    call = [relative, str(images), str(video), "--device", "cpu", "--output"]
    assert main([*call, str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}"]
    launch = [*(launcher if processes > 1 else [sys.executable]), "finetune/label.py", *call, str(out)]
    rng = random.Random(processes)
    for _ in range(5):
        done = len(list(out.rglob("rows/**/*.json")))
        process = psutil.Popen(launch, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = done + rng.randint(1, 8)
        while len(list(out.rglob("rows/**/*.json"))) < until:
            assert process.poll() is None
            time.sleep(0.005)
        # torchrun's workers are in process groups of their own.
        killed = [process, *process.children(recursive=True)]
        for one in killed:
            one.kill()
        psutil.wait_procs(killed)
        assert not (out / "labels.json").exists()
    ended = subprocess.run(launch, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"{out}: complete, 120 labels, 0 refused") == 1
    assert contents(out) == contents(tmp_path / "whole")

"""The command: the folder that it writes, what it says, and what it refuses."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import prepare
from finetune.data.readers.files import read_image
from finetune.data.readers.pairs import Pairs
from finetune.prepare.kinds.frames import FileFrames
from finetune.recipe.load import load_recipe
from tests.browser import chromium, require_sound
from tests.conftest import ROOT


def write_recording(folder: Path, count: int = 12, size: tuple[int, int] = (24, 32)) -> tuple[Path, Path]:
    """Images and depth maps of a recording: a wall at 1 m, 1.1 m, ... with a hole in its corner."""
    images, depths = folder / "rgb", folder / "depth"
    for path in (images, depths):
        path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(images / f"{i:04}.jpg"), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        cv2.imwrite(str(depths / f"{i:04}.png"), wall(i, size))
    return images, depths


def wall(i: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    counts = np.full(size, 1000 + 100 * i, np.uint16)
    counts[:4, :8] = 0
    return counts


def call(images: Path, depths: Path, output: Path, *words: str) -> list[str]:
    return ["frames", str(images), str(depths), "--sensor", "realsense", "--output", str(output), "--no-check", *words]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("near", "far"), [("5", "2"), ("2", "2.0")])
def test_a_range_without_depth_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], near: str, far: str
) -> None:
    images, depths = write_recording(tmp_path, count=3)
    with pytest.raises(SystemExit) as stopped:
        prepare.main(call(images, depths, tmp_path / "out", "--min-depth", near, "--max-depth", far))
    assert stopped.value.code == 2
    assert f"stopped: --min-depth {near} is not below --max-depth 2, so no depth is left" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["depth", "rgb"]


def test_errors_of_readers_name_options_and_no_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, depths = write_recording(tmp_path)
    cv2.imwrite(str(depths / "0003.png"), (wall(3) // 256).astype(np.uint8))
    assert prepare.main(call(images, depths, tmp_path / "out", "--workers", "1")) == 1
    assert "set --allow-8-bit, and --meters-per-unit 0.0392157 where 255 is 10 m." in capsys.readouterr().err
    cv2.imwrite(str(depths / "0003.png"), wall(3, (24, 40)))
    assert prepare.main(call(images, depths, tmp_path / "other", "--workers", "1")) == 1
    said = capsys.readouterr().err
    assert "Sizes may differ only where the image is the larger one of the same shape" in said
    assert "reduce_image" not in said


@pytest.mark.parametrize(
    ("per_unit", "doubt"),
    [
        ("1", "half beyond, as numbers of a smaller unit have: for centimeters --meters-per-unit is 0.01"),
        ("0.001", ""),
        ("1e-6", "as numbers of a larger unit have: for meters --meters-per-unit is 1; it was 1e-06"),
    ],
)
def test_a_unit_by_which_no_camera_measures_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], per_unit: str, doubt: str
) -> None:
    images, depths = write_recording(tmp_path)
    words = ["frames", str(images), str(depths), "--meters-per-unit", per_unit, "--no-check", "--workers", "1"]
    assert prepare.main([*words, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert doubt in said and ("half of the depth" in said) == bool(doubt)


def test_a_folder_that_pairs_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, depths = write_recording(tmp_path)
    output = tmp_path / "out"
    assert prepare.main(call(images, depths, output)) == 0
    said = capsys.readouterr().out
    assert f"{output}: 12 frames, 10 train, 1 val: val is the end of the recording, with a gap of 1 frame " in said
    assert sorted(path.name for path in output.iterdir()) == [
        *("depth", "image", "prepare.json", "preview.html", "recipe.yaml", "train.txt", "val.txt")
    ]
    recipe = load_recipe(str(output / "recipe.yaml"), [])
    train = recipe.data.train[0].source
    assert isinstance(train, Pairs) and len(train) == 10
    sample = train[3]
    # (24, 32) pixels of 1.3 m, but for a hole of (4, 8)
    assert np.unique(sample.depth_m[sample.valid]).tolist() == [np.float32(1.3)]
    assert sample.valid.sum() == 24 * 32 - 4 * 8
    np.testing.assert_array_equal(sample.image, read_image(images / "0003.jpg"))
    summary = json.loads((output / "prepare.json").read_text())
    assert summary["meters_per_unit"] == 0.001 and summary["rounding_m"] == 0.0
    assert not (tmp_path / ".out.preparing").exists()


def test_every_and_max_frames(tmp_path: Path) -> None:
    images, depths = write_recording(tmp_path)
    output = tmp_path / "out"
    assert prepare.main(call(images, depths, output, "--every", "2", "--max-frames", "3")) == 0
    # of 0, 2, ..., 10 three are 0, 4 or 6, and 10
    assert sorted(path.stem for path in (output / "depth").iterdir()) == ["0000", "0004", "0010"]


def test_several_processes_write_the_same_folder(tmp_path: Path) -> None:
    images, depths = write_recording(tmp_path, count=50)
    output = tmp_path / "out"
    assert prepare.main(call(images, depths, output, "--workers", "1")) == 0
    one = content(output)
    assert prepare.main(call(images, depths, output, "--workers", "2", "--overwrite")) == 0
    assert content(output) == one


@pytest.mark.slow
def test_it_ends_by_what_check_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, depths = write_recording(tmp_path, count=20, size=(56, 72))
    words = call(images, depths, tmp_path / "out")
    words.remove("--no-check")
    status = prepare.main(words)
    said = capsys.readouterr().out
    recipe = tmp_path / "out" / "recipe.yaml"
    assert f"what finetune check {recipe} --no-step says:" in said
    # Each depth map is one wall, which check calls a fault, so its status is that of check.
    assert "STOP  constant: data.train.0: " in said and status == 1
    assert said.endswith(f"check:       finetune check {recipe}\ntrain:       finetune train {recipe}\n")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "usage: finetune prepare KIND"),
        (["frams"], "'frams' is not a kind of recording; expected one of undistort, frames"),
        (["frames", "rgb", "depth", "--output", "out", "--every", "0"], "argument --every: 0 is not a whole number"),
        (["frames", "rgb", "depth"], "the following arguments are required: --output"),
        (
            ["frames", "rgb", "depth", "--output", "out", "--checkpoint", "no.pth"],
            "--checkpoint is 'no.pth'; expected",
        ),
        (["frames", "rgb", "depth", "--output", "out", "--invalid", "x"], "x is not numbers with commas between them"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    words: list[str], found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status = prepare.main(words)
    except SystemExit as stopped:
        status = int(str(stopped.code))
    said = capsys.readouterr()
    assert status == 2 and found in said.err + said.out
    assert not list(tmp_path.iterdir())


def test_wrong_sources_are_one_sentence_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, depths = write_recording(tmp_path)
    before = sorted(tmp_path.iterdir())
    (depths / "0003.png").write_bytes(b"")
    empty = tmp_path / "rgb" / "nothing"
    empty.mkdir()
    for source, status, found in (
        ((tmp_path / "no", depths), 2, "no: no such folder or video"),
        ((images, tmp_path / "no"), 2, "no: no such folder. Name the folder of the depth maps"),
        ((empty, depths), 2, "nothing: holds no .png"),
    ):
        assert prepare.main(call(*source, tmp_path / "out")) == status
        said = capsys.readouterr().err
        assert said.startswith("finetune stopped: ") and said.count("\n") == 1 and found in said
        assert sorted(tmp_path.iterdir()) == before
    assert prepare.main(call(images, depths, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "0003.png: is empty (0 bytes)" in said
    assert f"The frames that are done are kept in {tmp_path / '.out.preparing'}" in said
    assert prepare.main(call(images, depths, tmp_path / "out", "--skip-bad")) == 0
    assert "1 of 12 frames are left out, they cannot be read: " in capsys.readouterr().out
    assert prepare.main(call(images, depths, tmp_path / "out")) == 2
    assert "out: exists. Name another folder as --output, or add --overwrite" in capsys.readouterr().err
    own = (tmp_path / "out" / "image", tmp_path / "out" / "depth")
    assert prepare.main(call(*own, tmp_path / "out", "--overwrite")) == 2
    assert "image: is in " in capsys.readouterr().err and own[0].exists()


def test_a_full_disk_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, depths = write_recording(tmp_path)
    before = sorted(tmp_path.iterdir())

    def write(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    assert prepare.main(call(images, depths, tmp_path / "out", "--workers", "1")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "out: cannot be written (No space left on device)" in said
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("done", "found"), [(0, "so nothing is kept"), (2, "The frames that are done are kept: call")])
def test_an_interrupt_says_whether_frames_are_kept(
    done: int, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, depths = write_recording(tmp_path)
    load = FileFrames.load_frame
    loaded: list[int] = []

    def stop(source: FileFrames, index: int) -> object:
        if len(loaded) == done:
            raise KeyboardInterrupt
        loaded.append(index)
        return load(source, index)

    monkeypatch.setattr(FileFrames, "load_frame", stop)
    assert prepare.main(call(images, depths, tmp_path / "out", "--workers", "1")) == 130
    assert found in capsys.readouterr().err
    assert (tmp_path / ".out.preparing").exists() == (done > 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_goes_on_and_gives_the_same_folder(tmp_path: Path, number: signal.Signals) -> None:
    images, depths = write_recording(tmp_path, count=80, size=(480, 640))
    output, journal = tmp_path / "out", tmp_path / ".out.preparing" / "frames.jsonl"
    words = [sys.executable, "-m", "finetune", "prepare", *call(images, depths, output, "--workers", "2")]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    straight = content(output)
    shutil.rmtree(output)
    started = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while started.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 10):
        time.sleep(0.02)
    # Ctrl-C of a terminal reaches all processes.
    os.killpg(started.pid, number) if number == signal.SIGINT else started.send_signal(number)
    _, said = started.communicate(timeout=60)
    assert started.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert said.count("finetune stopped: ") == 1 and "Traceback" not in said
        assert "The frames that are done are kept: call again, with the same words, to go on." in said
    assert not output.exists()
    ended = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "80 frames" in ended.stdout
    assert content(output) == straight and not journal.parent.exists()


@pytest.mark.slow
def test_prepare_check_and_train_are_three_commands(tmp_path: Path) -> None:
    samples = os.environ.get("DEPTH_SAMPLES")
    if not samples:
        pytest.skip("set DEPTH_SAMPLES to the folder of samples")
    lab = Path(samples) / "realsense_lab_seq"
    output = tmp_path / "lab"
    recipe = str(output / "recipe.yaml")
    few = ("run.steps=4", "run.evaluate_every_steps=2", "run.save_every_steps=4", f"output={tmp_path / 'runs'}")
    sources = (str(lab / "rgb"), str(lab / "depth"), "--intrinsics", str(lab / "intrinsics.json"))
    for words in (
        ("prepare", "frames", *sources, "--sensor", "realsense", "--output", str(output)),
        ("check", recipe),
        ("train", recipe, *few),
    ):
        ended = subprocess.run([sys.executable, "-m", "finetune", *words], cwd=ROOT, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "runs" / "lab" / "best" / "model.safetensors").exists()


def test_the_page_is_sound(tmp_path: Path) -> None:
    images, depths = write_recording(tmp_path, count=14)
    assert prepare.main(call(images, depths, tmp_path / "out")) == 0
    page = tmp_path / "out" / "preview.html"
    with chromium() as browser:
        require_sound(browser, page)
    # 12 frames and two charts
    assert page.read_text().count("<figure") == 14

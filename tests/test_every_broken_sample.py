"""Files as disks, cameras and hands break them, through the train command: one sentence, or no harm at all."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune.commands import train
from finetune.utils import registry
from tests.runs import train_command, without_gpu

NAMES = [f"{number:02}" for number in range(10)]  # of the training frames
Damage = Callable[[Path], object]


@pytest.fixture
def folder(frames: Path, tmp_path: Path) -> Path:
    """A copy of ``frames`` that a test may spoil."""
    return shutil.copytree(frames, tmp_path / "data")


def launch(recipe: Path, folder: Path, *overrides: str) -> int:
    return train.main([str(recipe), f"data.train.0.root={folder}", f"data.val.0.root={folder}", *overrides])


def stopped(out_and_err: tuple[str, str]) -> str:
    """The one sentence; there is no traceback above it."""
    out, err = out_and_err
    assert "Traceback" not in out + err
    sentences = [line for line in err.splitlines() if line.startswith("finetune stopped: ")]
    assert len(sentences) == 1
    return sentences[0]


def cut(name: str, keep: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def zeros_at_the_end(folder: Path) -> None:
    """As a file whose room on the disk was set aside, and of which most was written."""
    # OpenCV refuses a plain one.
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "03.jpg"), noise)
    content = (folder / "03.jpg").read_bytes()
    written = len(content) * 9 // 10
    (folder / "03.jpg").write_bytes(content[:written] + bytes(len(content) - written))


def truncated_png_image(folder: Path) -> None:
    image = cv2.imread(str(folder / "03.jpg"))
    cv2.imwrite(str(folder / "color.png"), image)
    cut("color.png", 0.5)(folder)
    (folder / "train.txt").write_text("00.jpg 00.png\ncolor.png 03.png\n")


def content(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def depth_image(pixels: np.ndarray) -> Damage:
    return lambda folder: cv2.imwrite(str(folder / "03.png"), pixels)


def every_depth(raw: np.ndarray) -> Damage:
    """All training frames with one depth map, in meters."""

    def damage(folder: Path) -> None:
        for name in NAMES:
            np.save(folder / f"{name}.npy", raw)
        (folder / "train.txt").write_text("".join(f"{name}.jpg {name}.npy\n" for name in NAMES))

    return damage


def listing(text: str) -> Damage:
    return lambda folder: (folder / "train.txt").write_text(text)


def floats(value: float) -> np.ndarray:
    return np.full((48, 64), value, np.float32)


COLORED = cv2.applyColorMap(np.arange(48 * 64).reshape(48, 64).astype(np.uint8), cv2.COLORMAP_TURBO)
SIXTEEN_BIT = np.full((48, 64), 2000, np.uint16)
CASES: dict[str, tuple[Damage, int, Sequence[str]]] = {
    "truncated PNG, image": (truncated_png_image, 1, ["color.png: is a damaged or truncated PNG", "Write it again"]),
    "truncated PNG, depth": (cut("03.png", 0.7), 1, ["03.png: is a damaged or truncated PNG", "Write it again"]),
    "truncated JPEG": (cut("03.jpg", 0.9), 1, ["03.jpg: is a damaged or truncated JPEG", "Write it again"]),
    "JPEG that ends in zeros": (zeros_at_the_end, 1, ["03.jpg: is a damaged or truncated JPEG", "Write it again"]),
    "zero bytes, image": (content("03.jpg", b""), 1, ["03.jpg: is empty (0 bytes)", "Write it again"]),
    "zero bytes, depth": (content("03.png", b""), 1, ["03.png: is empty (0 bytes)", "Write it again"]),
    "text": (content("03.png", b"to be exported\n"), 1, ["03.png: is no image: it begins with b'to be expor"]),
    "3 channels": (depth_image(COLORED), 1, ["03.png: has 3 channels", "one value a pixel"]),
    "8 bit": (depth_image(np.full((48, 64), 90, np.uint8)), 1, ["03.png: depth is stored in 8 bits", "16-bit PNG"]),
    "other size": (
        depth_image(SIXTEEN_BIT[:24]),
        1,
        ["03.png: depth is 24x64", "03.jpg is 48x64", "the same view and size"],
    ),
    "all invalid": (every_depth(floats(0)), 1, ["00.npy: none of 10 depth maps", "from 0 to 0", "numbers above 0"]),
    "all NaN": (every_depth(floats(np.nan)), 1, ["00.npy: none of 10", "NaN or infinite", "Export depth as numbers"]),
    "inf": (every_depth(floats(np.inf)), 1, ["00.npy: none of 10", "NaN or infinite", "Export depth as numbers"]),
    "negative": (
        every_depth(floats(-2)),
        1,
        ["00.npy: none of 10", "from -2 to -2", "Export depth as numbers above 0"],
    ),
    "constant": (every_depth(floats(2)), 1, ["00.npy: each of 10 depth maps of data.train.0", "same depth", "2 m"]),
    "missing column": (listing("00.jpg 00.png\n01.jpg\n"), 2, ["train.txt:2: has one column", "two paths a line"]),
    "missing file": (listing("00.jpg 00.png\n1.jpg 01.png\n"), 2, ["train.txt:2: ", "1.jpg does not exist", "Correct"]),
    "empty list": (listing("# soon\n"), 2, ["train.txt: names no frame", "Write `image depth`"]),
}


@pytest.mark.parametrize(("damage", "status", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_broken_is_named_with_its_fix_before_anything_is_written(
    recipe: Path,
    folder: Path,
    tmp_path: Path,
    damage: Damage,
    status: int,
    expected: Sequence[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    damage(folder)
    # The unit of the frames that come as floats; of the others the fault is found first.
    unit = "1.0" if (folder / "00.npy").exists() else "0.001"
    assert launch(recipe, folder, f"data.train.0.meters_per_unit={unit}") == status
    said = stopped(capfd.readouterr())
    assert all(words in said for words in expected), said
    assert str(folder) in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_frames_without_a_usable_number_among_good_ones_do_no_harm(recipe: Path, folder: Path) -> None:
    raw = 1 / np.linspace(1.0, 0.25, 48 * 64, dtype=np.float32).reshape(48, 64)
    some = raw.copy()
    some[:10], some[10:20], some[20:30] = np.nan, np.inf, -3.0
    kinds = [raw, some, floats(np.nan), floats(np.inf), floats(-2), floats(2), floats(0), raw]
    for name, depth_m in zip(NAMES, kinds, strict=False):
        np.save(folder / f"{name}.npy", depth_m)
    (folder / "train.txt").write_text("".join(f"{name}.jpg {name}.npy\n" for name in NAMES[: len(kinds)]))
    # A weight or a term that is not finite would end it with 1.
    assert launch(recipe, folder, "data.train.0.meters_per_unit=1.0", "run.steps=4", "export=[]") == 0


@pytest.mark.parametrize("name", [pytest.param("my room", marks=pytest.mark.slow), "küche 室"])
def test_paths_with_spaces_and_other_letters_work(recipe: Path, folder: Path, tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    folder.rename(place)
    for path in place.glob("0*"):
        path.rename(place / f"{name} {path.name}")
    (place / "train.txt").write_text("".join(f'"{name} {stem}.jpg" "{name} {stem}.png"\n' for stem in NAMES))
    assert launch(recipe, place, "run.steps=2", "export=[]") == 0


@pytest.mark.parametrize(
    ("lines", "count", "first"),
    [
        (None, 10, "{folder}/00.png"),  # the list of train
        (["10.jpg 10.png", "07.jpg 07.png", "02.jpg 02.png"], 2, "{folder}/02.png"),
        (["10.jpg 10.png", "{link}/03.jpg {link}/03.png"], 1, "{link}/03.png"),
    ],
)
def test_frames_in_both_train_and_val_are_refused_by_whatever_list_and_path(
    recipe: Path,
    folder: Path,
    tmp_path: Path,
    lines: list[str] | None,
    count: int,
    first: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    if lines is not None:
        (folder / "other.txt").write_text("\n".join(lines).format(link=link))
    name = "train.txt" if lines is None else "other.txt"
    assert launch(recipe, folder, f"data.val.0.list={name}") == 2
    said = stopped(capfd.readouterr())
    first = first.format(folder=folder, link=link)
    frames = "1 frame" if count == 1 else f"{count} frames"
    assert f"{recipe}:7: data.val.0 and data.train.0 ({recipe}:6) share {frames}, {first} first. " in said
    assert "set data.val_may_repeat_train: true" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_frames_in_both_train_and_val_work_when_it_is_said(recipe: Path, folder: Path) -> None:
    overrides = ["data.val.0.list=train.txt", "data.val_may_repeat_train=true"]
    assert launch(recipe, folder, *overrides, "run.steps=2", "export=[]") == 0


def spoil(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def look_at_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pre-flight and the baselines look at a few frames; here, at the first and the last."""
    monkeypatch.setattr("finetune.training.preflight.SAMPLES", 2)
    monkeypatch.setattr("finetune.training.startup.MAX_IMAGES", 2)


def state_of(run: Path, step: int) -> dict[str, object]:
    state: dict[str, object] = json.loads((run / f"checkpoints/step_{step:08d}/run_state.json").read_text())["content"]
    return state


SKIP = "data.on_bad_sample=skip"


@pytest.mark.slow
def test_skipped_samples_are_named_and_counted_alike_with_workers_and_after_a_resume(
    recipe: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(folder, "02.jpg", "05.png")
    (folder / "07.jpg").unlink()
    assert launch(recipe, folder, SKIP, "export=[]") == 0
    run = tmp_path / "runs" / "small"
    before, weights = state_of(run, 6), load_file(run / "last" / "model.safetensors")
    said = capfd.readouterr().out
    causes = [f"{folder}/02.jpg: is empty (0 bytes)", f"{folder}/05.png: is empty (0 bytes)", "train.txt:8: "]
    (at_start,) = [line for line in said.splitlines() if line.startswith("warning: data.train.0: frames are missing")]
    (at_baselines,) = [line for line in said.splitlines() if line.startswith("warning: left out of the baselines")]
    (at_the_end,) = [line for line in said.splitlines() if "of the 24 training samples asked for" in line]
    assert all(cause in line for cause in causes for line in (at_start, at_baselines, at_the_end))
    at_the_time = [line for line in said.splitlines() if "skipped a sample that cannot be read" in line]
    assert len(at_the_time) == 3  # once each, though an epoch is 10 samples
    bad = before["bad_samples"]
    assert isinstance(bad, dict) and len(bad["named"]) == 3
    assert at_the_end.startswith(f"{bad['count']} of the 24 ")
    # 24 samples of 10 frames: two epochs, and four samples more.
    assert 6 <= bad["count"] <= 9
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    assert train.main([str(run / "recipe.yaml"), "--resume", "data.workers=1"]) == 0
    assert state_of(run, 6) | {"unlogged": {}} == before | {"unlogged": {}}
    again = load_file(run / "last" / "model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())
    assert at_the_end in capfd.readouterr().out


def test_too_many_bad_samples_end_the_run(
    recipe: Path, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_two(monkeypatch)
    spoil(folder, *(f"{name}.jpg" for name in NAMES[2:7]))
    assert launch(recipe, folder, SKIP, "run.steps=12", "run.evaluate_every_steps=12") == 1
    captured = capfd.readouterr()
    said = stopped(captured)
    assert "training samples asked for could not be read; the first: " in said
    assert "more than 10, and more than 1 %" in said
    assert "take them out of data.train" in said
    assert captured.out.count("skipped a sample that cannot be read") == said.count("is empty (0 bytes)") == 5


def test_what_a_start_that_skips_still_refuses(
    recipe: Path, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(folder, "11.jpg")
    assert launch(recipe, folder, SKIP) == 1
    assert "11.jpg: is empty" in stopped(capfd.readouterr())
    (folder / "11.jpg").write_bytes((folder / "10.jpg").read_bytes())
    spoil(folder, *(f"{name}.jpg" for name in NAMES))
    assert launch(recipe, folder, SKIP) == 1
    assert "00.jpg: is empty" in stopped(capfd.readouterr())
    # Of 12 lines 11 name nothing.
    (folder / "train.txt").write_text("00.jpg 00.png\n" + "".join(f"a{name}.jpg {name}.png\n" for name in range(11)))
    assert launch(recipe, folder, SKIP) == 2
    assert "train.txt:2: " in (said := stopped(capfd.readouterr()))
    assert "10 more of the 12 frames" in said


def test_a_validation_sample_that_nothing_looked_at_before_ends_a_run_that_skips(
    recipe: Path, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_two(monkeypatch)
    spoil(folder, "11.jpg")
    assert launch(recipe, folder, SKIP) == 1
    assert "11.jpg: is empty" in stopped(capfd.readouterr())


@pytest.mark.slow
def test_a_run_that_a_bad_sample_stopped_may_go_on_without_it(
    recipe: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_two(monkeypatch)
    spoil(folder, "04.jpg")
    overrides = ["run.save_every_steps=1", "export=[]"]
    assert launch(recipe, folder, *overrides) == 1
    assert "04.jpg: is empty" in stopped(capfd.readouterr())
    assert launch(recipe, folder, *overrides, SKIP, "--resume") == 0
    assert "04.jpg: is empty" in capfd.readouterr().out


@pytest.mark.slow
def test_two_processes_count_and_name_what_one_does(recipe: Path, folder: Path, tmp_path: Path) -> None:
    spoil(folder, "02.jpg", "05.png", "06.png")
    assert launch(recipe, folder, SKIP, "export=[]", "run.batch_size=2", "run.accumulate=2") == 0
    words = [f"data.train.0.root={folder}", f"data.val.0.root={folder}", SKIP, "export=[]", "name=two"]
    command = train_command(recipe, *words, "run.batch_size=2", processes=2)
    ended = subprocess.run(command, env=without_gpu(), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "runs" / "two" / "environment.json").read_text())
    assert record["processes"] == 2
    one, two = (state_of(tmp_path / "runs" / name, 6)["bad_samples"] for name in ("small", "two"))
    assert one == two
    assert isinstance(one, dict) and one["count"] > 3
    assert ended.stdout.count("skipped a sample that cannot be read") == 3


@pytest.mark.parametrize(
    ("part", "death"),
    [("train", "killed"), pytest.param("train", "exit", marks=pytest.mark.slow), ("val", "killed")],
)
def test_a_worker_that_dies_ends_the_run_in_one_sentence(
    recipe: Path,
    tmp_path: Path,
    part: str,
    death: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As in a process that has had no worker yet: PyTorch then takes the signal of children that end.
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    monkeypatch.setitem(registry.READERS, "mortal", "tests.synthetic:Mortal")
    # In training, over the third batch.
    entry = f"[{{reader: mortal, count: 20, lives: {9 if part == 'train' else 1}, death: {death}}}]"
    assert train.main([str(recipe), f"data.{part}={entry}", "data.workers=1", "data.accept=[depth_is]"]) == 1
    said = stopped(capfd.readouterr())
    assert "A process that reads data died (DataLoader worker (pid" in said or "reset by peer" in said
    assert "set data.workers=0 or lower" in said
    # What else dies while the run ends must not raise in the midst of it.
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    assert (tmp_path / "runs" / "small" / "environment.json").exists()


def test_a_fault_of_the_code_that_reads_is_not_taken_for_a_death(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.READERS, "mortal", "tests.synthetic:Mortal")
    entry = "[{reader: mortal, lives: 1, death: fault}]"
    with pytest.raises(RuntimeError, match="Caught RuntimeError in DataLoader worker process 0"):
        train.main([str(recipe), f"data.train={entry}", "data.workers=1"])

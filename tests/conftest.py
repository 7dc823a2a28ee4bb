"""What several tests share: a data set on disk and a recipe for it, both small."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from finetune.commands import train
from finetune.commands.runner import configure_threading

# As the commands do, before anything imports torch: spinning threads make a busy machine many times slower, and bits of
# equal calculations may differ.
configure_threading()
# Some tests import onnxruntime themselves, which reports to its maker unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Of two workers on two cores, with two threads each, the threads wait for each other: a third of the CPU time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it puts into the background so that it ignores Ctrl-C, and a run would go on ignoring it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
# Files whose slow tests take longest. The worker that gets one last is waited for by the others.
LONGEST = (
    "utils/test_signals.py",
    "test_readme.py",
    "test_resuming.py",
    "test_processes.py",
    "test_every_protocol.py",
    "training/test_run_training.py",
)
CHECKPOINT = ROOT / "data" / "tiny_relative.safetensors"

RECIPE = """\
name: small
output: {output}
model: {{checkpoint: {checkpoint}, max_depth_m: 10.0}}
data:
  input_size: [56, 70]
  train: [{{reader: pairs, root: {root}, list: train.txt, meters_per_unit: 0.001}}]
  val: [{{reader: pairs, root: {root}, list: val.txt, meters_per_unit: 0.001}}]
  workers: 0
loss: [{{kind: silog}}, {{kind: l1, weight: 0.1}}]
optim: {{lr: 1.0e-4, lr_decoder: 5.0e-4, warmup_steps: 1}}
run: {{steps: 6, batch_size: 4, log_every_steps: 2, evaluate_every_steps: 3, save_every_steps: 3, threads: 1}}
"""


def write_frame(folder: Path, name: str, depth_m: np.ndarray, meters_per_unit: float = 0.001) -> None:
    """An image whose brightness follows nearness, with its depth as 16-bit PNG."""
    height, width = depth_m.shape
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.clip(255 / np.maximum(depth_m, 1.0), 0, 255)
    image[..., 1] = np.linspace(0, 255, width)
    cv2.imwrite(str(folder / f"{name}.jpg"), image)
    cv2.imwrite(str(folder / f"{name}.png"), np.round(depth_m / meters_per_unit).astype(np.uint16))


def write_recipe(folder: Path, frames: Path) -> Path:
    """``RECIPE`` on ``frames``, as a file in a folder; its runs go below ``folder / "runs"``."""
    path = folder / "small.yaml"
    path.write_text(RECIPE.format(output=folder / "runs", checkpoint=CHECKPOINT, root=frames))
    return path


def ended_run(folder: Path, frames: Path, *overrides: str) -> Path:
    """The output folder, below ``folder``, of a run of ``RECIPE`` that has ended."""
    assert train.main([str(write_recipe(folder, frames)), *overrides]) == 0
    return folder / "runs"


def moved_run(output: Path, to: Path) -> Path:
    """The folder of a copy of the run in an output folder, which may be changed and resumed."""
    run = shutil.copytree(output, to) / "small"
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(output), str(to)))
    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files where several workers share them; ``--no-loadscope-reorder`` keeps it so."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 frames of 48x64 to train and 3 to validate: a tilted wall with a box before it, depth in millimeters."""
    folder = tmp_path_factory.mktemp("frames")
    generator = np.random.default_rng(0)
    for number in range(13):
        top_m, bottom_m, right_m = generator.uniform((1, 1, 0), (6, 6, 2)).tolist()
        # Over a plane it is the inverse of depth that is linear in pixels.
        far_m = max(top_m, bottom_m)
        across = np.linspace(0.0, 1 / (far_m + right_m) - 1 / far_m, 64)
        depth_m = 1 / (np.linspace(1 / top_m, 1 / bottom_m, 48)[:, None] + across)
        top, left = generator.integers(5, 30, 2)
        depth_m[top : top + 12, left : left + 20] *= 0.6
        depth_m[:3, :5] = 0.0
        write_frame(folder, f"{number:02}", depth_m)
    lines = [f"{number:02}.jpg {number:02}.png\n" for number in range(13)]
    (folder / "train.txt").write_text("".join(lines[:10]))
    (folder / "val.txt").write_text("".join(lines[10:]))
    return folder


@pytest.fixture
def recipe(frames: Path, tmp_path: Path) -> Path:
    """A recipe of 6 steps on ``frames``; its runs go below ``tmp_path``."""
    return write_recipe(tmp_path, frames)


@pytest.fixture(scope="session")
def finished_once(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of ``RECIPE`` that has ended. Tests look at it, or take ``finished``."""
    return ended_run(tmp_path_factory.mktemp("finished"), frames)


@pytest.fixture
def finished(finished_once: Path, tmp_path: Path) -> Path:
    """The folder of a run of ``recipe`` that has ended, below ``tmp_path``."""
    return moved_run(finished_once, tmp_path / "runs")


@pytest.fixture(autouse=True)
def single_process() -> Iterator[None]:
    """What a launcher would set must not leak from one test into the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)

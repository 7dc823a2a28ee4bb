"""Batches of a loader, and what becomes of its workers."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from finetune.data.augmentation import Augmentation
from finetune.data.dataloader import collate, init_worker, make_loader, raise_worker_errors, training_batches
from finetune.data.preprocessing import Preprocessing
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import DepthRangePolicy, TrainingItem, TrainingSamples
from finetune.utils.errors import ProcessError
from tests.conftest import ROOT
from tests.synthetic import Planes, Skies, tilted_plane


def samples(seed: int = 0, count: int = 10) -> TrainingSamples:
    return TrainingSamples(
        [Planes(count)],
        [1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=seed,
    )


def test_a_sample_is_the_same_alone_in_any_worker_and_after_a_resume() -> None:
    alone = samples()[13].sample
    for workers, first_step in ((0, 0), (2, 0), (2, 3)):
        loader = training_batches(
            samples(),
            DistributedBatchSampler(first_step=first_step, batch_size=4, accumulate=1, rank=0, world_size=1),
            workers=workers,
            pin_memory=False,
        )
        batch = next(islice(loader, 3 - first_step, None))
        assert batch.sources[1] == alone.source
        assert np.array_equal(batch.image[1].permute(1, 2, 0).numpy(), alone.image)
        assert np.array_equal(batch.depth_m[1, 0].numpy(), alone.depth_m)


def test_loading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(
        iter(
            training_batches(
                samples(),
                DistributedBatchSampler(first_step=0, batch_size=2, accumulate=1, rank=0, world_size=1),
                workers=0,
                pin_memory=False,
            )
        )
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_batch_shapes_types_and_memory_layout() -> None:
    plane = tilted_plane()
    empty = DepthRangePolicy(max_depth_m=0.5)(plane)
    batch = collate([TrainingItem(plane), TrainingItem(empty), TrainingItem(plane)])
    assert batch.image.shape == (3, 3, 48, 64)
    assert batch.image.dtype == torch.uint8
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
    assert batch.depth_m.shape == batch.valid.shape == (3, 1, 48, 64)
    assert batch.valid.dtype == torch.bool
    assert batch.usable_images == 2
    assert batch.sources == ["plane"] * 3


def test_sky_at_the_ceiling_reaches_the_batch() -> None:
    training = TrainingSamples(
        [Skies(count=2)],
        [1.0],
        preprocessing=Preprocessing(input_size=(28, 42)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=None, ceiling_m=np.inf)],
        seed=0,
    )
    batch = collate([training[k] for k in range(4)])
    assert batch.valid.all()
    assert batch.depth_m.isinf().any()
    assert batch.usable_images == 4


def test_a_worker_hands_a_batch_over_in_one_shared_block() -> None:
    order = DistributedBatchSampler(first_step=0, batch_size=3, accumulate=1, rank=0, world_size=1)
    loader = training_batches(samples(), order, workers=1, pin_memory=False)
    batch, alone = next(loader), collate([samples()[k] for k in range(3)])
    for name in ("image", "depth_m", "valid"):
        assert torch.equal(getattr(batch, name), getattr(alone, name))
        assert getattr(batch, name).is_shared() and not getattr(alone, name).is_shared()
    memory = {tensor.untyped_storage().data_ptr() for tensor in (batch.image, batch.depth_m, batch.valid)}
    assert len(memory) == 1
    assert (batch.usable_pixels, batch.usable_images) == (int(batch.valid.sum()), 3) == alone[4:2:-1]
    loader.close()


class Broken:
    """What stands for a loader of two processes one of which went away while it handed something over."""

    num_workers = 2

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise self._fault


@pytest.mark.parametrize("fault", [EOFError(), ConnectionResetError(104, "Connection reset by peer")])
def test_a_broken_pipe_to_a_worker_is_its_death(fault: Exception) -> None:
    items = raise_worker_errors(Broken(fault))  # type: ignore[arg-type]
    assert next(items) == 1
    with pytest.raises(ProcessError, match=r"A process that reads data died \((EOFError|.*reset by peer)\)"):
        next(items)


def test_what_a_reader_raises_is_not_taken_for_a_worker_that_died() -> None:
    fault = EOFError("Caught EOFError in DataLoader worker process 0.\nOriginal Traceback")
    with pytest.raises(EOFError):
        list(raise_worker_errors(Broken(fault)))  # type: ignore[arg-type]


class NotToBeHandedOver(Dataset[object]):
    """What Python cannot pickle, as a tensor cannot be handed over where shared memory is full."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> object:
        return lambda: index


class Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


def test_more_workers_than_cores_are_no_warning_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with pytest.warns(UserWarning, match="This DataLoader will create 2 worker processes"):
        DataLoader(Numbers(), num_workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(make_loader(Numbers(), num_workers=2))) == 4


@pytest.mark.parametrize(("rank", "named"), [(None, ""), ("0", ""), ("1", "[process 1] ")])
def test_a_worker_that_cannot_hand_over_a_sample_dies_of_it_and_is_not_waited_for(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str | None, named: str
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    # PyTorch asks to hear of workers that end once in a process, and what came before may have ended that.
    monkeypatch.setattr("torch.utils.data._utils.signal_handling._SIGCHLD_handler_set", False)
    loader = DataLoader(NotToBeHandedOver(), num_workers=1, collate_fn=list, worker_init_fn=init_worker, timeout=30)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid"):
        list(loader)
    assert time.monotonic() - started < 20
    said = capfd.readouterr().err
    assert said.startswith(f"{named}A process that reads data could not hand it over: ")
    # What cannot be pickled; the words around it are Python's, and differ from version to version.
    assert "'NotToBeHandedOver.__getitem__.<locals>.<lambda>'" in said and said.count("\n") == 1


class Endless(Dataset[int]):
    """Numbers without end."""

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> int:
        return index


def test_a_worker_heeds_the_signal_of_its_parent_alone() -> None:
    items = iter(DataLoader(Endless(), num_workers=1, worker_init_fn=init_worker, timeout=30))
    assert next(items).item() == 0
    (worker,) = items._workers  # type: ignore[attr-defined]
    # By another process, as a scheduler or a launcher does it.
    for _ in range(3):
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert [next(items).item() for _ in range(50)] == list(range(1, 51))
    worker.terminate()
    worker.join(timeout=10)
    assert worker.exitcode == 0


# A parent that is killed while its worker begins. What the worker writes is read from a pipe that it inherits.
KILLED_PARENT = """
import multiprocessing, os, signal, time
from finetune.data.dataloader import init_worker
def work():
    while os.getppid() == parent:
        time.sleep(0.01)
    init_worker(0)
    print("goes on", flush=True)
parent = os.getpid()
multiprocessing.get_context("fork").Process(target=work).start()
os.kill(parent, signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_worker_whose_parent_was_killed_meanwhile_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_PARENT], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == ""


HANDING_OVER = """
import os, signal, sys, time
from torch.utils.data import DataLoader
from finetune.data import dataloader
dataloader.PARENT_LOOK_S = 0.1
class Large:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return bytes(1 << 20)  # more than a pipe holds
loader = DataLoader(
    Large(), batch_size=None, num_workers=1, worker_init_fn=dataloader.init_worker, multiprocessing_context="fork"
)
iterator = iter(loader)
next(iterator)
open("worker", "w").write(str(iterator._workers[0].pid))
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_hands_over_more_than_a_pipe_holds_ends_with_its_parent(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", HANDING_OVER], cwd=tmp_path, env=environment, timeout=60, check=False)
    worker = int((tmp_path / "worker").read_text())
    end = time.monotonic() + 20
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.1)
    is_left = Path(f"/proc/{worker}").exists()
    if is_left:
        os.kill(worker, signal.SIGKILL)
    assert not is_left


def test_weights_reach_the_batch_and_are_one_where_a_sample_has_none() -> None:
    plane = tilted_plane()
    weight = np.arange(plane.valid.size, dtype=np.float32).reshape(plane.valid.shape)
    assert collate([TrainingItem(plane)]).weight is None
    plain, mixed = (collate([TrainingItem(plane), TrainingItem(plane.changed(weight=w))]) for w in (None, weight))
    assert mixed.weight is not None and mixed.weight.shape == mixed.valid.shape
    assert torch.equal(mixed.weight[0], torch.ones(1, 48, 64))
    assert torch.equal(mixed.weight[1, 0], torch.from_numpy(weight))
    for name in ("image", "depth_m", "valid"):
        assert torch.equal(getattr(mixed, name), getattr(plain, name)), name

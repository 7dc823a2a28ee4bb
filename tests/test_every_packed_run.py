"""Packed frames are drawn as the files were: on one, two and three processes, and from the step of a resume on.
Whole runs on them are those on the files."""

import shutil
import subprocess
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune.commands import pack
from finetune.data.augmentation import Augmentation
from finetune.data.dataloader import Batch, training_batches
from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader
from finetune.data.readers.packed import Packed
from finetune.data.readers.pairs import Pairs
from finetune.data.samplers import DistributedBatchSampler
from finetune.data.training_dataset import DepthRangePolicy, TrainingSamples
from tests.conftest import write_recipe
from tests.runs import rows, train_command, without_gpu

TOTAL, STEPS = 6, 4  # images a step, which one, two and three processes share; steps


@pytest.fixture(scope="module")
def packed(frames: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``small.yaml``, and in ``packed`` what ``finetune pack`` made of it without loss."""
    folder = tmp_path_factory.mktemp("packed")
    recipe = write_recipe(folder, frames)
    assert pack.main([str(recipe), "--output", str(folder / "packed"), "--size", "full", "--images", "png"]) == 0
    return folder


def batches_of(reader: Reader, *, processes: int, first_step: int = 0) -> list[Batch]:
    """The batches of all processes from a step to the last, in the order of their samples."""
    samples = TrainingSamples(
        [reader],
        [1.0],
        preprocessing=Preprocessing(input_size=(56, 70)),
        augmentation=Augmentation(flip=0.5, color=0.5),
        ranges=[DepthRangePolicy(max_depth_m=10.0)],
        seed=0,
    )
    of_ranks = []
    for rank in range(processes):
        order = DistributedBatchSampler(
            first_step=first_step, batch_size=TOTAL // processes, accumulate=1, rank=rank, world_size=processes
        )
        loader = training_batches(samples, order, workers=0, pin_memory=False)
        of_ranks.append(list(islice(loader, STEPS - first_step)))
    return [batch for of_step in zip(*of_ranks, strict=True) for batch in of_step]


def test_samples_are_those_of_the_files_on_any_number_of_processes_and_from_any_step(
    packed: Path, frames: Path
) -> None:
    files = Pairs(root=str(frames), list="train.txt", meters_per_unit=0.001)
    reader = Packed(root=str(packed / "packed/train_0"))
    expected = batches_of(files, processes=1)
    for processes in (1, 2, 3):
        for first_step in (0, 3):
            found = batches_of(reader, processes=processes, first_step=first_step)
            for name in ("image", "depth_m", "valid"):
                wanted = torch.cat([getattr(batch, name) for batch in expected[first_step:]])
                assert torch.equal(torch.cat([getattr(batch, name) for batch in found]), wanted), name
            names = [source for batch in expected[first_step:] for source in batch.sources]
            assert [source for batch in found for source in batch.sources] == names


@pytest.fixture(scope="module")
def runs(packed: Path) -> Path:
    """Runs ``files``, and on packed frames ``packed_1``, ``_2`` and ``_3``, of so many processes each."""
    entries = {part: f"data.{part}=[{{reader: packed, root: {packed}/packed/{part}_0}}]" for part in ("train", "val")}
    given = {"files": (1, ()), **{f"packed_{count}": (count, tuple(entries.values())) for count in (1, 2, 3)}}
    for name, (processes, overrides) in given.items():
        call = train_command(
            packed / "small.yaml",
            *overrides,
            f"name={name}",
            f"run.batch_size={TOTAL // processes}",
            processes=processes,
        )
        ended = subprocess.run(call, env=without_gpu(), capture_output=True, text=True, timeout=240, check=False)
        assert ended.returncode == 0, ended.stderr
    return packed / "runs"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "model.safetensors")


@pytest.mark.slow
def test_a_run_on_packed_frames_is_that_on_the_files_bit_by_bit(runs: Path) -> None:
    files, found = weights_of(runs / "files"), weights_of(runs / "packed_1")
    assert all(torch.equal(tensor, found[name]) for name, tensor in files.items())
    assert rows(runs / "packed_1") == rows(runs / "files")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_train_the_same_weights(runs: Path, processes: int) -> None:
    one, several = weights_of(runs / "packed_1"), weights_of(runs / f"packed_{processes}")
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    assert max(float((tensor - several[name]).abs().max()) for name, tensor in one.items()) <= 1e-5 * largest


@pytest.mark.slow
def test_a_run_on_packed_frames_resumes_bit_by_bit(runs: Path) -> None:
    run = runs / "packed_1"
    weights, table, logged = weights_of(run), (run / "evaluation.json").read_text(), rows(run)
    shutil.rmtree(run / "checkpoints" / "step_00000006")
    shutil.rmtree(run / "last")
    (run / "evaluation.json").unlink()
    # With as many threads as before: a sum over the frames depends on how they share it.
    call = train_command(run / "recipe.yaml", "--resume")
    ended = subprocess.run(call, env=without_gpu(), capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    assert all(torch.equal(tensor, weights_of(run)[name]) for name, tensor in weights.items())
    assert ((run / "evaluation.json").read_text(), rows(run)) == (table, logged)

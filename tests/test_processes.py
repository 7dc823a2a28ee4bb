"""Two processes by torchrun against one with the same total batch; each run as a command."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from safetensors.torch import load_file

from tests.conftest import CHECKPOINT, RECIPE, ROOT, write_frame
from tests.runs import train_command, without_gpu

STEPS = 20
# Weights are compared after these. Later a rounding may decide on which side of 0 a channel of ReLU is that was silent
# so far, and Adam takes its first gradient, however small, for a whole step: 2e-4 in the fifth step on one processor.
ALIKE_STEPS = 4
# Threads alike: they change the order in which numbers are added.
ARGUMENTS = (
    "run.threads=1",
    "run.log_every_steps=1",
    "optim.ema_decay=0.9",
    # Images, and pixels, are counted over both processes.
    "loss=[{kind: silog}, {kind: l1, weight: 0.1, reduction: pixel}]",
    "export=[]",
)
LONG = (
    *ARGUMENTS,
    f"run.steps={STEPS}",
    f"run.evaluate_every_steps={STEPS}",
    f"run.save_every_steps={ALIKE_STEPS}",
    f"run.keep_checkpoints={STEPS // ALIKE_STEPS}",
)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=without_gpu(), capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs ``one`` and ``two`` on 9 frames, 4 of them without any measurement, with 7 to validate."""
    folder = tmp_path_factory.mktemp("processes")
    generator = np.random.default_rng(1)
    for number in range(16):
        far_m, near_m = generator.uniform((3, 1), (8, 3))
        depth_m = 1 / np.linspace(1 / far_m, 1 / near_m, 48)[:, None].repeat(64, axis=1)
        depth_m[: 40 if number % 2 else 5] = 0.0  # an image with few measurements next to one with many
        write_frame(folder, f"{number:02}", depth_m if number > 3 else np.zeros_like(depth_m))
    lines = [f"{number:02}.jpg {number:02}.png\n" for number in range(16)]
    (folder / "train.txt").write_text("".join(lines[:9]))
    (folder / "val.txt").write_text("".join(lines[9:]))
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.format(output=folder, checkpoint=CHECKPOINT, root=folder))
    for ended in (
        run(train_command(recipe, *LONG, "name=one", "run.batch_size=2")),
        run(train_command(recipe, *LONG, "name=two", "run.batch_size=1", processes=2)),
    ):
        assert ended.returncode == 0, ended.stderr
    # Before anything is believed: they were two that knew of each other, and not two runs of one process.
    records = [json.loads((folder / name / "environment.json").read_text()) for name in ("one", "two")]
    assert [record["processes"] for record in records] == [1, 2]
    assert [record["total_batch"] for record in records] == [2, 2]
    return folder


def columns(run: Path, *names: str, column: str = "loss") -> list[list[float]]:
    """Of the rows that have a number in ``column``."""
    with (run / "metrics.csv").open(newline="") as file:
        return [[float(row[name]) for name in names] for row in csv.DictReader(file) if row[column]]


@pytest.mark.slow
def test_the_learning_rates_are_equal_at_every_step(runs: Path) -> None:
    rates = [columns(runs / name, "step", "lr", "lr_decoder") for name in ("one", "two")]
    assert rates[0] == rates[1]
    assert [row[0] for row in rates[0]] == list(range(1, STEPS + 1))
    assert rates[0][1] != rates[0][10]


@pytest.mark.slow
def test_the_weights_are_equal_though_a_process_may_have_nothing_measured(runs: Path) -> None:
    point = Path("checkpoints") / f"step_{ALIKE_STEPS:08}"
    for file in ("average.safetensors", "model.safetensors"):
        one, two = (load_file(runs / name / point / file) for name in ("one", "two"))
        largest = max(float(tensor.abs().max()) for tensor in one.values())
        assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items()) <= 1e-5 * largest
    start = load_file(CHECKPOINT)
    assert max(float((tensor - start[name].float()).abs().max()) for name, tensor in one.items()) > 1e-3 * largest
    names = ("loss", "loss_silog", "loss_l1", "grad_norm")
    found, other = (np.array(columns(runs / name, *names))[:ALIKE_STEPS] for name in ("one", "two"))
    np.testing.assert_allclose(found, other, rtol=1e-5)
    # With four of nine frames without a measurement, a step of two has none, one or two; losses stay numbers.
    losses, alone = ([row[0] for row in columns(runs / name, "loss")] for name in ("two", "one"))
    assert np.isfinite(losses).all()
    assert 0.0 in losses
    assert [loss == 0.0 for loss in losses] == [loss == 0.0 for loss in alone]
    np.testing.assert_allclose(losses, alone, rtol=0.02)


@pytest.mark.slow
def test_the_evaluation_of_seven_images_is_the_same(runs: Path) -> None:
    (one,), (two,) = (json.loads((runs / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert one["images_used"] == two["images_used"] == 7
    assert one["pixels_used"] == two["pixels_used"]
    for row in ("constant_median", "best_constant", "base_fitted_scale", "calibrated_start"):  # of equal weights
        for name, value in one["rows"][row].items():
            assert two["rows"][row][name] == pytest.approx(value, rel=1e-6)


@pytest.mark.slow
def test_with_the_same_batches_the_evaluation_is_the_same_bit_by_bit(runs: Path) -> None:
    # With the batches of the first, for what is evaluated with equal weights.
    arguments = [*ARGUMENTS, "name=wide", "run.batch_size=2", "run.steps=2"]
    ended = run(train_command(runs / "small.yaml", *arguments, processes=2))
    assert ended.returncode == 0, ended.stderr
    record = json.loads((runs / "wide" / "environment.json").read_text())
    assert (record["processes"], record["total_batch"]) == (2, 4)
    (one,), (wide,) = (json.loads((runs / name / "evaluation.json").read_text()) for name in ("one", "wide"))
    for row in ("constant_median", "best_constant", "base_fitted_scale", "calibrated_start"):
        assert wide["rows"][row] == one["rows"][row]
        assert wide["bins"][row] == one["bins"][row]
        assert wide["errors_mm"][row] == one["errors_mm"][row]
    first = [columns(runs / name, "val_abs_rel", column="val_abs_rel")[0] for name in ("one", "wide")]
    assert first[0] == first[1]


@pytest.mark.slow
def test_what_is_evaluated_while_training_is_one_network_in_all_processes(runs: Path) -> None:
    # At step 0 the weights are equal; only the main process solved for the last layer, and each has its own average.
    scores = [columns(runs / name, "step", "val_abs_rel", column="val_abs_rel") for name in ("one", "two")]
    assert [[row[0] for row in of_run] for of_run in scores] == [[0, STEPS]] * 2
    (one, _), (two, _) = scores
    assert two[1] == pytest.approx(one[1], rel=1e-6)


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_stop(runs: Path) -> None:
    command = train_command(runs / "small.yaml", "name=apart")
    # What a scheduler leaves in the environment of a program that it starts once for each process.
    environment = {**os.environ, "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "2 processes (WORLD_SIZE), but not how they find each other (RANK, LOCAL_RANK" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (runs / "apart").exists()


def test_slurm_starts_a_run_for_each_gpu_that_knows_the_others(tmp_path: Path) -> None:
    names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
    # Stand-ins for the programs of the cluster.
    for name, body in (
        # It is not done when the first name is there: who does not read on ends it, and with it the job.
        ("scontrol", "echo node-a; sleep 0.2; echo node-b"),
        (
            "srun",
            'echo "$1 $2 $3 $4"; shift 4; '
            'for rank in 0 1 2 3 4 5 6 7; do SLURM_PROCID=$rank SLURM_LOCALID=$((rank % 4)) "$@"; done',
        ),
        ("python", f'for one in {names}; do printf "%s=%s|" $one "${{!one}}"; done; printf "%s|" "$@"; echo'),
    ):
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    nodes = {"SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    nodes |= {"SLURM_JOB_ID": "123456", "SLURM_CPUS_ON_NODE": "64"}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **nodes}
    command = ["bash", str(ROOT / "recipes" / "accelerate" / "slurm.sh"), "my recipe.yaml", "--resume"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    options, *lines = ended.stdout.splitlines()
    assert options == "--ntasks=8 --ntasks-per-node=4 --cpus-per-task=16 --gpu-bind=none"
    assert len(lines) == 8
    for rank, line in enumerate(lines):
        *found, script, recipe, flag, _ = line.split("|")
        ranks = [f"RANK={rank}", f"LOCAL_RANK={rank % 4}", "WORLD_SIZE=8", "LOCAL_WORLD_SIZE=4"]
        assert found == [*ranks, "MASTER_ADDR=node-a", "MASTER_PORT=23456"]
        assert (script, recipe, flag) == ("finetune/train.py", "my recipe.yaml", "--resume")


@pytest.mark.parametrize(
    ("name", "machines", "processes"), [("one_gpu", 1, 1), ("eight_gpus", 1, 8), ("two_machines", 2, 16)]
)
def test_accelerate_reads_its_config_files(name: str, machines: int, processes: int) -> None:
    config = load_config_from_file(str(ROOT / "recipes" / "accelerate" / f"{name}.yaml"))
    assert (config.num_machines, config.num_processes, config.mixed_precision) == (machines, processes, "bf16")
    several = DistributedType.MULTI_GPU if processes > 1 else DistributedType.NO
    assert config.distributed_type == several


@pytest.mark.slow
def test_two_machines_by_their_config_file_train_as_one_run(runs: Path) -> None:
    # Two launchers on this machine that know each other's address only, one process each.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = ROOT / "recipes" / "accelerate" / "two_machines.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    launcher += ["--num_processes", "2", "--mixed_precision", "no"]
    launcher += ["--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    training = [str(ROOT / "finetune" / "train.py"), str(runs / "small.yaml"), *LONG, "name=machines"]
    commands = [[*launcher, "--machine_rank", rank, *training, "run.batch_size=1"] for rank in ("0", "1")]
    processes = [subprocess.Popen(command, env=without_gpu()) for command in commands]
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    assert json.loads((runs / "machines" / "environment.json").read_text())["processes"] == 2
    two, machines = (load_file(runs / name / "last" / "model.safetensors") for name in ("two", "machines"))
    assert all(torch.equal(tensor, machines[name]) for name, tensor in two.items())


@pytest.mark.slow
def test_two_processes_evaluate_to_one_table_that_is_that_of_one(runs: Path) -> None:
    command = ["-m", "finetune", "evaluate", str(runs / "one"), "--recipe", str(runs / "one" / "recipe.yaml")]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    written, printed = [], []
    for name, start in (("alone", []), ("together", launcher)):
        ended = run([sys.executable, *start, *command, "--json", str(runs / f"{name}.json")])
        assert ended.returncode == 0, ended.stderr
        written.append((runs / f"{name}.json").read_bytes())
        printed.append(ended.stdout.replace(name, ""))
    assert written[0] == written[1]
    assert printed[0] == printed[1]


# Trains as the command does, but the main process takes seconds to write its last weights, as on a slow disk.
SLOW_WRITER = """
import sys, time
sys.path.insert(0, {root!r})
from finetune.training.weights import WeightsWriter
write = WeightsWriter.write
def write_late(self, path, step, evaluation):
    if self.writes and path.parent.name == "last":
        time.sleep(5)
    write(self, path, step, evaluation)
WeightsWriter.write = write_late
from finetune.commands.train import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_no_process_goes_on_before_the_last_weights_are_written(runs: Path, tmp_path: Path) -> None:
    program = tmp_path / "slow_writer.py"
    program.write_text(SLOW_WRITER.format(root=str(ROOT)))
    arguments = [*ARGUMENTS, "name=late", "run.batch_size=1", "run.steps=2"]
    command = train_command(runs / "small.yaml", *arguments, processes=2)
    ended = run([str(program) if part.endswith("train.py") else part for part in command])
    assert ended.returncode == 0, ended.stderr
    (table,) = json.loads((runs / "late" / "evaluation.json").read_text())
    assert "last" in table["rows"]


@pytest.mark.slow
def test_adapters_train_alike_on_two_processes(runs: Path) -> None:
    arguments = [*ARGUMENTS, "run.steps=8", "model.train=lora", "model.lora.rank=4", "optim.lr=1e-3"]
    # What dropout takes belongs to a sample, in whichever process it is seen.
    arguments += ["model.lora.dropout=0.3"]
    for ended in (
        run(train_command(runs / "small.yaml", *arguments, "name=lora_one", "run.batch_size=2")),
        run(train_command(runs / "small.yaml", *arguments, "name=lora_two", "run.batch_size=1", processes=2)),
    ):
        assert ended.returncode == 0, ended.stderr
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        one, two = (load_file(runs / name / "last" / file) for name in ("lora_one", "lora_two"))
        largest = max(float(tensor.abs().max()) for tensor in one.values())
        assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items()) <= 1e-5 * largest
    assert any(".lora_B." in name and tensor.any() for name, tensor in one.items())


@pytest.mark.slow
def test_entries_with_their_own_losses_give_the_same_weights(runs: Path) -> None:
    frames = f"{{reader: pairs, root: {runs}, list: train.txt, meters_per_unit: 0.001"
    entries = f"data.train=[{frames}}}, {frames}, weight: 2, loss: [{{kind: log_l1}}, {{kind: l1, weight: 0.1}}]}}]"
    arguments = (*ARGUMENTS, entries, "run.steps=8", "data.accept=[few_points]")
    for name, size, processes in (("own_one", 2, 1), ("own_two", 1, 2)):
        command = train_command(
            runs / "small.yaml", *arguments, f"name={name}", f"run.batch_size={size}", processes=processes
        )
        ended = run(command)
        assert ended.returncode == 0, ended.stderr
    names = ("loss", "loss_silog", "loss_l1", "loss_log_l1_train_1", "loss_l1_train_1")
    found, other = (np.array(columns(runs / name, *names)) for name in ("own_one", "own_two"))
    np.testing.assert_allclose(found, other, rtol=1e-4, atol=1e-6)
    assert (found > 0).any(0).all()
    one, two = (load_file(runs / name / "last" / "model.safetensors") for name in ("own_one", "own_two"))
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    assert max(float((tensor - two[name]).abs().max()) for name, tensor in one.items()) <= 1e-5 * largest

"""Environments of launchers, schedulers and containers: one sentence each for those that cannot be followed."""

import os
import socket
from pathlib import Path

import pytest

from finetune.training import launchers
from finetune.training.launchers import precision_of_launcher, processes_asked_for, usable_cores
from finetune.utils.errors import FinetuneError

TOGETHER = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "SLURM_", "PMI_", "OMPI_")) or name in TOGETHER:
            monkeypatch.delenv(name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE is 'abc'; expected a number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE is '²'"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        ({"LOCAL_RANK": "1.5"}, "LOCAL_RANK is '1.5'"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK without WORLD_SIZE"),
        (
            {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"},
            r"2 processes \(OMPI_COMM_WORLD_SIZE\), as mpirun",
        ),
        ({"PMI_SIZE": "8"}, r"8 processes \(PMI_SIZE\)"),
        ({"MV2_COMM_WORLD_SIZE": "many"}, "MV2_COMM_WORLD_SIZE is 'many'"),
        ({"WORLD_SIZE": "2"}, r"2 processes \(WORLD_SIZE\), but not how they find each other \(RANK, LOCAL_RANK, MAS"),
        ({**TOGETHER, "RANK": "2"}, "RANK 2 of WORLD_SIZE 2; ranks count from 0"),
        ({**TOGETHER, "MASTER_PORT": "port"}, "MASTER_PORT is 'port'"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP has not been run"),
        ({"ACCELERATE_USE_DEEPSPEED": "1"}, "DeepSpeed has not been run"),
        ({"ACCELERATE_USE_MEGATRON_LM": "True"}, "Megatron-LM has not been run"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "a parallelism config has not been run"),
    ],
    ids=str,
)
def test_what_cannot_be_followed_is_one_sentence(
    environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FinetuneError, match=sentence):
        processes_asked_for()


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, 1),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "0", "RANK": "0"}, 1),
        ({"LOCAL_RANK": "-1"}, 1),
        ({"PMI_SIZE": "1", "PMI_RANK": "0"}, 1),
        (TOGETHER, 2),
        ({**TOGETHER, "PMI_SIZE": "2"}, 2),
    ],
    ids=str,
)
def test_what_can_be_followed_is_counted(
    environment: dict[str, str], processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes_asked_for() == processes


def test_more_processes_than_gpus_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TOGETHER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(FinetuneError, match="Process 1 of this machine has no GPU: 1 are visible"):
        processes_asked_for()
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert processes_asked_for() == 2


def test_a_main_machine_without_an_address_is_waited_for_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {**TOGETHER, "LOCAL_RANK": "0", "MASTER_ADDR": "node-a"}.items():
        monkeypatch.setenv(name, value)
    asked: list[str] = []

    def look_up(host: str, _: None) -> list[object]:
        asked.append(host)
        if len(asked) % 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return []

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    monkeypatch.setattr(launchers, "_ASK_EVERY_S", 0.0)
    launchers.wait_for_main_machine()
    assert asked == ["node-a"] * 3
    said = "waiting for the machine node-a (MASTER_ADDR), which has no address yet (Name or service not known)"
    assert caplog.messages == [said]
    monkeypatch.setattr(launchers, "_KNOWN_AFTER_S", 0.0)
    with pytest.raises(
        FinetuneError, match=r"MASTER_ADDR is 'node-a', and this machine finds no address for it \(Name"
    ):
        launchers.wait_for_main_machine()


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp/" + "x" * 60)
    launchers.require_short_temporary_path()
    # What multiprocessing would have tried.
    long = "/tmp/" + "x" * 72
    with socket.socket(socket.AF_UNIX) as one, pytest.raises(OSError, match="AF_UNIX path too long"):
        one.bind(f"{long}/pymp-abcdefgh/listener-abcdefgh")
    monkeypatch.setattr("tempfile.gettempdir", lambda: long)
    with pytest.raises(FinetuneError, match="too long for the sockets"):
        launchers.require_short_temporary_path()


def test_a_precision_that_has_not_been_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision_of_launcher() == "no"
    for precision in ("bf16", "BF16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        assert precision_of_launcher() == "bf16"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(FinetuneError, match=r"mixed precision fp8, which has not been run.*run\.precision: bf16"):
        precision_of_launcher()


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "60000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "350000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 6),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2),
        ("0::/outside/name\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "1600000 100000\n"}, 6),
        ("3:cpuacct,cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "150000\n", "cpu/a/cpu.cfs_period_us": "50000"}, 3),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ("3:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "100000", "cpuset/cpu.cfs_period_us": "100000"}, 6),
        ("nonsense", {"cpu.max": "a b"}, 6),
        ("0::/\n", {"cpu.max": "100000 0"}, 6),
        ("", {}, 6),
    ],
)  # fmt: skip
def test_a_containers_share_of_the_cores_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], cores: int
) -> None:
    (tmp_path / "own").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    quotas = launchers._quotas
    monkeypatch.setattr(launchers, "_quotas", lambda: quotas(tmp_path / "root", tmp_path / "own"))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    assert usable_cores() == cores

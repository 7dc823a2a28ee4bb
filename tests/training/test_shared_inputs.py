"""Processes of a launch do each input once; ``tests/commands/test_predict.py`` runs two."""

import pytest

from finetune.training.shared_inputs import SharingProcess, join_launch


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_each_input_is_done_by_one_process(count: int) -> None:
    items = list(range(10))
    shares = [SharingProcess(rank=rank, count=count).share(items) for rank in range(count)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_each_process_has_its_gpu_and_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune.training.shared_inputs.usable_cores", lambda: 16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    third = SharingProcess(rank=7, count=8, local_rank=3, local_count=4)
    assert (third.device("auto"), third.device("cuda"), third.device("cpu")) == ("cuda:3", "cuda:3", "cpu")
    assert third.cores == 4
    assert SharingProcess().device("auto") == "auto"


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join_launch() as process:
        assert (process.rank, process.count) == (0, 1)
        assert process.gather("all") == ["all"]

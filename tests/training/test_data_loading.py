"""How samples are loaded by default, and when a run says that it waits for them; on numbers worked out by hand."""

import pytest
import torch

from finetune.recipe.schema import DataOptions
from finetune.training import data_loading
from finetune.training.data_loading import Loading, WaitWatch, choose_loading

GPU, CPU = torch.device("cuda"), torch.device("cpu")


def options(**keys: object) -> DataOptions:
    data = object.__new__(DataOptions)
    data.__dict__.update({"workers": "auto", "prefetch": "auto", "pin_memory": "auto", **keys})
    return data


def of(workers: int, cores: int = 16, device: torch.device = GPU) -> Loading:
    return Loading(workers=workers, prefetch=4, pin_memory=True, cores=cores, device=device)


@pytest.mark.parametrize(
    ("device", "cores", "processes", "workers"),
    [(GPU, 16, 1, 15), (GPU, 64, 8, 7), (GPU, 128, 1, 16), (GPU, 1, 1, 1), (CPU, 16, 1, 2), (CPU, 1, 1, 1)],
)
def test_workers_are_chosen_by_cores_and_device(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(data_loading, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    found = choose_loading(options(), device)
    assert (found.workers, found.prefetch, found.pin_memory) == (workers, 4 if device is GPU else 2, device is GPU)


def test_what_the_recipe_says_is_taken() -> None:
    found = choose_loading(options(workers=0, prefetch=7, pin_memory=False), GPU)
    assert (found.workers, found.prefetch, found.pin_memory) == (0, 7, False)


def test_the_choice_is_said() -> None:
    assert of(8).describe() == "read by 8 workers, 4 batches ahead each, pinned memory (16 cores for them and the GPU)"
    assert of(6, 2, CPU).describe() == (
        "read by 6 workers, 4 batches ahead each, pinned memory (2 cores for them and the network, so they take turns)"
    )
    assert of(0, 1, CPU).describe() == "read between the steps (data.workers 0; 1 core for it and the network)"


def test_a_wait_says_how_many_workers_would_be_enough() -> None:
    # Of 1 s, 0.38 s are waited: 8 workers deliver in 1 s what 0.62 s of step need, so 8 / 0.62 = 12.9 do.
    assert of(8).describe_wait(0.38, 1.0) == "the GPU waits 38% of a step for data: data.workers 8 to 13"
    assert of(8).describe_wait(0.14, 1.0) is None
    few = of(8, cores=12).describe_wait(0.38, 1.0)
    assert (
        few == "the GPU waits 38% of a step for data: data.workers 8 to 11; 13 would be enough, so finetune pack may "
        "help too"
    )
    busy = of(2, cores=2, device=CPU).describe_wait(0.5, 1.0)
    assert (
        busy == "the CPU waits 50% of a step for data, and its 2 cores are busy: finetune pack, or smaller image files"
    )
    assert of(0, 4, CPU).describe_wait(0.4, 1.0) == "the CPU waits 40% of a step for data: data.workers 0 to 2"


def test_a_run_says_it_once_and_not_of_its_first_steps() -> None:
    watch = WaitWatch(of(8))
    watch.add_step(9.0, 10.0)  # the workers start
    assert watch.note_logged_step() is None
    watch.add_step(0.1, 1.0)
    assert watch.note_logged_step() is None
    for _ in range(2):
        watch.add_step(0.38, 1.0)
    assert watch.note_logged_step() == of(8).describe_wait(0.76, 2.0) != None  # noqa: E711 - there is a sentence
    watch.add_step(0.9, 1.0)
    assert watch.note_logged_step() is None

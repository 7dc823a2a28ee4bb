from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from finetune.data.dataloader import Batch
from finetune.training.trainer import Trainer, inverse_depth
from tests.runs import launch


def test_inverse_depth_by_hand() -> None:
    depth_m = torch.tensor([[[[0.5, 4.0, torch.inf, torch.nan, 0.0]]]])
    valid = torch.tensor([[[[True, True, True, False, False]]]])
    assert inverse_depth(depth_m, valid).tolist() == [[[[2.0, 0.25, 0.0, 1.0, 1.0]]]]


def test_the_smallest_depth_there_is_has_a_finite_inverse() -> None:
    depth_m = torch.full((1, 1, 1, 1), torch.finfo(torch.float32).tiny)
    assert inverse_depth(depth_m, torch.ones(1, 1, 1, 1, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize(
    ("loss", "order"),
    [
        # One kind of count: the next batch is asked for after the backward of the one before it.
        ("[{kind: silog}]", ["batch", "backward"] * 3),
        # Two kinds of counts are shares of the whole step, so that all batches are counted first.
        ("[{kind: silog}, {kind: l1, reduction: pixel}]", ["batch"] * 3 + ["backward"] * 3),
    ],
)
def test_micro_batches_are_taken_one_by_one(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, loss: str, order: list[str]
) -> None:
    events: list[str] = []
    take, backward = Trainer._micro_batches, Trainer._backward

    def watched_take(self: Trainer, samples: object) -> Iterator[Batch]:
        for batch in take(self, samples):  # type: ignore[arg-type]
            events.append("batch")
            yield batch

    def watched_backward(self: Trainer, *arguments: object) -> torch.Tensor:
        events.append("backward")
        return backward(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_micro_batches", watched_take)
    monkeypatch.setattr(Trainer, "_backward", watched_backward)
    steps = ("run.steps=1", "optim.warmup_steps=0", "run.accumulate=3", "run.batch_size=1", f"loss={loss}", "export=[]")
    assert launch(recipe, *steps) == 0
    assert events == order

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from finetune.data.dataloader import Batch, collate
from finetune.data.preprocessing import Preprocessing
from finetune.data.sample import DepthSample
from finetune.data.strong_augmentation import Box
from finetune.data.training_dataset import TrainingItem
from finetune.recipe.load import load_recipe
from finetune.training.batch_losses import inverse_depth
from finetune.training.trainer import Trainer
from tests.runs import launch, rows


def test_inverse_depth_by_hand() -> None:
    depth_m = torch.tensor([[[[0.5, 4.0, torch.inf, torch.nan, 0.0]]]])
    valid = torch.tensor([[[[True, True, True, False, False]]]])
    assert inverse_depth(depth_m, valid).tolist() == [[[[2.0, 0.25, 0.0, 1.0, 1.0]]]]


def test_the_smallest_depth_there_is_has_a_finite_inverse() -> None:
    depth_m = torch.full((1, 1, 1, 1), torch.finfo(torch.float32).tiny)
    assert inverse_depth(depth_m, torch.ones(1, 1, 1, 1, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_batch_is_normalized_channel_by_channel_however_it_lies_in_memory(channels_last: bool) -> None:
    preprocessing = Preprocessing(input_size=(14, 14), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8))
    trainer: Any = SimpleNamespace(
        accelerator=Accelerator(cpu=True),
        _mean=torch.tensor(preprocessing.mean),
        _std=torch.tensor(preprocessing.std),
    )
    given = image.permute(0, 3, 1, 2)
    found = Trainer.normalize(trainer, given if channels_last else given.contiguous())
    expected = (given.double() / 255 - trainer._mean.view(3, 1, 1)) / trainer._std.view(3, 1, 1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert found.shape == (3, 3, 5, 7) and found.is_contiguous(memory_format=torch.channels_last)


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


class OneDepth(nn.Module):
    """Predicts 2 m everywhere, times a weight that starts at 1."""

    kind = "metric"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Identity()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (2 * self.scale).expand(len(image), 1, *image.shape[2:])


def gradients_of(folder: Path, batch: Batch, *overrides: str) -> tuple[list[str], list[float], float]:
    """Of a recipe with two entries: the names and values of its losses, and the slope of the weight of ``OneDepth``."""
    entry = "{reader: scenes, count: 4, size: [28, 42]}"
    path = folder / "two.yaml"
    path.write_text(
        f"model: {{checkpoint: null, encoder: tiny, max_depth_m: 10.0}}\n"
        f"data: {{input_size: [56, 70], train: [{entry}, {entry}], val: [{entry}]}}\nloss: [{{kind: l1}}]\n"
    )
    network = OneDepth()
    trainer = Trainer(
        recipe=load_recipe(path, overrides),
        accelerator=Accelerator(cpu=True),
        model=network,
        network=network,  # type: ignore[arg-type]
        optimizer=torch.optim.SGD(network.parameters()),
        preprocessing=Preprocessing(input_size=(56, 70)),
        total_steps=1,
        signals=SimpleNamespace(require_none=lambda: None),  # type: ignore[arg-type]
        bad_samples=SimpleNamespace(),  # type: ignore[arg-type]
        batches=iter([batch]),
    )
    terms, _ = trainer.accumulate_gradients()
    assert network.scale.grad is not None
    return trainer.loss_names, terms.tolist(), network.scale.grad.item()


def batch_of(*depths_m: float | None, entries: Sequence[int]) -> Batch:
    """A frame of 2x3 pixels for each depth; None: nothing was measured."""
    image = np.zeros((2, 3, 3), np.uint8)
    return collate(
        [
            TrainingItem(
                DepthSample(
                    image=image,
                    depth_m=np.full((2, 3), depth_m or 0.0, np.float32),
                    valid=np.full((2, 3), depth_m is not None),
                    source="it",
                ),
                entry=entry,
            )
            for depth_m, entry in zip(depths_m, entries, strict=True)
        ]
    )


def test_each_entry_has_its_own_losses_by_hand(tmp_path: Path) -> None:
    batch = batch_of(1.0, 4.0, None, entries=(0, 1, 1))
    own = "data.train.1.loss=[{kind: log_l1, weight: 3}]"
    names, values, slope = gradients_of(tmp_path, batch, own)
    assert names == ["l1", "log_l1_train_1"]
    # Two of three images are measured. abs(2 - 1) and abs(ln 2 - ln 4), each of one image, divided by both.
    assert values == pytest.approx([1 / 2, math.log(2) / 2])
    # abs(2 s - 1) has slope 2, ln 4 - ln 2 s has -1 at s = 1, and a weight of 3.
    assert slope == pytest.approx(2 / 2 - 3 * 1 / 2)
    assert gradients_of(tmp_path, batch_of(1.0, None, entries=(0, 1)), own)[1:] == ([1.0, 0.0], 2.0)
    # By pixels: 6 of 12 pixels.
    by_pixel = "data.train.1.loss=[{kind: l1, reduction: pixel}]"
    assert gradients_of(tmp_path, batch, by_pixel)[1] == pytest.approx([1 / 2, 2 / 2])


def test_the_same_losses_given_for_an_entry_change_nothing(tmp_path: Path) -> None:
    batch = batch_of(1.0, 4.0, 3.0, entries=(0, 1, 1))
    names, (plain,), slope = gradients_of(tmp_path, batch)
    assert names == ["l1"]
    _, parts, same = gradients_of(tmp_path, batch, "data.train.1.loss=[{kind: l1}]")
    assert (sum(parts), same) == pytest.approx((plain, slope))
    # Where every entry has its own, those of the recipe are for nobody.
    both = ("data.train.0.loss=[{kind: l1}]", "data.train.1.loss=[{kind: l1}, {kind: l1}]")
    assert gradients_of(tmp_path, batch, *both)[0] == ["l1_train_0", "l1_train_1_1", "l1_train_1_2"]


def test_the_weights_of_a_teachers_labels_reach_the_loss(tmp_path: Path) -> None:
    sample = DepthSample(
        image=np.zeros((1, 2, 3), np.uint8),
        depth_m=np.array([[1.0, 4.0]], np.float32),
        valid=np.ones((1, 2), np.bool_),
        source="it",
        weight=np.array([[3.0, 1.0]], np.float32),
    )
    _, (value,), _ = gradients_of(tmp_path, collate([TrainingItem(sample)]))
    assert value == pytest.approx((3 * 1 + 1 * 2) / 4)


def test_a_part_of_another_frame_is_an_image_of_its_own(tmp_path: Path) -> None:
    # Depths 1 in 6 of 12 pixels and 4 in the others, where 2 m is predicted everywhere: log ratios ln 2 and -ln 2.
    depth_m = np.ones((2, 6), np.float32)
    depth_m[:, 3:] = 4.0
    image = np.zeros((2, 6, 3), np.uint8)
    sample = DepthSample(image=image, depth_m=depth_m, valid=np.ones((2, 6), np.bool_), source="it")
    plain, cut = (collate([TrainingItem(sample, pasted=box)]) for box in (None, Box(0, 3, 2, 3)))
    loss = "loss=[{kind: silog, lam: 1.0}]"
    # Together the ratios have mean 0 and root mean square ln 2; each part alone is one ratio, which is forgiven.
    assert gradients_of(tmp_path, plain, loss)[1] == pytest.approx([math.log(2)])
    assert gradients_of(tmp_path, cut, loss)[1] == pytest.approx([0.0], abs=2e-6)


@pytest.mark.slow
def test_a_loss_of_features_holds_the_encoder_near_its_start(
    recipe: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # With a tolerance of 1 every position counts. The first step starts at the frozen encoder, so that its loss is 0.
    rates = ("optim.lr=1e-3", "optim.schedule=constant", "run.log_every_steps=1", "export=[]", "run.steps=4")
    distances = []
    for name, weight in (("free", "1e-9"), ("held", "30")):
        loss = f"loss=[{{kind: silog}}, {{kind: feature, weight: {weight}, tolerance: 1.0}}]"
        assert launch(recipe, *rates, loss, f"name={name}") == 0
        distances.append([float(row["loss_feature"]) for row in rows(tmp_path / "runs" / name) if row["loss_feature"]])
    assert "a second forward of tiny without gradients" in capsys.readouterr().out
    free, held = distances
    assert free[0] == pytest.approx(0.0, abs=1e-6) and held[0] == pytest.approx(0.0, abs=1e-6)
    assert free[-1] > 1e-4
    assert held[-1] < free[-1]

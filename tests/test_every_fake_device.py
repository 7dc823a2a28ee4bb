"""What a GPU computes, on tensors that say they are on one: devices that are mixed show without having any.

``FakeTensorMode`` computes shapes, types and devices, and no numbers. Backward needs a real device, so only forward is
run here; ``tests/training/test_every_sync.py`` runs a step.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from finetune.data.preprocessing import Preprocessing
from finetune.evaluation.evaluator import PredictionRequest, predict_with_network
from finetune.inference.predictor import Predictor
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import PATCH
from finetune.models.lora import add_adapters, lora_config
from finetune.training.batch_losses import inverse_depth
from finetune.training.trainer import Trainer
from finetune.utils import registry
from tests.small_models import small_model

SHAPE = (2, 3, 2 * PATCH, 3 * PATCH)
LOSSES = [
    *((name, {}) for name in sorted(registry.LOSSES)),
    ("gradient", {"of": "aligned"}),
    ("ssi", {"trim": 0.2}),
]
MIXED = "found at least two devices, cuda:0 and cpu"


@pytest.fixture
def fake() -> Iterator[FakeTensorMode]:
    with FakeTensorMode() as mode:
        yield mode


def move_to_fake_gpu(model: nn.Module) -> None:
    """Replace all tensors of a module by fake ones on a GPU; within the mode."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=parameter.dtype, device="cuda")
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda"))


def make_model(max_depth_m: float | None, *, adapted: bool = False) -> DepthModel:
    """Before the mode is entered: building a network reads numbers."""
    model = small_model(max_depth_m)
    if adapted:
        blocks = len(model.encoder.blocks)
        add_adapters(model, lora_config(blocks, rank=2, alpha=4.0, dropout=0.0, targets=("qkv",), last_blocks=None), 0)
    return model


def targets() -> tuple[Tensor, Tensor, Tensor]:
    pred, target = (torch.rand((2, 1, 28, 42), device="cuda") + 0.1 for _ in range(2))
    return pred, target, target > 0.5


@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_a_network_stays_on_its_device(max_depth_m: float | None) -> None:
    model = make_model(max_depth_m)
    with FakeTensorMode():
        move_to_fake_gpu(model)
        pred = model(torch.rand(SHAPE, device="cuda"))
    assert (pred.device.type, pred.dtype, tuple(pred.shape)) == ("cuda", torch.float32, (2, 1, *SHAPE[2:]))


def test_adapters_are_on_the_device_of_the_network() -> None:
    model = make_model(10.0, adapted=True)
    with FakeTensorMode():
        move_to_fake_gpu(model)
        assert model(torch.rand(SHAPE, device="cuda")).device.type == "cuda"


def test_a_network_with_a_part_on_the_host_is_found() -> None:
    model = make_model(10.0)
    with FakeTensorMode():
        move_to_fake_gpu(model)
        model.head.last.bias = nn.Parameter(torch.zeros(1))
        with pytest.raises(RuntimeError, match="bias is on cpu, different from other tensors on cuda:0"):
            model(torch.rand(SHAPE, device="cuda"))


@pytest.mark.parametrize("reduction", ["image", "pixel"])
@pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)
def test_a_loss_stays_on_its_device_and_reads_no_number(
    fake: FakeTensorMode, name: str, options: dict[str, object], reduction: str
) -> None:
    # A number that is read on the host (.item(), bool(), boolean indexing) is an error of its own in this mode.
    loss = registry.find(registry.LOSSES, name)(**options)
    assert loss(*targets(), reduction).device.type == "cuda"


@pytest.mark.parametrize(("name", "options"), LOSSES, ids=str)
def test_a_loss_of_a_target_on_the_host_is_found(fake: FakeTensorMode, name: str, options: dict[str, object]) -> None:
    pred, target, valid = targets()
    with pytest.raises(RuntimeError, match=MIXED):
        registry.find(registry.LOSSES, name)(**options)(pred, torch.rand(target.shape), valid)


def test_targets_of_a_relative_head_stay_on_their_device(fake: FakeTensorMode) -> None:
    _, target, valid = targets()
    assert inverse_depth(target, valid).device.type == "cuda"


def test_an_evaluation_moves_images_to_the_network_and_predictions_to_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, moved = make_model(10.0), []
    # A fake tensor has no numbers to make an array of.
    monkeypatch.setattr(Tensor, "numpy", lambda self: moved.append(self.device.type))
    with FakeTensorMode():
        move_to_fake_gpu(model)
        request = PredictionRequest(image=torch.rand((1, *SHAPE[1:])), size=(30, 40))
        predict_with_network(model)([request, request])
    assert moved == ["cpu", "cpu"]


@pytest.mark.parametrize("flip", [False, True])
def test_a_prediction_goes_to_the_network_and_comes_back_once_an_image(
    monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    model, moved = make_model(10.0), []

    def to_host(self: Tensor) -> np.ndarray:
        moved.append(self.device.type)
        return np.zeros(tuple(self.shape), np.float32)

    monkeypatch.setattr(Tensor, "numpy", to_host)
    with FakeTensorMode():
        move_to_fake_gpu(model)
        predictor = Predictor(
            network=model,
            preprocessing=Preprocessing(input_size=(28, 42)),
            source="fake",
            base={},
            metadata={},
            notes=(),
        )
        found = predictor.predict_batch(torch.rand(SHAPE), [(30, 40), (50, 60)], [None, None], flip=flip)
    assert [depth.shape for depth in found] == [(30, 40), (50, 60)]
    assert moved == ["cpu"] * (4 if flip else 2)


def test_images_are_normalized_on_the_device(fake: FakeTensorMode) -> None:
    constants = [torch.empty(3, device="cuda") for _ in range(2)]
    trainer: Any = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cuda")), _mean=constants[0], _std=constants[1]
    )
    normalized = Trainer.normalize(trainer, torch.zeros((2, 3, 4, 4), dtype=torch.uint8))
    assert (normalized.device.type, normalized.dtype) == ("cuda", torch.float32)
    trainer._mean = torch.empty(3)
    with pytest.raises(RuntimeError, match=MIXED):
        Trainer.normalize(trainer, torch.zeros((2, 3, 4, 4), dtype=torch.uint8))

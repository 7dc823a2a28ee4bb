"""What each loss of the registry must hold; a new one is found here by itself."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.recipe.validate import option_fields
from finetune.utils import registry

# As they are without options, and with each option that takes another way through the code.
LOSSES = [
    # A loss of features has another input; its own test holds it to the same.
    *((name, {}) for name in sorted(registry.LOSSES) if not registry.find(registry.LOSSES, name).of_features),
    ("gradient", {"of": "aligned"}),
    ("ssi", {"trim": 0.2}),
]


@pytest.fixture(params=LOSSES, ids=str)
def loss(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    name, options = request.param
    return registry.find(registry.LOSSES, name)(**options)


def inputs(shape: tuple[int, ...] = (2, 1, 16, 16)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pred_m = (torch.rand(shape, generator=generator) * 5 + 0.1).requires_grad_()
    return pred_m, torch.rand(shape, generator=generator) * 5 + 0.1, torch.rand(shape, generator=generator) > 0.4


def gradient_of(value: Tensor, pred_m: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, pred_m)
    assert torch.isfinite(gradient).all()
    return gradient


def test_is_a_frozen_record_of_its_options_and_says_its_source_or_unit(loss: object) -> None:
    assert dataclasses.is_dataclass(loss)
    assert loss.__doc__
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        setattr(loss, "anything", 1)  # noqa: B010  as an attribute it would not pass mypy


def test_says_which_head_it_trains_and_takes_no_option_for_it(loss: Any) -> None:
    assert loss.head in ("metric", "relative")
    assert "head" not in option_fields(type(loss))


def test_nothing_valid_is_zero_with_zero_gradient(loss: Callable[..., Tensor]) -> None:
    pred_m, target_m, valid = inputs()
    value = loss(pred_m, target_m.fill_(float("nan")), torch.zeros_like(valid))
    assert value.item() == 0.0
    assert not gradient_of(value, pred_m).any()


def test_an_image_without_valid_pixels_does_not_change_the_mean(loss: Callable[..., Tensor]) -> None:
    pred_m, target_m, valid = inputs()
    alone = loss(pred_m[:1], target_m[:1], valid[:1])
    valid[1] = False
    assert loss(pred_m, target_m, valid).item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("value_m", [0.0, 10.0])
def test_finite_at_zero_at_the_far_end_and_with_one_pixel(loss: Callable[..., Tensor], value_m: float) -> None:
    _, target_m, valid = inputs()
    pred_m = torch.full_like(target_m, value_m).requires_grad_()
    assert torch.isfinite(loss(pred_m, target_m, valid))
    gradient_of(loss(pred_m, target_m, valid), pred_m)
    single = torch.zeros_like(valid)
    single[0, 0, 3, 3] = True
    gradient_of(loss(pred_m, target_m, single), pred_m)


def test_a_perfect_prediction_is_nearly_zero_with_zero_gradient(loss: Callable[..., Tensor]) -> None:
    _, target_m, valid = inputs()
    pred_m = target_m.clone().requires_grad_()
    value = loss(pred_m, target_m, valid)
    assert value.item() == pytest.approx(0.0, abs=1e-5)
    assert not gradient_of(value, pred_m).any()


@pytest.mark.parametrize("nothing", [0.0, float("nan"), float("inf"), -1e30])
def test_what_stands_at_invalid_pixels_never_matters(loss: Callable[..., Tensor], nothing: float) -> None:
    pred_m, target_m, valid = inputs()
    value = loss(pred_m, target_m, valid)
    spoiled = pred_m.detach().where(valid, nothing).requires_grad_()
    of_spoiled = loss(spoiled, target_m.where(valid, nothing), valid)
    assert of_spoiled.item() == value.item()
    expected = gradient_of(value, pred_m)
    assert torch.equal(gradient_of(of_spoiled, spoiled), expected)
    assert not expected[~valid].any()


def test_numbers_of_16_bits_do_not_overflow(loss: Any) -> None:
    for pred_m, target_m in ((65504.0, 6e-5), (6e-5, 65504.0)):
        pred = torch.full((2, 1, 16, 16), pred_m, dtype=torch.float16)
        pred[:, :, ::2] /= 2  # a flat map has no shape
        pred.requires_grad_()
        target = torch.full((2, 1, 16, 16), target_m, dtype=torch.float16)
        target[..., ::2] /= 2
        value = loss(pred, target, torch.ones_like(target, dtype=torch.bool))
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        gradient_of(value, pred)


def test_by_pixels_an_image_weighs_as_much_as_it_has(loss: Any) -> None:
    pred_m, target_m, valid = inputs((3, 1, 16, 16))
    valid[1, :, 2:] = False
    valid[2] = False
    alone = [loss(pred_m[n : n + 1], target_m[n : n + 1], valid[n : n + 1]).item() for n in range(2)]
    count = [int(valid[n].sum()) for n in range(2)]
    by_pixel = loss(pred_m, target_m, valid, "pixel")
    expected = (alone[0] * count[0] + alone[1] * count[1]) / sum(count)
    assert by_pixel.item() == pytest.approx(expected, rel=1e-5)
    assert loss(pred_m, target_m, valid, "image").item() == pytest.approx(sum(alone) / 2, rel=1e-5)
    gradient_of(by_pixel, pred_m)
    assert loss(pred_m, target_m, torch.zeros_like(valid), "pixel").item() == 0.0


def test_other_shapes_are_refused(loss: Callable[..., Tensor]) -> None:
    pred_m, target_m, valid = inputs()
    with pytest.raises(ValueError, match="shapes"):
        loss(pred_m, target_m[:, 0], valid)


def test_equal_weights_change_nothing_and_a_weight_of_zero_is_as_not_valid(loss: Any) -> None:
    pred_m, target_m, valid = inputs()
    plain = loss(pred_m, target_m, valid).item()
    assert loss(pred_m, target_m, valid, weight=torch.full_like(target_m, 0.3)).item() == pytest.approx(plain, rel=1e-5)
    kept = torch.rand(valid.shape, generator=torch.Generator().manual_seed(2)) > 0.5
    weighted = loss(pred_m, target_m, valid, weight=kept.double())
    gradient_of(weighted, pred_m)
    without = loss(pred_m, target_m, valid & kept).item()
    if loss.weighs_pixels and not isinstance(loss, registry.find(registry.LOSSES, "berhu")):  # whose c is of all pixels
        assert weighted.item() == pytest.approx(without, rel=1e-5)
    elif not loss.weighs_pixels:
        assert weighted.item() == plain
    nothing = loss(pred_m, target_m, valid, weight=torch.zeros_like(target_m))
    gradient_of(nothing, pred_m)


def test_the_two_parts_of_a_sample_are_images_of_their_own(loss: Any) -> None:
    pred_m, target_m, valid = inputs()
    pasted = torch.zeros_like(valid)
    pasted[0, :, 2:9, 3:12] = True  # the second image has no part of another
    inside, outside = (loss(pred_m[:1], target_m[:1], valid[:1] & part).item() for part in (pasted[:1], ~pasted[:1]))
    counts = [int((valid[:1] & part).sum()) for part in (pasted[:1], ~pasted[:1])]
    first = (inside * counts[0] + outside * counts[1]) / sum(counts)
    second = loss(pred_m[1:], target_m[1:], valid[1:]).item()
    value = loss(pred_m, target_m, valid, pasted=pasted)
    assert value.item() == pytest.approx((first + second) / 2, rel=1e-5)
    gradient_of(value, pred_m)
    nothing = loss(pred_m, target_m, torch.zeros_like(valid), pasted=pasted)
    assert nothing.item() == 0.0
    assert not gradient_of(nothing, pred_m).any()

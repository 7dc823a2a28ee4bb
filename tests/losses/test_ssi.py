import pytest
import torch
from torch import Tensor

from finetune.losses.ssi import Ssi
from finetune.utils.errors import RecipeError

PRED = [0.0, 1.0, 2.0, 3.0, 4.0]  # median 2, mean deviation 6 / 5
TARGET = [1.0, 2.0, 3.0, 4.0, 10.0]  # median 3, mean deviation 11 / 5
# Differences of both, moved and divided: 2 / 1.2 - 2 / 2.2 and so on: 0.757576, 0.378788, 0, 0.378788, 1.515152.


def row(values: list[float]) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def everywhere(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def gradient_of(pred: Tensor, target: Tensor, valid: Tensor) -> tuple[float, Tensor]:
    pred = pred.clone().requires_grad_()
    value = Ssi()(pred, target, valid)
    (gradient,) = torch.autograd.grad(value, pred)
    return value.item(), gradient


def test_ssi_by_hand() -> None:
    pred, target = row(PRED), row(TARGET)
    assert Ssi()(pred, target, everywhere(pred)).item() == pytest.approx(3.030303 / 5, abs=1e-6)


def test_the_largest_errors_are_really_dropped() -> None:
    pred, target = row(PRED), row(TARGET)
    # A fifth of five pixels is the last one; what is left is a mean over four. Of less than a pixel none is dropped.
    assert Ssi(trim=0.2)(pred, target, everywhere(pred)).item() == pytest.approx(1.515152 / 4, abs=1e-6)
    assert Ssi(trim=0.19)(pred, target, everywhere(pred)).item() == pytest.approx(3.030303 / 5, abs=1e-6)


def test_of_an_even_count_the_lower_median_is_taken() -> None:
    pred, target = row([0.0, 1.0, 2.0, 5.0]), row([1.0, 2.0, 3.0, 4.0])
    # Medians 1 and 2, deviations 1.5 and 1: (-2/3, 0, 2/3, 8/3) against (-1, 0, 1, 2).
    assert Ssi()(pred, target, everywhere(pred)).item() == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("trim", [0.0, 0.2])
@pytest.mark.parametrize("nothing", [0.0, float("nan"), float("inf"), -1e30])
def test_most_of_the_image_invalid_changes_nothing(trim: float, nothing: float) -> None:
    # Zeros at invalid pixels would be the median of this image, nine of ten being invalid.
    places = torch.arange(5) * 10 + 3
    pred, target = torch.full((1, 1, 5, 10), nothing), torch.full((1, 1, 5, 10), nothing)
    valid = torch.zeros(1, 1, 5, 10, dtype=torch.bool)
    pred.view(-1)[places], target.view(-1)[places], valid.view(-1)[places] = (
        torch.tensor(PRED),
        torch.tensor(TARGET),
        torch.tensor(True),
    )
    pred.requires_grad_()
    value = Ssi(trim=trim)(pred, target, valid)
    assert value.item() == pytest.approx(1.515152 / 4 if trim else 3.030303 / 5, abs=1e-6)
    (gradient,) = torch.autograd.grad(value, pred)
    assert torch.isfinite(gradient).all()
    assert not gradient[~valid].any()
    assert gradient[valid].any()


def test_scale_and_shift_of_either_map_are_free() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 1, 16, 16, generator=generator)
    valid = torch.rand(2, 1, 16, 16, generator=generator) > 0.3
    once = Ssi()(pred, target, valid).item()
    assert Ssi()(7 * pred + 3, target, valid).item() == pytest.approx(once, rel=1e-5)
    assert Ssi()(pred, 0.1 * target + 2, valid).item() == pytest.approx(once, rel=1e-5)
    assert Ssi()(4 * target + 5, target, valid).item() == pytest.approx(0.0, abs=1e-5)
    assert Ssi()(-target, target, valid).item() == pytest.approx(2.0, abs=0.01)  # near and far turned around


def test_gradient_is_that_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 1, 1, 5, 5, generator=generator)
    valid = torch.rand(1, 1, 5, 5, generator=generator) > 0.3
    value, gradient = gradient_of(pred, target, valid)
    step = 1e-3 * gradient.sign()
    moved = Ssi()(pred + step, target, valid).item() - Ssi()(pred - step, target, valid).item()
    assert value > 0.1
    assert moved == pytest.approx(2 * (gradient * step).sum().item(), rel=0.02)


@pytest.mark.parametrize("count", [1, 2, 256])
def test_a_target_of_one_number_says_nothing(count: int) -> None:
    pred, target = torch.rand(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.3)
    valid = (torch.arange(256) < count).view(1, 1, 16, 16)
    value, gradient = gradient_of(pred, target, valid)
    assert value == 0.0
    assert not gradient.any()


def test_a_prediction_of_one_number_has_an_error_and_no_gradient() -> None:
    target = torch.rand(1, 1, 16, 16)
    for constant in (0.0, 3.3, 1e4):
        value, gradient = gradient_of(torch.full((1, 1, 16, 16), constant), target, everywhere(target))
        assert value == pytest.approx(1.0, abs=1e-5)  # the target's own mean deviation, in itself
        assert not gradient.any()


def test_a_flat_image_beside_another_does_not_touch_it() -> None:
    pred, target = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    value, gradient = gradient_of(pred[:1], target[:1], everywhere(target[:1]))
    target[1] = 0.5
    both, gradient_of_both = gradient_of(pred, target, everywhere(target))
    assert both == pytest.approx(value / 2)
    assert gradient_of_both[:1] == pytest.approx(gradient / 2)
    assert not gradient_of_both[1].any()


def test_the_range_of_half_precision_neither_overflows_nor_vanishes() -> None:
    target = torch.rand(1, 1, 8, 8)
    once = Ssi()(target.square(), target, everywhere(target)).item()
    for size in (60000.0, 1e-4):
        half = (size * target.square()).half()
        assert Ssi()(half, target, everywhere(target)).dtype == torch.float32
        assert Ssi()(half, target, everywhere(target)).item() == pytest.approx(once, abs=0.01)


def test_a_prediction_that_is_no_number_is_not_hidden() -> None:
    pred, target = row(PRED), row(TARGET)
    pred[..., 2] = float("nan")
    assert Ssi()(pred, target, everywhere(pred)).isnan()


@pytest.mark.parametrize("trim", [-0.1, 0.6, float("nan")])
def test_a_share_that_leaves_too_little_is_refused(trim: float) -> None:
    with pytest.raises(RecipeError, match="trim"):
        Ssi(trim=trim)

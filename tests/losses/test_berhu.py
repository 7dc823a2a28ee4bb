import pytest
import torch

from finetune.losses.berhu import BerHu


def test_berhu_by_hand() -> None:
    pred_m = torch.tensor([1.1, 2.5, 6.0, 9.0]).view(1, 1, 1, 4)
    target_m = torch.tensor([1.0, 2.0, 1.0, 0.0]).view(1, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).view(1, 1, 1, 4)
    # Errors 0.1, 0.5, 5; c = 5 / 5 = 1: the first two as they are, the last (25 + 1) / 2 = 13.
    assert BerHu()(pred_m, target_m, valid).item() == pytest.approx((0.1 + 0.5 + 13.0) / 3)


def test_the_pieces_meet_with_one_value_and_slope() -> None:
    # The largest error, 5, makes c = 1; the other pixel moves over it.
    values, slopes = [], []
    for error_m in (0.999, 1.001):
        pred_m = torch.tensor([1.0 + error_m, 6.0]).view(1, 1, 1, 2).requires_grad_()
        value = BerHu()(pred_m, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2, dtype=torch.bool))
        (gradient,) = torch.autograd.grad(value, pred_m)
        values.append(value.item())
        slopes.append(gradient[0, 0, 0, 0].item())
    assert values[1] - values[0] == pytest.approx(0.001, rel=0.05)
    assert slopes == pytest.approx([0.5, 0.5], rel=0.01)


def test_it_does_not_depend_on_the_other_images_of_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    pred_m, target_m = torch.rand(2, 2, 1, 4, 4, generator=generator)
    pred_m[1] *= 100
    valid = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    alone = [BerHu()(pred_m[n : n + 1], target_m[n : n + 1], valid[n : n + 1]).item() for n in range(2)]
    assert BerHu()(pred_m, target_m, valid).item() == pytest.approx(sum(alone) / 2)

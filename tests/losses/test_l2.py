import pytest
import torch

from finetune.losses.l2 import L2


def test_l2_by_hand() -> None:
    pred_m = torch.tensor([2.0, 4.0, 9.0]).view(1, 1, 1, 3)
    target_m = torch.tensor([1.0, 4.5, 0.0]).view(1, 1, 1, 3)
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    assert L2()(pred_m, target_m, valid).item() == pytest.approx(0.625)  # (1.0 + 0.25) / 2


def test_by_pixels_it_is_the_mean_over_all_pixels() -> None:
    pred_m = torch.ones(2, 1, 1, 4)
    target_m = torch.tensor([[2.0, 2.0, 2.0, 2.0], [4.0, 0.0, 0.0, 0.0]]).view(2, 1, 1, 4)
    valid = torch.tensor([[True] * 4, [True, False, False, False]]).view(2, 1, 1, 4)
    assert L2()(pred_m, target_m, valid).item() == pytest.approx(5.0)  # (1 + 9) / 2
    assert L2()(pred_m, target_m, valid, "pixel").item() == pytest.approx(13 / 5)  # (4 * 1 + 9) / 5


def test_twice_the_error_costs_four_times() -> None:
    target_m, valid = torch.full((1, 1, 2, 2), 3.0), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    once, twice = (L2()(target_m + error, target_m, valid).item() for error in (0.5, 1.0))
    assert twice == pytest.approx(4 * once)

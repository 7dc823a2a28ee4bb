import pytest
import torch

from finetune.losses.l1 import L1


def test_l1_by_hand() -> None:
    pred_m = torch.tensor([2.0, 4.0, 9.0]).view(1, 1, 1, 3)
    target_m = torch.tensor([1.0, 4.5, 0.0]).view(1, 1, 1, 3)
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    assert L1()(pred_m, target_m, valid).item() == pytest.approx(0.75)  # (1.0 + 0.5) / 2


def test_each_image_counts_once_however_few_pixels_it_has() -> None:
    pred_m = torch.ones(2, 1, 1, 4)
    target_m = torch.tensor([[2.0, 2.0, 2.0, 2.0], [4.0, 0.0, 0.0, 0.0]]).view(2, 1, 1, 4)
    valid = torch.tensor([[True] * 4, [True, False, False, False]]).view(2, 1, 1, 4)
    assert L1()(pred_m, target_m, valid).item() == pytest.approx(2.0)  # (1 + 3) / 2, not (4 + 3) / 5

import math

import pytest
import torch

from finetune.losses.log_l1 import LogL1


def test_log_l1_by_hand() -> None:
    pred_m = torch.tensor([2.0, 1.0, 9.0]).view(1, 1, 1, 3)
    target_m = torch.tensor([1.0, 4.0, 0.0]).view(1, 1, 1, 3)
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    assert LogL1()(pred_m, target_m, valid).item() == pytest.approx(1.5 * math.log(2))  # (ln 2 + ln 4) / 2


def test_a_share_costs_the_same_near_and_far_and_a_common_factor_is_not_forgiven() -> None:
    target_m, valid = torch.tensor([1.0, 50.0]).view(2, 1, 1, 1), torch.ones(2, 1, 1, 1, dtype=torch.bool)
    per_image = LogL1().per_image(1.1 * target_m, target_m, valid)
    assert per_image.tolist() == pytest.approx([math.log(1.1)] * 2, rel=1e-5)

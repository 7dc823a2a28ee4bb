import math

import pytest
import torch

from finetune.losses.gradient import Gradient


def test_gradient_by_hand() -> None:
    pred_m = torch.tensor([[1.0, 2.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    target_m = torch.ones(1, 1, 2, 2)
    # Log error ln 2 at one corner: two of the four differences are ln 2.
    assert Gradient(scales=1)(pred_m, target_m, torch.ones(1, 1, 2, 2, dtype=torch.bool)).item() == pytest.approx(
        math.log(2) / 2
    )


def test_only_pairs_of_valid_pixels_count() -> None:
    pred_m = torch.tensor([[1.0, 2.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    target_m = torch.ones(1, 1, 2, 2)
    valid = torch.tensor([[False, True], [True, True]]).view(1, 1, 2, 2)
    # Left: the difference below the corner (ln 2) and the one along the bottom row (0).
    assert Gradient(scales=1)(pred_m, target_m, valid).item() == pytest.approx(math.log(2) / 2)
    scattered = torch.tensor([[True, False], [False, True]]).view(1, 1, 2, 2)
    assert Gradient(scales=1)(pred_m, target_m, scattered).item() == 0.0


def test_scales_add_up_and_a_global_scale_is_free() -> None:
    generator = torch.Generator().manual_seed(0)
    pred_m = torch.rand(2, 1, 16, 16, generator=generator) + 0.5
    target_m = torch.rand(2, 1, 16, 16, generator=generator) + 0.5
    valid = torch.rand(2, 1, 16, 16, generator=generator) > 0.3
    one, two = Gradient(scales=1)(pred_m, target_m, valid), Gradient(scales=2)(pred_m, target_m, valid)
    strided = [tensor[..., ::2, ::2] for tensor in (pred_m, target_m, valid)]
    assert two.item() == pytest.approx(one.item() + Gradient(scales=1)(*strided).item(), rel=1e-5)
    once = Gradient()(pred_m, target_m, valid)
    assert Gradient()(3 * pred_m, target_m, valid).item() == pytest.approx(once.item(), rel=1e-4)

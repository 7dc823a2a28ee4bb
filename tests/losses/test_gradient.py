import math

import pytest
import torch

from finetune.losses.affine_invariant import aligned_residual
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
    strided = Gradient(scales=1)(pred_m[..., ::2, ::2], target_m[..., ::2, ::2], valid[..., ::2, ::2])
    assert two.item() == pytest.approx(one.item() + strided.item(), rel=1e-5)
    once = Gradient()(pred_m, target_m, valid)
    assert Gradient()(3 * pred_m, target_m, valid).item() == pytest.approx(once.item(), rel=1e-4)


def test_aligned_by_hand() -> None:
    pred = torch.tensor([[0.0, 1.0], [2.0, 5.0]]).view(1, 1, 2, 2)
    target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    # Lower medians 1 and 2, deviations 1.5 and 1: the residual is (1/3, 0), (-1/3, 2/3); differences 1/3, 1, 2/3, 2/3.
    everywhere = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert Gradient(of="aligned", scales=1)(pred, target, everywhere).item() == pytest.approx(2 / 3, abs=1e-6)


def test_aligned_over_valid_pixels_alone() -> None:
    pred = torch.tensor([[0.0, math.nan], [1.0, 2.0]]).view(1, 1, 2, 2)
    target = torch.tensor([[1.0, math.inf], [2.0, 6.0]]).view(1, 1, 2, 2)
    valid = torch.tensor([[True, False], [True, True]]).view(1, 1, 2, 2)
    # Medians 1 and 2, deviations 2/3 and 5/3: (-1.5, 0, 1.5) less (-0.6, 0, 2.4); the two pairs differ by 0.9 each.
    assert Gradient(of="aligned", scales=1)(pred, target, valid).item() == pytest.approx(0.9, abs=1e-6)


def test_aligned_is_normalized_once_and_then_strided() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 1, 16, 24, generator=generator)
    valid = torch.rand(2, 1, 16, 24, generator=generator) > 0.3
    residual = aligned_residual(pred, target, valid).view(valid.shape)
    expected = 0.0
    for image in range(2):
        for stride in (1, 2, 4, 8):
            error, inside = residual[image, 0, ::stride, ::stride], valid[image, 0, ::stride, ::stride]
            across = error.diff(dim=1)[inside[:, 1:] & inside[:, :-1]]
            down = error.diff(dim=0)[inside[1:] & inside[:-1]]
            expected += torch.cat([across, down]).abs().mean().item() / 2
    assert Gradient(of="aligned")(pred, target, valid).item() == pytest.approx(expected, rel=1e-5)


def test_aligned_is_blind_to_scale_and_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 2, 1, 16, 16, generator=generator)
    valid = torch.rand(2, 1, 16, 16, generator=generator) > 0.3
    loss = Gradient(of="aligned")
    once = loss(pred, target, valid).item()
    assert loss(7 * pred + 3, target, valid).item() == pytest.approx(once, rel=1e-5)
    assert loss(pred, 0.1 * target + 2, valid).item() == pytest.approx(once, rel=1e-5)
    assert loss(4 * target + 5, target, valid).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("flat", ["pred", "target"])
def test_aligned_has_no_gradient_where_a_map_is_one_number(flat: str) -> None:
    pred, target = torch.rand(2, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (pred if flat == "pred" else target).fill_(0.4)
    pred.requires_grad_()
    value = Gradient(of="aligned")(pred, target, torch.ones(1, 1, 16, 16, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(value, pred)
    assert not gradient.any()
    assert (value.item() == 0.0) is (flat == "target")


def test_which_head_it_trains() -> None:
    assert (Gradient().head, Gradient(of="aligned").head) == ("metric", "relative")

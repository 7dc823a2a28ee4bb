import pytest
import torch

from finetune.losses.silog import SiLog


def row(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_silog_by_hand() -> None:
    pred_m, target_m, valid = row(2.0, 4.0, 9.0), row(1.0, 4.0, 0.0), row(True, True, False)
    # log ratios ln 2 and 0: mean of squares 0.240227, square of mean 0.120113, 0.240227 - 0.5 * 0.120113 = 0.180170
    assert SiLog(lam=0.5)(pred_m, target_m, valid).item() == pytest.approx(0.424464, abs=1e-6)


def test_at_lam_one_twice_the_depth_costs_nothing() -> None:
    target_m, valid = row(1.0, 2.0, 3.0), row(True, True, True)
    assert SiLog(lam=1.0)(2 * target_m, target_m, valid).item() == pytest.approx(0.0, abs=1e-3)
    # ln 2 everywhere: sqrt(0.480453 - 0.5 * 0.480453)
    assert SiLog(lam=0.5)(2 * target_m, target_m, valid).item() == pytest.approx(0.490129, abs=1e-6)


def test_silog_weighted_by_hand() -> None:
    # log ratios ln 2 (weight 1) and 0 (weight 3): mean of squares .480453 / 4, mean .693147 / 4;
    # .120113 - 0.5 * .030028 = .105099
    valid = torch.tensor([True, True, False]).view(1, 1, 1, 3)
    value = SiLog(lam=0.5)(row(2.0, 4.0, 9.0), row(1.0, 4.0, 1.0), valid, weight=row(1.0, 3.0, 100.0))
    assert value.item() == pytest.approx(0.324190, abs=1e-6)


def test_images_weighed_by_their_pixels_keep_a_root_each() -> None:
    pred_m, target_m = torch.ones(2, 1, 1, 3), torch.ones(2, 1, 1, 3)
    pred_m[0] = 2.0
    valid = torch.tensor([[True, False, False], [True, True, True]]).view(2, 1, 1, 3)
    # ln 2 at the one pixel of the first image, 0 at the three of the second: (1 * 0.490129 + 3 * 0) / 4. The reference
    # takes one root over all four pixels: sqrt(0.120113 - 0.5 * 0.030028) = 0.324190.
    assert SiLog(lam=0.5)(pred_m, target_m, valid, "pixel").item() == pytest.approx(0.122532, abs=1e-5)
    assert SiLog(lam=0.5)(pred_m, target_m, valid, "image").item() == pytest.approx(0.245065, abs=1e-5)

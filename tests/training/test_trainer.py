import torch

from finetune.training.trainer import inverse_depth


def test_inverse_depth_by_hand() -> None:
    depth_m = torch.tensor([[[[0.5, 4.0, torch.inf, torch.nan, 0.0]]]])
    valid = torch.tensor([[[[True, True, True, False, False]]]])
    assert inverse_depth(depth_m, valid).tolist() == [[[[2.0, 0.25, 0.0, 1.0, 1.0]]]]


def test_the_smallest_depth_there_is_has_a_finite_inverse() -> None:
    depth_m = torch.full((1, 1, 1, 1), torch.finfo(torch.float32).tiny)
    assert inverse_depth(depth_m, torch.ones(1, 1, 1, 1, dtype=torch.bool)).isfinite().all()

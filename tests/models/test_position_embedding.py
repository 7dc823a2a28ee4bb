from __future__ import annotations

import pytest
import torch

from finetune.models.position_embedding import as_grid, as_tokens, refitted_positions, resized_positions


def stored() -> torch.Tensor:
    return torch.randn(1, 1 + 37 * 37, 8, generator=torch.Generator().manual_seed(0))


def sampled(embedding: torch.Tensor, height: int, width: int, offset: float) -> torch.Tensor:
    return resized_positions(as_grid(embedding), height, width, offset)


def test_grid_and_back() -> None:
    embedding = stored()
    assert as_grid(embedding)[0, :, 2, 5].tolist() == embedding[0, 1 + 2 * 37 + 5].tolist()
    assert torch.equal(as_tokens(embedding[:, :1], as_grid(embedding)), embedding)


def test_at_its_own_size_nothing_is_sampled() -> None:
    grid = as_grid(stored())
    assert resized_positions(grid, 37, 37, 0.1) is grid
    assert resized_positions(grid, 37, 37, 0.0) is grid


def test_a_ramp_by_hand() -> None:
    # Away from the rim a ramp stays one, nearly: patch i lies at (i + 0.5) * 37 / (18 + offset) - 0.5.
    ramp = torch.arange(37.0)[None, None, :, None].expand(1, 1, 37, 37)
    for offset in (0.0, 0.1):
        row = resized_positions(ramp, 18, 18, offset)[0, 0, :, 0]
        assert row[9].item() == pytest.approx(9.5 * 37 / (18 + offset) - 0.5, abs=0.04)


@pytest.mark.parametrize(("height", "width"), [(8, 11), (18, 24), (37, 49), (28, 90), (37, 36), (40, 40)])
@pytest.mark.parametrize(("offset", "other"), [(0.1, 0.0), (0.0, 0.1)])
def test_refitted_it_agrees_at_one_size(height: int, width: int, offset: float, other: float) -> None:
    embedding = stored()
    wanted = sampled(embedding, height, width, offset)
    assert (sampled(embedding, height, width, other) - wanted).abs().max() > 0.1
    refitted = refitted_positions(embedding, height, width, offset=offset, other=other)
    assert refitted.shape == (1, 1 + max(37, height, width) ** 2, 8)
    assert torch.equal(refitted[:, :1], embedding[:, :1])
    torch.testing.assert_close(sampled(refitted, height, width, other), wanted, rtol=0, atol=1e-4)


def test_nothing_to_refit() -> None:
    embedding = stored()
    assert refitted_positions(embedding, 37, 37, offset=0.1, other=0.0) is embedding
    assert refitted_positions(embedding, 18, 24, offset=0.0, other=0.0) is embedding

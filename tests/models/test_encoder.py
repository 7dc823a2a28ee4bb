from __future__ import annotations

import pytest
import torch

from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS


def tiny() -> DepthModel:
    model = DepthModel("tiny", 10.0)
    model.initialise(0)
    return model


def test_position_embedding_is_stored_for_518_and_resized_elsewhere() -> None:
    encoder = tiny().encoder
    assert encoder.position_embedding(37, 37) is encoder.pos_embed
    resized = encoder.position_embedding(18, 24)
    assert resized.shape == (1, 1 + 18 * 24, 192)
    assert torch.equal(resized[:, 0], encoder.pos_embed[:, 0])
    # 37 * 37 patches in another shape must be resized too
    assert not torch.equal(encoder.position_embedding(1, 1369), encoder.pos_embed)


def test_position_embedding_knows_top_from_left() -> None:
    encoder = tiny().encoder
    with torch.no_grad():
        rows = torch.arange(37.0).view(37, 1).expand(37, 37).flatten()
        encoder.pos_embed[0, 1:] = rows[:, None]
    resized = encoder.position_embedding(10, 20)[0, 1:, 0].view(10, 20)
    # The center of row 5 of 10 lies at 5.5 / (10.1 / 37) - 0.5 = 19.6485 of the stored rows; the cubic kernel of
    # a = -0.75 weighs rows 18, 19, 20, 21 by -0.0601, 0.3947, 0.7763, -0.1108: 19 + 0.0601 + 0.7763 - 2 * 0.1108.
    assert resized[5, 7].item() == pytest.approx(19.6148, abs=3e-4)
    assert torch.allclose(resized, resized[:, :1].expand(10, 20))


def test_drawn_positions_are_waves_that_mean_the_same_at_every_size() -> None:
    encoder = tiny().encoder
    stored = encoder.pos_embed[0, 1:].view(37, 37, 4, 48)
    # Half a period over the 37 places, sine of the row: 0.3 * sin(pi / 2) in the middle, 0.3 * sin(pi) at the end.
    assert stored[18, 5, 0, 0].item() == pytest.approx(0.3, abs=1e-6)
    assert stored[36, 5, 0, 0].item() == pytest.approx(0.0, abs=1e-6)
    # Four periods, cosine of the column: 0.3 * cos(8 pi * 9 / 36).
    assert stored[5, 9, 3, 47].item() == pytest.approx(0.3, abs=1e-5)
    coarse, fine = (encoder.position_embedding(*size)[0, 1:].view(*size, 192) for size in ((6, 8), (12, 16)))
    pooled = fine.view(6, 2, 8, 2, 192).mean((1, 3))
    slow = torch.cat([torch.arange(start, start + 24) for start in (0, 48, 96, 144)])  # up to 1.4 periods
    assert (pooled - coarse)[1:-1, 1:-1, slow].abs().max() < 0.06


def test_maps_are_channels_last_and_normalized() -> None:
    maps = tiny().encoder(torch.randn(2, 3, 28, 42))
    assert [tuple(tokens.shape) for tokens in maps] == [(2, 192, 2, 3)] * 4
    for tokens in maps:
        assert tokens.is_contiguous(memory_format=torch.channels_last)
        assert tokens.mean(1).abs().max().item() < 1e-5
        assert tokens.std(1, unbiased=False).sub(1).abs().max().item() < 1e-3


def test_attention_is_fused_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models.vision_transformer.Attention.fused_attn", False, raising=False)
    monkeypatch.setattr("timm.layers.attention.use_fused_attn", lambda: False)
    assert all(block.attn.fused_attn for block in DepthModel("tiny", None).encoder.blocks)


def test_gradients_are_the_same_bits_again_and_with_checkpointing() -> None:
    model, image = tiny(), torch.randn(1, 3, 28, 28)
    gradients = []
    for enabled in (False, True) * 4:
        model.set_gradient_checkpointing(enabled)
        model.zero_grad()
        model(image).square().mean().backward()
        gradients.append(model.encoder.blocks[0].attn.qkv.weight.grad.clone())
    assert all(torch.equal(gradients[0], again) for again in gradients[1:])


def test_gradient_checkpointing_runs_every_block_twice() -> None:
    model, calls = tiny(), []
    for block in model.encoder.blocks:
        block.mlp.register_forward_hook(lambda *_: calls.append(1))
    model.set_gradient_checkpointing(True)
    model(torch.randn(1, 3, 28, 28)).sum().backward()
    assert len(calls) == 2 * ENCODERS["tiny"].depth

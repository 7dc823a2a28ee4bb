from __future__ import annotations

import pytest
import torch

from finetune.models.depth_model import UNUSED_UNIT, DepthModel
from finetune.models.encoder_specs import ENCODERS


def model_of(encoder: str = "tiny", max_depth_m: float | None = 10.0, seed: int = 0) -> DepthModel:
    model = DepthModel(encoder, max_depth_m)
    model.initialise(seed)
    return model


# Counts of the metric model, facts of Depth Anything V2, mask token included.
@pytest.mark.parametrize(("encoder", "count", "head"), [("vits", 24785089, 2728513), ("vitb", 97470785, 10890305)])
def test_size_is_the_published_one(encoder: str, count: int, head: int) -> None:
    sizes = {name: tensor.numel() for name, tensor in DepthModel(encoder, 20.0).state_dict().items()}
    assert sum(sizes.values()) == count
    assert sum(size for name, size in sizes.items() if not name.startswith("encoder.")) == head


def test_tiny_is_tiny() -> None:
    model = DepthModel("tiny", None)
    assert sum(p.numel() for p in model.encoder_parameters()) >= 3e6
    assert sum(p.numel() for p in model.parameters()) <= 5e6


@pytest.mark.parametrize("max_depth_m", [None, 10.0])
@pytest.mark.parametrize("encoder", ["tiny", "vits"])
def test_whatever_asks_for_a_gradient_gets_one(encoder: str, max_depth_m: float | None) -> None:
    model = model_of(encoder, max_depth_m)
    model(torch.randn(1, 3, 28, 42)).sum().backward()
    asking = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == asking
    frozen = {name for name, _ in model.named_parameters()} - asking
    assert frozen == {f"{UNUSED_UNIT}.{conv}.{part}" for conv in ("conv1", "conv2") for part in ("weight", "bias")}
    assert "encoder.mask_token" in model.state_dict()


def test_frozen_unit_has_no_part_in_the_prediction() -> None:
    model, image = model_of(), torch.randn(1, 3, 28, 42)
    before = model(image)
    torch.nn.init.constant_(model.get_parameter(f"{UNUSED_UNIT}.conv1.weight"), torch.nan)
    torch.nn.init.constant_(model.get_buffer("encoder.mask_token"), torch.nan)
    assert torch.equal(model(image), before)


def test_encoder_parameters_are_those_named_so() -> None:
    model = model_of()
    named = {id(p) for name, p in model.named_parameters() if name.startswith("encoder.")}
    assert {id(p) for p in model.encoder_parameters()} == named


def test_twice_the_max_depth_is_twice_the_depth() -> None:
    image = torch.randn(1, 3, 28, 42)
    near, far = model_of(max_depth_m=10.0), model_of(max_depth_m=20.0)
    assert torch.equal(2 * near(image), far(image))
    assert (near.kind, near.max_depth_m, near.encoder_name) == ("metric", 10.0, "tiny")


def test_metric_prediction_is_the_sigmoid_of_the_last_layer() -> None:
    model, image = model_of(max_depth_m=8.0), torch.randn(1, 3, 28, 42)
    with torch.no_grad():
        model.head.last.weight.zero_()
        torch.nn.init.constant_(model.get_parameter("head.last.bias"), 1.0986123)  # ln 3; its sigmoid is 3 / 4
    assert model(image).flatten().tolist() == pytest.approx([6.0] * 28 * 42, abs=1e-5)


def test_relative_prediction_is_never_negative() -> None:
    model, image = model_of(max_depth_m=None), torch.randn(1, 3, 28, 42)
    torch.nn.init.constant_(model.get_parameter("head.last.bias"), -100.0)
    assert torch.equal(model(image), torch.zeros(1, 1, 28, 42))
    assert (model.kind, model.max_depth_m) == ("relative", None)


def test_prediction_is_the_last_layer_of_the_last_features() -> None:
    model, image = model_of(max_depth_m=None), torch.randn(2, 3, 42, 28)
    features = model.last_features(image)
    assert features.shape == (2, 32, 42, 28)
    by_hand = torch.einsum("bchw,c->bhw", features, model.head.last.weight[0, :, 0, 0]) + model.get_parameter(
        "head.last.bias"
    )
    assert torch.allclose(model(image)[:, 0], by_hand.clamp_min(0), atol=1e-6)


def test_prediction_is_float32_under_autocast() -> None:
    model, image = model_of(), torch.randn(1, 3, 28, 42)
    exact = model(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.last_features(image)
        rough = model(image)
    assert features.dtype == torch.bfloat16
    assert exact.dtype == rough.dtype == torch.float32
    # Rounded to bfloat16, meters near 5 would all be multiples of 1 / 32.
    assert (rough * 32).frac().abs().max().item() > 0.01
    assert (rough - exact).abs().max().item() < 0.1


def test_channels_last_weights_give_the_same_prediction() -> None:
    model, image = model_of(), torch.randn(1, 3, 28, 42)
    before = model(image)
    model.to(memory_format=torch.channels_last)
    assert model.last_features(image).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(model(image), before, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "nearest"), [((250, 333), "252x336"), ((3, 14), "14x14"), ((28, 29), "28x28"), ((518, 527), "518x532")]
)
def test_other_sides_than_multiples_of_14_name_the_nearest(size: tuple[int, int], nearest: str) -> None:
    with pytest.raises(
        ValueError, match=f"image is {size[0]}x{size[1]}; .* multiples of 14: the nearest are {nearest}"
    ):
        model_of()(torch.zeros(1, 3, *size))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="expected \\(batch, 3, height, width\\)"):
        model_of()(torch.zeros(3, 28, 28))
    with pytest.raises(ValueError, match="encoder is 'vitz'; expected one of tiny, vits"):
        DepthModel("vitz", None)
    with pytest.raises(ValueError, match="max_depth_m is 0"):
        DepthModel("tiny", 0)


def test_weights_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = model_of(seed=3), model_of(seed=3), model_of(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert not torch.equal(first.encoder.patch_embed.proj.weight, other.encoder.patch_embed.proj.weight)
    assert not torch.equal(first.head.last.weight, other.head.last.weight)


def test_weights_are_nan_until_they_are_drawn_and_each_drawing_leaves_the_rest_alone() -> None:
    model = DepthModel("tiny", 10.0)
    assert all(tensor.isnan().all() for tensor in model.state_dict().values())
    model.initialise_decoder(0)
    known = {name for name, tensor in model.state_dict().items() if not tensor.isnan().any()}
    assert known == {name for name in model.state_dict() if not name.startswith("encoder.")}
    model.initialise(0)
    assert not any(tensor.isnan().any() for tensor in model.state_dict().values())


def test_drawn_weights_have_the_spread_that_their_rule_says() -> None:
    state = model_of().state_dict()
    # 192 values come in and 768 go out, of a patch 588; uniform within b has the standard deviation b / sqrt(3).
    for name, most in (("blocks.3.mlp.fc1", (6 / 960) ** 0.5), ("patch_embed.proj", (6 / (588 + 192)) ** 0.5)):
        drawn = state[f"encoder.{name}.weight"]
        assert drawn.abs().max().item() == pytest.approx(most, rel=0.01)
        assert drawn.std().item() == pytest.approx(most / 3**0.5, rel=0.02)
    assert torch.equal(state["encoder.blocks.3.ls1.gamma"], torch.ones(192))
    # 192 channels of 3x3 come in.
    bound = (192 * 9) ** -0.5
    assert state["decoder.resize.3.weight"].abs().max().item() == pytest.approx(bound, rel=0.01)
    assert state["decoder.resize.3.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


def test_every_encoder_is_as_its_numbers_say() -> None:
    for name, spec in ENCODERS.items():
        assert spec.embed_dim % spec.heads == 0, name
        assert len(set(spec.out_indices)) == 4 and spec.out_indices[-1] == spec.depth - 1, name


def test_v1_reads_the_last_four_blocks() -> None:
    assert DepthModel("tiny", 10.0, version="v1").encoder.out_indices == (4, 5, 6, 7)
    assert DepthModel("tiny", 10.0).encoder.out_indices == (1, 3, 5, 7)
    with pytest.raises(ValueError, match="version is 'v3'; expected one of v1, v2"):
        DepthModel("tiny", 10.0, version="v3")


def test_position_offset_matters_at_every_size_but_that_of_the_grid() -> None:
    here, there = (DepthModel("tiny", None, position_offset=offset).eval() for offset in (0.1, 0.0))
    here.initialise(0)
    there.load_state_dict(here.state_dict())
    assert torch.equal(here.encoder.position_embedding(37, 37), there.encoder.position_embedding(37, 37))
    assert not torch.equal(here.encoder.position_embedding(8, 11), there.encoder.position_embedding(8, 11))

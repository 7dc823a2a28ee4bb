"""What dropout takes from a sample: the same in every batch, process and repetition."""

import torch

from finetune.models.dropout import SampleDropout
from finetune.models.lora import adapted_layers, add_adapters, lora_config
from tests.drawn_weights import drawn_model


def dropout(p: float = 0.25, seed: tuple[int, ...] = (0, 7)) -> SampleDropout:
    return SampleDropout(p, seed=seed).train()


def lost(module: SampleDropout, first: int, count: int = 1) -> torch.Tensor:
    """Which of 50 x 40 ones it takes from each of ``count`` samples."""
    module.first_sample = first
    output = module(torch.ones(count, 50, 40))
    # What stays is made larger by what goes: 1 / (1 - p).
    assert set(output.unique().tolist()) <= {0.0, torch.tensor(1 / (1 - module.p)).item()}
    return output == 0.0


def test_a_sample_loses_the_same_in_any_batch_and_whatever_else_draws() -> None:
    torch.manual_seed(1)
    together = lost(dropout(), 4, 3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    apart = torch.cat([lost(dropout(), k) for k in (4, 5, 6)])
    assert torch.equal(together, apart)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(lost(dropout(seed=(1, 7)), 4), together[:1])
    assert not torch.equal(lost(dropout(seed=(0, 8)), 4), together[:1])


def test_it_takes_its_share_in_training_and_nothing_after() -> None:
    share = lost(dropout(), 0, 20).float().mean().item()
    assert abs(share - 0.25) < 0.01  # 40,000 draws: a standard deviation is 0.002
    x = torch.randn(2, 3, 4)
    assert torch.equal(dropout().eval()(x), x)
    assert torch.equal(dropout(0.0)(x), x)


def test_every_adapter_draws_its_own_and_none_draws_from_the_global_generator() -> None:
    network = drawn_model("tiny", 10.0)
    config = lora_config(
        len(network.encoder.blocks), rank=2, alpha=4.0, dropout=0.5, targets=("qkv", "proj"), last_blocks=None
    )
    add_adapters(network, config, seed=3)
    network.train()
    found = [layer.lora_dropout["default"] for _, layer in adapted_layers(network)]
    assert all(isinstance(layer, SampleDropout) for layer in found)
    masks = [lost(layer, 0) for layer in found]
    assert len({mask.numpy().tobytes() for mask in masks}) == len(masks) == 2 * len(network.encoder.blocks)
    # Adapters add 0 at first, whatever dropout takes from their inputs.
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".lora_B." in name:
                parameter.fill_(0.1)
    image = torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    predictions = [network(image) for _ in range(2)]
    assert torch.equal(*predictions)
    assert torch.equal(torch.get_rng_state(), state)
    for dropout in found:
        dropout.first_sample = 2
    assert not torch.equal(network(image), predictions[0])

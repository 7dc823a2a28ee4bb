"""The average of the weights, by hand."""

import copy
from pathlib import Path

import pytest
import torch

from finetune.models.depth_model import DepthModel
from finetune.training.ema import AverageWeights
from tests.small_models import small_model


def filled(network: DepthModel, value: float) -> DepthModel:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


def values(network: DepthModel) -> set[float]:
    return {value for parameter in network.parameters() for value in parameter.flatten().tolist()}


def test_the_average_by_hand() -> None:
    network = filled(small_model(10.0), 0.0)
    average = AverageWeights(network, 0.25)
    average.update(filled(network, 1.0), 1)  # (1 + 1) / (10 + 1) is 0.1818, less than 0.25: 1 - 0.1818
    (value,) = values(average.network)
    assert value == pytest.approx(9 / 11, abs=1e-6)
    average.update(filled(network, 3.0), 2)  # (1 + 2) / (10 + 2) is 0.25: 0.25 * 0.8182 + 0.75 * 3
    average.update(filled(network, 0.0), 300)  # the decay itself: a quarter of what it was
    (value,) = values(average.network)
    assert value == pytest.approx((0.25 * 9 / 11 + 0.75 * 3) / 4, abs=1e-6)
    assert values(network) == {0.0}


def test_the_average_is_another_network_that_nobody_trains() -> None:
    network = small_model(10.0)
    average = AverageWeights(network, 0.9)
    mine, theirs = set(map(id, network.parameters())), set(map(id, average.network.parameters()))
    assert not mine & theirs
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert any(parameter.requires_grad for parameter in network.parameters())


def test_a_weight_that_stays_is_averaged_to_the_same_bits() -> None:
    network = small_model(10.0)
    average = AverageWeights(network, 0.999)
    for step in range(1, 30):
        average.update(network, step)
    pairs = zip(network.parameters(), average.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_saved_average_comes_back(tmp_path: Path) -> None:
    network = small_model(10.0)
    average = AverageWeights(network, 0.9)
    average.update(filled(network, 0.5), 1)
    kept = copy.deepcopy(average.network.state_dict())
    average.save(tmp_path)
    average.update(filled(network, 2.0), 2)
    average.load(tmp_path)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in average.network.state_dict().items())

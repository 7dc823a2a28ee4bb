import pytest
import torch
from safetensors.torch import load_file

from finetune.models.encoder_specs import GRID, PATCH
from finetune.models.onnx_graph import TracedNetwork, sampled_positions
from finetune.models.position_embedding import as_grid, resized_positions
from tests.conftest import CHECKPOINT
from tests.drawn_weights import drawn_model


@pytest.mark.parametrize("size", [(8, 11), (24, 32), (GRID, GRID), (40, 52), (2, 90)])
@pytest.mark.parametrize("offset", [0.0, 0.1])
def test_two_products_sample_as_the_interpolation_does(size: tuple[int, int], offset: float) -> None:
    grid = as_grid(load_file(CHECKPOINT)["encoder.pos_embed"].float())
    # In float32 the interpolation itself is off by some 3e-6: it loses a millionth of a patch at the far side.
    wanted, found = resized_positions(grid.double(), *size, offset), sampled_positions(grid, *size, offset)
    assert found.shape == (1, grid.shape[1], *size)
    assert (found - wanted).abs().max() <= 5e-7


def test_at_home_the_grid_is_itself() -> None:
    grid = torch.randn(1, 2, GRID, GRID, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sampled_positions(grid, GRID, GRID, 0.1), grid)


@pytest.mark.parametrize("max_depth_m", [10.0, None])
@pytest.mark.parametrize("fixed", [True, False])
def test_it_predicts_as_the_network_it_is_made_from(max_depth_m: float | None, fixed: bool) -> None:
    network = drawn_model("tiny", max_depth_m, last_layer=(0.1, 0.5))  # off the ends of the sigmoid
    size = (5 * PATCH, 8 * PATCH)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted, found = network(image), TracedNetwork(network, size if fixed else None)(image)
    assert (found - wanted).abs().max() <= 1e-5 * (wanted.max() - wanted.min())

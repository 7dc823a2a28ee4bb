from typing import Any

import pytest
import torch

from finetune.losses.feature import Feature
from finetune.recipe.load import load_recipe
from finetune.utils.errors import RecipeError, RecipeFaults
from tests.conftest import CHECKPOINT, ROOT

VALID = torch.ones(1, 1, 14, 28, dtype=torch.bool)


def positions(*vectors: tuple[float, float]) -> torch.Tensor:
    """(1, 2, 1, n): a feature of two numbers at each position."""
    return torch.tensor(vectors).T.reshape(1, 2, 1, -1).clone()


def test_each_position_is_left_out_by_itself() -> None:
    features = positions((3.0, 4.0), (2.0, 0.0), (0.0, -1.0)).requires_grad_()
    frozen = positions((1.0, 0.0), (5.0, 0.0), (0.0, 2.0))
    # cosines 0.6, 1 and -1: their mean is 0.2, and the second alone is above 0.85.
    value = Feature()(features, frozen, VALID)
    assert value.item() == pytest.approx((0.4 + 0.0 + 2.0) / 3)
    (gradient,) = torch.autograd.grad(value, features)
    assert gradient[0, :, 0, 1].tolist() == [0.0, 0.0]
    # d(-cos)/dx of (3, 4) to (1, 0): -(1/5 - 3 * 3 / 125) = -0.128, and 3 * 4 / 125 = 0.096; of three positions.
    assert gradient[0, :, 0, 0].tolist() == pytest.approx([-0.128 / 3, 0.096 / 3])
    assert Feature(tolerance=0.5)(features, frozen, VALID).item() == pytest.approx(2.0 / 3)


def test_features_of_the_start_cost_nothing() -> None:
    features = torch.randn(2, 8, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = Feature()(features, features.detach(), VALID.expand(2, -1, -1, -1))
    assert value.item() == 0.0
    assert not torch.autograd.grad(value, features)[0].any()


def test_an_image_without_a_valid_pixel_and_features_of_zeros_give_no_nan() -> None:
    features = positions((0.0, 0.0), (1.0, 0.0)).repeat(2, 1, 1, 1).requires_grad_()
    frozen = positions((1.0, 0.0), (-1.0, 0.0)).repeat(2, 1, 1, 1)
    valid = torch.stack([VALID[0], ~VALID[0]])
    value = Feature()(features, frozen, valid)
    assert value.item() == pytest.approx((1.0 + 2.0) / 2)
    (gradient,) = torch.autograd.grad(value, features)
    assert torch.isfinite(gradient).all()
    assert not gradient[1].any()
    nothing = Feature()(features, frozen, torch.zeros_like(valid))
    assert nothing.item() == 0.0
    assert not torch.autograd.grad(nothing, features)[0].any()


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        Feature()(positions((1.0, 0.0)), positions((1.0, 0.0), (1.0, 0.0)), VALID)
    with pytest.raises(RecipeError, match=r"tolerance is 1\.5; expected a cosine"):
        Feature(tolerance=1.5)


@pytest.mark.parametrize(
    ("model", "lines", "other"),
    [
        ({"checkpoint": "null", "encoder": "tiny"}, (), r"model\.checkpoint is null"),
        ({"checkpoint": CHECKPOINT, "train": "decoder"}, (), r"model\.train is 'decoder'"),
        ({"checkpoint": CHECKPOINT}, ("run.compile=true",), r"run\.compile is true"),
    ],
)
def test_it_is_refused_where_no_encoder_moves_away_from_a_start(
    tmp_path: Any, model: dict[str, str], lines: tuple[str, ...], other: str
) -> None:
    path = tmp_path / "features.yaml"
    keys = ", ".join(f"{key}: {value}" for key, value in {**model, "max_depth_m": 10.0}.items())
    entry = f"[{{reader: pairs, root: {ROOT}/data/room, list: train.txt, meters_per_unit: 0.001}}]"
    val = entry.replace("train.txt", "val.txt")
    path.write_text(f"model: {{{keys}}}\ndata: {{input_size: [56, 70], train: {entry}, val: {val}}}\n")
    for place in ("loss", "data.train.0.loss"):
        with pytest.raises(
            RecipeFaults, match=rf"{place}\.\d\.kind is 'feature' and {other}.*expected no loss feature"
        ):
            load_recipe(path, (f"{place}=[{{kind: silog}}, {{kind: feature}}]", *lines))

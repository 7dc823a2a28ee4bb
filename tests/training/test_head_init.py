from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.evaluation.baselines import LabeledPixels
from finetune.models.checkpoints.dinov2 import DinoV2
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.recipe.schema import ModelOptions
from finetune.training.head_init import (
    draw_model,
    resolve_decoder_init,
    solve_last_layer,
    start_model,
    weighted_ridge,
)
from finetune.utils.errors import CheckpointError
from finetune.utils.kinds import Activation, Kind
from tests.conftest import CHECKPOINT


def checkpoint_of(max_depth_m: float | None, path: Path, **variant: Any) -> Checkpoint:
    model = DepthModel("tiny", max_depth_m, **variant)
    model.initialise(7)
    save_native(path, model, {})
    return read_checkpoint(str(path))


def resolve(head: Kind, base: Checkpoint | None, **options: Any) -> str:
    return resolve_decoder_init(ModelOptions(checkpoint=str(CHECKPOINT), head=head, max_depth_m=5.0, **options), base)


def test_auto_follows_the_head_and_the_base(tmp_path: Path) -> None:
    relative = checkpoint_of(None, tmp_path / "relative.safetensors")
    metric = checkpoint_of(5.0, tmp_path / "metric.safetensors")
    relative_depth = checkpoint_of(None, tmp_path / "relative_depth.safetensors", activation="exp")
    exponential = checkpoint_of(1.0, tmp_path / "exponential.safetensors", activation="exp")
    assert (relative_depth.kind, exponential.kind) == ("relative_depth", "metric")
    assert resolve("metric", relative) == resolve("metric", relative_depth) == "calibrated"
    assert resolve("metric", metric) == resolve("metric", exponential, activation="exp") == "keep"
    assert resolve("metric", exponential) == resolve("metric", metric, activation="exp") == "calibrated"
    assert resolve("relative", relative) == resolve("relative_depth", relative_depth) == "keep"
    assert resolve("metric", None) == resolve("relative", None) == "scratch"
    assert resolve("metric", replace(metric, kind="encoder")) == "scratch"
    assert resolve("metric", relative, decoder_init="scratch") == "scratch"


@pytest.mark.parametrize(
    ("decoder_init", "kept", "last_kept"),
    [("scratch", False, False), ("pretrained", True, False), ("calibrated", True, False)],
)
def test_what_is_kept_and_what_is_drawn(tmp_path: Path, decoder_init: str, kept: bool, last_kept: bool) -> None:
    checkpoint = checkpoint_of(None, tmp_path / "base.safetensors")
    model, coverage = start_model(checkpoint, decoder_init, max_depth_m=5.0, seed=0, where="")
    state = model.state_dict()
    same = {name: torch.equal(tensor, checkpoint.tensors[name]) for name, tensor in state.items()}
    assert all(value for name, value in same.items() if name.startswith("encoder."))
    assert same["decoder.project.0.weight"] is kept
    assert same["head.last.weight"] is last_kept
    assert not any(torch.isnan(tensor).any() for tensor in state.values())
    assert "encoder" in str(coverage)


def test_keep_takes_every_weight_of_a_metric_base_of_the_same_max_depth(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(5.0, tmp_path / "base.safetensors")
    model, _ = start_model(checkpoint, "keep", max_depth_m=5.0, seed=0, where="")
    assert all(torch.equal(tensor, checkpoint.tensors[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"max depth is 5 m.*would scale every prediction by 2\. .*") as caught:
        start_model(checkpoint, "keep", max_depth_m=10.0, seed=0, where="recipe.yaml:4")
    # The three ways on.
    assert str(caught.value).endswith(
        "Set model.max_depth_m: 5 to keep its predictions, model.on_max_depth: rescale to have them scaled, or "
        "model.decoder_init: calibrated to solve for them on your data (recipe.yaml:4)."
    )


def test_rescaled_to_twice_the_max_depth_it_answers_exactly_twice_the_depth(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(5.0, tmp_path / "base.safetensors")
    model, coverage = start_model(checkpoint, "keep", max_depth_m=10.0, seed=0, where="", rescale=True)
    assert (model.max_depth_m, str(coverage)) == (10.0, "encoder 119/119, decoder 64/64")
    image = torch.rand(1, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model.eval()(image), 2 * whole_network(checkpoint)(image))


def test_an_exponential_base_keeps_its_predictions_at_any_max_depth(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(1.0, tmp_path / "base.safetensors", activation="exp")
    model, _ = start_model(checkpoint, "keep", max_depth_m=10.0, seed=0, where="", activation="exp")
    image = torch.rand(1, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(image), whole_network(checkpoint)(image), rtol=1e-5, atol=0.0)
    # ln(1 / 10), the unit of the logarithm
    moved = model.state_dict()["head.last.bias"] - checkpoint.tensors["head.last.bias"]
    assert moved.item() == pytest.approx(-2.302585, abs=1e-5)


@pytest.mark.parametrize(("own", "other"), [("exp", "sigmoid"), ("sigmoid", "exp")])
def test_a_last_layer_is_not_kept_for_another_activation(tmp_path: Path, own: Activation, other: Activation) -> None:
    checkpoint = checkpoint_of(5.0, tmp_path / "base.safetensors", activation=own)
    with pytest.raises(CheckpointError, match=f"last activation is {own}, model.activation is {other}"):
        start_model(checkpoint, "keep", max_depth_m=5.0, seed=0, where="", activation=other)


def encoder_alone(path: Path) -> Checkpoint:
    model = DepthModel("tiny", None)
    model.initialise(7)
    torch.save(DinoV2.from_ours(model.state_dict()), path)
    return read_checkpoint(str(path))


def test_an_encoder_alone_starts_a_decoder_from_scratch_and_nothing_else(tmp_path: Path) -> None:
    checkpoint = encoder_alone(tmp_path / "dinov2_vits14_pretrain.pth")
    model, coverage = start_model(checkpoint, "scratch", max_depth_m=5.0, seed=0, where="")
    assert str(coverage) == "encoder 119/119, decoder new (64)"
    assert torch.equal(model.encoder.pos_embed, checkpoint.tensors["encoder.pos_embed"])
    for decoder_init in ("pretrained", "calibrated", "keep"):
        with pytest.raises(CheckpointError, match=f"without a decoder, and model.decoder_init is {decoder_init}. Set "):
            start_model(checkpoint, decoder_init, max_depth_m=5.0, seed=0, where="")
    with pytest.raises(CheckpointError, match="which gives no depth"):
        whole_network(checkpoint)


def test_what_the_base_is_stays_with_the_model(tmp_path: Path) -> None:
    base = DepthModel("tiny", None, version="v1", position_offset=0.0)
    base.initialise(7)
    save_native(tmp_path / "v1.safetensors", base, {})
    checkpoint = read_checkpoint(str(tmp_path / "v1.safetensors"))
    model, _ = start_model(checkpoint, "calibrated", max_depth_m=5.0, seed=0, where="")
    assert (model.version, model.encoder.out_indices, model.position_offset) == ("v1", (4, 5, 6, 7), 0.0)
    save_native(tmp_path / "run.safetensors", model, {})
    again = read_checkpoint(str(tmp_path / "run.safetensors"))
    assert (again.version, again.position_offset) == ("v1", 0.0)


def test_pretrained_starts_where_the_sigmoid_is_not_flat() -> None:
    checkpoint = read_checkpoint(str(CHECKPOINT))
    model, _ = start_model(checkpoint, "pretrained", max_depth_m=10.0, seed=0, where="")
    image = torch.rand(2, 3, 112, 154, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, answer_m = model.last_features(image), model(image)
    # Else this base would be none to see it by: PyTorch draws weights up to 0.18, and there are 32 features.
    assert features.square().mean().sqrt() > 10.0
    assert 0.1 < answer_m.min() < answer_m.max() < 9.9
    assert answer_m.std() > 0.05


def test_keep_of_a_relative_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="decoder_init: calibrated"):
        start_model(checkpoint_of(None, tmp_path / "base.safetensors"), "keep", max_depth_m=5.0, seed=0, where="")


@pytest.mark.parametrize(("decoder_init", "kept"), [("keep", True), ("pretrained", False), ("scratch", False)])
def test_a_relative_head_on_a_relative_base(tmp_path: Path, decoder_init: str, kept: bool) -> None:
    checkpoint = checkpoint_of(None, tmp_path / "base.safetensors")
    model, _ = start_model(checkpoint, decoder_init, max_depth_m=None, seed=0, where="")
    assert model.kind == "relative"
    assert torch.equal(model.head.last.weight, checkpoint.tensors["head.last.weight"]) is kept
    assert torch.equal(model.encoder.pos_embed, checkpoint.tensors["encoder.pos_embed"])


@pytest.mark.parametrize("decoder_init", ["keep", "pretrained", "scratch"])
def test_a_relative_head_on_a_metric_base_is_refused(tmp_path: Path, decoder_init: str) -> None:
    checkpoint = checkpoint_of(5.0, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match=r"predicts meters.*model\.head: metric \(recipe\.yaml:4\)"):
        start_model(checkpoint, decoder_init, max_depth_m=None, seed=0, where="recipe.yaml:4")


@pytest.mark.parametrize(("base", "head"), [("relative", "relative_depth"), ("relative_depth", "relative")])
def test_inverse_depth_and_depth_do_not_start_each_other(tmp_path: Path, base: Kind, head: Kind) -> None:
    activations: dict[Kind, Activation] = {"relative": "relu", "relative_depth": "exp"}
    checkpoint = checkpoint_of(None, tmp_path / "base.safetensors", activation=activations[base])
    found = rf"is {base}, and model\.head is {head}.*Set model\.head: {base} \(recipe\.yaml:4\), or metric"
    with pytest.raises(CheckpointError, match=found):
        start_model(checkpoint, "keep", max_depth_m=None, seed=0, where="recipe.yaml:4", activation=activations[head])


def test_a_drawn_exponential_starts_at_half_of_max_depth() -> None:
    image = torch.rand(1, 3, 56, 70, generator=torch.Generator().manual_seed(0))
    depth_m = draw_model("tiny", 10.0, 0, activation="exp")(image)
    assert 3.0 < depth_m.min() < depth_m.max() < 8.0


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_relative_model_is_alive_everywhere(seed: int) -> None:
    image = torch.rand(1, 3, 56, 70, generator=torch.Generator().manual_seed(seed))
    assert draw_model("tiny", None, seed)(image).min() > 0


def test_ridge_by_hand() -> None:
    # One feature, y = 2 x + 1: variance of (0, 1, 2) is 2/3, mean square 5/3; slope 2 * 2/3 / (2/3 + 1e-4 * 5/3).
    slopes, intercept = weighted_ridge(np.array([[0.0], [1.0], [2.0]]), np.array([1.0, 3.0, 5.0]), np.ones(3))
    assert slopes[0] == pytest.approx(2 / 1.00025)
    assert intercept == pytest.approx(3 - 2 / 1.00025)


def test_ridge_ignores_dead_features_and_pixels_of_no_weight() -> None:
    features = np.array([[0.0, 0.0, 4.0], [1.0, 0.0, 4.0], [2.0, 0.0, 4.0], [9.0, 0.0, 4.0]])
    slopes, _ = weighted_ridge(features, np.array([1.0, 3.0, 5.0, -99.0]), np.array([1.0, 1.0, 1.0, 0.0]))
    assert slopes == pytest.approx([2 / 1.00025, 0.0, 0.0])


def test_a_feature_that_hardly_changes_gets_no_large_slope() -> None:
    wobble = np.array([-1.0, 1.0, -1.0, 1.0])
    slopes, _ = weighted_ridge(1.0 + 1e-4 * wobble[:, None], wobble, np.ones(4))
    assert abs(slopes[0]) < 2.0  # least squares would take 1e4


def test_the_last_layer_is_solved_for_depth() -> None:
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 1, (4000, 32)).astype(np.float32)
    logits = features @ generator.normal(size=32) * 0.5
    depth_m = (8.0 / (1 + np.exp(-logits))).astype(np.float32)
    pixels = LabeledPixels(
        depth_m=depth_m, prediction=np.zeros(4000, np.float32), image=np.zeros(4000, np.intp), features=features
    )
    last = torch.nn.Conv2d(32, 1, 1)
    solve_last_layer(last, pixels, 8.0)
    pred_m = 8.0 * torch.sigmoid(last(torch.from_numpy(features).T.reshape(1, 32, 40, 100))).detach().numpy().reshape(
        -1
    )
    assert np.mean(np.abs(pred_m - depth_m) / depth_m) < 1e-3


def test_the_last_layer_of_an_exponential_is_solved_for_log_depth() -> None:
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 1, (4000, 32)).astype(np.float32)
    logits = features @ generator.normal(size=32) * 0.5
    # Up to 5 times max depth, which a sigmoid could not reach.
    depth_m = (8.0 * np.exp(logits - logits.max() + np.log(5.0))).astype(np.float32)
    pixels = LabeledPixels(
        depth_m=depth_m, prediction=np.zeros(4000, np.float32), image=np.zeros(4000, np.intp), features=features
    )
    last = torch.nn.Conv2d(32, 1, 1)
    solve_last_layer(last, pixels, 8.0, "exp")
    found = last(torch.from_numpy(features).T.reshape(1, 32, 40, 100)).detach().numpy().reshape(-1)
    assert np.mean(np.abs(8.0 * np.exp(found) - depth_m) / depth_m) < 1e-3
    assert depth_m.max() == pytest.approx(40.0)

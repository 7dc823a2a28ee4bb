"""Depth Anything 3's monocular files: names, what they are, and predictions, also against the original package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from finetune.models.checkpoints.depth_anything_3 import DepthAnything3
from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.load import Checkpoint, read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS
from finetune.utils.errors import CheckpointError
from tests.drawn_weights import draw, drawn_image
from tests.small_da3 import SKY_NAMES, da3_tensors, write_da3
from tests.small_models import small_model


def test_a_name_of_each_kind() -> None:
    pairs = {
        "backbone.pretrained.blocks.11.attn.qkv.weight": "encoder.blocks.11.attn.qkv.weight",
        "backbone.pretrained.pos_embed": "encoder.pos_embed",
        "head.projects.2.bias": "decoder.project.2.bias",
        "head.resize_layers.3.weight": "decoder.resize.3.weight",
        "head.scratch.layer4_rn.weight": "decoder.reduce.3.weight",
        "head.scratch.refinenet4.resConfUnit2.conv2.bias": "decoder.fuse.3.unit.conv2.bias",
        "head.scratch.refinenet2.out_conv.weight": "decoder.fuse.1.out.weight",
        "head.scratch.output_conv1.weight": "head.reduce.weight",
        "head.scratch.output_conv2.0.bias": "head.refine.bias",
        "head.scratch.output_conv2.2.weight": "head.last.weight",
    }
    tensors = dict.fromkeys(pairs, torch.zeros(()))
    sky = dict.fromkeys(SKY_NAMES, torch.zeros(()))
    assert list(DepthAnything3.to_ours(tensors | sky)) == list(pairs.values())
    assert DepthAnything3.to_ours({"other": torch.ones(())}) == {"other": torch.ones(())}


def test_theirs_out_and_in_is_all_of_it_but_what_is_never_read() -> None:
    state = small_model(None).state_dict()
    theirs = DepthAnything3.from_ours(state)
    again = DepthAnything3.to_ours(theirs)
    missing = state.keys() - again.keys()
    assert missing == {"encoder.mask_token", *(name for name in state if name.startswith("decoder.fuse.3.skip_unit."))}
    assert all(torch.equal(again[name], state[name]) for name in again)
    assert DepthAnything3.recognises(theirs, {})


@pytest.mark.parametrize("name", ["DA3MONO-LARGE", "da3mono-large", "weights_DA3Mono"])
def test_mono_is_depth_without_a_unit(tmp_path: Path, name: str) -> None:
    checkpoint = read_checkpoint(str(write_da3(tmp_path / f"{name}.safetensors")))
    assert (checkpoint.format, checkpoint.kind, checkpoint.activation) == ("depth_anything_3", "relative_depth", "exp")
    assert (checkpoint.max_depth_m, checkpoint.version, checkpoint.camera) == (None, "v2", None)
    assert (checkpoint.license, checkpoint.input_size, checkpoint.kind_assumed) == ("Apache-2.0", (378, 504), False)
    assert any("its sky layers are left out" in note for note in checkpoint.notes)
    require_exponential(checkpoint, 1.0)


def require_exponential(checkpoint: Checkpoint, unit: float) -> None:
    """The prediction is the exponential of what the last layer gives, times ``unit``."""
    network, image = whole_network(checkpoint), drawn_image(56, 70)
    with torch.inference_mode():
        logits = network.head.last(network.last_features(image))
        assert logits.std() > 1e-3
        torch.testing.assert_close(network(image), unit * logits.exp())


def test_metric_is_meters_of_a_lens_of_300_px(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(write_da3(tmp_path / "DA3METRIC-LARGE" / "model.safetensors")))
    assert (checkpoint.kind, checkpoint.activation, checkpoint.license) == ("metric", "exp", "Apache-2.0")
    assert checkpoint.camera is not None
    assert (checkpoint.camera.mode, checkpoint.camera.focal_px, checkpoint.camera.seen_px) == ("canonical", 300.0, None)
    assert checkpoint.camera.meters_factor(450.0) == 1.5
    assert any("needs its focal length" in note for note in checkpoint.notes)
    require_exponential(checkpoint, 1.0)


@pytest.mark.parametrize(("model_name", "kind"), [("da3mono-large", "relative_depth"), ("da3metric-large", "metric")])
def test_the_configuration_next_to_it_says_which_it_is(tmp_path: Path, model_name: str, kind: str) -> None:
    path = write_da3(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_name": model_name}))
    assert read_checkpoint(str(path)).kind == kind
    with pytest.raises(CheckpointError, match=f"is {kind}, model.checkpoint_kind says relative"):
        read_checkpoint(str(path), kind="relative")


def test_without_a_name_it_is_refused(tmp_path: Path) -> None:
    path = write_da3(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"whether it is DA3MONO or DA3METRIC.*config\.json of its repository"):
        read_checkpoint(str(path))
    # The folder that its repository's files are put into says it too.
    folder = tmp_path / "DA3MONO-LARGE"
    write_da3(folder / "model.safetensors")
    assert read_checkpoint(str(folder)).kind == "relative_depth"


def test_one_for_several_views_is_refused(tmp_path: Path) -> None:
    tensors = da3_tensors(small_model(None)) | {"model.backbone.pretrained.camera_token": torch.zeros(1, 2, 192)}
    save_file(tensors, tmp_path / "DA3-LARGE.safetensors")
    with pytest.raises(CheckpointError, match=r"for several views.*Use depth-anything/DA3MONO-LARGE"):
        read_checkpoint(str(tmp_path / "DA3-LARGE.safetensors"))


def test_an_activation_that_no_head_has_is_refused(tmp_path: Path) -> None:
    from finetune.models.checkpoints.save import save_native

    model = small_model(None)
    model.activation = "sigmoid"  # what no relative head ends in
    save_native(tmp_path / "wrong.safetensors", model, {})
    with pytest.raises(CheckpointError, match="says activation 'sigmoid'; expected relu"):
        read_checkpoint(str(tmp_path / "wrong.safetensors"))


# The rest compares with the package of the authors: pip install --no-deps depth-anything-3 addict omegaconf einops
# antlr4-python3-runtime==4.9.3. Its requirements name numpy < 2 and a second OpenCV, so they are left out, and only its
# model/ is imported.
TOLERANCE = 1e-4  # of the prediction's spread


def original_network(encoder: str, image: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """Their monocular network with drawn weights, whose logits go from -1 to 1 on the image; and the weights."""
    from depth_anything_3.cfg import create_object, load_config
    from depth_anything_3.registry import MODEL_REGISTRY

    spec, config = ENCODERS[encoder], load_config(MODEL_REGISTRY["da3mono-large"])
    if encoder != "vitl":
        config.net.name, config.net.out_layers = encoder, list(spec.out_indices)
        config.head.dim_in, config.head.features = spec.embed_dim, spec.features
        config.head.out_channels = list(spec.out_channels)
    network = create_object(config).eval()
    theirs = network.state_dict()
    official = {name: name.replace("backbone.", "").replace("head.", "depth_head.") for name in theirs}
    drawn = draw({official[name]: tensor.shape for name, tensor in theirs.items()})
    weights = {name: drawn[official[name]].clone() for name in theirs}
    network.load_state_dict(weights, strict=True)
    last = network.head.scratch.output_conv2[2]
    logits: list[Tensor] = []
    # Before the exponential, which may overflow.
    hook = last.register_forward_hook(lambda layer, inputs, output: logits.append(output))
    original_prediction(network, image)
    hook.remove()
    low, high = logits[0].min(), logits[0].max()
    with torch.no_grad():
        scale = 2.0 / (high - low)
        last.weight.mul_(scale)
        last.bias.copy_(scale * (last.bias - (high + low) / 2))
    return network, {name: tensor.clone() for name, tensor in network.state_dict().items()}


def original_prediction(network: Any, image: Tensor) -> Tensor:
    """(1, 3, H, W) -> (1, 1, H, W), before sky is moved to the far end."""
    with torch.inference_mode():
        features, _ = network.backbone(image[None], cam_token=None, export_feat_layers=[])
        return network._process_depth_head(features, *image.shape[-2:]).depth.reshape(1, 1, *image.shape[-2:]).float()


def with_relu(model: DepthModel, image: Tensor) -> Tensor:
    with patch.object(type(model.head), "activate", lambda head, x: x.relu()):
        return model(image)


def with_sigmoid(model: DepthModel, image: Tensor) -> Tensor:
    with patch.object(type(model.head), "activate", lambda head, x: x.sigmoid()):
        return model(image)


def with_taps_of_v1(model: DepthModel, image: Tensor) -> Tensor:
    with patch.object(model.encoder, "out_indices", ENCODERS[model.encoder_name].out_indices_of("v1")):
        return model(image)


def with_offset_of_transformers(model: DepthModel, image: Tensor) -> Tensor:
    with patch.object(model.encoder, "position_offset", 0.0):
        return model(image)


TWINS: tuple[Callable[[DepthModel, Tensor], Tensor], ...] = (
    with_relu,
    with_sigmoid,
    with_taps_of_v1,
    with_offset_of_transformers,
)


@pytest.mark.original
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("encoder", "height", "width"),
    [("vits", 126, 168), ("vits", 252, 252), ("vits", 280, 504), ("vitl", 126, 168)],
)
def test_the_original_predicts_the_same(tmp_path: Path, encoder: str, height: int, width: int) -> None:
    image = drawn_image(height, width)
    network, weights = original_network(encoder, image)
    theirs = original_prediction(network, image)
    spread = (theirs.max() - theirs.min()).item()
    assert spread == pytest.approx(np.e - 1 / np.e, rel=1e-3)
    path = tmp_path / "DA3MONO-LARGE.safetensors"
    save_file({f"model.{name}": tensor.contiguous() for name, tensor in weights.items()}, path)
    model = whole_network(read_checkpoint(str(path)))
    with torch.inference_mode():
        share = (model(image) - theirs).abs().max().item() / spread
        print(f"{encoder} {height}x{width}: {share:.1e} of the spread")
        assert share <= TOLERANCE
        for twin in TWINS:
            assert (twin(model, image) - theirs).abs().max().item() / spread > TOLERANCE, twin.__name__


@pytest.mark.original
@pytest.mark.filterwarnings("ignore")
def test_the_original_loads_ours_but_for_the_sky() -> None:
    network, weights = original_network("vits", drawn_image(56, 70))
    ours = DepthModel("vits", None, activation="exp")
    ours.load_state_dict(Official.to_ours(draw({n: t.shape for n, t in Official.from_ours(ours.state_dict()).items()})))
    missing, unexpected = network.load_state_dict(DepthAnything3.from_ours(ours.state_dict()), strict=False)
    assert not unexpected
    assert sorted(missing) == sorted(SKY_NAMES) == sorted(name for name in weights if "sky" in name)

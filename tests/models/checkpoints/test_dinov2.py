from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.models.checkpoints.dinov2 import DinoV2
from finetune.models.checkpoints.fill import fill
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.utils.errors import CheckpointError
from tests.drawn_weights import drawn_image, drawn_model


def official_names(encoder: str = "tiny") -> dict[str, Tensor]:
    """As Meta publishes it: the names of Depth Anything without their first part."""
    return DinoV2.from_ours(drawn_model(encoder, None).state_dict())


def test_gated_blocks_have_their_own_names() -> None:
    names = {
        "blocks.0.mlp.w12.weight": "encoder.blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.w3.bias": "encoder.blocks.0.mlp.fc2.bias",
        "blocks.0.mlp.fc1.bias": "encoder.blocks.0.mlp.fc1.bias",
        "norm.weight": "encoder.norm.weight",
    }
    theirs = {name: torch.tensor(float(i)) for i, name in enumerate(names)}
    assert DinoV2.to_ours(theirs) == {ours: theirs[name] for name, ours in names.items()}


@pytest.mark.parametrize("without", [(), ("mask_token",)])
def test_an_encoder_alone_says_so(without: tuple[str, ...], tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in official_names().items() if name not in without}
    torch.save(tensors, tmp_path / "dinov2_vits14_pretrain.pth")
    checkpoint = read_checkpoint(str(tmp_path / "dinov2_vits14_pretrain.pth"))
    assert (checkpoint.format, checkpoint.kind, checkpoint.has_head) == ("dinov2", "encoder", False)
    assert (checkpoint.encoder, checkpoint.license, checkpoint.notes) == ("tiny", "Apache-2.0", ())
    model = DepthModel("tiny", 10.0)
    assert str(fill(model, checkpoint, "encoder")) == f"encoder {119 - len(without)}/119, decoder new (64)"


def test_what_it_cannot_be_told(tmp_path: Path) -> None:
    source = str(tmp_path / "encoder.pth")
    torch.save(official_names(), source)
    with pytest.raises(CheckpointError, match=r"is an encoder alone, model\.checkpoint_kind says relative\. Set "):
        read_checkpoint(source, kind="relative")
    with pytest.raises(CheckpointError, match=r"is an encoder alone, which has no max depth; .* Set .* to null\.$"):
        read_checkpoint(source, max_depth_m=3.0)


def test_registers_are_no_part_of_the_network(tmp_path: Path) -> None:
    source = str(tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    torch.save(official_names() | {"register_tokens": torch.zeros(1, 4, 192)}, source)
    with pytest.raises(CheckpointError, match=r"has unknown tensors: encoder\.register_tokens for encoder tiny"):
        fill(DepthModel("tiny", 10.0), read_checkpoint(source), "encoder")


@pytest.mark.slow
def test_the_network_of_timm(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    theirs = timm.create_model("vit_small_patch14_dinov2", num_classes=0).eval()
    encoder = {f"encoder.{name}": tensor for name, tensor in theirs.state_dict().items()}
    drawn = {name: tensor for name, tensor in drawn_model("vits", None).state_dict().items() if name in encoder}
    assert drawn.keys() == encoder.keys()
    theirs.load_state_dict(DinoV2.from_ours(drawn))
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    model = DepthModel("vits", 10.0).eval()
    checkpoint = read_checkpoint(str(tmp_path))
    assert str(fill(model, checkpoint, "encoder")) == "encoder 174/175, decoder new (64)"
    # At the size that positions are stored for; timm samples them in a way of its own at any other.
    image = drawn_image(518, 518)
    with torch.inference_mode():
        tokens = theirs.forward_features(image)[:, 1:]
        ours = model.encoder(image)[-1].flatten(2).transpose(1, 2)
    assert (ours - tokens).abs().max() <= 1e-4 * (tokens.max() - tokens.min())


@pytest.mark.original
def test_the_network_of_the_original(tmp_path: Path) -> None:
    from depth_anything_v2.dinov2 import DINOv2

    theirs = DINOv2("vits").eval()
    theirs.load_state_dict(official_names("vits"))
    torch.save(theirs.state_dict(), tmp_path / "dinov2_vits14_pretrain.pth")
    model = DepthModel("vits", 10.0).eval()
    checkpoint = read_checkpoint(str(tmp_path / "dinov2_vits14_pretrain.pth"))
    assert str(fill(model, checkpoint, "encoder")) == "encoder 175/175, decoder new (64)"
    for height, width in ((140, 140), (140, 182), (252, 126)):
        image = drawn_image(height, width)
        with torch.inference_mode():
            layers = theirs.get_intermediate_layers(image, [2, 5, 8, 11], reshape=True)
            maps = model.encoder(image)
        for layer, found in zip(layers, maps, strict=True):
            assert (found - layer).abs().max() <= 1e-4 * (layer.max() - layer.min())

from __future__ import annotations

import pytest
import torch

from finetune.models.checkpoints.official import Official
from finetune.models.encoder_specs import ENCODERS, EncoderSpec
from tests.drawn_weights import draw


def test_a_name_of_each_kind() -> None:
    pairs = {
        "pretrained.blocks.11.attn.qkv.weight": "encoder.blocks.11.attn.qkv.weight",
        "pretrained.mask_token": "encoder.mask_token",
        "depth_head.projects.2.bias": "decoder.project.2.bias",
        "depth_head.resize_layers.3.weight": "decoder.resize.3.weight",
        "depth_head.scratch.layer4_rn.weight": "decoder.reduce.3.weight",
        "depth_head.scratch.refinenet4.resConfUnit1.conv2.bias": "decoder.fuse.3.skip_unit.conv2.bias",
        "depth_head.scratch.refinenet1.resConfUnit2.conv1.weight": "decoder.fuse.0.unit.conv1.weight",
        "depth_head.scratch.refinenet2.out_conv.weight": "decoder.fuse.1.out.weight",
        "depth_head.scratch.output_conv1.weight": "head.reduce.weight",
        "depth_head.scratch.output_conv2.0.bias": "head.refine.bias",
        "depth_head.scratch.output_conv2.2.weight": "head.last.weight",
    }
    assert list(Official.to_ours(dict.fromkeys(pairs, torch.zeros(())))) == list(pairs.values())


def test_names_that_are_not_theirs_stay() -> None:
    tensors = {"depth_head.readout.weight": torch.tensor(1.0), "other": torch.tensor(2.0)}
    assert Official.to_ours(tensors) == tensors


def test_gated_blocks_have_their_own_names() -> None:
    theirs = {
        "pretrained.blocks.0.mlp.w12.weight": torch.zeros(16, 4),
        "pretrained.blocks.0.mlp.w3.weight": torch.zeros(4, 8),
    }
    ours = Official.to_ours(theirs)
    assert list(ours) == ["encoder.blocks.0.mlp.fc1.weight", "encoder.blocks.0.mlp.fc2.weight"]
    assert list(Official.from_ours(ours)) == list(theirs)


def test_recognised_by_both_halves() -> None:
    assert Official.recognises(["pretrained.cls_token", "depth_head.projects.0.bias"], {})
    assert not Official.recognises(["pretrained.cls_token"], {})
    assert not Official.recognises(["encoder.cls_token", "head.last.bias"], {})


@pytest.mark.original
@pytest.mark.parametrize("encoder", ["vits", "vitb"])
def test_ours_out_is_a_whole_original(encoder: str) -> None:
    from depth_anything_v2.dpt import DepthAnythingV2

    from finetune.models.depth_model import DepthModel

    spec: EncoderSpec = ENCODERS[encoder]
    original = DepthAnythingV2(encoder, spec.features, out_channels=list(spec.out_channels)).state_dict()
    ours = DepthModel(encoder, None)
    weights = draw({name: tensor.shape for name, tensor in original.items()})
    ours.load_state_dict(Official.to_ours(weights), strict=True)
    out = Official.from_ours(ours.state_dict())
    assert len(original) == 239
    assert {name: tensor.shape for name, tensor in out.items()} == {n: t.shape for n, t in original.items()}
    assert all(torch.equal(out[name], weights[name]) for name in weights)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from finetune.data.preprocessing import Preprocessing
from finetune.export.export import export_model
from finetune.export.official import Official
from finetune.export.test_image import draw_dead_leaves
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.official import Official as OfficialNames
from finetune.models.checkpoints.save import save_native
from finetune.utils.errors import FinetuneError
from tests.drawn_weights import drawn_model, last_layer_that_varies, require_varied
from tests.small_models import BASE, INPUT_SIZE, small_model, write_model


def exported(tmp_path: Path, max_depth_m: float | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the description of a small model."""
    output = tmp_path / "model.pth"
    Official().write(load_model(write_model(tmp_path / "m.safetensors", max_depth_m)), output)
    return torch.load(output, weights_only=True), json.loads((tmp_path / "model.json").read_text())


def test_weights_are_a_plain_state_dict_by_official_name(tmp_path: Path) -> None:
    weights, _ = exported(tmp_path, 10.0)
    expected = OfficialNames.from_ours(small_model(10.0).state_dict())
    assert list(weights) == list(expected)
    assert type(weights) is dict
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name])
    # Tensors that the network never reads, and that strict=True asks for.
    assert {"pretrained.mask_token", "depth_head.scratch.refinenet4.resConfUnit1.conv1.weight"} <= set(weights)


@pytest.mark.parametrize(("max_depth_m", "kind"), [(10.0, "metric"), (None, "relative")])
def test_description_says_all_that_the_weights_cannot(tmp_path: Path, max_depth_m: float | None, kind: str) -> None:
    _, content = exported(tmp_path, max_depth_m)
    assert content == {
        "format": "official",
        "kind": kind,
        "encoder": "tiny",
        "max_depth_m": max_depth_m,
        "checkpoint_version": "v2",
        "position_offset": 0.1,
        "preprocessing": Preprocessing(input_size=INPUT_SIZE).to_mapping(),
        "network": {"encoder": "tiny", "features": 32, "out_channels": [24, 48, 96, 192]},
        "backbone": {"embed_dim": 192, "depth": 8, "heads": 3, "out_indices": [1, 3, 5, 7], "swiglu": False},
        "base": BASE,
        "name": "small",
    }


def test_exported_twice_it_still_says_what_it_was_made_from(tmp_path: Path) -> None:
    _, first = exported(tmp_path, 10.0)
    again = load_model(tmp_path / "model.pth")
    assert (again.kind, again.max_depth_m, again.notes) == ("metric", 10.0, ())
    Official().write(again, tmp_path / "again.pth")
    assert json.loads((tmp_path / "again.json").read_text()) == first


def test_a_model_that_samples_positions_as_transformers_does_is_refitted(tmp_path: Path) -> None:
    preprocessing = Preprocessing(input_size=(112, 154))
    model = drawn_model("tiny", 10.0, position_offset=0.0)
    save_native(tmp_path / "m.safetensors", model, {"preprocessing": preprocessing.to_mapping()})
    predictor = load_model(tmp_path / "m.safetensors")
    # Compared by a network that samples as the original does, whatever the model was trained with.
    export_model(predictor, "official", tmp_path / "out.pth", draw_dead_leaves(120, 160))
    again = load_model(tmp_path / "out.pth")
    assert (predictor.network.position_offset, again.network.position_offset) == (0.0, 0.1)
    assert not torch.equal(again.network.encoder.pos_embed, predictor.network.encoder.pos_embed)
    # Wider than 37 patches, the original has too few positions for it.
    with pytest.raises(FinetuneError, match=r"up to 518x518 only; here the network input is 112x602\. Export"):
        export_model(predictor, "official", tmp_path / "wide.pth", draw_dead_leaves(112, 602))


@pytest.mark.original
@pytest.mark.parametrize("max_depth_m", [10.0, None])
def test_the_original_takes_it_and_predicts_meters(tmp_path: Path, max_depth_m: float | None) -> None:
    from depth_anything_v2.dpt import DepthAnythingV2

    y, x = np.mgrid[0:200, 0:280]
    image = np.stack([128 + 100 * np.sin(x / 9), 128 + 100 * np.cos(y / 13), (x > y) * 200], axis=-1).astype(np.uint8)
    preprocessing = Preprocessing(input_size=(140, 140))
    seen = torch.from_numpy(preprocessing(image))[None]
    last_layer = last_layer_that_varies(drawn_model("vits", max_depth_m), seen)
    model = drawn_model("vits", max_depth_m, last_layer)
    save_native(tmp_path / "m.safetensors", model, {"preprocessing": preprocessing.to_mapping(), "base": BASE})
    comparison = export_model(load_model(tmp_path / "m.safetensors"), "official", tmp_path / "out.pth", image)
    print(comparison)

    content = json.loads((tmp_path / "out.json").read_text())
    network = DepthAnythingV2(**content["network"]).eval()
    network.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    if max_depth_m is not None:
        # The metric network differs from the relative one in these two lines and the factor.
        network.depth_head.scratch.output_conv2[3] = nn.Sigmoid()
        network.depth_head.scratch.output_conv2[4] = nn.Identity()
    batch, size = network.image2tensor(
        cv2.cvtColor(image, cv2.COLOR_RGB2BGR), content["preprocessing"]["input_size"][0]
    )
    with torch.inference_mode():
        prediction = network(batch)[:, None] * (content["max_depth_m"] or 1.0)
    theirs = functional.interpolate(prediction, size, mode="bilinear", align_corners=True)[0, 0]
    require_varied(theirs, max_depth_m)
    ours = load_model(tmp_path / "out.pth").predict(image)
    share = np.abs(ours - theirs.numpy()).max() / np.ptp(theirs.numpy())
    print(f"{share:.1e} of the spread")
    assert share <= 1e-4

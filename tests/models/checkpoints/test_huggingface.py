from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.models.checkpoints.fill import whole_network
from finetune.models.checkpoints.huggingface import HuggingFace
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS
from finetune.utils.errors import CheckpointError
from tests.drawn_weights import drawn_image
from tests.small_models import small_model
from tests.transformers_models import answer_of, drawn_transformers_model


def test_a_name_of_each_kind_in_both_layouts() -> None:
    pairs = {
        "backbone.embeddings.position_embeddings": "encoder.pos_embed",
        "backbone.embeddings.patch_embeddings.projection.bias": "encoder.patch_embed.proj.bias",
        "backbone.encoder.layer.11.attention.output.dense.weight": "encoder.blocks.11.attn.proj.weight",
        "backbone.encoder.layer.3.attention.o_proj.bias": "encoder.blocks.3.attn.proj.bias",
        "backbone.encoder.layer.3.layer_scale2.lambda1": "encoder.blocks.3.ls2.gamma",
        "backbone.encoder.layer.0.mlp.weights_in.weight": "encoder.blocks.0.mlp.fc1.weight",
        "backbone.encoder.layer.0.mlp.down_proj.weight": "encoder.blocks.0.mlp.fc2.weight",
        "backbone.layernorm.weight": "encoder.norm.weight",
        "neck.reassemble_stage.layers.3.resize.weight": "decoder.resize.3.weight",
        "neck.convs.1.weight": "decoder.reduce.1.weight",
        "neck.fusion_stage.layers.0.residual_layer1.convolution2.bias": "decoder.fuse.3.skip_unit.conv2.bias",
        "neck.fusion_stage.layers.3.residual_layer2.convolution1.weight": "decoder.fuse.0.unit.conv1.weight",
        "neck.fusion_stage.layers.1.projection.weight": "decoder.fuse.2.out.weight",
        "head.conv3.weight": "head.last.weight",
        "backbone.encoder.layer.0.other": "backbone.encoder.layer.0.other",
    }
    assert list(HuggingFace.to_ours(dict.fromkeys(pairs, torch.zeros(())))) == list(pairs.values())


@pytest.mark.parametrize(
    "names", [("attention.attention.query", "key", "value"), ("attention.q_proj", "k_proj", "v_proj")]
)
def test_query_key_and_value_are_fused_in_this_order_and_split_again(names: tuple[str, ...]) -> None:
    first, *others = names
    stem = first.rpartition(".")[0]
    whole = [f"backbone.encoder.layer.0.{name}.weight" for name in (first, *(f"{stem}.{other}" for other in others))]
    # In the file's order, which may be any.
    theirs = {name: torch.full((2, 2), value) for value, name in reversed(list(enumerate(whole)))}
    ours = HuggingFace.to_ours(theirs)
    assert ours["encoder.blocks.0.attn.qkv.weight"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert list(ours) == ["encoder.blocks.0.attn.qkv.weight"]
    theirs.pop(whole[1])
    assert "encoder.blocks.0.attn.qkv.weight" not in HuggingFace.to_ours(theirs)


def test_out_and_in_again_is_bit_equal_and_whole(tmp_path: Path) -> None:
    state = small_model(10.0).state_dict()
    theirs = HuggingFace.from_ours(state)
    model = drawn_transformers_model("tiny", "metric", drawn_image(28, 42))
    model.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    assert {name: tensor.shape for name, tensor in theirs.items()} == {n: t.shape for n, t in published.items()}
    again = HuggingFace.to_ours(theirs)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_gated_blocks_of_vitg(in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # vitg is 5 GB; the same blocks in the width of tiny show the same.
    monkeypatch.setitem(ENCODERS, "tiny", replace(ENCODERS["tiny"], swiglu=True))
    image = drawn_image(42, 56)
    model = drawn_transformers_model("tiny", "metric", image)
    model.save_pretrained(tmp_path)
    if in_memory:
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    network = whole_network(read_checkpoint(str(tmp_path)))
    theirs = answer_of(model, image)
    with torch.inference_mode():
        assert (network(image) - theirs).abs().max() <= 1e-4 * (theirs.max() - theirs.min())
    again = HuggingFace.from_ours(network.state_dict())
    assert "backbone.encoder.layer.0.mlp.weights_in.weight" in again
    assert HuggingFace.to_ours(again).keys() == network.state_dict().keys()


def folder(path: Path, config: dict[str, Any] | None = None, **backbone: Any) -> str:
    """A relative V2 model of size tiny as transformers would have written it, with other entries in its config."""
    spec = ENCODERS["tiny"]
    described = {
        "model_type": "depth_anything",
        "backbone_config": {
            "model_type": "dinov2",
            "image_size": 518,
            "hidden_size": spec.embed_dim,
            "num_hidden_layers": spec.depth,
            "out_indices": [2, 4, 6, 8],
            **backbone,
        },
        **(config or {}),
    }
    path.mkdir(exist_ok=True)
    torch.save(HuggingFace.from_ours(DepthModel("tiny", None).state_dict()), path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps(described))
    return str(path)


def test_what_the_config_says(tmp_path: Path) -> None:
    relative = read_checkpoint(folder(tmp_path / "a"))
    assert (relative.kind, relative.max_depth_m, relative.version, relative.kind_assumed) == (
        "relative",
        None,
        "v2",
        False,
    )
    assert (relative.position_offset, relative.notes) == (0.0, ())
    metric = read_checkpoint(folder(tmp_path / "b", {"depth_estimation_type": "metric", "max_depth": 80}))
    assert (metric.kind, metric.max_depth_m) == ("metric", 80.0)
    first = read_checkpoint(
        folder(tmp_path / "c", out_indices=None, out_features=["stage5", "stage6", "stage7", "stage8"])
    )
    assert first.version == "v1"
    unset = read_checkpoint(folder(tmp_path / "d", {"depth_estimation_type": "metric", "max_depth": None}))
    assert unset.max_depth_m == 1.0
    assert unset.notes == (f"{tmp_path / 'd' / 'config.json'} has no max_depth, which transformers takes for 1 m",)


def test_what_the_recipe_says_against_it_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    for stated, found in (
        ({"kind": "metric"}, "is relative, model.checkpoint_kind says metric. Set model.checkpoint_kind to auto."),
        ({"version": "v1"}, "is V2, model.checkpoint_version says v1. Set model.checkpoint_version to auto."),
    ):
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(source, **stated)  # type: ignore[arg-type]
        assert str(caught.value) == f"{source}: {found}"


@pytest.mark.parametrize(
    ("config", "backbone", "found"),
    [
        ({"model_type": "dpt"}, {}, "model_type is 'dpt', not 'depth_anything'. Use a Depth Anything checkpoint."),
        ({}, {"out_indices": [1, 2, 3, 4]}, "out_indices is [1, 2, 3, 4] of 8 blocks of width 192, which neither V1"),
        ({}, {"image_size": 224}, "backbone_config.image_size is 224, that of Depth Anything is 518. Use a"),
        ({}, {"layer_norm_eps": 1e-5}, "backbone_config.layer_norm_eps is 1e-05, that of"),
        ({"reassemble_factors": [4, 2, 1, 1]}, {}, "reassemble_factors is [4, 2, 1, 1], that of"),
        ({"depth_estimation_type": "metric", "max_depth": -3}, {}, "says kind 'metric' and max_depth_m -3; expected"),
    ],
)
def test_another_network_is_refused(
    config: dict[str, Any], backbone: dict[str, Any], found: str, tmp_path: Path
) -> None:
    source = folder(tmp_path / "a", config, **backbone)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(source)
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / 'a' / 'config.json'}: ") and found in sentence


def test_the_processor_says_the_input_size(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    processor = {"size": {"height": 392, "width": 518}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / "a" / "preprocessor_config.json").write_text(json.dumps(processor))
    says = {"input_size": [392, 518], "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    assert read_checkpoint(source).metadata["preprocessing"] == says
    (tmp_path / "a" / "preprocessor_config.json").write_text(json.dumps(processor | {"size": {"shortest_edge": 384}}))
    assert "preprocessing" not in read_checkpoint(source).metadata


def test_weights_without_a_config_are_what_the_call_says(tmp_path: Path) -> None:
    source = folder(tmp_path / "a")
    (tmp_path / "a" / "config.json").unlink()
    assert read_checkpoint(source).kind_assumed
    checkpoint = read_checkpoint(source, kind="metric", max_depth_m=20.0, version="v1")
    assert (checkpoint.kind, checkpoint.max_depth_m) == ("metric", 20.0)
    assert (checkpoint.version, checkpoint.position_offset) == ("v1", 0.0)


def test_a_folder_whose_weights_are_in_several_files(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds its weights in several files\. Write them into one: "):
        read_checkpoint(str(tmp_path))


COLORS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}


@pytest.mark.parametrize(
    ("processor", "input_size", "mean", "std"),
    [
        ({"size": {"height": 252, "width": 336}, **COLORS}, [252, 336], 0.5, 0.25),
        ({"size": {"shortest_edge": 518}, **COLORS}, [518, 518], 0.5, 0.25),
        ({"size": 518, **COLORS, "do_normalize": False}, [518, 518], 0.0, 1.0),
        # Colors of values from 0 to 255, where ours are from 0 to 1.
        ({"size": 518, "do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, [518, 518], 0.5, 0.2),
        ({"size": 518, "rescale_factor": 2 / 255, **COLORS}, [518, 518], 0.25, 0.125),
        ({"size": {"height": 384, "width": 384}, **COLORS}, None, 0.0, 0.0),
        ({"size": 518, **COLORS, "do_resize": False}, None, 0.0, 0.0),
        ({"size": 518}, None, 0.0, 0.0),
        ({"size": 518, **COLORS, "rescale_factor": -1.0}, None, 0.0, 0.0),
    ],
)
def test_what_the_processor_of_somebody_else_does(
    processor: dict[str, Any], input_size: list[int] | None, mean: float, std: float, tmp_path: Path
) -> None:
    source = folder(tmp_path / "theirs")
    (Path(source) / "preprocessor_config.json").write_text(json.dumps(processor))
    checkpoint = read_checkpoint(source)
    if input_size is None:
        # What cannot be taken over is not said to be known.
        assert checkpoint.input_size is None and "preprocessing" not in checkpoint.metadata
        return
    said = checkpoint.metadata["preprocessing"]
    assert checkpoint.input_size == tuple(input_size) and said["input_size"] == input_size
    assert said["mean"] == pytest.approx([mean] * 3) and said["std"] == pytest.approx([std] * 3)


def test_the_colors_that_a_checkpoint_has_seen_are_those_of_the_run(tmp_path: Path) -> None:
    from finetune.recipe.load import load_recipe
    from finetune.training.startup import _choose_preprocessing
    from tests.conftest import ROOT

    source = folder(tmp_path / "theirs")
    (Path(source) / "preprocessor_config.json").write_text(json.dumps({"size": 518, **COLORS}))
    recipe = load_recipe(ROOT / "recipes" / "room_tiny.yaml", [])
    found = _choose_preprocessing(recipe, read_checkpoint(source))
    assert (found.input_size, found.mean, found.std) == (recipe.data.input_size, (0.5,) * 3, (0.25,) * 3)
    assert _choose_preprocessing(recipe, None).mean == (0.485, 0.456, 0.406)

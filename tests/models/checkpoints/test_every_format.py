"""Every way in, from the program that wrote it: all tensors are taken over, and the prediction is that program's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.models.checkpoints.fill import fill, whole_network
from finetune.models.checkpoints.load import read_checkpoint
from finetune.models.checkpoints.official import Official
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.models.encoder_specs import ENCODERS
from finetune.utils import registry
from finetune.utils.errors import CheckpointError
from tests.drawn_weights import drawn_image, drawn_model, last_layer_that_varies, require_varied

TOLERANCE = 1e-4  # of the spread of the source's prediction, max - min
MAX_DEPTH_M = 20.0
SIZES = {"tiny": ((140, 140), (126, 168), (182, 70)), "vits": ((140, 140), (140, 182), (252, 126))}
FIRST = (140, 140)

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """A file or folder, what must be said of it, and the prediction of the program that wrote it."""

    path: Path
    stated: dict[str, Any]
    predict: Predict


def original(folder: Path, encoder: str, kind: str, version: str = "v2") -> tuple[dict[str, Tensor], Predict]:
    """Weights and prediction of the original network."""
    from tests.golden.make import original_network

    spec = ENCODERS[encoder]
    max_depth_m = MAX_DEPTH_M if kind == "metric" else None
    image = drawn_image(*FIRST)
    last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m, version=version), image)
    predict, network = original_network(encoder, spec, last_layer, max_depth_m, version)
    return network.state_dict(), predict


def stated_of(kind: str) -> dict[str, Any]:
    return {"kind": kind, "max_depth_m": MAX_DEPTH_M if kind == "metric" else None}


def official_v2(folder: Path, encoder: str, kind: str) -> Source:
    weights, predict = original(folder, encoder, kind)
    torch.save(weights, folder / "model.pth")
    return Source(folder / "model.pth", stated_of(kind) | {"version": "v2"}, predict)


def official_v1(folder: Path, encoder: str, kind: str) -> Source:
    weights, predict = original(folder, encoder, kind, "v1")
    torch.save(weights, folder / "model.pth")
    return Source(folder / "model.pth", stated_of(kind) | {"version": "v1"}, predict)


def training_file(folder: Path, encoder: str, kind: str) -> Source:
    weights, predict = original(folder, encoder, kind)
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    content = {"model": wrapped, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-5}]}, "epoch": 12}
    torch.save(content | {"previous_best": {"d1": 0.5}}, folder / "latest.pth")
    return Source(folder / "latest.pth", stated_of(kind), predict)


def huggingface(folder: Path, encoder: str, kind: str, version: str = "v2") -> Source:
    from tests.transformers_models import answer_of, drawn_transformers_model

    model = drawn_transformers_model(encoder, kind, drawn_image(*FIRST), version)
    model.save_pretrained(folder / "saved")
    return Source(folder / "saved", {}, lambda image: answer_of(model, image))


def huggingface_v1(folder: Path, encoder: str, kind: str) -> Source:
    return huggingface(folder, encoder, kind, "v1")


def huggingface_in_memory(folder: Path, encoder: str, kind: str) -> Source:
    """The names that transformers has in memory, as a user's torch.save of a state dict."""
    from tests.transformers_models import answer_of, drawn_transformers_model

    model = drawn_transformers_model(encoder, kind, drawn_image(*FIRST))
    (folder / "memory").mkdir()
    torch.save(model.state_dict(), folder / "memory" / "pytorch_model.bin")
    model.config.save_pretrained(folder / "memory")
    return Source(folder / "memory", {}, lambda image: answer_of(model, image))


def own(encoder: str, kind: str) -> tuple[DepthModel, Predict]:
    max_depth_m = MAX_DEPTH_M if kind == "metric" else None
    last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m), drawn_image(*FIRST))
    model = drawn_model(encoder, max_depth_m, last_layer)

    def predict(image: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(image)

    return model, predict


def ours(folder: Path, encoder: str, kind: str) -> Source:
    model, predict = own(encoder, kind)
    save_native(folder / "model.safetensors", model, {})
    return Source(folder / "model.safetensors", {}, predict)


def run_folder(folder: Path, encoder: str, kind: str) -> Source:
    model, predict = own(encoder, kind)
    save_native(folder / "best" / "model.safetensors", model, {})
    return Source(folder, {}, predict)


OF_ORIGINAL = (official_v2, official_v1, training_file)
HERE = (huggingface, huggingface_v1, huggingface_in_memory, ours, run_folder)
Make = Callable[[Path, str, str], Source]


def rows() -> list[Any]:
    """Each format in each size and kind: tiny at once, what takes longer or needs the original by its mark."""
    found = []
    for make in (*HERE, *OF_ORIGINAL):
        for encoder in ("tiny", "vits"):
            for kind in ("relative", "metric"):
                marks = [pytest.mark.original] if make in OF_ORIGINAL else []
                seldom = encoder == "vits" or (kind == "relative" and make is not huggingface)
                if seldom and not marks:
                    marks = [pytest.mark.slow]
                found.append(pytest.param(make, encoder, kind, marks=marks, id=f"{make.__name__}-{encoder}-{kind}"))
    return found


@pytest.mark.parametrize(("make", "encoder", "kind"), rows())
def test_all_of_it_is_taken_over_and_it_predicts_the_same(make: Make, encoder: str, kind: str, tmp_path: Path) -> None:
    source = make(tmp_path, encoder, kind)
    checkpoint = read_checkpoint(str(source.path), **source.stated)
    assert (checkpoint.encoder, checkpoint.kind) == (encoder, kind)
    assert checkpoint.max_depth_m == (MAX_DEPTH_M if kind == "metric" else None)
    coverage = fill(DepthModel(encoder, None), checkpoint, "all")
    assert coverage.encoder[0] == coverage.encoder[1] and coverage.decoder == (64, 64)
    network = whole_network(checkpoint)
    for height, width in SIZES[encoder]:
        image = drawn_image(height, width)
        theirs = source.predict(image)
        if (height, width) == FIRST:
            require_varied(theirs, checkpoint.max_depth_m)
        with torch.inference_mode():
            share = ((network(image) - theirs).abs().max() / (theirs.max() - theirs.min())).item()
        print(f"{height}x{width}: {share:.1e} of the spread")
        assert share <= TOLERANCE


def test_the_table_has_every_format_that_holds_a_whole_network() -> None:
    formats = set(registry.CHECKPOINTS)
    assert {"native", "official", "huggingface", "dinov2"} <= formats
    for name in formats:
        format_class = registry.find(registry.CHECKPOINTS, name)
        assert format_class.files and format_class.__doc__


@pytest.mark.parametrize("layout", ["official", "huggingface"])
def test_a_vits_file_in_a_vitl_recipe_is_one_sentence(layout: str, tmp_path: Path) -> None:
    format_class = registry.find(registry.CHECKPOINTS, layout)
    torch.save(format_class.from_ours(drawn_model("vits", None).state_dict()), tmp_path / "small.pth")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(tmp_path / "small.pth"), encoder="vitl", where="recipe.yaml:2")
    assert str(caught.value) == (
        f"{tmp_path / 'small.pth'}: found 12 blocks, encoder vitl has 24. Set model.encoder to vits (recipe.yaml:2)."
    )


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_a_v1_file_has_other_predictions_as_v2(kind: str, tmp_path: Path) -> None:
    # Without this, a version that nobody looks at would pass the table.
    weights = Official.from_ours(own("tiny", kind)[0].state_dict())
    torch.save(weights, tmp_path / "model.pth")
    image = drawn_image(126, 168)
    with torch.inference_mode():
        first, second = (
            whole_network(read_checkpoint(str(tmp_path / "model.pth"), **stated_of(kind), version=version))(image)
            for version in ("v1", "v2")
        )
    assert (first - second).abs().max() > 0.01 * (second.max() - second.min())

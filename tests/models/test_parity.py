"""Official weights give the official prediction: the stored ones, and (marked) those of the original itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finetune.models.depth_model import DepthModel
from finetune.models.encoder import Encoder
from finetune.models.encoder_specs import ENCODERS, GRID
from tests.drawn_weights import drawn_image, drawn_model, last_layer_that_varies, require_varied
from tests.golden.make import CASES, MAX_DEPTH_M, STRIDE, golden_path, original_network

TOLERANCE = 1e-4  # of the spread of the original's prediction, max - min


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a share of the spread."""
    return ((ours - theirs).abs().max() / (theirs.max() - theirs.min())).item()


def prediction_of(model: DepthModel, image: Tensor) -> Tensor:
    with torch.inference_mode():
        return model(image)


def resized_embedding(encoder: Encoder, height: int, width: int, antialias: bool) -> Tensor:
    """The position embedding without the offset of 0.1, or with it and antialiasing."""
    grid = encoder.pos_embed[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)
    if antialias:
        scale = ((height + 0.1) / GRID, (width + 0.1) / GRID)
        patches = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=True)
    else:
        patches = F.interpolate(grid, size=(height, width), mode="bicubic")
    return torch.cat((encoder.pos_embed[:, :1], patches.flatten(2).transpose(1, 2)), dim=1)


def with_v1_out_indices(model: DepthModel, image: Tensor) -> Tensor:
    depth = len(model.encoder.blocks)
    with patch.object(model.encoder, "out_indices", range(depth - 4, depth)):
        return prediction_of(model, image)


def with_no_offset(model: DepthModel, image: Tensor) -> Tensor:
    resized = partial(resized_embedding, model.encoder, antialias=False)
    with patch.object(model.encoder, "position_embedding", resized):
        return prediction_of(model, image)


def with_antialiasing(model: DepthModel, image: Tensor) -> Tensor:
    resized = partial(resized_embedding, model.encoder, antialias=True)
    with patch.object(model.encoder, "position_embedding", resized):
        return prediction_of(model, image)


def with_bgr(model: DepthModel, image: Tensor) -> Tensor:
    return prediction_of(model, image.flip(1))


def with_reversed_fusion(model: DepthModel, image: Tensor) -> Tensor:
    with patch.object(model.decoder, "fuse", model.decoder.fuse[::-1]):
        return prediction_of(model, image)


TWINS = (with_v1_out_indices, with_no_offset, with_antialiasing, with_bgr, with_reversed_fusion)
Twin = Callable[[DepthModel, Tensor], Tensor]


def golden(encoder: str, height: int, width: int, max_depth_m: float | None) -> tuple[Tensor, tuple[float, float]]:
    stored = np.load(golden_path(encoder, height, width, max_depth_m))
    scale, shift = stored["last_layer"].tolist()
    return torch.from_numpy(stored["answer"])[None, None], (scale, shift)


@pytest.mark.parametrize(("encoder", "height", "width", "max_depth_m"), CASES)
def test_stored_prediction(encoder: str, height: int, width: int, max_depth_m: float | None) -> None:
    theirs, last_layer = golden(encoder, height, width, max_depth_m)
    ours = prediction_of(drawn_model(encoder, max_depth_m, last_layer), drawn_image(height, width))
    require_varied(ours, max_depth_m)
    assert difference(ours[..., ::STRIDE, ::STRIDE], theirs) <= TOLERANCE


@pytest.mark.parametrize("twin", TWINS)
def test_stored_prediction_tells_a_wrong_network(twin: Twin) -> None:
    theirs, last_layer = golden("tiny", 126, 168, MAX_DEPTH_M)
    ours = twin(drawn_model("tiny", MAX_DEPTH_M, last_layer), drawn_image(126, 168))
    assert difference(ours[..., ::STRIDE, ::STRIDE], theirs) > TOLERANCE


ORIGINAL_CASES = (
    ("vits", 518, 518, None),
    ("vits", 518, 518, MAX_DEPTH_M),
    ("vits", 518, 686, None),
    ("vits", 518, 686, MAX_DEPTH_M),
    ("vits", 392, 1260, None),
    ("vits", 392, 1260, MAX_DEPTH_M),
    ("vitb", 392, 518, MAX_DEPTH_M),
    ("vitl", 392, 518, MAX_DEPTH_M),
    ("vitg", 140, 182, MAX_DEPTH_M),
)


@pytest.fixture
def vitg_of_two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 blocks are 4.5 GB; two of them, at the first and the third tap, show the same."""
    monkeypatch.setitem(ENCODERS, "vitg", replace(ENCODERS["vitg"], depth=2))


@pytest.mark.original
@pytest.mark.usefixtures("vitg_of_two_blocks")
@pytest.mark.parametrize(("encoder", "height", "width", "max_depth_m"), ORIGINAL_CASES)
def test_original_prediction_and_wrong_networks(
    encoder: str, height: int, width: int, max_depth_m: float | None
) -> None:
    image = drawn_image(height, width)
    last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m), image)
    network, _ = original_network(encoder, ENCODERS[encoder], last_layer, max_depth_m)
    theirs = network(image)
    require_varied(theirs, max_depth_m)
    model = drawn_model(encoder, max_depth_m, last_layer)
    share = difference(prediction_of(model, image), theirs)
    print(f"{encoder} {height}x{width} {max_depth_m}: {share:.1e} of the spread")
    assert share <= TOLERANCE
    # At 518x518 nothing is resized: the stored embedding is used as it is.
    resizing = (with_no_offset, with_antialiasing) if (height, width) == (518, 518) else ()
    for twin in TWINS if max_depth_m else ():
        if twin not in resizing:
            assert difference(twin(model, image), theirs) > TOLERANCE, twin.__name__

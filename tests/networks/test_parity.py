"""Official weights give the official answer: against stored answers, and (marked) against the original itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.networks.depth_model import DepthModel
from finetune.networks.encoder import Encoder
from finetune.networks.encoder_specs import ENCODERS, GRID
from tests.drawn_weights import drawn_image, drawn_model, last_layer_that_varies, require_varied
from tests.golden.make import CASES, MAX_DEPTH_M, STRIDE, golden_path, original_network

TOLERANCE = 1e-4  # of the spread of the original's answer, max - min


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, as a share of the spread."""
    return ((ours - theirs).abs().max() / (theirs.max() - theirs.min())).item()


def answer_of(model: DepthModel, image: Tensor) -> Tensor:
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


def with_v1_taps(model: DepthModel, image: Tensor) -> Tensor:
    depth = len(model.encoder.blocks)
    model.encoder.taps = (depth - 4, depth - 3, depth - 2, depth - 1)
    return answer_of(model, image)


def with_no_offset(model: DepthModel, image: Tensor) -> Tensor:
    resized = partial(resized_embedding, model.encoder, antialias=False)
    with patch.object(model.encoder, "position_embedding", resized):
        return answer_of(model, image)


def with_antialiasing(model: DepthModel, image: Tensor) -> Tensor:
    resized = partial(resized_embedding, model.encoder, antialias=True)
    with patch.object(model.encoder, "position_embedding", resized):
        return answer_of(model, image)


def with_bgr(model: DepthModel, image: Tensor) -> Tensor:
    return answer_of(model, image.flip(1))


def with_reversed_fusion(model: DepthModel, image: Tensor) -> Tensor:
    model.decoder.fuse = nn.ModuleList(reversed(model.decoder.fuse))
    return answer_of(model, image)


TWINS = (with_v1_taps, with_no_offset, with_antialiasing, with_bgr, with_reversed_fusion)
Twin = Callable[[DepthModel, Tensor], Tensor]


def golden(encoder: str, height: int, width: int, max_depth_m: float | None) -> tuple[Tensor, tuple[float, float]]:
    stored = np.load(golden_path(encoder, height, width, max_depth_m))
    scale, shift = stored["last_layer"].tolist()
    return torch.from_numpy(stored["answer"])[None, None], (scale, shift)


@pytest.mark.parametrize(("encoder", "height", "width", "max_depth_m"), CASES)
def test_stored_answer(encoder: str, height: int, width: int, max_depth_m: float | None) -> None:
    theirs, last_layer = golden(encoder, height, width, max_depth_m)
    ours = answer_of(drawn_model(encoder, max_depth_m, last_layer), drawn_image(height, width))
    require_varied(ours, max_depth_m)
    assert difference(ours[..., ::STRIDE, ::STRIDE], theirs) <= TOLERANCE


@pytest.mark.parametrize("twin", TWINS)
def test_stored_answer_tells_a_wrong_network(twin: Twin) -> None:
    theirs, last_layer = golden("tiny", 126, 168, MAX_DEPTH_M)
    ours = twin(drawn_model("tiny", MAX_DEPTH_M, last_layer), drawn_image(126, 168))
    assert difference(ours[..., ::STRIDE, ::STRIDE], theirs) > TOLERANCE


ORIGINAL_CASES = (
    ("vits", 518, 518),
    ("vits", 518, 686),
    ("vits", 392, 1260),
    ("vitb", 392, 518),
    ("vitl", 392, 518),
    ("vitg", 140, 182),
)


@pytest.fixture
def vitg_of_two_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 blocks are 4.5 GB; two of them, at the first and the third tap, show the same."""
    monkeypatch.setitem(ENCODERS, "vitg", replace(ENCODERS["vitg"], depth=2))


@lru_cache(maxsize=1)
def original_answer(
    encoder: str, height: int, width: int, max_depth_m: float | None
) -> tuple[Tensor, tuple[float, float]]:
    image = drawn_image(height, width)
    last_layer = last_layer_that_varies(drawn_model(encoder, max_depth_m), image)
    answer = original_network(encoder, ENCODERS[encoder], last_layer, max_depth_m)(image)
    require_varied(answer, max_depth_m)
    return answer, last_layer


@pytest.mark.original
@pytest.mark.usefixtures("vitg_of_two_blocks")
@pytest.mark.parametrize("max_depth_m", [None, MAX_DEPTH_M])
@pytest.mark.parametrize(("encoder", "height", "width"), ORIGINAL_CASES)
def test_original_answer(encoder: str, height: int, width: int, max_depth_m: float | None) -> None:
    theirs, last_layer = original_answer(encoder, height, width, max_depth_m)
    image = drawn_image(height, width)
    share = difference(answer_of(drawn_model(encoder, max_depth_m, last_layer), image), theirs)
    print(f"{encoder} {height}x{width} {max_depth_m}: {share:.1e} of the spread")
    assert share <= TOLERANCE


@pytest.mark.original
@pytest.mark.usefixtures("vitg_of_two_blocks")
@pytest.mark.parametrize(("encoder", "height", "width"), ORIGINAL_CASES)
def test_original_answer_tells_a_wrong_network(encoder: str, height: int, width: int) -> None:
    theirs, last_layer = original_answer(encoder, height, width, MAX_DEPTH_M)
    # At 518x518 nothing is resized: the stored embedding is used as it is.
    resizing = (with_no_offset, with_antialiasing) if (height, width) == (518, 518) else ()
    for twin in TWINS:
        if twin in resizing:
            continue
        answer = twin(drawn_model(encoder, MAX_DEPTH_M, last_layer), drawn_image(height, width))
        assert difference(answer, theirs) > TOLERANCE, twin.__name__

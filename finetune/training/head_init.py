"""How a model starts, with or without a checkpoint: what is kept, what is drawn anew, what is solved for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.evaluation.baselines import LabeledPixels
from finetune.models.checkpoints.fill import Coverage, fill
from finetune.models.checkpoints.load import Checkpoint
from finetune.models.depth_model import DepthModel
from finetune.recipe.schema import ModelOptions
from finetune.utils.errors import CheckpointError
from finetune.utils.kinds import IN_WORDS, Activation, Kind

CALIBRATION_IMAGES = 64
# The smallest and the largest share of max depth that the sigmoid is asked for: its ends are at infinity.
_LOWEST, _HIGHEST = 0.005, 0.995
# Penalty of the ridge regression, as a share of each feature's mean square: features of a ReLU are nearly collinear.
_RIDGE = 1e-4

# A drawn last layer predicts nearly one number. Below 0 the relative head's ReLU would cut it to 0 everywhere and
# let no gradient through; scale and shift are free, so any positive number will do.
_RELATIVE_BIAS = 1.0
# A drawn exponential starts where a drawn sigmoid does: at half of max depth.
_EXPONENTIAL_BIAS = -math.log(2.0)

# The last layer's drawn weights are scaled by this when a trained decoder makes its features. Training finds the scale
# from there; from larger weights it does not, because the sigmoid is flat.
_TAMED = 0.01


# What of a checkpoint is kept, by ``model.decoder_init``, as a run says it.
LOADED = {
    "scratch": "loaded: the whole encoder; the decoder is drawn anew",
    "pretrained": "loaded: the whole encoder, the decoder but its last layer, which is drawn anew",
    "calibrated": "loaded: the whole encoder, the decoder but its last layer, which is fitted to your frames",
    "keep": "loaded: every weight",
}


def resolve_decoder_init(options: ModelOptions, base: Checkpoint | None) -> str:
    """What ``auto`` means for the head of a recipe on a base; None: there is none."""
    if options.decoder_init != "auto":
        return options.decoder_init
    if base is None or not base.has_head:
        return "scratch"
    same = (base.kind, base.activation) == (options.head, options.head_activation)
    return "keep" if same or options.head != "metric" else "calibrated"


def draw_model(encoder: str, max_depth_m: float | None, seed: int, **variant: Any) -> DepthModel:
    """An untrained model with drawn weights; relative if ``max_depth_m`` is None.

    ``variant`` is what else ``DepthModel`` takes: version, position offset and activation.
    """
    model = DepthModel(encoder, max_depth_m, **variant)
    model.initialise(seed)
    start = {"relative": _RELATIVE_BIAS, "metric": _EXPONENTIAL_BIAS}.get(model.kind)
    if start is not None and model.activation != "sigmoid":
        assert model.head.last.bias is not None
        nn.init.constant_(model.head.last.bias, start)
    return model


def start_model(
    checkpoint: Checkpoint,
    decoder_init: str,
    *,
    max_depth_m: float | None,
    seed: int,
    where: str,
    rescale: bool = False,
    activation: Activation | None = None,
) -> tuple[DepthModel, Coverage]:
    """
    A model whose weights are as ``decoder_init`` says; after ``calibrated``, call ``solve_last_layer``.

    Args:
        checkpoint: what the recipe names.
        decoder_init: scratch, pretrained, calibrated or keep.
        max_depth_m: of the metric head, meters; None: the head is relative.
        seed: of everything that is drawn anew.
        where: where the recipe says ``model.max_depth_m``, for a relative head ``model.head``; for errors.
        rescale: ``keep`` also a metric base of another max depth; its predictions are scaled by the ratio.
        activation: as for ``DepthModel``.

    Raises:
        CheckpointError: a base without a decoder where one is kept; a relative head on a base of another kind; ``keep``
            of a relative base for a metric head, or of a metric base with another activation or, unless it is an
            exponential, another max depth.
    """
    if not checkpoint.has_head and decoder_init != "scratch":
        raise CheckpointError(
            checkpoint.source,
            f"is an encoder without a decoder, and model.decoder_init is {decoder_init}",
            "Set model.decoder_init: scratch, or use the weights of a whole network",
        )
    model = draw_model(
        checkpoint.encoder,
        max_depth_m,
        seed,
        version=checkpoint.version,
        position_offset=checkpoint.position_offset,
        activation=activation,
    )
    if max_depth_m is None:
        _require_head_of_base(checkpoint, model.kind, where)
    elif decoder_init == "keep":
        _require_keepable(checkpoint, model, max_depth_m, where, rescale)
    parts = {"scratch": "encoder", "pretrained": "all_but_last", "calibrated": "all_but_last", "keep": "all"}
    coverage = fill(model, checkpoint, parts[decoder_init])
    if decoder_init == "keep" and max_depth_m is not None and model.activation == "exp":
        # Max depth is but the unit of an exponential: another one moves the bias, and no prediction.
        assert model.head.last.bias is not None and checkpoint.max_depth_m is not None
        with torch.no_grad():
            model.head.last.bias.add_(math.log(checkpoint.max_depth_m / max_depth_m))
    if decoder_init == "pretrained" and model.activation != "relu":
        # A trained decoder's features, above all a relative one's, may be a thousand times larger than a drawn one's.
        with torch.no_grad():
            model.head.last.weight.mul_(_TAMED)
    return model, coverage


def solve_last_layer(
    last: nn.Conv2d, pixels: LabeledPixels, max_depth_m: float, activation: Activation = "sigmoid"
) -> None:
    """
    Set the last layer, a 1x1 convolution, to the ridge regression of logit(depth / max_depth_m) on its inputs; of
    log(depth / max_depth_m) for an exponential.

    The logit of depth is not linear in inverse depth, so scaling the old layer by two numbers is not enough; linear in
    the 32 features it nearly is. A small error dz of the logit changes depth by the share (1 - depth / max_depth_m) dz,
    so squares are weighted by that share squared: what is made small is the relative error. An error of the logarithm
    is a relative one already.

    Args:
        last: the layer to set.
        pixels: with the features that reach the layer.
        max_depth_m: of the head, meters.
        activation: of the head.
    """
    features = pixels.features.astype(np.float64)
    depth_m = pixels.depth_m[: len(features)].astype(np.float64)
    if pixels.canonical is not None:
        depth_m *= pixels.canonical[: len(features)]
    if activation == "exp":
        weights, bias = weighted_ridge(features, np.log(depth_m / max_depth_m), np.ones_like(depth_m))
    else:
        share = np.clip(depth_m / max_depth_m, _LOWEST, _HIGHEST)
        weights, bias = weighted_ridge(features, np.log(share / (1 - share)), np.square(1 - share))
    with torch.no_grad():
        last.weight.copy_(_shaped_like(last.weight, weights))
        assert last.bias is not None
        last.bias.fill_(bias)


def weighted_ridge(
    features: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """
    Args:
        features: (N, C).
        target: (N,).
        weight: (N,), >= 0, of each squared error.

    Returns:
        (C,) slopes and the intercept that minimize the weighted squares plus, on each slope, a penalty of ``_RIDGE``
        times its feature's weighted mean square. The intercept is free. A feature that hardly changes against its own
        size gets a small slope: a large one would multiply every later change of the weights below it.
    """
    weight = weight / weight.sum()
    feature_mean, target_mean = weight @ features, float(weight @ target)
    centered = features - feature_mean
    moments = centered.T @ (centered * weight[:, None])
    mean_square = np.diag(moments) + np.square(feature_mean)
    alive = mean_square > 0
    penalized = (moments + _RIDGE * np.diag(mean_square))[np.ix_(alive, alive)]
    slopes = np.zeros(features.shape[1])
    slopes[alive] = np.linalg.solve(penalized, centered[:, alive].T @ (weight * (target - target_mean)))
    return slopes, target_mean - float(slopes @ feature_mean)


def _shaped_like(like: Tensor, values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values).to(like).reshape(like.shape)


def _require_head_of_base(checkpoint: Checkpoint, head: Kind, where: str) -> None:
    if "relative_depth" in (checkpoint.kind, head) and checkpoint.kind not in (head, "encoder"):
        raise CheckpointError(
            checkpoint.source,
            f"it is {checkpoint.kind}, and model.head is {head}, for which its last layer was not trained",
            f"Set model.head: {checkpoint.kind} ({where}), or metric for meters",
        )
    if checkpoint.kind == "metric":
        raise CheckpointError(
            checkpoint.source,
            "it predicts meters, so a relative head would start with near and far turned around",
            f"Use a relative checkpoint, or set model.head: metric ({where})",
        )


def _require_keepable(checkpoint: Checkpoint, model: DepthModel, max_depth_m: float, where: str, rescale: bool) -> None:
    if checkpoint.kind in ("relative", "relative_depth"):
        raise CheckpointError(
            checkpoint.source,
            f"it predicts {IN_WORDS[checkpoint.kind]}, so there is no metric layer to keep",
            f"Set model.decoder_init: calibrated ({where})",
        )
    if checkpoint.activation != model.activation:
        raise CheckpointError(
            checkpoint.source,
            f"its last activation is {checkpoint.activation}, model.activation is {model.activation}",
            f"Set model.activation: {checkpoint.activation} to keep its predictions, or model.decoder_init: calibrated "
            f"to solve for them on your data ({where})",
        )
    if checkpoint.max_depth_m != max_depth_m and not rescale and model.activation == "sigmoid":
        raise CheckpointError(
            checkpoint.source,
            f"its max depth is {checkpoint.max_depth_m:g} m, the recipe says {max_depth_m:g}, and keeping the weights "
            f"would scale every prediction by {max_depth_m / (checkpoint.max_depth_m or max_depth_m):.3g}",
            f"Set model.max_depth_m: {checkpoint.max_depth_m:g} to keep its predictions, model.on_max_depth: rescale "
            f"to have them scaled, or model.decoder_init: calibrated to solve for them on your data ({where})",
        )

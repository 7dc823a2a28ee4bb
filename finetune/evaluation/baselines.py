"""What costs nothing: a constant, and the base model with one scale and one shift. Every table has them as rows.

They are fitted to AbsRel, the metric that people read first, so that none of them is weaker than it could be.

All are fitted to labeled training pixels. The same pixels show whether the base model is of the kind it is taken for,
and start the metric head (``decoder_init``), so they are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.preprocessing import Preprocessing
from finetune.data.reader import Reader, too_many_bad, try_read
from finetune.data.sample import DepthSample
from finetune.data.training_dataset import DepthRangePolicy
from finetune.evaluation.alignment import (
    DepthFit,
    InverseFit,
    fit_constant_abs_rel,
    fit_depth_abs_rel,
    fit_inverse_abs_rel,
    fit_scale_abs_rel,
    rank_correlation,
)
from finetune.evaluation.evaluator import PredictFunction, PredictionRequest
from finetune.models.checkpoints.hub import CheckpointKind
from finetune.models.depth_model import DepthModel
from finetune.utils.errors import CheckpointError, DataError
from finetune.utils.indices import evenly_spread
from finetune.utils.text import count_noun

MAX_IMAGES = 200
PIXELS_PER_IMAGE = 3125
# A metric model taken for a relative one ranks pixels almost exactly the wrong way round; an untrained one not at all.
WRONG_SIGN = -0.4


@dataclass(frozen=True, kw_only=True)
class LabeledPixels:
    """Pixels of training images with measured depth, and the base model's predictions there.

    Attributes:
        depth_m: (N,) measured depth, meters.
        prediction: (N,) of the base model: inverse depth, relative depth, or meters.
        image: (N,) the image of each pixel, counted from 0.
        features: (M, 32) inputs of the base's last layer for the first M pixels; M is as asked for.
        skipped: what is wrong with the images that cannot be read.
        canonical: (N,) what depth is multiplied by to become that of the canonical camera; None: there is none.
    """

    depth_m: NDArray[np.float32]
    prediction: NDArray[np.float32]
    image: NDArray[np.intp]
    features: NDArray[np.float32]
    skipped: tuple[str, ...] = ()
    canonical: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The rows that every table has next to the model.

    Attributes:
        median_m: the depth that ``constant_median`` predicts everywhere, meters.
        best_m: the depth that ``best_constant`` predicts everywhere, meters.
        base: makes meters of the base's prediction: a fit of inverse depth or of relative depth, or one factor for a
            metric base; None: no base.
        images: number of training images that they were fitted to.
        min_depth_m, max_depth_m: range that they were fitted in, meters.
    """

    median_m: float
    best_m: float
    base: InverseFit | DepthFit | float | None
    images: int
    min_depth_m: float
    max_depth_m: float

    def __str__(self) -> str:
        fit = "one scale" if isinstance(self.base, float) else "one scale and shift"
        base = "" if self.base is None else f"; base_fitted_scale is your checkpoint with {fit}"
        return (
            f"baselines from {count_noun(self.images, 'training frame')}: constant_median answers "
            f"{self.median_m:.3f} m everywhere, best_constant {self.best_m:.3f} m{base}"
        )

    def base_depth_m(
        self, prediction: NDArray[np.floating], min_depth_m: float, max_depth_m: float
    ) -> NDArray[np.floating]:
        """The base model's prediction in meters, within the range; same shape."""
        assert self.base is not None
        if isinstance(self.base, float):
            return np.clip(prediction * self.base, min_depth_m, max_depth_m)
        return self.base.depth_m(prediction, min_depth_m, max_depth_m)


def collect_labeled_pixels(
    base: DepthModel,
    readers: Sequence[Reader],
    preprocessing: Preprocessing,
    *,
    max_depth_m: float | None,
    images: int,
    images_with_features: int,
    skip_bad: bool = False,
    canonical_px: float | None = None,
) -> LabeledPixels:
    """
    Args:
        base: the base model, with its own decoder and head, on the device to use.
        readers: the training data; images are spread evenly over each.
        max_depth_m: measured depth beyond it is left out; None: only what is infinitely far is.
        images: how many images to look at, at most.
        images_with_features: from how many of them to keep the inputs of the last layer.
        skip_bad: leave out images that cannot be read, while they are few.
        canonical_px: focal length of the canonical camera, at the network's size; None: there is none.

    Raises:
        FileFault: an image cannot be read.
        DataError: none of the images has a pixel with measured depth in the range.
    """
    device = next(base.parameters()).device
    frames = _interleaved([evenly_spread(len(reader), max(1, images // len(readers))) for reader in readers])
    # Evenly spread as well, and put first so that their pixels are the first M.
    with_features = [frames[i] for i in evenly_spread(len(frames), images_with_features)]
    ordered = list(dict.fromkeys([*with_features, *frames]))
    depths, predictions, numbers, features, factors, skipped = [], [], [], [], [], list[str]()
    in_range = DepthRangePolicy(max_depth_m=max_depth_m)
    for number, found in _readable(readers, ordered, network=preprocessing, skip_bad=skip_bad, skipped=skipped):
        sample = in_range(found)
        depth_m, valid = preprocessing.whole(*sample.valid.shape).depth(sample.depth_m, sample.valid)
        chosen = np.random.default_rng((number,)).permutation(np.flatnonzero(valid))[:PIXELS_PER_IMAGE]
        image = torch.from_numpy(preprocessing(sample.image, size=sample.valid.shape))
        with torch.inference_mode():
            inputs = base.last_features(image[None].to(device))
            prediction = base.head(inputs)
        to_meters, to_canonical = _scale_by_lens(base, sample, preprocessing, canonical_px)
        factors.append(np.full(len(chosen), to_canonical, dtype=np.float32))
        indices = torch.from_numpy(chosen).to(device)
        depths.append(depth_m.reshape(-1)[chosen])
        predictions.append(prediction.reshape(-1)[indices].cpu().numpy() * np.float32(to_meters))
        numbers.append(np.full(len(chosen), number, dtype=np.intp))
        if number < len(with_features):
            features.append(inputs[0].flatten(1)[:, indices].T.float().cpu().numpy())
    if not sum(map(len, depths)):
        up_to = "" if max_depth_m is None else f" up to {max_depth_m:g} m"
        nothing = f"none of {len(ordered)} images has a pixel with measured depth{up_to}"
        raise DataError("data.train", nothing, "Check meters_per_unit, invalid and model.max_depth_m")
    return LabeledPixels(
        depth_m=np.concatenate(depths),
        prediction=np.concatenate(predictions),
        image=np.concatenate(numbers),
        features=np.concatenate(features),
        skipped=tuple(skipped),
        canonical=None if canonical_px is None else np.concatenate(factors),
    )


def _scale_by_lens(
    base: DepthModel, sample: DepthSample, preprocessing: Preprocessing, canonical_px: float | None
) -> tuple[float, float]:
    """What the base's prediction is multiplied by to become meters, and meters to become canonical depth."""
    if sample.camera is None:
        return 1.0, 1.0
    focal_px = preprocessing.focal_px(sample.camera, *sample.depth_m.shape)
    to_meters = base.camera.meters_factor(focal_px) if base.camera else 1.0
    return to_meters, 1.0 if canonical_px is None else canonical_px / focal_px


def _readable(
    readers: Sequence[Reader],
    frames: Sequence[tuple[int, int]],
    *,
    network: Preprocessing,
    skip_bad: bool,
    skipped: list[str],
) -> Iterator[tuple[int, DepthSample]]:
    """
    Args:
        frames: (reader, frame) pairs.
        network: what the network sees of an image, and how its file is decoded.
        skip_bad: leave out frames that cannot be read, while they are few.
        skipped: what is wrong with a frame that is left out is added to it.

    Yields:
        The position in ``frames`` and the sample of each frame that can be read.

    Raises:
        FileFault: a frame cannot be read, and may not be skipped or too many were.
    """
    decoded = [reader.decoded_for(network) for reader in readers]
    for number, (reader, frame) in enumerate(frames):
        found = try_read(decoded[reader], frame)
        if isinstance(found, DepthSample):
            yield number, found
            continue
        skipped.append(found.cause)
        if not skip_bad or too_many_bad(len(skipped), len(frames)):
            raise found


def fit_baselines(
    pixels: LabeledPixels, kind: CheckpointKind | None, *, min_depth_m: float, max_depth_m: float
) -> Baselines:
    """
    The baselines with the least AbsRel, each image counting once, as tables average.

    Args:
        pixels: of training images.
        kind: of the base model; None where there is none.
        min_depth_m, max_depth_m: the range that is scored; other pixels are left out unless there are no others.
    """
    scored = (pixels.depth_m >= min_depth_m) & (pixels.depth_m <= max_depth_m)
    scored = scored if scored.any() else np.ones_like(scored)
    target_m, prediction = pixels.depth_m[scored], pixels.prediction[scored]
    numbers, inverse, counts = np.unique(pixels.image[scored], return_inverse=True, return_counts=True)
    weight = 1.0 / (counts[inverse] * len(numbers))
    ends = {"min_depth_m": min_depth_m, "max_depth_m": max_depth_m}
    base: InverseFit | DepthFit | float | None = None
    if kind == "relative":
        base = fit_inverse_abs_rel(prediction, target_m, weight, **ends)
    elif kind == "relative_depth":
        base = fit_depth_abs_rel(prediction, target_m, weight, **ends)
    elif kind == "metric":
        base = fit_scale_abs_rel(np.maximum(prediction, 1e-6), target_m, weight, **ends)
    return Baselines(
        median_m=float(np.median(pixels.depth_m)),
        best_m=fit_constant_abs_rel(target_m, weight),
        base=base,
        images=len(numbers),
        **ends,
    )


def require_kind(pixels: LabeledPixels, kind: CheckpointKind, source: str, where: str) -> None:
    """
    Inverse depth rises with 1 / depth, the others with depth; the wrong sign stops the run.

    Args:
        kind: what the checkpoint is taken for.
        source: the checkpoint, for the error.
        where: where the recipe says so, for the error.

    Raises:
        CheckpointError: the predictions for most images rank their pixels the other way round.
    """
    toward = 1.0 / pixels.depth_m if kind == "relative" else pixels.depth_m
    numbers = np.unique(pixels.image)
    correlations = [
        rank_correlation(pixels.prediction[pixels.image == number], toward[pixels.image == number])
        for number in numbers
    ]
    median = float(np.median(correlations))
    if median >= WRONG_SIGN:
        return
    other = "metric" if kind == "relative" else "relative"
    rises = "depth" if kind == "relative" else "1/depth"
    raise CheckpointError(
        source,
        f"taken for a {kind} model, but on {len(numbers)} labeled images its prediction rises with {rises} "
        f"(rank correlation {-median:.2f})",
        f"Set model.checkpoint_kind: {other} ({where}). If it is as it should be, set data.accept: [checkpoint_kind]",
    )


def _interleaved(frames: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(reader, frame) pairs in an order that visits all readers evenly."""
    placed = [
        ((i + 0.5) / len(of_reader), reader, frame)
        for reader, of_reader in enumerate(frames)
        for i, frame in enumerate(of_reader)
    ]
    return [(reader, frame) for _, reader, frame in sorted(placed)]


def predict_constant(baselines: Baselines | None) -> PredictFunction:
    """The training median everywhere; for a relative run every number gives the same after the alignment."""
    return predict_everywhere(baselines.median_m if baselines else 1.0)


def predict_everywhere(value: float) -> PredictFunction:
    """One number for every pixel."""

    def predict(requests: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        return [torch.full(request.size, value).numpy() for request in requests]

    return predict

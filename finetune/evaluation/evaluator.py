"""Metrics over a whole validation set: each image once, in any number of processes, every row over the same pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.dataloader import ErrorCapturingDataset, make_loader, raise_worker_errors
from finetune.data.lenses import group_focal_lengths
from finetune.data.sample import DepthSample
from finetune.data.validation_dataset import ValidationSample, ValidationSamples
from finetune.evaluation.metrics import TargetDepth
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import BIN_ENDS, UNALIGNED, EntryEvaluation, Evaluation, ScoredImage
from finetune.models.arithmetic import Precision, autocast_to
from finetune.models.depth_model import DepthModel
from finetune.models.resizing import resize_prediction
from finetune.models.training_camera import TrainingCamera
from finetune.utils.errors import DataError, FinetuneError, ResultError
from finetune.utils.signals import StopAsked
from finetune.utils.text import percent

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionRequest:
    """One image of a validation frame, to be predicted.

    Attributes:
        image: (1, 3, h, w), normalized, as the network sees it.
        size: (height, width) of the prediction, pixels.
        number: of the frame among all validation frames.
        image_crop: which part of the frame the image is, a name that ``crop_for_protocol`` knows.
        align_corners: of the bilinear resize to ``size``.
        focal_px: of the image at the size of ``image``, pixels; None where its camera is not known.
    """

    image: Tensor
    size: tuple[int, int]
    number: int = 0
    image_crop: str = "none"
    align_corners: bool = True
    focal_px: float | None = None


# Predicts many validation images at once, each at the size that its request names: (height, width), meters, or inverse
# depth of a relative model. Not ``export.base.PredictImage``, which takes one photo and preprocesses it itself.
PredictFunction = Callable[[Sequence[PredictionRequest]], list[NDArray[np.floating]]]


@dataclass(frozen=True, kw_only=True)
class ScaledBaseline:
    """A prediction that becomes meters by a fit to training data, within the range of the protocol.

    Attributes:
        predict: gives the prediction that was fitted.
        depth_m: prediction, min depth and max depth in meters -> meters.
    """

    predict: PredictFunction
    depth_m: Callable[[NDArray[np.floating], float, float], NDArray[np.floating]]


Row = PredictFunction | ScaledBaseline


def predict_one(
    predict: PredictFunction, image: Tensor, size: tuple[int, int], focal_px: float | None = None
) -> NDArray[np.floating]:
    """(height, width): the prediction for one (1, 3, h, w) normalized image; ``focal_px`` at that size."""
    (prediction,) = predict([PredictionRequest(image=image, size=size, focal_px=focal_px)])
    return prediction


def predict_with_network(
    model: DepthModel, *, assume_training_camera: bool = False, precision: Precision = "fp32", compiled: bool = False
) -> PredictFunction:
    """
    The model's own prediction, resized as the original does; without a caller's autocast, so that all commands agree.

    Args:
        model: one that is canonical needs the focal length of every request, and gives meters of that camera.
        assume_training_camera: take every image for one of the canonical camera.
        precision: of products and convolutions.
        compiled: compile the network at its first batch.
    """
    # Accelerate wraps model.forward in autocast; call the class's forward to bypass it.
    forward = torch.compile(type(model).forward) if compiled else type(model).forward
    device = next(model.parameters()).device

    def predict(requests: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        resized: dict[int, NDArray[np.floating]] = {}
        for indices in _group_by_shape([request.image for request in requests]):
            batch = torch.cat([requests[i].image for i in indices]).to(device)
            with torch.inference_mode(), autocast_to(precision, device):
                predictions = forward(model, batch)
            for i, prediction in zip(indices, predictions, strict=True):
                corners = requests[i].align_corners
                resized[i] = resize_prediction(prediction[None], requests[i].size, align_corners=corners)
                if model.camera is not None and model.camera.is_canonical and not assume_training_camera:
                    resized[i] = resized[i] * np.float32(_meters_factor(model.camera, requests[i]))
        return [resized[i] for i in range(len(requests))]

    return predict


def _meters_factor(camera: TrainingCamera, request: PredictionRequest) -> float:
    """
    Raises:
        FinetuneError: the camera of the frame is not known.
    """
    if request.focal_px is None:
        raise FinetuneError(
            f"frame {request.number} of data.val has no camera, and the model predicts meters only with one. Give its "
            "entry intrinsics, give --intrinsics FX,FY,CX,CY, or assume the training camera: --camera training."
        )
    return camera.meters_factor(request.focal_px)


def _group_by_shape(images: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the images, those of one shape in one list."""
    groups: dict[torch.Size, list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(image.shape, []).append(i)
    return list(groups.values())


def evaluate(
    accelerator: Accelerator,
    samples: ValidationSamples,
    rows: Mapping[str, Row],
    protocols: Sequence[Protocol],
    *,
    workers: int,
    batch_size: int = 1,
    stop: Callable[[], bool] = lambda: False,
) -> list[Evaluation]:
    """
    Args:
        accelerator: all its processes must call; each takes every world-size-th batch.
        samples: validation data, with the image crops of the protocols.
        rows: row of the table -> what predicts it; each predicts once what several protocols share.
        protocols: how predictions are compared.
        workers: of the loader.
        batch_size: images that are predicted at once, where the network sees them in one size. Neighbors in a batch
            change how a network's sums are rounded, by some 1e-6 of a depth. So batches are cut from all frames, and
            never from the share of one process: the table is bit-equal on any number of processes that have the same
            number of threads, which also changes the order of rounding.
        stop: whether this process should end; asked before each batch.

    Returns:
        A table for each protocol, the same in every process: means over images, summed in float64.

    Raises:
        DataError: under one of the protocols no image has a pixel that counts.
        ResultError: a prediction is not a finite number where it counts.
        StopAsked: ``stop`` is true in one of the processes; raised in all of them.
    """
    scored: list[list[ScoredImage]] = [[] for _ in protocols]
    skipped: list[list[int]] = [[] for _ in protocols]
    share = _share(accelerator, samples, workers, batch_size)
    # As many threads as the networks use, which are idle meanwhile.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while not (stopped := stop()) and (batch := list(islice(share, batch_size))):
            predictions = _predict_all(batch, rows, protocols)
            for which, number, scores in _score(batch, rows, protocols, predictions, pool):
                if scores is None:
                    skipped[which].append(number)
                else:
                    scored[which].append(scores)
    if any(gather_object([stopped]) if accelerator.num_processes > 1 else [stopped]):
        raise StopAsked
    if accelerator.num_processes > 1:
        scored = [gather_object(images) for images in scored]
        skipped = [gather_object(numbers) for numbers in skipped]
    return [
        _evaluation(protocol, sorted(used, key=lambda image: image.number), unused, samples)
        for protocol, used, unused in zip(protocols, scored, skipped, strict=True)
    ]


def compare_predictions(
    frame: ValidationSample, rows: Mapping[str, Row], protocol: Protocol
) -> dict[str, NDArray[np.floating]]:
    """Row -> (H, W), its prediction for one frame under a protocol, before any alignment."""
    predictions = _predict_all([frame], rows, [protocol])
    return {name: _row_prediction(row, protocol, predictions, 0) for name, row in rows.items()}


# What identifies a prediction: id of the function, view, whether corners align, whether the image is mirrored.
_Key = tuple[int, str, bool, bool]


def _predict_all(
    batch: Sequence[ValidationSample], rows: Mapping[str, Row], protocols: Sequence[Protocol]
) -> dict[_Key, list[NDArray[np.floating]]]:
    """All predictions for a batch that the protocols need, each computed once."""
    found: dict[_Key, list[NDArray[np.floating]]] = {}
    for settings in (protocol.settings for protocol in protocols):
        requests = []
        for frame in batch:
            image, sample = frame.views[settings.image_crop]
            requests.append(
                PredictionRequest(
                    image=image,
                    size=(sample.depth_m.shape[0], sample.depth_m.shape[1]),
                    number=frame.number,
                    image_crop=settings.image_crop,
                    align_corners=settings.align_corners,
                    focal_px=frame.focals_px.get(settings.image_crop),
                )
            )
        for predict in {id(row): row for row in map(_predict_function_of, rows.values())}.values():
            key = (id(predict), settings.image_crop, settings.align_corners)
            if (*key, False) not in found:
                found[*key, False] = predict(requests)
            if settings.flip and (*key, True) not in found:
                mirrored = predict([replace(request, image=request.image.flip(-1)) for request in requests])
                found[*key, True] = [prediction[:, ::-1] for prediction in mirrored]
    return found


def _predict_function_of(row: Row) -> PredictFunction:
    return row.predict if isinstance(row, ScaledBaseline) else row


def _row_prediction(
    row: Row, protocol: Protocol, predictions: Mapping[_Key, Sequence[NDArray[np.floating]]], i: int
) -> NDArray[np.floating]:
    """The prediction of a row for image ``i`` of the batch, before any alignment."""
    settings = protocol.settings
    key = (id(_predict_function_of(row)), settings.image_crop, settings.align_corners)
    prediction = predictions[*key, False][i]
    if settings.flip:
        prediction = (prediction + predictions[*key, True][i]) / 2
    if isinstance(row, ScaledBaseline):
        return row.depth_m(prediction, protocol.min_depth_m, protocol.max_depth_m)
    return prediction


class _Target(NamedTuple):
    """The measured depth of an image under a protocol, for all rows.

    Attributes:
        sample: the view that the protocol sees.
        usable: (H, W), the pixels that count.
        depth: of these pixels.
        bins: the bin of each by measured distance.
    """

    sample: DepthSample
    usable: NDArray[np.bool_]
    depth: TargetDepth
    bins: NDArray[np.intp]


class _ScoredRow(NamedTuple):
    """One row on one image, as the parts of ``ScoredImage``."""

    scores: Mapping[str, float]
    mean_log: float
    errors_mm: tuple[float, float, float]
    bins: NDArray[np.float64]


def _target_of(protocol: Protocol, frame: ValidationSample) -> _Target | None:
    """None where no pixel of the image counts."""
    _, sample = frame.views[protocol.settings.image_crop]
    usable = protocol.usable(sample.depth_m, sample.valid, sample.source)
    if not usable.any():
        return None
    depth_m = sample.depth_m[usable].astype(np.float64)
    ends = np.array(BIN_ENDS[1:-1]) * protocol.max_depth_m
    return _Target(sample, usable, TargetDepth(depth_m), np.searchsorted(ends, depth_m, side="left"))


def _score_row(
    protocol: Protocol, target: _Target, name: str, prediction: NDArray[np.floating]
) -> dict[str, _ScoredRow]:
    """The row on the image; where the protocol aligns meters, also without the alignment."""
    _require_finite_prediction(name, prediction[target.usable], target.sample.source)
    compared = {name: protocol.depth_m(prediction, target.sample.depth_m, target.usable)}
    if protocol.aligns and protocol.kind == "metric":
        compared[f"{name}{UNALIGNED}"] = prediction
    return {row: _score_pixels(protocol, target, pred_m[target.usable]) for row, pred_m in compared.items()}


def _score_pixels(protocol: Protocol, target: _Target, pred_m: NDArray[np.floating]) -> _ScoredRow:
    compared = protocol.compared(pred_m, target.depth)
    error_m = compared.error_m
    median, p90 = np.percentile(error_m, (50, 90))
    errors_mm = (1000 * float(error_m.mean()), 1000 * float(median), 1000 * float(p90))
    weights = (None, error_m, compared.relative)
    sums = [np.bincount(target.bins, weight, len(BIN_ENDS) - 1) for weight in weights]
    bins = np.stack(sums, axis=1).astype(np.float64)
    return _ScoredRow(protocol.scores(compared), compared.mean_log, errors_mm, bins)


def _score(
    batch: Sequence[ValidationSample],
    rows: Mapping[str, Row],
    protocols: Sequence[Protocol],
    predictions: Mapping[_Key, Sequence[NDArray[np.floating]]],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, int, ScoredImage | None]]:
    """
    Yields:
        Index of the protocol, number of the image, and its scores; None where no pixel of it counts.

    Each row on each image is one task for the threads, and NumPy runs them at the same time. No sum goes over more than
    one task, so the bits do not depend on the number of threads.
    """
    images = [(which, i) for which in range(len(protocols)) for i in range(len(batch))]
    targets = list(pool.map(lambda image: _target_of(protocols[image[0]], batch[image[1]]), images))

    def score(task: tuple[int, int, _Target, str]) -> dict[str, _ScoredRow]:
        which, i, target, name = task
        prediction = _row_prediction(rows[name], protocols[which], predictions, i)
        return _score_row(protocols[which], target, name, prediction)

    tasks = [(*image, target, name) for image, target in zip(images, targets, strict=True) if target for name in rows]
    done = pool.map(score, tasks)
    for (which, i), target in zip(images, targets, strict=True):
        if target is None:
            yield which, batch[i].number, None
            continue
        scored = [next(done) for _ in rows]
        aligned_first = sorted(
            (row for of_row in scored for row in of_row.items()), key=lambda row: row[0].endswith(UNALIGNED)
        )
        yield (
            which,
            batch[i].number,
            ScoredImage(
                batch[i].number,
                int(target.usable.sum()),
                {name: row.scores for name, row in aligned_first},
                {name: row.mean_log for name, row in aligned_first},
                {name: row.errors_mm for name, row in aligned_first},
                {name: row.bins for name, row in aligned_first},
                batch[i].focals_px.get(protocols[which].settings.image_crop),
            ),
        )


def _require_finite_prediction(row: str, prediction: NDArray[np.floating], source: str) -> None:
    """
    Raises:
        ResultError: some of the (N,) predictions that count are NaN or infinite. Published scripts score such a pixel
            as near or far, which would give a broken network a number.
    """
    wrong = 1 - np.mean(np.isfinite(prediction))
    if wrong:
        raise ResultError(
            f"{source}: {row} predicts NaN or infinity at {percent(wrong, 1)} of the pixels that count. Weights that "
            "do so are broken or overflow at this size: train again from weights that predict numbers, at a lower lr. "
            "A file needs a depth wherever depth was measured."
        )


def _evaluation(
    protocol: Protocol, images: list[ScoredImage], skipped: Sequence[int], samples: ValidationSamples
) -> Evaluation:
    if not images:
        crop = "" if protocol.settings.crop == "none" else f" within the {protocol.settings.crop} crop"
        raise DataError(
            "data.val",
            f"0 of {len(skipped)} images had valid pixels from {protocol.min_depth_m:g} to {protocol.max_depth_m:g} m"
            f"{crop}",
            "Check meters_per_unit and invalid of data.val, and evaluation.max_depth_m",
        )
    names = list(images[0].rows)
    entries: dict[str, EntryEvaluation] = {}
    for entry in range(samples.entries) if samples.entries > 1 else ():
        of_entry = [image for image in images if samples.locate(image.number)[0] == entry]
        entries[samples.names[entry]] = EntryEvaluation(
            rows=_rows(protocol, of_entry, names) if of_entry else {},
            images_used=len(of_entry),
            images_skipped=sum(samples.locate(number)[0] == entry for number in skipped),
            pixels_used=sum(image.pixels for image in of_entry),
        )
    return Evaluation(
        protocol=protocol,
        rows=_rows(protocol, images, names),
        images_used=len(images),
        images_skipped=len(skipped),
        pixels_used=sum(image.pixels for image in images),
        errors_mm={name: _errors(images, name) for name in names},
        bins={name: _bins(protocol, images, name) for name in names},
        entries=entries,
        lenses=_lenses(protocol, images, names),
        images=images,
    )


def _lenses(protocol: Protocol, images: Sequence[ScoredImage], names: Sequence[str]) -> dict[str, EntryEvaluation]:
    """The table over the images of each lens; empty where there is one lens."""
    focals_px = [image.focal_px for image in images if image.focal_px is not None]
    found = {}
    for lens in group_focal_lengths(focals_px):
        of_lens = [image for image in images if image.focal_px is not None and lens.holds(image.focal_px)]
        found[str(lens)] = EntryEvaluation(
            rows=_rows(protocol, of_lens, names),
            images_used=len(of_lens),
            images_skipped=0,
            pixels_used=sum(image.pixels for image in of_lens),
        )
    return found if len(found) > 1 else {}


def _rows(protocol: Protocol, images: Sequence[ScoredImage], names: Sequence[str]) -> dict[str, dict[str, float]]:
    pixels = [image.pixels for image in images]
    return {
        name: protocol.mean([image.rows[name] for image in images], pixels, [image.mean_logs[name] for image in images])
        for name in names
    }


def _errors(images: Sequence[ScoredImage], name: str) -> dict[str, float]:
    columns = zip(*(image.errors_mm[name] for image in images), strict=True)
    means = (math.fsum(column) / len(images) for column in columns)
    return dict(zip(("mean", "median", "p90"), means, strict=True))


def _bins(protocol: Protocol, images: Sequence[ScoredImage], name: str) -> list[dict[str, float | None]]:
    found: list[dict[str, float | None]] = []
    for i, (start, end) in enumerate(pairwise(BIN_ENDS)):
        pixels, error_m, relative = (math.fsum(image.bins[name][i, column] for image in images) for column in range(3))
        found.append(
            {
                "from_m": start * protocol.max_depth_m,
                "to_m": end * protocol.max_depth_m,
                "pixels": int(pixels),
                "abs_rel": relative / pixels if pixels else None,
                "mean_error_m": error_m / pixels if pixels else None,
            }
        )
    return found


def _share(
    accelerator: Accelerator, samples: ValidationSamples, workers: int, batch_size: int
) -> Iterator[ValidationSample]:
    """The images of this process: whole batches of neighbors, and each image in exactly one process."""
    starts = range(accelerator.process_index * batch_size, len(samples), accelerator.num_processes * batch_size)
    indices = [index for start in starts for index in range(start, min(start + batch_size, len(samples)))]
    loader = make_loader(
        ErrorCapturingDataset(samples),
        batch_size=None,
        sampler=indices,
        num_workers=min(workers, len(indices)),
        collate_fn=_as_is,
        generator=torch.Generator(),
    )
    return raise_worker_errors(loader)


def _as_is(sample: T) -> T:
    return sample

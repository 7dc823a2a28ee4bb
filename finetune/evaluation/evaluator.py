"""Metrics over a whole validation set: each image once, from all processes, every row over the same pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from finetune.data.dataloader import ErrorCapturingDataset, init_worker, raise_worker_errors
from finetune.data.sample import DepthSample
from finetune.data.validation_dataset import ValidationSample, ValidationSamples
from finetune.evaluation.metrics import TargetDepth
from finetune.evaluation.protocols import Protocol
from finetune.evaluation.results import BIN_ENDS, UNALIGNED, EntryEvaluation, Evaluation, ScoredImage
from finetune.models.depth_model import DepthModel
from finetune.models.resizing import resize_prediction
from finetune.utils.errors import DataError, ResultError
from finetune.utils.signals import StopAsked
from finetune.utils.text import percent


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionRequest:
    """What an answer is asked for.

    Attributes:
        image: (1, 3, h, w), normalized, as the network sees it.
        size: (height, width) of the answer, pixels.
        number: of the frame among all validation frames.
        image_crop: what of the frame the image is, a name that ``crop_for_protocol`` knows.
        align_corners: of the bilinear resize to ``size``.
    """

    image: Tensor
    size: tuple[int, int]
    number: int = 0
    image_crop: str = "none"
    align_corners: bool = True


# (height, width) for each of those asked for: meters, or inverse depth of a relative model.
PredictFunction = Callable[[Sequence[PredictionRequest]], list[NDArray[np.floating]]]


@dataclass(frozen=True, kw_only=True)
class ScaledBaseline:
    """An answer that becomes meters by a fit to training data, within the range of the protocol.

    Attributes:
        predict: what is fitted.
        depth_m: answer, min depth and max depth in meters -> meters.
    """

    predict: PredictFunction
    depth_m: Callable[[NDArray[np.floating], float, float], NDArray[np.floating]]


Row = PredictFunction | ScaledBaseline


def predict_one(predict: PredictFunction, image: Tensor, size: tuple[int, int]) -> NDArray[np.floating]:
    """(height, width): the answer to one (1, 3, h, w) normalized image."""
    (found,) = predict([PredictionRequest(image=image, size=size)])
    return found


def predict_with_network(model: DepthModel) -> PredictFunction:
    """The model's own answer, resized as the original does; without autocast, so that every command agrees."""
    # Accelerate lays its autocast around the forward of the object; that of the class is still without.
    forward = type(model).forward
    device = next(model.parameters()).device

    def predict(asked: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        found: dict[int, NDArray[np.floating]] = {}
        for places in _of_one_shape([one.image for one in asked]):
            batch = torch.cat([asked[place].image for place in places]).to(device)
            with torch.inference_mode(), torch.autocast(device.type, enabled=False):
                predictions = forward(model, batch)
            for place, one in zip(places, predictions, strict=True):
                corners = asked[place].align_corners
                found[place] = resize_prediction(one[None], asked[place].size, align_corners=corners)
        return [found[place] for place in range(len(asked))]

    return predict


def _of_one_shape(images: Sequence[Tensor]) -> list[list[int]]:
    """Places of the images, those of one shape together."""
    groups: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
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
        rows: row of the table -> what answers; each network is asked once for what several protocols share.
        protocols: how answers are compared.
        workers: of the loader.
        batch_size: images that are asked for at once, where the network sees them in one size. Neighbors in a batch
            change how a network's sums are rounded, by some 1e-6 of a depth; so batches are cut from all frames, and
            never from what one process has: a table is the same bit by bit on any number of processes, if each has
            as many threads, which round in an order of their own as well.
        stop: whether this process is to end; asked before each batch.

    Returns:
        A table for each protocol, the same in every process: means over images, summed in float64.

    Raises:
        DataError: under one of the protocols no image has a pixel that counts.
        ResultError: an answer is not a finite number where it counts.
        StopAsked: ``stop`` said so in one of the processes; raised in all of them.
    """
    scored: list[list[ScoredImage]] = [[] for _ in protocols]
    skipped: list[list[int]] = [[] for _ in protocols]
    share = _share(accelerator, samples, workers, batch_size)
    # As many threads as the networks have, which rest meanwhile.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        while not (stopped := stop()) and (batch := list(islice(share, batch_size))):
            found = _predict_all(batch, rows, protocols)
            for turn, number, scores in _score(batch, rows, protocols, found, pool):
                if scores is None:
                    skipped[turn].append(number)
                else:
                    scored[turn].append(scores)
    if any(gather_object([stopped]) if accelerator.num_processes > 1 else [stopped]):
        raise StopAsked
    if accelerator.num_processes > 1:
        scored, skipped = _gathered(scored), _gathered(skipped)
    return [
        _evaluation(protocol, sorted(used, key=lambda one: one.number), unused, samples)
        for protocol, used, unused in zip(protocols, scored, skipped, strict=True)
    ]


def compare_predictions(
    one: ValidationSample, rows: Mapping[str, Row], protocol: Protocol
) -> dict[str, NDArray[np.floating]]:
    """Row -> (H, W), what it says to one frame under a protocol, before it is aligned."""
    found = _predict_all([one], rows, [protocol])
    return {name: _of_row(row, protocol, found, 0) for name, row in rows.items()}


# What was asked of an answer: itself, the view, whether corners align, and whether the image was mirrored.
_Key = tuple[int, str, bool, bool]


def _predict_all(
    batch: Sequence[ValidationSample], rows: Mapping[str, Row], protocols: Sequence[Protocol]
) -> dict[_Key, list[NDArray[np.floating]]]:
    """Everything that the protocols need of a batch, each asked for once."""
    found: dict[_Key, list[NDArray[np.floating]]] = {}
    for settings in (protocol.settings for protocol in protocols):
        asked = []
        for one in batch:
            image, sample = one.views[settings.image_crop]
            asked.append(
                PredictionRequest(
                    image=image,
                    size=(sample.depth_m.shape[0], sample.depth_m.shape[1]),
                    number=one.number,
                    image_crop=settings.image_crop,
                    align_corners=settings.align_corners,
                )
            )
        for predict in {id(row): row for row in map(_predict_function_of, rows.values())}.values():
            key = (id(predict), settings.image_crop, settings.align_corners)
            if (*key, False) not in found:
                found[*key, False] = predict(asked)
            if settings.flip and (*key, True) not in found:
                mirrored = predict([replace(one, image=one.image.flip(-1)) for one in asked])
                found[*key, True] = [one[:, ::-1] for one in mirrored]
    return found


def _predict_function_of(row: Row) -> PredictFunction:
    return row.predict if isinstance(row, ScaledBaseline) else row


def _of_row(
    row: Row, protocol: Protocol, found: Mapping[_Key, Sequence[NDArray[np.floating]]], place: int
) -> NDArray[np.floating]:
    """What a row says to one image of the batch, before it is aligned."""
    settings = protocol.settings
    key = (id(_predict_function_of(row)), settings.image_crop, settings.align_corners)
    prediction = found[*key, False][place]
    if settings.flip:
        prediction = (prediction + found[*key, True][place]) / 2
    if isinstance(row, ScaledBaseline):
        return row.depth_m(prediction, protocol.min_depth_m, protocol.max_depth_m)
    return prediction


class _Target(NamedTuple):
    """What an image measured under a protocol, for all rows.

    Attributes:
        sample: the view that the protocol sees.
        usable: (H, W), the pixels that count.
        depth: of these pixels.
        places: the bin of each by measured distance.
    """

    sample: DepthSample
    usable: NDArray[np.bool_]
    depth: TargetDepth
    places: NDArray[np.intp]


class _ScoredRow(NamedTuple):
    """One row on one image; as the parts of ``ScoredImage``."""

    scores: Mapping[str, float]
    mean_log: float
    errors_mm: tuple[float, float, float]
    bins: NDArray[np.float64]


def _target(protocol: Protocol, one: ValidationSample) -> _Target | None:
    """None where no pixel of the image counts."""
    _, sample = one.views[protocol.settings.image_crop]
    usable = protocol.usable(sample.depth_m, sample.valid, sample.source)
    if not usable.any():
        return None
    depth_m = sample.depth_m[usable].astype(np.float64)
    ends = np.array(BIN_ENDS[1:-1]) * protocol.max_depth_m
    return _Target(sample, usable, TargetDepth(depth_m), np.searchsorted(ends, depth_m, side="left"))


def _scored_rows(
    protocol: Protocol, target: _Target, name: str, prediction: NDArray[np.floating]
) -> dict[str, _ScoredRow]:
    """The row on the image, and where the protocol aligns meters, also as it is."""
    _require_finite(name, prediction[target.usable], target.sample.source)
    compared = {name: protocol.depth_m(prediction, target.sample.depth_m, target.usable)}
    if protocol.aligns and protocol.kind == "metric":
        compared[f"{name}{UNALIGNED}"] = prediction
    return {row: _scored_row(protocol, target, pred_m[target.usable]) for row, pred_m in compared.items()}


def _scored_row(protocol: Protocol, target: _Target, pred_m: NDArray[np.floating]) -> _ScoredRow:
    found = protocol.compared(pred_m, target.depth)
    error_m = found.error_m
    median, p90 = np.percentile(error_m, (50, 90))
    errors_mm = (1000 * float(error_m.mean()), 1000 * float(median), 1000 * float(p90))
    weights = (None, error_m, found.relative)
    sums = [np.bincount(target.places, weight, len(BIN_ENDS) - 1) for weight in weights]
    bins = np.stack(sums, axis=1).astype(np.float64)
    return _ScoredRow(protocol.scores(found), found.mean_log, errors_mm, bins)


def _score(
    batch: Sequence[ValidationSample],
    rows: Mapping[str, Row],
    protocols: Sequence[Protocol],
    found: Mapping[_Key, Sequence[NDArray[np.floating]]],
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[int, int, ScoredImage | None]]:
    """Place of the protocol, number of the image, and its scores; None where no pixel of it counts.

    A row on an image is a piece of work by itself, so that threads share them out; NumPy lets others run meanwhile, and
    no sum goes over more than one piece, so that the bits do not depend on how many threads there are.
    """
    images = [(turn, place) for turn in range(len(protocols)) for place in range(len(batch))]
    targets = list(pool.map(lambda image: _target(protocols[image[0]], batch[image[1]]), images))

    def scored(work: tuple[int, int, _Target, str]) -> dict[str, _ScoredRow]:
        turn, place, target, name = work
        return _scored_rows(protocols[turn], target, name, _of_row(rows[name], protocols[turn], found, place))

    pieces = [(*image, target, name) for image, target in zip(images, targets, strict=True) if target for name in rows]
    done = pool.map(scored, pieces)
    for (turn, place), target in zip(images, targets, strict=True):
        if target is None:
            yield turn, batch[place].number, None
            continue
        of_rows = [next(done) for _ in rows]
        aligned_first = sorted(
            (row for one in of_rows for row in one.items()), key=lambda row: row[0].endswith(UNALIGNED)
        )
        yield (
            turn,
            batch[place].number,
            ScoredImage(
                batch[place].number,
                int(target.usable.sum()),
                {name: row.scores for name, row in aligned_first},
                {name: row.mean_log for name, row in aligned_first},
                {name: row.errors_mm for name, row in aligned_first},
                {name: row.bins for name, row in aligned_first},
            ),
        )


def _require_finite(row: str, prediction: NDArray[np.floating], source: str) -> None:
    """
    Raises:
        ResultError: some of the (N,) answers that count are NaN or infinite. To score such a pixel as near or far, as
            is published practice, would give a broken network a number.
    """
    wrong = 1 - np.mean(np.isfinite(prediction))
    if wrong:
        raise ResultError(
            f"{source}: {row} answers NaN or infinite at {percent(wrong, 1)} of the pixels that count. "
            "Its weights are broken, or overflow at this size; train again from weights that answer, at a lower rate."
        )


def _gathered(of_protocols: list[list[Any]]) -> list[list[Any]]:
    """Those of all processes, for each protocol."""
    return [gather_object(one) for one in of_protocols]


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
        of_entry = [one for one in images if samples.place(one.number)[0] == entry]
        entries[samples.names[entry]] = EntryEvaluation(
            rows=_rows(protocol, of_entry, names) if of_entry else {},
            images_used=len(of_entry),
            images_skipped=sum(samples.place(number)[0] == entry for number in skipped),
            pixels_used=sum(one.pixels for one in of_entry),
        )
    return Evaluation(
        protocol=protocol,
        rows=_rows(protocol, images, names),
        images_used=len(images),
        images_skipped=len(skipped),
        pixels_used=sum(one.pixels for one in images),
        errors_mm={name: _errors(images, name) for name in names},
        bins={name: _bins(protocol, images, name) for name in names},
        entries=entries,
        images=images,
    )


def _rows(protocol: Protocol, images: Sequence[ScoredImage], names: Sequence[str]) -> dict[str, dict[str, float]]:
    pixels = [one.pixels for one in images]
    return {
        name: protocol.mean([one.rows[name] for one in images], pixels, [one.mean_logs[name] for one in images])
        for name in names
    }


def _errors(images: Sequence[ScoredImage], name: str) -> dict[str, float]:
    of_images = zip(*(one.errors_mm[name] for one in images), strict=True)
    return dict(zip(("mean", "median", "p90"), (math.fsum(one) / len(images) for one in of_images), strict=True))


def _bins(protocol: Protocol, images: Sequence[ScoredImage], name: str) -> list[dict[str, float | None]]:
    found: list[dict[str, float | None]] = []
    for place, (start, end) in enumerate(pairwise(BIN_ENDS)):
        pixels, error_m, relative = (math.fsum(one.bins[name][place, column] for one in images) for column in range(3))
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
    """This process's images, each image in exactly one process, whole batches of neighbors."""
    starts = range(accelerator.process_index * batch_size, len(samples), accelerator.num_processes * batch_size)
    indices = [index for start in starts for index in range(start, min(start + batch_size, len(samples)))]
    loader = DataLoader(
        ErrorCapturingDataset(samples),
        batch_size=None,
        sampler=indices,
        num_workers=min(workers, len(indices)),
        collate_fn=_as_is,
        worker_init_fn=init_worker,
        generator=torch.Generator(),
    )
    return raise_worker_errors(loader)


def _as_is(sample: Any) -> Any:
    return sample

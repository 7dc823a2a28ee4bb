"""Metrics over a whole validation set: each image once, from all processes, every row over the same pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from finetune.batches import Caught, Reader, calm_worker, sound
from finetune.errors import DataError
from finetune.metrics import METRICS
from finetune.networks.answers import resized_answer
from finetune.networks.depth_model import DepthModel
from finetune.preprocessing import Preprocessing
from finetune.protocols import Protocol
from finetune.sample import DepthSample

# (1, 3, h, w) normalized image and the (height, width) asked for -> (height, width): meters, or inverse depth where the
# protocol aligns.
Answer = Callable[[Tensor, tuple[int, int]], NDArray[np.floating]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One protocol's table.

    Attributes:
        protocol: all its settings.
        rows: model or baseline -> metric -> value.
        images_used, images_skipped: with and without a pixel that counts.
        pixels_used: over all images used.
        images: of each image used its number, its pixels that count, and its scores by row.
    """

    protocol: Protocol
    rows: Mapping[str, Mapping[str, float]]
    images_used: int
    images_skipped: int
    pixels_used: int
    images: Sequence[tuple[int, int, Mapping[str, Mapping[str, float]]]] = ()

    def to_mapping(self) -> dict[str, Any]:
        """The object of ``evaluation.json``."""
        return {
            "protocol": self.protocol.to_mapping(),
            "rows": {name: dict(row) for name, row in self.rows.items()},
            "images_used": self.images_used,
            "images_skipped": self.images_skipped,
            "pixels_used": self.pixels_used,
        }

    def table(self) -> str:
        """Text for the terminal, protocol and counts included."""
        width = max(len(name) for name in self.rows)
        lines = [f"{'':{width}}" + "".join(f"{name:>10}" for name in METRICS)]
        for row, values in self.rows.items():
            lines.append(f"{row:{width}}" + "".join(f"{values[name]:>10.4f}" for name in METRICS))
        settings = self.protocol
        alignment = f"aligned per image ({settings.alignment})" if settings.aligns else "no alignment"
        lines.append(
            f"protocol {settings.name}: depth {settings.min_depth_m:g} to {settings.max_depth_m:g} m at measured "
            f"resolution, clamped, {alignment}, mean over images; {self.images_used} images used, "
            f"{self.images_skipped} skipped, {self.pixels_used} pixels"
        )
        return "\n".join(lines)


def network_answer(model: DepthModel) -> Answer:
    """The model's own answer, resized as the original does; without autocast, so that every command agrees."""
    # Accelerate lays its autocast around the forward of the object; that of the class is still without.
    forward = type(model).forward
    device = next(model.parameters()).device

    def answer(image: Tensor, size: tuple[int, int]) -> NDArray[np.floating]:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return resized_answer(forward(model, image.to(device)), size)

    return answer


class ValidationSample(NamedTuple):
    """One image as the network sees it, with its measured depth as it is on disk."""

    number: int
    image: Tensor
    sample: DepthSample


class ValidationSamples(Dataset[ValidationSample]):
    """The frames of all validation readers, one after the other."""

    def __init__(self, readers: Sequence[Reader], preprocessing: Preprocessing) -> None:
        self._readers = readers
        self._preprocessing = preprocessing
        self._ends = np.cumsum([len(reader) for reader in readers])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int) -> tuple[int, int]:
        """Which reader a frame is of, and its number there."""
        reader = int(np.searchsorted(self._ends, index, side="right"))
        return reader, index - (int(self._ends[reader - 1]) if reader else 0)

    def __getitem__(self, index: int) -> ValidationSample:
        reader, frame = self.place(index)
        sample = self._readers[reader][frame]
        return ValidationSample(index, torch.from_numpy(self._preprocessing(sample.image))[None], sample)


def evaluate(
    accelerator: Accelerator,
    samples: ValidationSamples,
    answers: Mapping[str, Answer],
    protocol: Protocol,
    *,
    workers: int,
) -> Evaluation:
    """
    Args:
        accelerator: all its processes must call; each takes every world-size-th image.
        samples: validation data.
        answers: row of the table -> what answers.
        protocol: how answers are compared.
        workers: of the loader.

    Returns:
        The same table in every process: means over images, summed in float64 in the order of the images.

    Raises:
        DataError: no image has a pixel that counts.
    """
    scored: list[tuple[int, int, dict[str, dict[str, float]]]] = []
    skipped: list[int] = []
    for number, image, sample in _share(accelerator, samples, workers):
        usable = protocol.usable(sample.depth_m, sample.valid)
        if not usable.any():
            skipped.append(number)
            continue
        height, width = sample.depth_m.shape
        rows = {}
        for name, answer in answers.items():
            pred_m = protocol.depth_m(answer(image, (height, width)), sample.depth_m, usable)
            rows[name] = protocol.score(pred_m, sample.depth_m, usable)
        scored.append((number, int(usable.sum()), rows))
    if accelerator.num_processes > 1:
        scored, skipped = gather_object(scored), gather_object(skipped)
    if not scored:
        raise DataError(
            "data.val",
            f"0 of {len(skipped)} images had valid pixels from {protocol.min_depth_m:g} to {protocol.max_depth_m:g} m",
            "Check meters_per_unit and invalid of data.val, and evaluation.max_depth_m",
        )
    scored.sort(key=lambda one: one[0])
    return Evaluation(
        protocol=protocol,
        rows={row: _mean([of_image[row] for _, _, of_image in scored]) for row in answers},
        images_used=len(scored),
        images_skipped=len(skipped),
        pixels_used=sum(pixels for _, pixels, _ in scored),
        images=scored,
    )


def _mean(of_images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: math.fsum(scores[name] for scores in of_images) / len(of_images) for name in METRICS}


def _share(accelerator: Accelerator, samples: ValidationSamples, workers: int) -> Iterator[ValidationSample]:
    """This process's images, each image in exactly one process."""
    indices = range(accelerator.process_index, len(samples), accelerator.num_processes)
    loader = DataLoader(
        Caught(samples),
        batch_size=None,
        sampler=indices,
        num_workers=min(workers, len(indices)),
        collate_fn=_as_is,
        worker_init_fn=calm_worker,
        generator=torch.Generator(),
    )
    return sound(loader)


def _as_is(sample: Any) -> Any:
    return sample

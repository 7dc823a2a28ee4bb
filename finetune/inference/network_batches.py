"""Images through the network in batches, while the next are read: bounded, and in the order of the images."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.inference.predictor import Predictor
from finetune.utils.errors import DataError, ResultError
from finetune.utils.resource_errors import is_out_of_memory

# Images of a batch on a GPU, where nothing else is asked for; fewer where memory runs out.
AUTO_BATCH = 8
# Networks that run at the same time on a CPU, each with its own share of the cores. Several small networks wait less
# for each other than the threads of one do. Each holds its own activations, so they are few.
MAX_AT_ONCE = 8
# Threads that read and threads that write on a machine with a GPU: reading an image takes about 30 ms of a core.
MAX_FILE_THREADS = 8
_T = TypeVar("_T")
# What stands for an image, or a frame, that cannot be predicted.
Fault = DataError | ResultError


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many images and threads there are at once.

    Attributes:
        batch_size: images of a batch.
        at_once: batches that are in the network at the same time.
        threads: of each of them.
        file_threads: that read, and as many that write.
    """

    batch_size: int
    at_once: int = 1
    threads: int = 1
    file_threads: int = 2


def make_plan(device: torch.device, batch_size: int | None, *, images: int, cores: int, compiled: bool = False) -> Plan:
    """
    Args:
        device: of the network.
        batch_size: None: 1 on a CPU, where more gain nothing, and ``AUTO_BATCH`` elsewhere.
        images: of the whole call, also those of other processes: another number of threads adds in another order, and
            each process shall give the same bits as one process for all.
        cores: that this process may keep busy.
        compiled: the network is compiled, which it is for one thread at a time.
    """
    if device.type != "cpu":
        return Plan(
            batch_size=batch_size or AUTO_BATCH, threads=cores, file_threads=max(2, min(MAX_FILE_THREADS, cores))
        )
    size = batch_size or 1
    at_once = 1 if compiled else max(1, min(cores, MAX_AT_ONCE, images // size))
    return Plan(batch_size=size, at_once=at_once, threads=max(1, cores // at_once))


@contextmanager
def limit_threads(threads: int) -> Iterator[None]:
    """So many threads for each operation of PyTorch while this lasts, in this thread and in those that begin."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkInput:
    """One image that is ready for the network.

    Attributes:
        path: of the image or video.
        image: (H, W, 3) uint8, RGB.
        pixels: (3, h, w), normalized.
        focal_px: at that size; None where no camera is needed.
    """

    path: Path
    image: NDArray[np.uint8]
    pixels: Tensor
    focal_px: float | None


class BatchPredictor:
    """Predicts many images at once, where the network sees them in one size."""

    def __init__(self, predictor: Predictor, *, batch_size: int, flip: bool) -> None:
        self._predictor = predictor
        self._flip = flip
        self._limit = batch_size

    @property
    def batch_size(self) -> int:
        """Images at once; fewer than at first where memory ran out."""
        return self._limit

    def predict(self, inputs: Sequence[NetworkInput]) -> list[NDArray[np.float32] | Fault]:
        """The prediction for each, or why there is none."""
        groups: dict[torch.Size, list[int]] = {}
        for i, given in enumerate(inputs):
            groups.setdefault(given.pixels.shape, []).append(i)
        found: dict[int, NDArray[np.float32] | Fault] = {}
        for group in groups.values():
            found |= zip(group, self._predict_group([inputs[i] for i in group]), strict=True)
        return [found[i] for i in range(len(inputs))]

    def _predict_group(self, group: Sequence[NetworkInput]) -> list[NDArray[np.float32] | Fault]:
        found: list[NDArray[np.float32] | Fault] = []
        while len(found) < len(group):
            part = group[len(found) : len(found) + self._limit]
            try:
                predictions = self._predictor.predict_batch(
                    torch.stack([given.pixels for given in part]),
                    [(given.image.shape[0], given.image.shape[1]) for given in part],
                    [given.focal_px for given in part],
                    flip=self._flip,
                )
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    found.append(_memory_fault(part[0]))
                else:
                    self._limit = len(part) // 2  # for all batches to come
                continue
            found += [check_finite(given.path, depth) for given, depth in zip(part, predictions, strict=True)]
        return found


def _memory_fault(given: NetworkInput) -> ResultError:
    height, width = given.pixels.shape[-2:]
    return ResultError(f"{given.path}: memory ran out at {height}x{width}. Crop it to a less elongated image.")


def check_finite(path: Path, prediction: NDArray[np.float32]) -> NDArray[np.float32] | ResultError:
    """The prediction for an image, or the error to raise where it is not a number everywhere."""
    if np.isfinite(prediction).all():
        return prediction
    return ResultError(
        f"{path}: the prediction is not a number everywhere. The weights are damaged; export them again."
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """What became of an image.

    Attributes:
        image: (H, W, 3) uint8, RGB; None where it could not be read.
        prediction: (H, W), or why there is none.
    """

    image: NDArray[np.uint8] | None
    prediction: NDArray[np.float32] | Fault


def require_prediction(found: NDArray[np.float32] | Fault) -> NDArray[np.float32]:
    """
    Raises:
        DataError, ResultError: it is why there is no prediction.
    """
    if isinstance(found, np.ndarray):
        return found
    raise found


def predict_in_order(
    items: Iterable[_T], prepare: Callable[[_T], NetworkInput], network: BatchPredictor, plan: Plan
) -> Generator[tuple[_T, Predicted]]:
    """
    Args:
        items: images, in any form that ``prepare`` knows; taken when there is room for them.
        prepare: makes an image ready, in a thread; a ``Fault`` that it raises is what is found for that image.
        network: predicts.
        plan: how much at once.

    Yields:
        Each item with what was found, in order. Meanwhile the next are prepared and predicted: at most
        ``plan.at_once + 2`` batches are in memory.
    """
    waiting: deque[Future[list[tuple[_T, Predicted]]]] = deque()
    readers, networks = ThreadPoolExecutor(plan.file_threads), ThreadPoolExecutor(plan.at_once)
    left = iter(items)
    try:
        while chunk := list(islice(left, plan.batch_size)):
            prepared = [readers.submit(_prepare, prepare, item) for item in chunk]
            waiting.append(networks.submit(_predict_chunk, chunk, prepared, network))
            if len(waiting) > plan.at_once + 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        for pool in (networks, readers):
            pool.shutdown(cancel_futures=True)


def _prepare(prepare: Callable[[_T], NetworkInput], item: _T) -> NetworkInput | Fault:
    try:
        return prepare(item)
    except (DataError, ResultError) as fault:
        return fault


def _predict_chunk(
    items: Sequence[_T], prepared: Sequence[Future[NetworkInput | Fault]], network: BatchPredictor
) -> list[tuple[_T, Predicted]]:
    ready = [one.result() for one in prepared]
    predictions = iter(network.predict([given for given in ready if isinstance(given, NetworkInput)]))
    return [
        (item, Predicted(image=given.image, prediction=next(predictions)))
        if isinstance(given, NetworkInput)
        else (item, Predicted(image=None, prediction=given))
        for item, given in zip(items, ready, strict=True)
    ]

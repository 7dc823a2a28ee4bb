"""Predict annotated images, and score which of two points is nearer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.data.readers.files import read_depth, read_image, read_network_image
from finetune.evaluation.ordinal_pairs import AnnotatedImage, PairResult, score_pairs
from finetune.evaluation.prediction_files import find_prediction_file, require_frame_shape
from finetune.inference.exported import ExportedModel
from finetune.inference.outputs import PREDICTION_ENDINGS
from finetune.inference.predictor import Predictor
from finetune.models.resizing import resize_finite
from finetune.utils.errors import DataError
from finetune.utils.kinds import Kind
from finetune.utils.paths import expand_path, is_file, missing

# A prediction at the size of an image: (height, width) meters, inverse depth or relative depth.
PredictImage = Callable[[AnnotatedImage, Path], NDArray[np.floating]]
_ENDINGS: dict[Kind, tuple[str, ...]] = {
    kind: tuple(dict.fromkeys((ending, ".npy", ".png"))) for kind, ending in PREDICTION_ENDINGS.items()
}


def score_annotated_images(
    images: Sequence[AnnotatedImage], root: Path, predict: PredictImage, kind: Kind
) -> list[PairResult]:
    """
    Args:
        images: as ``read_annotations`` gives them.
        root: the folder that their names start from.
        predict: gives the prediction for an image.
        kind: what it predicts.

    Returns:
        One result a pair.

    Raises:
        DataError: an image is missing or cannot be read, or a point is outside of it.
    """
    files = [find_annotated_image(image, root) for image in images]
    results: list[PairResult] = []
    for image, file in zip(images, tqdm(files, unit="image", dynamic_ncols=True, disable=None), strict=True):
        results.extend(score_pairs(image, predict(image, file), kind))
    return results


def predict_by_network(predictor: Predictor | ExportedModel) -> PredictImage:
    """
    Images are turned upright, as OpenCV reads them by default.

    One focal length scales all depths of an image alike, and so says nothing about which point is nearer: a canonical
    model is given that of its training.
    """
    focal_px = predictor.canonical.focal_px if predictor.canonical else None

    def predict(image: AnnotatedImage, file: Path) -> NDArray[np.floating]:
        found = read_network_image(file, predictor.preprocessing)
        # Before the network takes its time.
        image.require_inside(*found.size)
        return predictor.predict_at(found.pixels, focal_px, size=found.size)

    return predict


@dataclass(frozen=True, kw_only=True)
class PredictionFolder:
    """
    A ``PredictImage`` that reads what any system predicted, and resizes it to the image, bilinearly.

    Attributes:
        folder: the file of an image is ``<folder>/<its path>.npy``, or ``<folder>/<its stem>.npy`` where no two images
            have the same stem; ``.png`` of 16 bits likewise; ``_inverse.npy`` before both for inverse depth.
        kind: what the files hold.
        stems: of all images, as often as they occur.
    """

    folder: Path
    kind: Kind
    stems: tuple[str, ...]

    @cached_property
    def _of_stem(self) -> Counter[str]:
        return Counter(self.stems)

    def __call__(self, image: AnnotatedImage, file: Path) -> NDArray[np.floating]:
        """
        Raises:
            DataError: the file is missing, cannot be read, has 8 bits, holds no finite number, or has another
                aspect than the image.
        """
        path = self._find(Path(image.name), file)
        found = read_depth(path)
        if found.dtype.itemsize == 1:
            raise DataError(path, "has 8 bits, where near depths become equal", "Write .npy, or a PNG of 16 bits")
        # Other programs write infinity for the sky; at a point of a pair it is refused.
        if not np.isfinite(found).any():
            raise DataError(path, "holds no finite number", "Write a number for every pixel")
        height, width = read_image(file, upright=True).shape[:2]
        require_frame_shape(path, found.shape, (height, width))
        return resize_finite(found.astype(np.float64), (height, width))

    def _find(self, name: Path, image: Path) -> Path:
        below, endings = name.relative_to(name.anchor), _ENDINGS[self.kind]
        # The folder may be the one that holds the images.
        found = find_prediction_file(
            self.folder, below, endings, self._of_stem, "images, which all have this name", but=image
        )
        if found is None:
            expected = self.folder / below.with_name(below.stem + endings[0])
            raise DataError(expected, missing(expected), "Write a file for each annotated image")
        return found


def find_annotated_image(image: AnnotatedImage, root: Path) -> Path:
    """
    Args:
        image: as ``read_annotations`` gives it.
        root: the folder that its name starts from.

    Raises:
        DataError: there is no such image.
    """
    name = Path(image.name)
    path = root / expand_path(name)
    if is_file(path):
        return path
    for parent in (root.absolute().parent, *root.absolute().parents):
        if is_file(parent / name):
            raise DataError(path, missing(path), f"Give --images {parent}, where {image.name} is")
    raise DataError(path, missing(path), "Give --images the folder that the paths of the annotations start from")

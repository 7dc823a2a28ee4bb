"""Depth that another system wrote, a file a frame, as a row of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.crops import KB_HEIGHT, KB_WIDTH, kb_corner
from finetune.data.reader import Reader
from finetune.data.readers.files import read_depth
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import PredictionRequest
from finetune.models.resizing import resize_prediction
from finetune.utils.errors import DataError
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import expand_path, is_file
from finetune.utils.text import percent

# Frames that are looked at for the unit.
_LOOKED_AT = 8
# What files are off by whose unit was mistaken, millimeters, KITTI's 1/256 m and centimeters, and how near to it the
# median ratio must be. No model is 60 times off.
_UNITS = ((1000.0, 2.5), (256.0, 1.6), (100.0, 1.6))
# How far the aspect may be off: sides are rounded to patches of 14 pixels, and 4:3 is 12 % from 3:2.
_MAX_OFF = 0.1
# A network answers at least one number for a patch of 14 pixels.
_MIN_SIDE = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """
    An ``PredictFunction`` read from a folder.

    The file of a frame bears the name of its image, in the folders that the image is in below the entry's root, or,
    where no two frames have one name, in none: ``<folder>/<path>.npy`` or ``<folder>/<stem>.npy``; ``.png`` likewise.

    Attributes:
        folder: of the files.
        readers: the entries of ``data.val``, whose frames have files.
        samples: their frames.
        meters_per_unit: what a stored 1 is; None: ``.npy`` alone is read, in meters.
    """

    folder: Path
    readers: Sequence[Reader]
    samples: ValidationSamples
    meters_per_unit: float | None

    def __call__(self, asked: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        """
        Raises:
            DataError: the file of a frame is missing, cannot be read, holds what is no number, or is of a size that the
                protocol cannot place.
        """
        return [self._one(one) for one in asked]

    def require_unit(self) -> None:
        """
        Look at a few frames, whether their files are in the unit that is said.

        A clamp to the range of the protocol would hide it: millimeters taken for meters all become the far end.

        Raises:
            DataError: the files are about 1000, 256 or 100 times, or that part of, what was measured; or as of a call.
        """
        ratios = []
        for number in evenly_spread(len(self.samples), _LOOKED_AT):
            sample = self.samples[number].sample
            valid = sample.valid & np.isfinite(sample.depth_m) & (sample.depth_m > 0)
            if valid.any():
                _, found = self._read(number)
                ratios.append(float(np.median(found) / np.median(sample.depth_m[valid])))
        ratio = float(np.median(ratios)) if ratios else 1.0
        unit = self.meters_per_unit or 1.0
        for times, within in _UNITS:
            factor = times if ratio > 1 else 1 / times
            if factor / within < ratio < factor * within:
                raise DataError(
                    self.folder,
                    f"the predictions of {len(ratios)} frames are {ratio:.4g} times the measured depth in the median, "
                    f"so a stored 1 is no {unit:g} m",
                    f"Say --meters-per-unit {unit / factor:g}",
                )

    def _read(self, number: int) -> tuple[Path, NDArray[np.float64]]:
        """The file of a frame, and what it says, (height, width), meters."""
        path = self._path(number)
        found = read_depth(path).astype(np.float64) * (self.meters_per_unit or 1.0)
        if found.ndim != 2 or not found.size:
            raise DataError(path, f"is of shape {found.shape}", "Write one number a pixel, height x width")
        if not np.isfinite(found).all():
            share = float(np.mean(~np.isfinite(found)))
            raise DataError(path, f"{percent(share, 1)} of it is no finite number", "Write a depth for every pixel")
        return path, found

    def _one(self, asked: PredictionRequest) -> NDArray[np.floating]:
        path, found = self._read(asked.number)
        if asked.image_crop == "kb" and found.shape != asked.size:
            height, width = found.shape
            corner = kb_corner(height, width)
            if corner is None:
                fix = f"Write it at the size of the frame, or of the crop, {KB_HEIGHT}x{KB_WIDTH}"
                raise DataError(path, f"is {height}x{width}, smaller than the KB crop of the protocol", fix)
            top, left = corner
            found = found[top : top + KB_HEIGHT, left : left + KB_WIDTH]
        _require_shape(path, found.shape, asked.size)
        return resize_prediction(torch.from_numpy(found)[None, None], asked.size, align_corners=asked.align_corners)

    def _path(self, number: int) -> Path:
        below = self._below_root(number)
        suffixes = (".npy", "_inverse.npy") if self.meters_per_unit is None else (".png", ".npy")
        candidates = [self.folder / below.with_name(below.stem + suffix) for suffix in suffixes]
        for path in candidates:
            if is_file(path):
                return path
        for suffix in suffixes:
            path = self.folder / (below.stem + suffix)
            if is_file(path):
                if self._of_stem[below.stem] == 1:
                    return path
                raise DataError(
                    path,
                    f"could be of {self._of_stem[below.stem]} frames of data.val, whose images all have this name",
                    f"Write them into the folders of their images, such as {candidates[0]}",
                )
        fix = "Write a file for each frame of data.val, or name the frames that there are in a list"
        if self.meters_per_unit is None:
            fix += "; for .png give --meters-per-unit"
        raise DataError(candidates[0], "does not exist", fix)

    @cached_property
    def _of_stem(self) -> Counter[str]:
        """How many frames there are whose image has a name."""
        return Counter(self._below_root(number).stem for number in range(len(self.samples)))

    def _below_root(self, number: int) -> Path:
        """The image of a frame, below the root of its entry; of one elsewhere its name alone."""
        place, frame = self.samples.place(number)
        reader = self.readers[place]
        files = reader.files(frame)
        assert files is not None and reader.root is not None, "the command refuses readers without files"
        image, root = Path(files[0]), expand_path(reader.root)
        return image.relative_to(root) if image.is_relative_to(root) else Path(image.name)


def _require_shape(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """
    Raises:
        DataError: the shape is not that of the whole frame, larger or smaller: resized, it would be another picture.
    """
    (height, width), (frame_height, frame_width) = shape, size
    ratio = height / width * frame_width / frame_height
    if max(ratio, 1 / ratio) <= 1 + _MAX_OFF and height >= _MIN_SIDE * frame_height:
        return
    turned = max(ratio, 1 / ratio) > 1 + _MAX_OFF and abs(width / height * frame_width / frame_height - 1) <= _MAX_OFF
    raise DataError(
        path,
        f"is {height}x{width}, its frame {frame_height}x{frame_width}"
        + (
            ": it lies on its side"
            if turned
            else ", which is another aspect"
            if max(ratio, 1 / ratio) > 1 + _MAX_OFF
            else ""
        ),
        "Write it height x width, upright as the frame"
        if turned
        else "Write the whole frame, at its size or a scale of it",
    )

"""Depth that another system wrote, one file for each frame, as a row of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.crops import KB_HEIGHT, KB_WIDTH, kb_corner
from finetune.data.reader import Reader
from finetune.data.readers.files import read_depth
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.alignment import rank_correlation
from finetune.evaluation.evaluator import PredictionRequest
from finetune.models.resizing import resize_finite
from finetune.utils.errors import DataError
from finetune.utils.indices import evenly_spread
from finetune.utils.kinds import Kind, rises_with_distance
from finetune.utils.paths import expand_path, if_closed, is_file, real_path
from finetune.utils.text import count_noun

# Number of frames that are read to check what the numbers mean.
_PROBED_FRAMES = 8
_MIN_PIXELS = 20  # of a frame; the ranks of fewer say nothing
_MAX_PIXELS = 20_000  # of a frame, evenly spread; more change nothing
# Rank correlation of inverse depth with depth is -1 if it is right, and still below this for a poor model.
_OPPOSED = -0.5
# The factor of a mistaken unit (millimeters, KITTI's 1/256 m, centimeters), and how near to it the median ratio must
# be. No model is 60 times off.
_UNITS = ((1000.0, 2.5), (256.0, 1.6), (100.0, 1.6))
# How far the aspect may be off: sides are rounded to patches of 14 pixels, and 4:3 is 12 % from 3:2.
_MAX_ASPECT_ERROR = 0.1
# A network predicts at least one number for a patch of 14 pixels.
_MIN_SIDE = 1 / 16


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """
    A ``PredictFunction`` that reads a folder.

    The file of a frame has the name of its image: ``<folder>/<path>.npy`` with the image's path below the root of its
    entry, or ``<folder>/<stem>.npy`` where no two frames have the same stem; ``.png`` likewise.

    Attributes:
        folder: of the files.
        readers: the entries of ``data.val``, whose frames have files.
        samples: their frames.
        meters_per_unit: meters of a stored 1; None: only ``.npy`` is read, in meters.
    """

    folder: Path
    readers: Sequence[Reader]
    samples: ValidationSamples
    meters_per_unit: float | None

    def __call__(self, requests: Sequence[PredictionRequest]) -> list[NDArray[np.floating]]:
        """
        Raises:
            DataError: the file of a frame is missing, cannot be read, holds no finite number, or has another shape than
                its frame.
        """
        return [self._predict(request) for request in requests]

    def require_unit(self) -> None:
        """
        Check the unit of the files on a few frames.

        The protocol's clamp would hide a wrong one: millimeters taken for meters all become the far end.

        Raises:
            DataError: the files are about 1000, 256 or 100 times the measured depth or less by such a factor; or as
                for a call.
        """
        ratios = []
        for number in evenly_spread(len(self.samples), _PROBED_FRAMES):
            sample = self.samples[number].sample
            valid = sample.valid & np.isfinite(sample.depth_m) & (sample.depth_m > 0)
            if valid.any():
                _, found = self._read(number)
                ratios.append(float(np.median(found[np.isfinite(found)]) / np.median(sample.depth_m[valid])))
        ratio = float(np.median(ratios)) if ratios else 1.0
        unit = self.meters_per_unit or 1.0
        for times, within in _UNITS:
            factor = times if ratio > 1 else 1 / times
            if factor / within < ratio < factor * within:
                raise DataError(
                    self.folder,
                    f"the predictions of {count_noun(len(ratios), 'frame')} are {ratio:.4g} times the measured depth "
                    f"in the median, so a stored 1 is no {unit:g} m",
                    f"Say --meters-per-unit {unit / factor:g}, or, if the predictions are so far off, set "
                    "data.accept=[unit]",
                )

    def require_direction(self, head: Kind) -> None:
        """
        Check on a few frames that the files hold inverse depth for a relative head, and depth for the others.

        Raises:
            DataError: the numbers fall where they should grow with distance, or the other way round; or as for a call.
        """
        found = (self._rank_correlation(number) for number in evenly_spread(len(self.samples), _PROBED_FRAMES))
        ranks = [rank for rank in found if rank is not None]
        rank = float(np.median(ranks)) if ranks else 0.0
        of_frames = f"(rank correlation {rank:.2f} in the median of {count_noun(len(ranks), 'frame')})"
        if rises_with_distance(head) and rank < _OPPOSED:
            raise DataError(
                self.folder,
                f"the numbers fall where the measured depth grows {of_frames}, as inverse depth and disparity do",
                "Write meters, or score inverse depth of unknown scale by a recipe with model.head: relative; if the "
                "predictions are so far off, set data.accept=[depth_is]",
            )
        if not rises_with_distance(head) and -rank < _OPPOSED:
            raise DataError(
                self.folder,
                f"the numbers grow with the measured depth {of_frames}, and model.head is relative",
                "Write inverse depth, or score depth by a recipe with model.head: metric; if the predictions are so "
                "far off, set data.accept=[depth_is]",
            )

    def _rank_correlation(self, number: int) -> float | None:
        """Of the measured depth of a frame and its file; None where there is too little to compare."""
        sample = self.samples[number].sample
        valid = sample.valid & np.isfinite(sample.depth_m)
        _, found = self._read(number)
        rows, columns = np.nonzero(valid)
        if len(rows) < _MIN_PIXELS:
            return None
        step = -(-len(rows) // _MAX_PIXELS)
        rows, columns = rows[::step], columns[::step]
        height, width = valid.shape
        predicted = found[rows * found.shape[0] // height, columns * found.shape[1] // width]
        finite = np.isfinite(predicted)
        return rank_correlation(predicted[finite], sample.depth_m[rows, columns][finite]) if finite.any() else None

    def _read(self, number: int) -> tuple[Path, NDArray[np.float64]]:
        """The file of a frame and its content, (height, width), meters."""
        path = self._path(number)
        found = read_depth(path).astype(np.float64) * (self.meters_per_unit or 1.0)
        if found.ndim != 2 or not found.size:
            raise DataError(path, f"is of shape {found.shape}", "Write one number a pixel, height x width")
        # Where nothing was measured, other programs write NaN or infinity, of the sky for one; the evaluation refuses
        # them at pixels that count.
        if not np.isfinite(found).any():
            raise DataError(path, "holds no finite number", "Write a depth wherever depth was measured")
        return path, found

    def _predict(self, request: PredictionRequest) -> NDArray[np.floating]:
        path, found = self._read(request.number)
        if request.image_crop == "kb" and found.shape != request.size:
            height, width = found.shape
            corner = kb_corner(height, width)
            if corner is None:
                fix = f"Write it at the size of the frame, or of the crop, {KB_HEIGHT}x{KB_WIDTH}"
                raise DataError(path, f"is {height}x{width}, smaller than the KB crop of the protocol", fix)
            top, left = corner
            found = found[top : top + KB_HEIGHT, left : left + KB_WIDTH]
        require_frame_shape(path, found.shape, request.size)
        return resize_finite(found, request.size, align_corners=request.align_corners)

    def _path(self, number: int) -> Path:
        below = self._below_root(number)
        suffixes = (".npy", "_inverse.npy") if self.meters_per_unit is None else (".png", ".npy")
        found = find_prediction_file(
            self.folder, below, suffixes, self._of_stem, "frames of data.val, whose images all have this name"
        )
        if found is not None:
            return found
        expected = self.folder / below.with_name(below.stem + suffixes[0])
        fix = "Write a file for each frame of data.val, or name the frames that there are in a list"
        if self.meters_per_unit is None:
            fix += "; for .png give --meters-per-unit"
        closed = if_closed(expected)
        if closed:
            raise DataError(expected, f"cannot be read{closed}", "Make it a folder that this user may read")
        raise DataError(expected, "does not exist", fix)

    @cached_property
    def _of_stem(self) -> Counter[str]:
        """Stem of an image -> how many frames have it."""
        return Counter(self._below_root(number).stem for number in range(len(self.samples)))

    def _below_root(self, number: int) -> Path:
        """Path of a frame's image below the root of its entry; of an image elsewhere only its name."""
        entry, frame = self.samples.locate(number)
        reader = self.readers[entry]
        files = reader.files(frame)
        assert files is not None and reader.root is not None, "the command refuses readers without files"
        image, root = Path(files[0]), expand_path(reader.root)
        return image.relative_to(root) if image.is_relative_to(root) else Path(image.name)


def find_prediction_file(
    folder: Path, below: Path, endings: Sequence[str], of_stem: Counter[str], images: str, but: Path | None = None
) -> Path | None:
    """
    Args:
        folder: of the files.
        below: the path of an image, below the folder that all images are in.
        endings: that a file may have after the stem of its image; the first one that exists is taken.
        of_stem: stem -> how many images have it.
        images: what they are, for the error.
        but: a file that is no prediction: the image itself.

    Returns:
        ``<folder>/<path><ending>``, or ``<folder>/<stem><ending>`` where no other image has the stem; None where there
        is no such file.

    Raises:
        DataError: there is a file of that stem, and several images have it.
    """
    image = None if but is None else real_path(but)

    def exists(path: Path) -> bool:
        return is_file(path) and real_path(path) != image

    by_path = [folder / below.with_name(below.stem + ending) for ending in endings]
    by_stem = [folder / (below.stem + ending) for ending in endings]
    for path in by_path:
        if exists(path):
            return path
    for path in by_stem:
        if exists(path):
            if of_stem[below.stem] == 1:
                return path
            raise DataError(
                path,
                f"could be of {of_stem[below.stem]} {images}",
                f"Write them into the folders of their images, such as {by_path[0]}",
            )
    return None


def require_frame_shape(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """
    Args:
        path: of the file that holds a prediction.
        shape: of the prediction.
        size: height and width of the frame.

    Raises:
        DataError: the shape is not that of the whole frame at some scale; resized, it would be another picture.
    """
    (height, width), (frame_height, frame_width) = shape, size
    ratio = height / width * frame_width / frame_height
    if max(ratio, 1 / ratio) <= 1 + _MAX_ASPECT_ERROR and height >= _MIN_SIDE * frame_height:
        return
    turned = (
        max(ratio, 1 / ratio) > 1 + _MAX_ASPECT_ERROR
        and abs(width / height * frame_width / frame_height - 1) <= _MAX_ASPECT_ERROR
    )
    raise DataError(
        path,
        f"is {height}x{width}, its frame {frame_height}x{frame_width}"
        + (
            ": it is turned on its side"
            if turned
            else ", which is another aspect"
            if max(ratio, 1 / ratio) > 1 + _MAX_ASPECT_ERROR
            else ""
        ),
        "Write it height x width, upright as the frame"
        if turned
        else "Write the whole frame, at its size or a scale of it",
    )

"""Bring a teacher's labels to meters: to what is measured in the frame, or to what a metric model predicts for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.reader import Reader
from finetune.inference.anchoring import (
    BEYOND_NEAREST_AND_FARTHEST,
    AnchoringOptions,
    AnchoringRefused,
    anchor_depth,
    fit_inverse_log,
    require_points,
)
from finetune.inference.inputs import Input
from finetune.inference.predictor import Predictor, build_predictor
from finetune.inference.pseudo_labels.teacher import Anchored, Teacher
from finetune.models.arithmetic import Precision
from finetune.models.checkpoints.identity import ArgumentNames
from finetune.models.checkpoints.load import read_checkpoint
from finetune.utils.errors import FinetuneError
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import real_path
from finetune.utils.text import percent

_NAMES = ArgumentNames(
    source="name",
    kind="the kind in the .json next to it",
    max_depth_m="the max depth there",
    version="the version there",
    no_max_depth="Leave the max depth out",
    input_size="the input size there",
    no_input_size="Leave the input size out",
)
# More measured points of a frame say no more, and take longer.
MAX_POINTS = 20_000
# A metric prediction above this share of the largest that the model can give means "at least this far".
_AT_END = 0.95


@dataclass(frozen=True, kw_only=True)
class MeasuredFrames:
    """The frames of entries of a recipe, found by their image.

    Attributes:
        readers: of the entries.
        places: the real path of an image -> its reader, and its frame there.
        name: what the entries are called in errors.
    """

    readers: Sequence[Reader]
    places: Mapping[Path, tuple[int, int]] = field(repr=False)
    name: str

    @classmethod
    def index(cls, readers: Sequence[Reader], name: str) -> MeasuredFrames:
        """
        Args:
            readers: of the entries.
            name: of these entries, such as ``data.train of recipe.yaml``.

        Raises:
            FinetuneError: the frames of an entry have no image files.
        """
        places: dict[Path, tuple[int, int]] = {}
        for number, reader in enumerate(readers):
            for frame in range(len(reader)):
                files = reader.files(frame)
                if files is None:
                    raise FinetuneError(
                        f"{name}: frames of its entry {number} have no image files, by which their images are found "
                        "among the PATHs. Name entries whose frames are files."
                    )
                places.setdefault(real_path(files[0]), (number, frame))
        return cls(readers=readers, places=places, name=name)

    def require_some(self, image_paths: Sequence[Path]) -> None:
        """
        Raises:
            FinetuneError: not one of these images is that of a frame.
        """
        if not any(real_path(path) in self.places for path in image_paths):
            named = f", such as {next(iter(self.places))}" if self.places else ""
            raise FinetuneError(
                f"{image_paths[0]}: no frame of {self.name} has this image, nor any of the others. Name the images of "
                f"its frames as PATHs{named}."
            )

    def points(
        self, image_path: Path, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """
        Args:
            image_path: of an image.
            shape: its height and width, upright.

        Returns:
            (N,) rows, columns and meters of what is measured in it, at most ``MAX_POINTS``, evenly spread.

        Raises:
            AnchoringRefused: no frame has this image, or its depth has another size.
            FileFault: the frame cannot be read.
        """
        place = self.places.get(real_path(image_path))
        if place is None:
            raise AnchoringRefused(f"no frame of {self.name} has this image")
        sample = self.readers[place[0]][place[1]]
        if sample.depth_m.shape != shape:
            sizes = ["x".join(map(str, size)) for size in (sample.depth_m.shape, shape)]
            raise AnchoringRefused(f"its measured depth is {sizes[0]}, and the image is {sizes[1]}")
        rows, columns = np.nonzero(sample.valid & np.isfinite(sample.depth_m))
        chosen = evenly_spread(len(rows), MAX_POINTS) if len(rows) else []
        rows, columns = rows[chosen], columns[chosen]
        return rows, columns, sample.depth_m[rows, columns].astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseAnchor:
    """Anchors to what is measured in the frame: scale and shift in inverse depth, then a smooth field of scales."""

    frames: MeasuredFrames
    options: AnchoringOptions

    def anchor(self, given: Input, image: NDArray[np.uint8], inverse: NDArray[np.float64]) -> Anchored:
        """See ``Anchor`` and ``anchor_depth``. There is no label where no measured point is near."""
        if given.is_video:
            raise AnchoringRefused("frames of videos have no measured depth")
        rows, columns, points_m = self.frames.points(given.path, inverse.shape)
        found = anchor_depth(inverse, rows, columns, points_m, self.options)
        return Anchored(
            depth_m=found.depth_m.astype(np.float64),
            valid=np.isfinite(found.guess_spread),
            doubt=found.guess_spread,
            fit=found.fit,
            inlier_share=found.inlier_share,
            residual=found.residual,
        )


def load_metric_model(source: str, device: torch.device, precision: Precision) -> tuple[Predictor, str]:
    """
    Args:
        source: a run folder, a weights file, a folder or a hub id, which describes itself.
        device, precision: as for the teacher.

    Returns:
        The model, and the SHA-256 of its weights file.

    Raises:
        FinetuneError: there is no such model, or it is relative.
    """
    checkpoint = read_checkpoint(source, wording=_NAMES)
    predictor = build_predictor(checkpoint, device, _NAMES)
    if predictor.kind != "metric":
        raise FinetuneError(
            f"{source}: is a relative model, which knows no meters. Name a metric one after --anchor metric."
        )
    return replace(predictor, precision=precision), checkpoint.sha256


@dataclass(frozen=True, kw_only=True, eq=False)
class MetricAnchor:
    """Anchors to what a metric model predicts: scale and shift in inverse depth."""

    model: Teacher
    options: AnchoringOptions

    def anchor(self, given: Input, image: NDArray[np.uint8], inverse: NDArray[np.float64]) -> Anchored:
        """See ``Anchor`` and ``anchor_to_map``."""
        target_m = self.model.predict(given, image)
        end_m = self.model.predictor.max_depth_m
        if self.model.predictor.canonical:
            end_m = None  # it is another one for each focal length
        usable = target_m > 0 if end_m is None else (target_m > 0) & (target_m < _AT_END * end_m)
        return anchor_to_map(inverse, target_m, usable, self.options)


def anchor_to_map(
    inverse: NDArray[np.floating],
    target_m: NDArray[np.floating],
    usable: NDArray[np.bool_],
    options: AnchoringOptions,
) -> Anchored:
    """
    Bring inverse depth of unknown scale and shift to another map in meters, by one scale and one shift with the least
    mean |ln(depth / other depth)|, which a minority of wrong pixels does not move far.

    Args:
        inverse: (H, W), larger is nearer.
        target_m: (H, W) meters.
        usable: (H, W) where ``target_m`` is to be compared with.
        options: see there.

    Returns:
        The label; where it is far beyond all of ``target_m``, it is not valid.

    Raises:
        AnchoringRefused: ``target_m`` has too few usable pixels or one depth, or contradicts ``inverse``.
    """
    target = np.log(target_m[usable].astype(np.float64))
    require_points(target)
    nearest, farthest = float(target.min()), float(target.max())
    limits = nearest - BEYOND_NEAREST_AND_FARTHEST, farthest + BEYOND_NEAREST_AND_FARTHEST
    fit = fit_inverse_log(inverse[usable], target, limits)
    if fit.scale <= 0:
        raise AnchoringRefused("the metric model does not see nearer what the teacher sees nearer")
    depth_m = fit.depth_m(inverse, math.exp(limits[0]), math.exp(limits[1]))
    difference = np.abs(np.log(depth_m[usable]) - target)
    inlier_share = float(np.mean(difference <= options.tolerance))
    if inlier_share < options.min_inlier_share:
        raise AnchoringRefused(f"teacher and metric model agree in {percent(inlier_share)} of its pixels")
    inside = (depth_m > math.exp(limits[0]) * (1 + 1e-9)) & (depth_m < math.exp(limits[1]) * (1 - 1e-9))
    return Anchored(
        depth_m=depth_m,
        valid=inside,
        doubt=np.zeros(depth_m.shape, dtype=np.float32),
        fit=fit,
        inlier_share=inlier_share,
        residual=float(np.median(difference)),
    )

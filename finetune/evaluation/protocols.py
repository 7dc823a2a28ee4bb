"""Named protocols: everything that decides a metric besides the weights, so that a number can be reproduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.alignment import (
    fit_depth_least_squares,
    fit_inverse_least_squares,
    fit_scale_least_squares,
    fit_scale_of_medians,
)
from finetune.evaluation.metrics import Compared, TargetDepth, pooled
from finetune.evaluation.protocol_settings import ProtocolSettings, protocol_settings
from finetune.utils.errors import DataError
from finetune.utils.kinds import IN_WORDS, Kind

# Where pixels are scored: top, bottom, left, right, as shares of height and width.
CROPS = {
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
}
NYU_SIZE, NYU_ROWS, NYU_COLUMNS = (480, 640), (45, 471), (41, 601)
MIN_M = 1e-6  # below it no logarithm is taken
ALIGNMENTS = {
    "none": "none",
    "median": "one scale, the ratio of the medians over the compared pixels",
    "scale": "one scale, least squares in depth over the compared pixels",
    "scale_shift": "scale >= 0 and shift, least squares in depth over the compared pixels",
    "scale_shift_inverse": "scale >= 0 and shift, least squares in inverse depth over the compared pixels",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a prediction is compared with measured depth.

    ``plain``, for one's own data: each image at the resolution of its measured depth, the prediction resized to it
    bilinearly (align_corners true, as the original model does), clamped to the range, compared where measured depth
    is in the range, averaged over images; no crop, no alignment, no flip averaging.

    ``plain+align=scale_shift_inverse``, for a relative model: the same after a scale and a shift are fitted to each
    image in inverse depth. It measures the shape and says nothing about meters. ``plain+align=scale_shift`` fits them
    in depth, for a model of relative depth.

    Attributes:
        name: as ``protocol_settings`` takes it.
        min_depth_m, max_depth_m: the range, meters.
        kind: of predictions: meters of a ``metric`` model, inverse depth of a ``relative`` one, or relative depth.
    """

    name: str = "plain"
    min_depth_m: float
    max_depth_m: float
    kind: Kind = "metric"

    def __post_init__(self) -> None:
        protocol_settings(self.name)  # refuses a name that is no protocol

    @cached_property
    def settings(self) -> ProtocolSettings:
        """What the name stands for."""
        return protocol_settings(self.name)

    @property
    def aligns(self) -> bool:
        """Whether something is fitted to each image, which hides errors of scale."""
        return self.settings.align != "none"

    def to_mapping(self) -> dict[str, Any]:
        """All settings, as every table records them."""
        settings = self.settings
        less = "<=" if settings.bounds == "inclusive" else "<"
        corners = "true" if settings.align_corners else "false"
        return {
            "name": self.name,
            "answers": "meters" if self.kind == "metric" else IN_WORDS[self.kind],
            "min_depth_m": self.min_depth_m,
            "max_depth_m": self.max_depth_m,
            "valid_depth": f"min_depth_m {less} depth {less} max_depth_m",
            "clamp": (
                "prediction to [min_depth_m, max_depth_m]"
                if settings.clamp == "range"
                else f"none, but prediction at least {MIN_M:g} m"
            )
            + "; after resize, mirrored average and alignment",
            "image_crop": settings.image_crop,
            "crop": settings.crop,
            "resolution": f"measured depth; prediction resized bilinearly, align_corners {corners}",
            "alignment": ALIGNMENTS[settings.align],
            "averaging": settings.average,
            "flip": settings.flip,
            "min_pixels": settings.min_pixels,
            "silog": "100 sqrt(mean(e^2) - mean(e)^2)"
            if settings.silog == "standard"
            else "sqrt(mean(e^2) - mean(e)^2 / 2)",
        }

    def __str__(self) -> str:
        settings = self.settings
        parts = [
            f"protocol {self.name}: depth {self.min_depth_m:g} to {self.max_depth_m:g} m at measured resolution",
            *(["bounds excluded"] if settings.bounds == "strict" else []),
            *(["KB crop"] if settings.image_crop == "kb" else []),
            *([] if settings.crop == "none" else [f"{settings.crop} crop"]),
            *([] if settings.align_corners else ["align_corners false"]),
            "clamped" if settings.clamp == "range" else "not clamped",
            f"aligned per image ({ALIGNMENTS[settings.align]})" if self.aligns else "no alignment",
            *(["averaged with the mirrored image"] if settings.flip else []),
            *([] if settings.min_pixels == 1 else [f"images of {settings.min_pixels} pixels or more"]),
            *([] if settings.silog == "standard" else ["silog sqrt(mean(e^2) - mean(e)^2 / 2)"]),
            f"mean over {settings.average}s",
        ]
        return ", ".join(parts)

    def usable(
        self, target_m: NDArray[np.float32], valid: NDArray[np.bool_], source: str = "an image"
    ) -> NDArray[np.bool_]:
        """
        Args:
            target_m: (H, W), measured depth, meters, of a view that ``crop_for_protocol`` gave.
            valid: (H, W), where it was measured.
            source: names it in errors.

        Returns:
            (H, W): the pixels that count; none where they are fewer than ``min_pixels``.

        Raises:
            DataError: the crop is of another size.
        """
        if self.settings.bounds == "inclusive":
            within = (target_m >= self.min_depth_m) & (target_m <= self.max_depth_m)
        else:
            within = (target_m > self.min_depth_m) & (target_m < self.max_depth_m)
        found = valid & within
        if self.settings.crop != "none":
            rows, columns = crop_of(self.settings.crop, target_m.shape, source)
            inside = np.zeros_like(found)
            inside[rows, columns] = True
            found &= inside
        return found if np.count_nonzero(found) >= self.settings.min_pixels else np.zeros_like(found)

    def depth_m(
        self, prediction: NDArray[np.floating], target_m: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> NDArray[np.floating]:
        """
        Args:
            prediction: (H, W), meters, inverse depth or relative depth.
            target_m: (H, W), meters.
            usable: (H, W), of ``usable``; at least one pixel.

        Returns:
            (H, W), the prediction in meters, aligned where the protocol aligns.
        """
        if not self.aligns:
            return prediction
        if self.kind == "relative":
            fit = fit_inverse_least_squares(prediction[usable], target_m[usable])
            return fit.depth_m(prediction, self.min_depth_m, self.max_depth_m)
        prediction = prediction.astype(np.float64)
        pred, target = prediction[usable], target_m[usable]
        match self.settings.align:
            case "median":
                return prediction * fit_scale_of_medians(pred, target)
            case "scale":
                return prediction * fit_scale_least_squares(pred, target)
            case "scale_shift":
                scale, shift = fit_depth_least_squares(pred, target)
                return prediction * scale + shift
        inverse = 1.0 / np.maximum(prediction, MIN_M)
        return fit_inverse_least_squares(inverse[usable], target).depth_m(inverse, self.min_depth_m, self.max_depth_m)

    def score(
        self, pred_m: NDArray[np.floating], target_m: NDArray[np.float32], usable: NDArray[np.bool_]
    ) -> dict[str, float]:
        """
        Args:
            pred_m: (H, W), of ``depth_m``.
            target_m: (H, W), meters.
            usable: (H, W), of ``usable``; at least one pixel.

        Returns:
            Every metric of this image.
        """
        return self.scores(self.compared(pred_m[usable], TargetDepth(target_m[usable].astype(np.float64))))

    def compared(self, pred_m: NDArray[np.floating], target: TargetDepth) -> Compared:
        """
        Args:
            pred_m: (N,) of ``depth_m``, at the pixels that count.
            target: measured there.

        Returns:
            The comparison of both, the prediction clamped as the protocol says.
        """
        if self.settings.clamp == "range":
            return Compared(np.clip(pred_m.astype(np.float64), self.min_depth_m, self.max_depth_m), target)
        return Compared(np.maximum(pred_m.astype(np.float64), MIN_M), target)

    def scores(self, compared: Compared) -> dict[str, float]:
        """Every metric of an image, silog as the protocol defines it."""
        if self.settings.silog == "reference":
            return {**compared.scores, "silog": compared.reference_silog}
        return dict(compared.scores)

    def mean(
        self, scores: Sequence[Mapping[str, float]], pixels: Sequence[int], mean_logs: Sequence[float]
    ) -> dict[str, float]:
        """
        Args:
            scores: of ``score``, of one image or more.
            pixels: how many count in each.
            mean_logs: mean of ln pred - ln target of each.

        Returns:
            Their mean, over images or over pixels.
        """
        return pooled(scores, pixels, mean_logs, by=self.settings.average, silog=self.settings.silog)


def crop_of(name: str, shape: tuple[int, ...], source: str = "an image") -> tuple[slice, slice]:
    """
    Args:
        name: ``garg``, ``eigen`` or ``nyu_eigen``.
        shape: height and width of what is cropped, pixels.
        source: names it in errors.

    Returns:
        Rows and columns, half-open.

    Raises:
        DataError: ``nyu_eigen`` of another size than that of NYUv2.
    """
    height, width = shape
    if name == "nyu_eigen":
        if (height, width) != NYU_SIZE:
            raise DataError(
                source,
                f"is {height}x{width}; the crop nyu_eigen is defined for {NYU_SIZE[0]}x{NYU_SIZE[1]} only",
                "Score it by plain, or by another protocol of evaluation.protocols",
            )
        return slice(*NYU_ROWS), slice(*NYU_COLUMNS)
    top, bottom, left, right = CROPS[name]
    return slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))

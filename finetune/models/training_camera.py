"""The focal lengths that a network was trained with, and how a canonical one turns its output into meters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeGuard

from finetune.utils.errors import shown

CameraMode = Literal["none", "canonical"]
# A focal length this many times below or above those of the training is far from them.
FAR = 1.25


@dataclass(frozen=True, kw_only=True)
class TrainingCamera:
    """
    All focal lengths are (fx + fy) / 2 at the size at which the network sees an image, pixels.

    A canonical network predicts the depth d that a camera of ``focal_px`` would have to be at to see the same image, so
    a camera of f is at d * f / ``focal_px``. Source: Metric3D, arXiv:2307.10984, label transformation.

    Attributes:
        mode: ``canonical``, or ``none``: predictions are right for the training cameras alone.
        focal_px: of the canonical camera; of mode ``none`` the median of the training.
        seen_px: least and most in training; in canonical mode with the zoom. None for weights of others, where it is
            not known.
        zoom: least and most of ``augment.zoom``.
        max_depth_m: of the recipe: meters of the user's cameras; None where there was none, or where it is not known.
    """

    mode: CameraMode
    focal_px: float
    seen_px: tuple[float, float] | None
    zoom: tuple[float, float] = (1.0, 1.0)
    max_depth_m: float | None = None

    @property
    def is_canonical(self) -> bool:
        """Whether predictions are of the canonical camera, and must be told the focal length to become meters."""
        return self.mode == "canonical"

    def meters_factor(self, focal_px: float) -> float:
        """What a prediction is multiplied by to become meters of a camera of ``focal_px``; 1 for mode ``none``."""
        return focal_px / self.focal_px if self.is_canonical else 1.0

    def is_far(self, focal_px: float) -> bool:
        """Whether a focal length is more than 25 % outside those of the training, as far as they are known."""
        if self.seen_px is None:
            return False
        return not self.seen_px[0] / FAR <= focal_px <= self.seen_px[1] * FAR

    @property
    def seen(self) -> str:
        """The range of focal lengths in words: ``210 to 336 px``."""
        if self.seen_px is None:
            return "unknown focal lengths"
        least, most = (f"{focal_px:.0f}" for focal_px in self.seen_px)
        return f"{least} px" if least == most else f"{least} to {most} px"

    def to_mapping(self) -> dict[str, object]:
        """Plain values, for the metadata of a weights file."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_mapping(cls, mapping: object) -> TrainingCamera:
        """
        The inverse of ``to_mapping``.

        Raises:
            ValueError: ``to_mapping`` gives no such mapping.
        """
        if not is_camera_mapping(mapping):
            raise ValueError(f"camera is {shown(mapping)}; expected {', '.join(_NAMES)}")
        seen_px, (least, most) = mapping["seen_px"], mapping["zoom"]
        return cls(
            mode=mapping["mode"],
            focal_px=mapping["focal_px"],
            seen_px=None if seen_px is None else (seen_px[0], seen_px[1]),
            zoom=(least, most),
            max_depth_m=mapping["max_depth_m"],
        )


_NAMES = tuple(field.name for field in fields(TrainingCamera))


def is_camera_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value of a weights file has the form of ``TrainingCamera.to_mapping``."""
    if not isinstance(value, Mapping) or set(value) != set(_NAMES) or value["mode"] not in ("none", "canonical"):
        return False
    depth_m = value["max_depth_m"]
    pairs = [value["zoom"], *([] if value["seen_px"] is None else [value["seen_px"]])]
    return (
        _is_positive(value["focal_px"])
        and (depth_m is None or _is_positive(depth_m))
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_positive, pair)) for pair in pairs)
        and all(pair[0] <= pair[1] for pair in pairs)
    )


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf

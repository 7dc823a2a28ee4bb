"""The settings of each protocol by name: everything that decides a metric besides weights and data.

``plain`` is for one's own data; the others are how published tables were made. One with keys changed is another
protocol, and its name says so: ``kitti_eigen_garg+align=median``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from finetune.utils.errors import RecipeError
from finetune.utils.text import nearest

Alignment = Literal["none", "median", "scale", "scale_shift", "scale_shift_inverse"]


@dataclass(frozen=True, kw_only=True)
class ProtocolSettings:
    """The keys of a protocol; ``Protocol`` does the arithmetic.

    Attributes:
        min_depth_m, max_depth_m: range of measured depth that is scored, meters; None: the recipe's.
        bounds: whether depths at the ends of the range are scored (``inclusive``) or not (``strict``).
        image_crop: what image and depth are cut to, for the network too: ``kb``, the bottom 352 rows and the 1216
            columns in the middle, as in the KITTI depth benchmark.
        crop: where pixels are scored: shares of what ``image_crop`` left (``garg``, ``eigen``), or the rows 45 to 471
            and columns 41 to 601 of a frame of 480x640 (``nyu_eigen``).
        align_corners: of the bilinear resize of the prediction to the measured depth's size.
        align: what is fitted between prediction and measured depth, for each image, before the clamp.
        clamp: the prediction is clamped to the range (``range``), or only kept above 1e-6 m (``none``).
        average: over images, each counting once, or over pixels.
        flip: the prediction is averaged with that for the mirrored image, mirrored back.
        min_pixels: an image with fewer pixels to score is skipped.
        silog: ``standard``, 100 sqrt(mean(e^2) - mean(e)^2), or ``reference``, sqrt(mean(e^2) - mean(e)^2 / 2).
    """

    min_depth_m: float | None = None
    max_depth_m: float | None = None
    bounds: Literal["inclusive", "strict"] = "inclusive"
    image_crop: Literal["none", "kb"] = "none"
    crop: Literal["none", "garg", "eigen", "nyu_eigen"] = "none"
    align_corners: bool = True
    align: Alignment = "none"
    clamp: Literal["range", "none"] = "range"
    average: Literal["image", "pixel"] = "image"
    flip: bool = False
    min_pixels: int = 1
    silog: Literal["standard", "reference"] = "standard"


_NYU = ProtocolSettings(min_depth_m=1e-3, max_depth_m=10.0, bounds="strict", crop="nyu_eigen")
_KITTI = ProtocolSettings(min_depth_m=1e-3, max_depth_m=80.0, bounds="strict")
# The crops are those of Eigen et al. 2014, arXiv:1406.2283, and Garg et al. 2016, arXiv:1603.04992; with these bounds,
# this clamp and this averaging they give ZoeDepth's tables (arXiv:2302.12288), and so Depth Anything's.
# Published numbers are averaged with the mirrored image as well: +flip=true.
PROTOCOLS: dict[str, ProtocolSettings] = {
    "plain": ProtocolSettings(),
    "nyu_eigen": _NYU,
    "kitti_eigen_garg": replace(_KITTI, image_crop="kb", crop="garg"),
    "kitti_garg_full": replace(_KITTI, crop="garg"),
    "kitti_eigen": replace(_KITTI, image_crop="kb", crop="eigen"),
    # What the training script of Depth Anything V2 prints: up to its max depth, no crop, no clamp.
    "reference_script": ProtocolSettings(min_depth_m=1e-3, clamp="none", min_pixels=10, silog="reference"),
}
KEYS = tuple(field.name for field in fields(ProtocolSettings))


def protocol_settings(name: str) -> ProtocolSettings:
    """
    Args:
        name: a key of ``PROTOCOLS``, followed by ``+key=value`` for each key to change.

    Raises:
        RecipeError: there is no such protocol, key or value; names the nearest.
    """
    base, *changes = name.split("+")
    if base not in PROTOCOLS:
        known = f"one of {', '.join(PROTOCOLS)}, each perhaps with +key=value"
        raise RecipeError("protocols", name, _near(known, base, tuple(PROTOCOLS)))
    changed: dict[str, Any] = {}
    for change in changes:
        key, _, text = change.partition("=")
        if key not in KEYS:
            known = f"{base}+key=value with a key out of {', '.join(KEYS)}"
            raise RecipeError("protocols", name, _near(known, key, KEYS))
        if key in changed:
            raise RecipeError("protocols", name, f"each key once; {key} is there twice")
        changed[key] = _value(name, key, text)
    settings = replace(PROTOCOLS[base], **changed)
    if settings.min_depth_m and settings.max_depth_m and settings.min_depth_m >= settings.max_depth_m:
        raise RecipeError("protocols", name, "a larger max_depth_m than min_depth_m")
    return settings


def _value(name: str, key: str, text: str) -> bool | int | float | str:
    """
    Raises:
        RecipeError: the text is no value of the key.
    """
    kind = get_type_hints(ProtocolSettings)[key]
    choices = get_args(kind)
    if kind is bool:
        choices = ("true", "false")
    if key.endswith("_m") or kind is int:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 < number <= 1e6 or (kind is int and not number.is_integer()):
            what = "meters, above 0" if key.endswith("_m") else "a whole number above 0"
            raise RecipeError("protocols", name, f"{key}= followed by {what}")
        return int(number) if kind is int else number
    if text not in choices:
        raise RecipeError("protocols", name, _near(f"{key}= followed by one of {', '.join(choices)}", text, choices))
    return text == "true" if kind is bool else text


def _near(expected: str, word: str, known: Sequence[str]) -> str:
    """What is expected, and which of the known words was probably meant."""
    suggestion = nearest(word, known)
    return expected if suggestion is None else f"{expected}; perhaps {suggestion}"

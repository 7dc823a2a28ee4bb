"""Depth as color with a legend in meters, and rows of pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Gray, a color no depth has, for what was not measured.
_NOTHING = (90, 90, 90)
_TEXT = (235, 235, 235)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def colored(
    values: NDArray[np.floating], low: float, high: float, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """
    Args:
        values: (H, W), any unit.
        low, high: ends of the color range, the same unit; low is blue, high is red.
        valid: (H, W); where False, gray.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    scaled = np.clip((np.nan_to_num(values) - low) / (high - low), 0.0, 1.0) * 255
    colors = cv2.cvtColor(cv2.applyColorMap(scaled.astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    if valid is not None:
        colors[~valid] = _NOTHING
    return np.asarray(colors, dtype=np.uint8)


def with_legend(picture: NDArray[np.uint8], low: float, high: float, unit: str) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + bar, W, 3): below it the color bar with its ends and what lies between them, in ``unit``."""
    labels = 5 if picture.shape[1] >= 300 else 3
    return with_labels(picture, [f"{value:.4g} {unit}" for value in np.linspace(low, high, labels)])


def with_labels(picture: NDArray[np.uint8], labels: Sequence[str]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + bar, W, 3): below it the whole color bar, and under that the labels, evenly spread."""
    width = picture.shape[1]
    scale = max(0.45, width / 800)
    bar_height, text_height = round(14 * scale), round(34 * scale)
    bar = colored(np.linspace(0.0, 1.0, width)[None].repeat(bar_height, 0), 0.0, 1.0)
    gap, line = (np.zeros((rows, width, 3), dtype=np.uint8) for rows in (max(2, round(3 * scale)), text_height))
    thickness = max(1, round(1.5 * scale))
    for share, text in zip(np.linspace(0.0, 1.0, len(labels)), labels, strict=True):
        (text_width, _), _ = cv2.getTextSize(text, _FONT, 0.8 * scale, thickness)
        margin = round(6 * scale)
        left = round(min(max(margin, share * width - text_width / 2), width - text_width - margin))
        below = (left, round(text_height * 0.75))
        cv2.putText(line, text, below, _FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
    return np.concatenate([picture, gap, bar, line])


def titled(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + line, W, 3) with a title above."""
    scale = max(0.45, picture.shape[1] / 800)
    line = np.zeros((round(34 * scale), picture.shape[1], 3), dtype=np.uint8)
    below, thickness = (round(6 * scale), round(25 * scale)), max(1, round(1.5 * scale))
    cv2.putText(line, title, below, _FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
    return np.concatenate([line, picture])


def side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(H, W, 3) each -> one row; shorter ones are padded below."""
    height = max(len(picture) for picture in pictures)
    return np.concatenate([np.pad(p, ((0, height - len(p)), (0, 0), (0, 0))) for p in pictures], axis=1)


def panel(
    image: NDArray[np.uint8],
    target_m: NDArray[np.float32],
    valid: NDArray[np.bool_],
    pred_m: NDArray[np.floating],
    max_depth_m: float,
) -> NDArray[np.uint8]:
    """
    image | measured | predicted | error, at color ranges that depend on ``max_depth_m`` alone, so that panels compare.

    Args:
        image: (H, W, 3) uint8, RGB.
        target_m, valid: (H, W), measured depth in meters and where it was measured.
        pred_m: (H, W), meters.
        max_depth_m: end of the depth colors; those of the error end at a tenth of it.

    Returns:
        (H + captions, 4 W, 3) uint8, RGB.
    """
    error_m = np.abs(pred_m - target_m)
    most_error_m = max_depth_m / 10
    parts = [
        titled(image, "image"),
        titled(with_legend(colored(target_m, 0, max_depth_m, valid), 0, max_depth_m, "m"), "measured"),
        titled(with_legend(colored(pred_m, 0, max_depth_m), 0, max_depth_m, "m"), "predicted"),
        titled(with_legend(colored(error_m, 0, most_error_m, valid), 0, most_error_m, "m"), "error"),
    ]
    return side_by_side(parts)

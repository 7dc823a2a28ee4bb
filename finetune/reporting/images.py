"""Depth as color with a legend in meters, and rows of pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Gray, a color no depth has, for what was not measured.
NOT_MEASURED = (90, 90, 90)
_TEXT = (235, 235, 235)
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Of errors: other colors than those of depth, so that neither legend is taken for the other.
ERROR_COLORS = cv2.COLORMAP_INFERNO
PANEL_PX = 640  # width of a panel for TensorBoard, at most


def colored(
    values: NDArray[np.floating],
    low: float,
    high: float,
    valid: NDArray[np.bool_] | None = None,
    colors: int = cv2.COLORMAP_TURBO,
) -> NDArray[np.uint8]:
    """
    Args:
        values: (H, W), any unit.
        low, high: ends of the color range, the same unit; with the colors as they are, low is blue and high is red.
        valid: (H, W); where False, gray.
        colors: a color map of OpenCV.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    scaled = np.clip((np.nan_to_num(values) - low) / (high - low), 0.0, 1.0) * 255
    picture = cv2.cvtColor(cv2.applyColorMap(scaled.astype(np.uint8), colors), cv2.COLOR_BGR2RGB)
    if valid is not None:
        picture[~valid] = NOT_MEASURED
    return np.asarray(picture, dtype=np.uint8)


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
        (text_width, _), _ = cv2.getTextSize(text, FONT, 0.8 * scale, thickness)
        margin = round(6 * scale)
        left = round(min(max(margin, share * width - text_width / 2), width - text_width - margin))
        below = (left, round(text_height * 0.75))
        cv2.putText(line, text, below, FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
    return np.concatenate([picture, gap, bar, line])


def titled(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + line, W, 3) with a title above."""
    scale = max(0.45, picture.shape[1] / 800)
    line = np.zeros((round(34 * scale), picture.shape[1], 3), dtype=np.uint8)
    below, thickness = (round(6 * scale), round(25 * scale)), max(1, round(1.5 * scale))
    cv2.putText(line, title, below, FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
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
    Image and measured, below them predicted and error, at most ``PANEL_PX`` wide together: an event file holds many.

    Color ranges depend on ``max_depth_m`` alone, so that panels compare.

    Args:
        image: (H, W, 3) uint8, RGB.
        target_m, valid: (H, W), measured depth in meters and where it was measured.
        pred_m: (H, W), meters.
        max_depth_m: end of the depth colors; those of the error end at a tenth of it.

    Returns:
        (2 h + captions, 2 w, 3) uint8, RGB; w is W, or half of ``PANEL_PX`` where that is less.
    """
    most_error_m = max_depth_m / 10
    height, width = target_m.shape
    size = (min(width, PANEL_PX // 2), max(1, round(height * min(1.0, PANEL_PX / 2 / width))))

    # Colors have no mean with the gray of what was not measured, so pixels are picked.
    def small(picture: NDArray[np.uint8], kind: int = cv2.INTER_NEAREST) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(picture, size, interpolation=kind), dtype=np.uint8)

    def depth(values_m: NDArray[np.floating], high_m: float, where: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        return with_legend(small(colored(values_m, 0, high_m, where)), 0, high_m, "m")

    above = [
        titled(small(image, cv2.INTER_AREA), "image"),
        titled(depth(target_m, max_depth_m, valid), "measured"),
    ]
    below = [
        titled(depth(pred_m, max_depth_m, None), "predicted"),
        titled(depth(np.abs(pred_m - target_m), most_error_m, valid), "error"),
    ]
    return np.concatenate([side_by_side(above), side_by_side(below)])

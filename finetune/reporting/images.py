"""Depth in color with a legend in meters, and pictures next to each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Gray for pixels without a measurement: no depth has this color.
NOT_MEASURED = (90, 90, 90)
_TEXT = (235, 235, 235)
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Errors have other colors than depth, so that nobody reads one with the legend of the other.
ERROR_COLORS = cv2.COLORMAP_INFERNO
PANEL_PX = 640  # maximum width of a panel for TensorBoard


def colorize(
    values: NDArray[np.floating],
    low: float,
    high: float,
    valid: NDArray[np.bool_] | None = None,
    colors: int = cv2.COLORMAP_TURBO,
) -> NDArray[np.uint8]:
    """
    Args:
        values: (H, W), any unit.
        low, high: ends of the color range, in the unit of ``values``. In the default colors low is blue, high is red.
        valid: (H, W); pixels where it is False are gray.
        colors: number of a color map of OpenCV.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    scaled = np.clip((np.nan_to_num(values) - low) / (high - low), 0.0, 1.0) * 255
    picture = cv2.cvtColor(cv2.applyColorMap(scaled.astype(np.uint8), colors), cv2.COLOR_BGR2RGB)
    if valid is not None:
        picture[~valid] = NOT_MEASURED
    return np.asarray(picture, dtype=np.uint8)


def add_legend(picture: NDArray[np.uint8], low: float, high: float, unit: str) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + bar, W, 3): adds a color bar below, with numbers from ``low`` to ``high`` in ``unit``."""
    labels = 5 if picture.shape[1] >= 300 else 3
    return add_labels(picture, [f"{value:.4g} {unit}" for value in np.linspace(low, high, labels)])


def add_labels(picture: NDArray[np.uint8], labels: Sequence[str]) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + bar, W, 3): adds the whole color bar below, and the labels under it, evenly spread."""
    width = picture.shape[1]
    scale = max(0.45, width / 800)
    bar_height, text_height = round(14 * scale), round(34 * scale)
    bar = colorize(np.linspace(0.0, 1.0, width)[None].repeat(bar_height, 0), 0.0, 1.0)
    gap, line = (np.zeros((rows, width, 3), dtype=np.uint8) for rows in (max(2, round(3 * scale)), text_height))
    thickness = max(1, round(1.5 * scale))
    for share, text in zip(np.linspace(0.0, 1.0, len(labels)), labels, strict=True):
        (text_width, _), _ = cv2.getTextSize(text, FONT, 0.8 * scale, thickness)
        margin = round(6 * scale)
        left = round(min(max(margin, share * width - text_width / 2), width - text_width - margin))
        below = (left, round(text_height * 0.75))
        cv2.putText(line, text, below, FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
    return np.concatenate([picture, gap, bar, line])


def add_title(picture: NDArray[np.uint8], title: str) -> NDArray[np.uint8]:
    """(H, W, 3) -> (H + line, W, 3): adds a title above."""
    scale = max(0.45, picture.shape[1] / 800)
    line = np.zeros((round(34 * scale), picture.shape[1], 3), dtype=np.uint8)
    below, thickness = (round(6 * scale), round(25 * scale)), max(1, round(1.5 * scale))
    cv2.putText(line, title, below, FONT, 0.8 * scale, _TEXT, thickness, cv2.LINE_AA)
    return np.concatenate([line, picture])


def join_pictures(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(H, W, 3) each -> one row of pictures; shorter ones are padded below."""
    height = max(len(picture) for picture in pictures)
    return np.concatenate(
        [np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0))) for picture in pictures], axis=1
    )


def make_panel(
    image: NDArray[np.uint8],
    target_m: NDArray[np.float32],
    valid: NDArray[np.bool_],
    pred_m: NDArray[np.floating],
    max_depth_m: float,
) -> NDArray[np.uint8]:
    """
    Image and measured depth, with prediction and error below them.

    The panel is at most ``PANEL_PX`` wide, because an event file holds many. Its color ranges depend on ``max_depth_m``
    alone, so that panels can be compared.

    Args:
        image: (H, W, 3) uint8, RGB.
        target_m, valid: (H, W), measured depth in meters, and where there is a measurement.
        pred_m: (H, W), meters.
        max_depth_m: end of the depth colors; the error colors end at a tenth of it.

    Returns:
        (2 h + captions, 2 w, 3) uint8, RGB; w is W, at most half of ``PANEL_PX``.
    """
    max_error_m = max_depth_m / 10
    height, width = target_m.shape
    size = (min(width, PANEL_PX // 2), max(1, round(height * min(1.0, PANEL_PX / 2 / width))))

    # Averaging would mix colors with the gray of unmeasured pixels, so pixels are picked.
    def shrink(picture: NDArray[np.uint8], interpolation: int = cv2.INTER_NEAREST) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(picture, size, interpolation=interpolation), dtype=np.uint8)

    def draw_depth(values_m: NDArray[np.floating], high_m: float, where: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
        return add_legend(shrink(colorize(values_m, 0, high_m, where)), 0, high_m, "m")

    above = [
        add_title(shrink(image, cv2.INTER_AREA), "image"),
        add_title(draw_depth(target_m, max_depth_m, valid), "measured"),
    ]
    below = [
        add_title(draw_depth(pred_m, max_depth_m, None), "predicted"),
        add_title(draw_depth(np.abs(pred_m - target_m), max_error_m, valid), "error"),
    ]
    return np.concatenate([join_pictures(above), join_pictures(below)])

"""Depth as color with a legend in meters, and rows of pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.camera import Camera
from finetune.point_cloud import PointCloud, point_cloud

# Gray, a color no depth has, for what was not measured.
_NOTHING = (90, 90, 90)
_TEXT = (235, 235, 235)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# On a page: black on white, as most of them are.
_PAPER, _INK = 255, (30, 30, 30)
_GUTTER = 8  # pixels between the pictures of a page, and around them
_LINE = 24  # pixels of a line of text on a page
_BAR = 12  # pixels of the height of a color bar
# Of errors: other colors than those of depth, so that neither legend is taken for the other.
ERROR_COLORS = cv2.COLORMAP_INFERNO
PANEL_PX = 640  # width of a panel for TensorBoard, at most
# How far the view of points is turned to the side, and down.
_ASIDE_DEG = (30.0, 20.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedFrame:
    """A frame with what was measured and what two models say.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        target_m, valid: (H, W), measured depth in meters and where it was measured.
        base_m: (H, W), the base model in meters, after its fit.
        finetuned_m: (H, W), meters.
        camera: of the frame; where all have one, a page also shows ``finetuned_m`` as points.
    """

    image: NDArray[np.uint8]
    target_m: NDArray[np.float32]
    valid: NDArray[np.bool_]
    base_m: NDArray[np.floating]
    finetuned_m: NDArray[np.floating]
    camera: Camera | None = None


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
        picture[~valid] = _NOTHING
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


def comparison(
    frames: Sequence[ComparedFrame], *, far_m: float, most_error_m: float, width: int = 900
) -> NDArray[np.uint8]:
    """
    A page for people: image | measured | base, fitted | fine-tuned | error, and, with known cameras, its points from
    another place; a row a frame, one legend for all.

    Args:
        frames: at least one, of any sizes.
        far_m: end of the depth colors, meters; they begin at 0.
        most_error_m: end of the colors of the error of ``finetuned_m``, meters; they begin at 0.
        width: of the page, pixels.

    Returns:
        (height, width, 3) uint8, RGB, on white.
    """
    titles = ["image", "measured", "base, fitted", "fine-tuned", "error"]
    if all(frame.camera for frame in frames):
        titles.append("its points")
    # To whole pixels, each from the exact place, so that what is left over is spread over the gutters.
    side = (width - (len(titles) + 1) * _GUTTER) // len(titles)
    lefts = [round(_GUTTER + place * (width - _GUTTER) / len(titles)) for place in range(len(titles))]
    head = _paper(_LINE, width)
    for left, title in zip(lefts, titles, strict=True):
        _write(head, title, left, left + side)
    lines = [head]
    for frame in frames:
        cells = _cells(frame, side, far_m, most_error_m)[: len(titles)]
        line = _paper(len(cells[0]) + _GUTTER, width)
        for left, cell in zip(lefts, cells, strict=True):
            line[: len(cell), left : left + side] = cell
        lines.append(line)
    legends = _paper(_BAR + 2 * _LINE, width)
    legends[:_BAR, lefts[0] + side // 3 : lefts[0] + 2 * side // 3] = _NOTHING
    _write(legends, "not measured", lefts[0], lefts[0] + side, top=_BAR)
    _color_bar(legends, lefts[1], lefts[3] + side, far_m, "depth, meters", cv2.COLORMAP_TURBO)
    _color_bar(legends, lefts[4], lefts[4] + side, most_error_m, "error, meters", ERROR_COLORS)
    return np.concatenate([*lines, legends])


def _cells(frame: ComparedFrame, side: int, far_m: float, most_error_m: float) -> list[NDArray[np.uint8]]:
    """The pictures of a row, all ``side`` wide."""
    height, width = frame.target_m.shape
    size = (side, round(side * height / width))

    # Measured values have no mean with what was not measured, so they are picked; answers are smooth.
    def picked(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST))

    def averaged(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA))

    valid = picked(frame.valid.astype(np.uint8)) > 0
    error_m = np.where(frame.valid, np.abs(frame.finetuned_m - frame.target_m), 0.0).astype(np.float32)
    cells = [
        averaged(frame.image),
        colored(picked(frame.target_m), 0.0, far_m, valid),
        colored(averaged(frame.base_m.astype(np.float32)), 0.0, far_m),
        colored(averaged(frame.finetuned_m.astype(np.float32)), 0.0, far_m),
        colored(picked(error_m), 0.0, most_error_m, valid, ERROR_COLORS),
    ]
    if frame.camera:
        depth_m = np.asarray(frame.finetuned_m, np.float32)
        cloud = point_cloud(depth_m, frame.image, frame.camera, edge_ratio=0.1)
        cells.append(averaged(points_from_aside(cloud, frame.camera, height, width)))
    return cells


def points_from_aside(cloud: PointCloud, camera: Camera, height: int, width: int) -> NDArray[np.uint8]:
    """
    Colored points as seen from the right of the camera and above, turned to the middle of what it saw.

    Args:
        cloud: at least one point, in the frame of the camera.
        camera: whose focal length and center the picture has.
        height, width: of the picture, pixels.

    Returns:
        (height, width, 3) uint8, RGB; a nearer point hides a farther one, and where there is none it is white.
    """
    middle_m = np.median(cloud.xyz_m, axis=0)
    turn, tilt = np.radians(_ASIDE_DEG)
    around = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    down = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    seen = (cloud.xyz_m - middle_m) @ (down @ around).T
    # From farther away, since a corner turned toward the viewer would be too near.
    seen[:, 2] += 1.3 * middle_m[2]
    picture = _paper(height, width)
    order = np.argsort(-seen[:, 2], kind="stable")
    order = order[seen[order, 2] > 0.1]
    x, y, z = seen[order].T
    columns = np.rint(x / z * camera.fx_px + width / 2).astype(int)
    rows = np.rint(y / z * camera.fy_px + height / 2).astype(int)
    # Two by two pixels a point: drawn from farther away than seen, they would leave gaps between them. All of a point
    # at once, or a farther one would lie over the second pixel of a nearer.
    columns = (columns[:, None] + np.array([0, 1, 0, 1])).reshape(-1)
    rows = (rows[:, None] + np.array([0, 0, 1, 1])).reshape(-1)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    picture[rows[inside], columns[inside]] = cloud.color[order].repeat(4, axis=0)[inside]
    return picture


def _paper(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), _PAPER, dtype=np.uint8)


def _write(paper: NDArray[np.uint8], text: str, left: float, right: float, share: float = 0.5, top: int = 0) -> None:
    """One line of text around ``share`` of the way from one column to the other, and not beyond either."""
    # Four times as large first, since OpenCV's small letters are coarse.
    finer, scale, thickness = 4, 0.5, 5
    width = cv2.getTextSize(text, _FONT, scale * finer, thickness)[0][0]
    line = _paper(_LINE * finer, width + _LINE * finer)
    below = (_LINE * finer // 2, round(0.7 * _LINE * finer))
    cv2.putText(line, text, below, _FONT, scale * finer, _INK, thickness, cv2.LINE_AA)
    columns = np.flatnonzero((line < _PAPER).any(axis=(0, 2)))
    ink = line[:, columns[0] : columns[-1] + 1]
    small = cv2.resize(ink, (max(1, round(ink.shape[1] / finer)), _LINE), interpolation=cv2.INTER_AREA)
    place = left + share * (right - left) - small.shape[1] / 2
    place = round(max(left, min(place, right - small.shape[1])))
    shown = small[:, : paper.shape[1] - place]
    paper[top : top + _LINE, place : place + shown.shape[1]] = shown


def _color_bar(paper: NDArray[np.uint8], left: int, right: int, high: float, name: str, colors: int) -> None:
    """Colors from 0 to ``high``, below them values at equal distances, and below these what they are of."""
    shares = np.linspace(0.0, 1.0, right - left)[None].repeat(_BAR, 0)
    paper[:_BAR, left:right] = colored(shares, 0.0, 1.0, colors=colors)
    for share in np.linspace(0.0, 1.0, 6 if right - left >= 400 else 3):
        _write(paper, f"{share * high:.3g}", left, right, share, _BAR)
    _write(paper, name, left, right, top=_BAR + _LINE)

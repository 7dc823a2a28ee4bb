"""The frames section of a run's page: which validation frames it shows, and their pictures in shared colors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.metrics import HIGHER_IS_BETTER, TITLES
from finetune.evaluation.results import ScoredImage
from finetune.reporting.frames import DepthCounts, ShownFrame, ShownFrames, choose_worst_and_best, shrink_frame
from finetune.reporting.images import ERROR_COLORS, colorize
from finetune.reporting.page import Picture, make_picture
from finetune.utils.indices import evenly_spread

FRAMES_OF_A_KIND = 6  # frames among the worst, the best and the evenly picked
COUNTED_FRAMES = 24  # the charts of depth are over this many evenly picked frames
_WIDTH_PX, _WIDE_PX = 440, 660  # width of a picture, and of one in two columns
_WIDE_ASPECT = 2.0  # frames at least this wide get two columns
_PICTURE_BYTES = 7_000_000  # all pictures together; a page may have 8 MB
_LEGEND_BYTES = 20_000
_LEGEND_MARKS = 6


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptFrame:
    """A frame at the size of the page.

    Attributes:
        frame: image, depth and predictions.
        errors_m: row -> absolute error in meters, 0 where it does not count.
        scores: row -> value of the metric by which frames are ranked.
    """

    frame: ShownFrame
    errors_m: Mapping[str, NDArray[np.float32]]
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Legend:
    """A color bar with evenly spread marks below it."""

    name: str
    bar: Picture
    marks: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Radio buttons that choose the row whose prediction is shown; the last row is chosen at first.

    Attributes:
        name: of the group of buttons.
        label: what the switch is for.
        choices: row, and its score on the frame; "" for no score.
    """

    name: str
    label: str
    choices: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class FrameCell:
    """One picture of a frame; ``row`` is the number of the row that it belongs to, None where it belongs to all."""

    picture: Picture
    caption: str
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class FramePanel:
    """A frame: image, measured depth, and prediction and error of each row.

    Attributes:
        number: among all validation frames.
        source: a name by which a person can find the frame.
        switch: None where there is a single row.
        score: metric and value of that single row.
        wide: whether the pictures are in two columns instead of four.
        cells: the pictures.
    """

    number: int
    source: str
    switch: Switch | None
    score: str
    wide: bool
    cells: Sequence[FrameCell]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The section as its template shows it.

    Attributes:
        metric, row: what frames are ranked by.
        legends: of depth and of errors.
        switch: for all frames at once; None where there is a single row.
        groups: title, and the frames below it.
    """

    metric: str
    row: str
    legends: Sequence[Legend]
    switch: Switch | None
    groups: Sequence[tuple[str, Sequence[FramePanel]]]


def choose_frames(images: Sequence[ScoredImage], row: str, metric: str) -> dict[str, list[int]]:
    """
    Args:
        images: all that were scored.
        row, metric: what they are ranked by.

    Returns:
        Title -> numbers of the frames below it. No frame is below two titles; few frames are all shown.
    """
    scores = [(image.number, image.rows[row][metric]) for image in images]
    count = min(FRAMES_OF_A_KIND, -(-len(scores) // 3))
    worst, best = choose_worst_and_best(scores, count, higher_is_better=metric in HIGHER_IS_BETTER)
    best = [number for number in best if number not in worst]
    others = [number for number, _ in scores if number not in (*worst, *best)]
    even = [others[i] for i in evenly_spread(len(others), FRAMES_OF_A_KIND)] if others else []
    groups = {"Worst": worst, "Best": best, "Evenly picked": even}
    return {title: numbers for title, numbers in groups.items() if numbers}


def read_frames(
    frames: ShownFrames, images: Sequence[ScoredImage], metric: str, chosen: Mapping[str, Sequence[int]]
) -> tuple[dict[int, KeptFrame], DepthCounts]:
    """
    Args:
        frames: made one at a time; each is asked for once.
        images: all that were scored.
        metric: whose value each frame shows.
        chosen: title -> numbers of frames to keep.

    Returns:
        The chosen frames at the size of the page, and the depth of evenly picked ones.
    """
    scores = {image.number: {row: image.rows[row][metric] for row in frames.rows} for image in images}
    numbers = list(scores)
    to_count = {numbers[i] for i in evenly_spread(len(numbers), COUNTED_FRAMES)}
    to_keep = {number for group in chosen.values() for number in group}
    counts = DepthCounts(max_depth_m=frames.protocol.max_depth_m)
    kept = {}
    for number in sorted(to_count | to_keep):
        frame = frames[number]
        if number in to_count:
            counts.add(frame)
        if number in to_keep:
            smaller, errors_m = shrink_frame(frame, _WIDE_PX if _is_wide(frame) else _WIDTH_PX)
            kept[number] = KeptFrame(frame=smaller, errors_m=errors_m, scores=scores[number])
    return kept, counts


def _is_wide(frame: ShownFrame) -> bool:
    height, width = frame.target_m.shape
    return width >= _WIDE_ASPECT * height


def make_gallery(
    chosen: Mapping[str, Sequence[int]],
    kept: Mapping[int, KeptFrame],
    *,
    rows: Sequence[str],
    metric: str,
    max_depth_m: float,
) -> Gallery:
    """
    Args:
        chosen: title -> numbers of the frames below it.
        kept: these frames, by number.
        rows: of the table; frames are ranked by the last one.
        metric: by which they are ranked.
        max_depth_m: no color range is longer.
    """
    own = rows[-1]
    frames = kept.values()
    high_m = choose_color_end([shown.frame.target_m[shown.frame.usable] for shown in frames], 99, max_depth_m)
    high_error_m = choose_color_end([shown.errors_m[own][shown.frame.usable] for shown in frames], 95, max_depth_m)
    pictures = sum(map(len, chosen.values())) * (2 + 2 * len(rows))
    groups = []
    panels = 0
    for title, numbers in chosen.items():
        members = []
        for number in numbers:
            shown = kept[number]
            label = f"Prediction shown for image {number}"
            scores = {row: f"{shown.scores[row]:.4f}" for row in rows}
            members.append(
                FramePanel(
                    number=number,
                    source=shown.frame.source,
                    switch=_make_switch(f"frame{panels}", label, rows, scores),
                    score=f"{TITLES[metric]} {scores[own]}",
                    wide=_is_wide(shown.frame),
                    cells=_make_cells(shown, high_m, high_error_m, _PICTURE_BYTES // pictures),
                )
            )
            panels += 1
        groups.append((title, members))
    return Gallery(
        metric=TITLES[metric],
        row=own,
        legends=[
            _make_legend("depth, meters", high_m),
            _make_legend("|error|, meters", high_error_m, ERROR_COLORS),
        ],
        switch=_make_switch("all", "In all frames", rows, {}),
        groups=groups,
    )


def choose_color_end(values_m: Sequence[NDArray[np.float32]], percentile: float, max_depth_m: float) -> float:
    """A round number of meters that this percentage of all values does not exceed; at most ``max_depth_m``."""
    value_m = float(np.percentile(np.concatenate(values_m), percentile))
    power = 10.0 ** math.floor(math.log10(max(value_m, 1e-6)))
    rounded = next(factor * power for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * power >= value_m * 0.999)
    return float(min(rounded, max_depth_m))


def _make_cells(kept: KeptFrame, high_m: float, high_error_m: float, max_bytes: int) -> list[FrameCell]:
    """Image, measured, predicted and error, the last two for each row."""
    frame = kept.frame

    def make_cell(pixels: NDArray[np.uint8], caption: str, row: int | None = None) -> FrameCell:
        picture = make_picture(pixels, f"{caption}: {frame.source}", max_bytes=max_bytes)
        return FrameCell(picture=picture, caption=caption, row=row)

    cells = [
        make_cell(frame.image, "image"),
        make_cell(colorize(frame.target_m, 0.0, high_m, frame.measured), "measured"),
    ]
    for i, (row, pred_m) in enumerate(frame.predictions.items()):
        cells.append(make_cell(colorize(pred_m, 0.0, high_m), f"predicted, {row}", i))
    for i, (row, error_m) in enumerate(kept.errors_m.items()):
        pixels = colorize(error_m, 0.0, high_error_m, frame.usable, ERROR_COLORS)
        cells.append(make_cell(pixels, f"error, {row}", i))
    return cells


def _make_switch(name: str, label: str, rows: Sequence[str], scores: Mapping[str, str]) -> Switch | None:
    """None where there is nothing to choose."""
    if len(rows) == 1:
        return None
    return Switch(name=name, label=label, choices=[(row, scores.get(row, "")) for row in rows])


def _make_legend(name: str, high: float, colors: int | None = None) -> Legend:
    shares = np.linspace(0.0, 1.0, 256)[None].repeat(16, 0)
    bar = colorize(shares, 0.0, 1.0) if colors is None else colorize(shares, 0.0, 1.0, colors=colors)
    return Legend(
        name=name,
        bar=make_picture(bar, f"color bar of {name}, from 0 to {high:g}", max_bytes=_LEGEND_BYTES),
        marks=[f"{value:.3g}" for value in np.linspace(0.0, high, _LEGEND_MARKS)],
    )

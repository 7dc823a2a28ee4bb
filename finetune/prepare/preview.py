"""A page to look at before training: depth drawn over color, the share of labeled pixels, the histogram of depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.readers.files import read_depth, read_image
from finetune.prepare.frame_record import BIN_EDGES_M, FrameRecord
from finetune.prepare.summary import PreparedFrames
from finetune.reporting.charts import Bars, Chart, make_bar_chart
from finetune.reporting.images import add_labels, colorize
from finetune.reporting.page import Picture, make_picture, render_template
from finetune.utils.indices import evenly_spread
from finetune.utils.text import meters, percent

FRAMES = 12
_WIDTH_PX = 480
_MAX_BYTES = 90_000  # of a picture
_DEPTH_SHARE = 0.7  # of the color of depth in a pixel that was measured
_BARS = 30
_MIN_DOT_SHARE = 0.2  # with fewer labeled pixels, each is drawn larger


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What the page shows of a frame: its picture, its files, and a line of figures."""

    picture: Picture
    name: str
    figures: str


def render_preview(folder: Path, prepared: PreparedFrames) -> str:
    """
    Args:
        folder: where the frames are now.
        prepared: what is in it.

    Returns:
        One page that opens without a network.
    """
    # The first and the last percent would stretch the colors to outliers.
    low_m, high_m = prepared.percentile_m(0.01), prepared.percentile_m(0.99)
    if not low_m < high_m:
        low_m, high_m = 0.5 * prepared.far_m, 2 * prepared.far_m
    chosen = [prepared.records[i] for i in evenly_spread(len(prepared.records), FRAMES)]
    return render_template(
        "preview.html",
        title=f"Frames of {prepared.output.name}",
        facts=_list_facts(prepared),
        notes=[*prepared.notes, *prepared.describe_left_out()],
        chart=_draw_histogram(prepared),
        shares=_draw_shares(prepared),
        frames=[_show_frame(folder, record, low_m, high_m) for record in chosen],
    )


def _list_facts(prepared: PreparedFrames) -> dict[str, str]:
    sizes = {record.size for record in prepared.records}
    height, width = prepared.records[0].size
    return {
        "frames": f"{len(prepared.records)}: {len(prepared.split.train)} train, {len(prepared.split.val)} val, "
        f"{len(prepared.split.gap)} in the gap",
        "split": prepared.split.rule,
        "size": f"{height}x{width} (height x width)" if len(sizes) == 1 else f"{len(sizes)} sizes",
        "labeled pixels": percent(prepared.labeled_share),
        "depth": f"{meters(prepared.near_m)} to {meters(prepared.far_m)}, median {meters(prepared.percentile_m(0.5))}",
        "stored as": f"16-bit PNG, value x {prepared.unit:.6g} = meters, 0 = not measured",
    }


def _show_frame(folder: Path, record: FrameRecord, low_m: float, high_m: float) -> _Frame:
    image = read_image(folder / record.image)
    depth_m = read_depth(folder / record.depth).astype(np.float32) * np.float32(record.unit)
    picture = draw_depth(image, depth_m, low_m, high_m)
    # Colors of equal ratio, since most of what a camera sees is near.
    marks = [meters(float(mark_m)) for mark_m in np.geomspace(low_m, high_m, 4)]
    alt = f"{record.image} with its depth in color over it"
    figures = f"{percent(record.labeled_share)} labeled, {meters(record.near_m)} to {meters(record.far_m)}"
    return _Frame(
        picture=make_picture(add_labels(picture, marks), alt, max_bytes=_MAX_BYTES),
        name=record.image,
        figures=figures,
    )


def draw_depth(
    image: NDArray[np.uint8], depth_m: NDArray[np.float32], low_m: float, high_m: float
) -> NDArray[np.uint8]:
    """
    Args:
        image: (H, W, 3), RGB.
        depth_m: (h, w), meters; 0 where nothing was measured.
        low_m, high_m: ends of the colors, which are of equal ratio.

    Returns:
        (h', w', 3), RGB: the image in gray, with the colors of depth over what was measured.
    """
    size = (_WIDTH_PX, max(1, round(image.shape[0] * _WIDTH_PX / image.shape[1])))
    gray = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    picture = np.repeat(gray[..., None], 3, axis=2)
    dots = _place_depth(depth_m, size)
    measured = dots > 0
    color = colorize(np.log(np.maximum(dots, low_m / 2)), math.log(low_m), math.log(high_m))
    mixed = _DEPTH_SHARE * color + (1 - _DEPTH_SHARE) * picture
    picture[measured] = mixed[measured].astype(np.uint8)
    return picture


def _place_depth(depth_m: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Depth at another size, (width, height); each pixel of it is the nearest depth that falls into it."""
    if np.count_nonzero(depth_m) >= _MIN_DOT_SHARE * depth_m.size:
        return np.asarray(cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST), dtype=np.float32)
    rows, columns = np.nonzero(depth_m)
    placed = np.full((size[1], size[0]), np.inf, np.float32)
    at = (rows * size[1] // depth_m.shape[0], columns * size[0] // depth_m.shape[1])
    np.minimum.at(placed, at, depth_m[rows, columns])
    # Erosion takes the least of each neighborhood, here the nearest depth.
    larger = cv2.erode(placed, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE)
    return np.where(np.isfinite(larger), larger, 0).astype(np.float32)


def _draw_histogram(prepared: PreparedFrames) -> Chart | None:
    """Share of the measured pixels in bins of equal ratio."""
    counts = np.array(prepared.counts)
    (filled,) = np.nonzero(counts)
    first, last = int(filled[0]), int(filled[-1]) + 1
    step = max(1, -(-(last - first) // _BARS))
    starts = range(first, last, step)
    shares = [100 * float(counts[start : start + step].sum()) / float(counts.sum()) for start in starts]
    return make_bar_chart(
        "measured depth, % of pixels in bins of equal ratio",
        [_format_edge(float(BIN_EDGES_M[start])) for start in starts],
        [Bars(name="measured", values=shares, color=0)],
        x_name="meters, from",
    )


def _draw_shares(prepared: PreparedFrames) -> Chart | None:
    """How many frames have which share of labeled pixels."""
    tenths = np.histogram([record.labeled_share for record in prepared.records], np.linspace(0, 1, 11))[0]
    return make_bar_chart(
        "labeled pixels, number of frames",
        [f"{10 * i}%" for i in range(10)],
        [Bars(name="frames", values=[float(count) for count in tenths], color=1)],
        x_name="share of labeled pixels, from",
    )


def _format_edge(edge_m: float) -> str:
    """Three digits, but never 1.35e+03: such labels are so wide that they overlap."""
    return f"{edge_m:.0f}" if edge_m >= 999.5 else f"{edge_m:.3g}"

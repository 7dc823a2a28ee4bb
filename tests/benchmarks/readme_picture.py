"""Draw the README's picture: image, measured, base with its fit, fine-tuned, error, points, of three validation frames.

    python tests/benchmarks/readme_picture.py runs/room_tiny data/room_tiny.png

Reads the run folder alone: its recipe, from the directory that it was launched from, and its ``best/``. The base is the
recipe's checkpoint with the scale and shift of ``base_fitted_scale``. Colors end at ``--far`` and ``--error`` meters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.data.validation_dataset import ValidationSamples
from finetune.evaluation.evaluator import predict_one, predict_with_network
from finetune.inference.point_cloud import PointCloud, point_cloud
from finetune.inference.predictor import load_model
from finetune.models.checkpoints.fill import whole_network
from finetune.recipe.load import load_recipe
from finetune.reporting.images import ERROR_COLORS, FONT, NOT_MEASURED, colorize
from finetune.training.environment import make_accelerator
from finetune.training.startup import make_protocols, prepare_startup
from finetune.utils.indices import evenly_spread

# On a page: black on white, as most of them are.
_PAPER, _INK = 255, (30, 30, 30)
_GUTTER = 8  # pixels between the pictures of a page, and around them
_LINE = 24  # pixels of a line of text on a page
_BAR = 12  # pixels of the height of a color bar
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


def compared_frames(run: Path, count: int) -> list[ComparedFrame]:
    """Validation frames of a run, evenly picked, with what its base and its best weights say of them."""
    recipe = load_recipe(run / "recipe.yaml")
    accelerator, _ = make_accelerator(recipe)
    begin = prepare_startup(recipe, accelerator)
    if begin.checkpoint is None or begin.baselines is None:
        sys.exit(f"{run}: has no base, or no meters, to draw; name the run of a metric head on a checkpoint.")
    base_answer = predict_with_network(whole_network(begin.checkpoint).to(accelerator.device))
    predictor, protocol = load_model(str(run)), make_protocols(recipe)[0]
    validation = ValidationSamples([entry.source for entry in recipe.data.val], begin.preprocessing)
    frames = []
    for place in evenly_spread(len(validation), count):
        found = validation[place]
        sample = found.sample
        base = predict_one(base_answer, found.image, (sample.depth_m.shape[0], sample.depth_m.shape[1]))
        frames.append(
            ComparedFrame(
                image=sample.image,
                target_m=sample.depth_m,
                valid=protocol.usable(sample.depth_m, sample.valid),
                base_m=begin.baselines.base_depth_m(base, protocol.min_depth_m, protocol.max_depth_m),
                finetuned_m=predictor.predict(sample.image),
                camera=sample.camera,
            )
        )
    return frames


def comparison(
    frames: Sequence[ComparedFrame], *, far_m: float, most_error_m: float, width: int = 900
) -> NDArray[np.uint8]:
    """
    A page for people: image | measured | base_fitted_scale | finetuned, as in the table | error, and, with known
    cameras, its points from another place; a row a frame, one legend for all.

    Args:
        frames: at least one, of any sizes.
        far_m: end of the depth colors, meters; they begin at 0.
        most_error_m: end of the colors of the error of ``finetuned_m``, meters; they begin at 0.
        width: of the page, pixels.

    Returns:
        (height, width, 3) uint8, RGB, on white.
    """
    titles = ["image", "measured", "base_fitted_scale", "finetuned", "error"]
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
    legends[:_BAR, lefts[0] + side // 3 : lefts[0] + 2 * side // 3] = NOT_MEASURED
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
        colorize(picked(frame.target_m), 0.0, far_m, valid),
        colorize(averaged(frame.base_m.astype(np.float32)), 0.0, far_m),
        colorize(averaged(frame.finetuned_m.astype(np.float32)), 0.0, far_m),
        colorize(picked(error_m), 0.0, most_error_m, valid, ERROR_COLORS),
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
    width = cv2.getTextSize(text, FONT, scale * finer, thickness)[0][0]
    line = _paper(_LINE * finer, width + _LINE * finer)
    below = (_LINE * finer // 2, round(0.7 * _LINE * finer))
    cv2.putText(line, text, below, FONT, scale * finer, _INK, thickness, cv2.LINE_AA)
    columns = np.flatnonzero((line < _PAPER).any(axis=(0, 2)))
    ink = line[:, columns[0] : columns[-1] + 1]
    small = cv2.resize(
        ink, (max(1, round(min(ink.shape[1] / finer, right - left))), _LINE), interpolation=cv2.INTER_AREA
    )
    place = left + share * (right - left) - small.shape[1] / 2
    place = round(max(left, min(place, right - small.shape[1])))
    shown = small[:, : paper.shape[1] - place]
    paper[top : top + _LINE, place : place + shown.shape[1]] = shown


def _color_bar(paper: NDArray[np.uint8], left: int, right: int, high: float, name: str, colors: int) -> None:
    """Colors from 0 to ``high``, below them values at equal distances, and below these what they are of."""
    shares = np.linspace(0.0, 1.0, right - left)[None].repeat(_BAR, 0)
    paper[:_BAR, left:right] = colorize(shares, 0.0, 1.0, colors=colors)
    for share in np.linspace(0.0, 1.0, 6 if right - left >= 400 else 3):
        _write(paper, f"{share * high:.3g}", left, right, share, _BAR)
    _write(paper, name, left, right, top=_BAR + _LINE)


def main() -> int:
    """Draw, write, and say what stands in the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run folder, such as runs/room_tiny")
    parser.add_argument("output", type=Path, help="the PNG to write")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--far", type=float, default=5.0, metavar="METERS", help="end of the depth colors")
    parser.add_argument("--error", type=float, default=0.5, metavar="METERS", help="end of the error colors")
    parser.add_argument("--width", type=int, default=900, metavar="PIXELS")
    arguments = parser.parse_args()
    frames = compared_frames(arguments.run, arguments.frames)
    for frame in frames:
        target_m = frame.target_m[frame.valid]
        base, finetuned = (
            np.mean(np.abs(answer_m[frame.valid] - target_m) / target_m)
            for answer_m in (frame.base_m, frame.finetuned_m)
        )
        print(f"AbsRel of base_fitted_scale {base:.4f}, of finetuned {finetuned:.4f}; up to {target_m.max():.1f} m")
    page = comparison(frames, far_m=arguments.far, most_error_m=arguments.error, width=arguments.width)
    _, packed = cv2.imencode(".png", page[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    arguments.output.write_bytes(packed.tobytes())
    print(f"{arguments.output}: {page.shape[1]}x{page.shape[0]}, {len(packed) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

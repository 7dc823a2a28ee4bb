"""Fit one scale to a few labeled frames of a deployed camera, and fold it into the model's max depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.data.reader import set_image_levels
from finetune.data.readers.exif import guess_camera
from finetune.data.readers.files import read_network_image
from finetune.data.readers.list_lines import read_rows
from finetune.evaluation.alignment import fit_log_scale
from finetune.inference.frame_cameras import UNKNOWN_CAMERAS, FrameCameras
from finetune.inference.predictor import Predictor
from finetune.models.checkpoints.save import save_native
from finetune.models.depth_model import DepthModel
from finetune.models.training_camera import TrainingCamera
from finetune.recipe.schema import Recipe
from finetune.utils.errors import CheckpointError, DataError, FinetuneError
from finetune.utils.files import explain_write_errors
from finetune.utils.indices import evenly_spread
from finetune.utils.paths import expand_path, if_closed, is_file
from finetune.utils.text import count_noun

# A prediction above this share of the max depth means "at least this far", which says nothing about scale.
_AT_END = 0.95
# Limits beyond which more than the scale is wrong: the share of the error that is left, how much the scales of frames
# differ, and those of near and far pixels.
MIN_GAINED, FRAMES_DIFFER, NEAR_AND_FAR_DIFFER = 0.8, 0.1, 0.1
_SAME_LENS = math.log(1.05)  # a scale and a focal ratio that are no farther apart than this agree
_SMALL_ERROR = 0.03  # AbsRel below which there is nothing to gain
METADATA = "calibration"


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledFrame:
    """Predicted and measured depth of some pixels of a frame.

    Attributes:
        name: the frame's.
        pred_m, target_m: (N,) meters.
        focal_px: at the network's size, pixels; None where no camera is known.
    """

    name: str
    pred_m: NDArray[np.float64]
    target_m: NDArray[np.float64]
    focal_px: float | None = None

    def abs_rel(self, scale: float = 1.0) -> float:
        """Mean of |scale pred - target| / target."""
        return float(np.mean(np.abs(scale * self.pred_m - self.target_m) / self.target_m))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A scale, and how much it helps.

    Attributes:
        scale: the factor for predictions.
        frames, pixels: the numbers of those it was fitted to.
        before, after: AbsRel without and with the scale, mean over frames.
        left_out: AbsRel of each frame with the scale fitted to the others, mean over frames; None for one frame.
        spread: half of the distance from the 16th to the 84th percentile of the frames' own scales, in natural
            logarithms; None for one frame.
        near, far: the scale of the nearer and of the farther half of the pixels alone.
        warnings: why more than the scale may be wrong, one sentence each.
    """

    scale: float
    frames: int
    pixels: int
    before: float
    after: float
    left_out: float | None
    spread: float | None
    near: float
    far: float
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"scale {self.scale:.4f} from {count_noun(self.pixels, 'pixel')} of {count_noun(self.frames, 'frame')}",
            f"AbsRel before {self.before:.4f}, after {self.after:.4f}, mean over frames",
        ]
        if self.left_out is None or self.spread is None:
            lines.append("one frame alone cannot show how well the scale holds for others: give more frames")
        else:
            lines.append(
                f"each frame with the scale of the others: AbsRel {self.left_out:.4f}; the frames' own scales differ "
                f"by {math.expm1(self.spread):.1%}"
            )
        lines.append(f"nearer half alone {self.near:.4f}, farther half alone {self.far:.4f}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def predict_labeled_frames(
    predictor: Predictor, recipe: Recipe, frames: int, cameras: FrameCameras = UNKNOWN_CAMERAS
) -> list[LabeledFrame]:
    """
    Args:
        predictor: a metric model.
        recipe: its ``data.train`` is from the camera. ``data.val`` stays unseen, for ``evaluate``.
        frames: at most this many, evenly spread over the entries.
        cameras: of frames whose reader gives none.

    Returns:
        The frames with at least one pixel to compare.

    Raises:
        FileFault: a frame cannot be read.
    """
    entries = recipe.data.train
    set_image_levels([entry.source for entry in entries], predictor.preprocessing.image_levels)
    found = []
    for entry in entries:
        reader = entry.source.decoded_for(predictor.preprocessing)
        for frame in evenly_spread(len(reader), max(1, frames // len(entries))):
            sample = reader[frame]
            focal_px = cameras.focal_px(predictor, sample.source, sample.camera, *sample.depth_m.shape)
            pred_m = predictor.predict_at(sample.image, focal_px, size=sample.valid.shape)[sample.valid]
            found.append(_compare_pixels(predictor, sample.source, pred_m, sample.depth_m[sample.valid], focal_px))
    return [labeled for labeled in found if labeled.pred_m.size]


def read_known_distances(
    predictor: Predictor, path: Path, cameras: FrameCameras = UNKNOWN_CAMERAS
) -> list[LabeledFrame]:
    """
    Args:
        predictor: a metric model.
        path: a text file with ``image, x, y, meters`` a line, separated by commas or spaces. x goes right and y down,
            in pixels of the upright image from 0. Images are relative to the file's folder or to the current one.
            Meters are along the optical axis.
        cameras: of the images; EXIF data count where nothing is given.

    Returns:
        One frame for each image.

    Raises:
        FinetuneError: the file cannot be read, or a line is not of this form; names the line.
    """
    points: dict[Path, list[tuple[int, int, float, int]]] = {}
    for number, name, x, y, meters in _read_points(path):
        candidates = (path.parent / expand_path(name), expand_path(name))
        image_file = next((candidate for candidate in candidates if is_file(candidate)), None)
        if image_file is None:
            closed = if_closed(path.parent / expand_path(name))
            raise FinetuneError(
                f"{path}:{number}: {name} is no file below {path.parent} or from here{closed}. Fix the line."
            )
        points.setdefault(image_file, []).append((x, y, meters, number))
    if not points:
        raise FinetuneError(f"{path}: has no distances. Write `image, x, y, meters`, one a line.")
    found = []
    for image_file, of_image in points.items():
        image = read_network_image(image_file, predictor.preprocessing)
        height, width = image.size
        for x, y, _, number in of_image:
            if not (0 <= x < width and 0 <= y < height):
                raise FinetuneError(
                    f"{path}:{number}: ({x}, {y}) is outside of {image_file}, {width}x{height}. x goes right, y down."
                )
        guessed = None if cameras.options.is_known else guess_camera(image_file, height, width)
        focal_px = cameras.focal_px(predictor, str(image_file), guessed, height, width)
        columns, rows, target_m, _ = zip(*of_image, strict=True)
        pred_m = predictor.predict_at(image.pixels, focal_px, size=image.size)[list(rows), list(columns)]
        found.append(_compare_pixels(predictor, str(image_file), pred_m, np.array(target_m), focal_px))
    return [labeled for labeled in found if labeled.pred_m.size]


def _read_points(path: Path) -> Iterable[tuple[int, str, int, int, float]]:
    for number, columns in read_rows(str(path), ("image", "x", "y", "meters")):
        try:
            image, x, y, meters = columns
            values = (round(float(x)), round(float(y)), float(meters))
        except (ValueError, OverflowError):
            values = (0, 0, 0.0)
        if not 0 < values[2] < math.inf:
            raise FinetuneError(f"{path}:{number}: is {', '.join(columns)!r}; expected image, x, y, meters.")
        yield number, image, *values


def _compare_pixels(
    predictor: Predictor,
    name: str,
    pred_m: NDArray[np.floating],
    target_m: NDArray[np.floating],
    focal_px: float | None,
) -> LabeledFrame:
    """The pixels whose prediction and measurement say something about the scale."""
    end_m = math.inf if predictor.network.end_m is None else predictor.network.end_m
    if predictor.canonical and focal_px is not None:
        end_m *= predictor.canonical.meters_factor(focal_px)
    kept = (pred_m > 0) & (pred_m < _AT_END * end_m) & np.isfinite(target_m)
    return LabeledFrame(
        name=name,
        pred_m=pred_m[kept].astype(np.float64),
        target_m=target_m[kept].astype(np.float64),
        focal_px=focal_px,
    )


def fit_calibration(frames: Sequence[LabeledFrame], camera: TrainingCamera | None = None) -> Calibration:
    """
    Args:
        frames: each with at least one pixel. Each counts once, however many pixels it has.
        camera: what the model was trained with, if that is known.

    Raises:
        DataError: there are no frames.
    """
    if not frames:
        raise DataError(
            "calibration",
            "no pixel has both a measured depth and a prediction below the end of the model's range",
            "Give frames with labels, or a model with a larger max depth",
        )
    own = [fit_log_scale(frame.pred_m, frame.target_m) for frame in frames]
    scale = _log_median(own)
    left_out = spread = None
    if len(frames) > 1:
        others = [_log_median(own[:i] + own[i + 1 :]) for i in range(len(own))]
        left_out = float(np.mean([frame.abs_rel(other) for frame, other in zip(frames, others, strict=True)]))
        low, high = np.percentile(np.log(own), (16, 84))
        spread = float(high - low) / 2
    pred_m = np.concatenate([frame.pred_m for frame in frames])
    target_m = np.concatenate([frame.target_m for frame in frames])
    is_near = target_m <= np.median(target_m)
    near = fit_log_scale(pred_m[is_near], target_m[is_near])
    far = fit_log_scale(pred_m[~is_near], target_m[~is_near]) if not is_near.all() else near
    before, after = (float(np.mean([frame.abs_rel(factor) for frame in frames])) for factor in (1.0, scale))
    return Calibration(
        scale=scale,
        frames=len(frames),
        pixels=len(pred_m),
        before=before,
        after=after,
        left_out=left_out,
        spread=spread,
        near=near,
        far=far,
        warnings=(*_find_warnings(before, after, spread, near, far), *_compare_lenses(scale, frames, camera)),
    )


def _compare_lenses(scale: float, frames: Sequence[LabeledFrame], camera: TrainingCamera | None) -> Iterator[str]:
    """A sentence where the lens alone explains the scale."""
    focals_px = [frame.focal_px for frame in frames if frame.focal_px is not None]
    if camera is None or not focals_px:
        return
    focal_px = float(np.median(focals_px))
    # A canonical model has multiplied by the ratio already, so a wrong camera leaves its inverse.
    ratio = camera.focal_px / focal_px if camera.is_canonical else focal_px / camera.focal_px
    if abs(math.log(ratio)) < _SAME_LENS or abs(math.log(scale / ratio)) > _SAME_LENS:
        return
    both = f"{focal_px:.0f} px at the network's size against {camera.focal_px:.0f}"
    if camera.is_canonical:
        yield (
            f"the scale is what takes the focal ratio back ({both}: {ratio:.3f}), as if these frames had the canonical "
            "lens: check their intrinsics"
        )
        return
    yield (
        f"the scale is what the focal ratio predicts ({both} in training: {ratio:.3f}): the lens is what differs. "
        "For a model that takes any lens, train with data.camera.mode: canonical"
    )


def _log_median(scales: Sequence[float]) -> float:
    """The median of the logarithms, so that 2 and 1/2 are equally far from 1."""
    return float(np.exp(np.median(np.log(scales))))


def _find_warnings(before: float, after: float, spread: float | None, near: float, far: float) -> Iterable[str]:
    if before > _SMALL_ERROR and after > MIN_GAINED * before:
        yield f"one scale hardly helps ({before:.3f} before, {after:.3f} after): fine-tune on frames of this camera"
    if spread is not None and spread > FRAMES_DIFFER:
        yield (
            f"each frame needs a different scale ({math.expm1(spread):.0%} apart), so one scale fits none of them: "
            "fine-tune, or calibrate for one scene only"
        )
    if abs(math.log(near / far)) > NEAR_AND_FAR_DIFFER:
        yield (
            f"near pixels need the scale {near:.3f} and far ones {far:.3f}: the error changes with distance, as with a "
            "shift or another field of view; check the undistortion, and fine-tune"
        )


def write_calibrated(predictor: Predictor, found: Calibration, output: Path, fitted_to: str) -> float:
    """
    Write the model with the scale folded into its max depth, as a native weights file.

    Args:
        fitted_to: the source of the frames, for the record in the file.

    Returns:
        The new max depth, meters.
    """
    assert predictor.max_depth_m is not None
    earlier = predictor.metadata.get(METADATA, {})
    record = {
        "scale": found.scale * earlier.get("scale", 1.0),
        "original_max_depth_m": earlier.get("original_max_depth_m", predictor.max_depth_m),
        "original_evaluation": earlier.get("original_evaluation", predictor.metadata.get("evaluation")),
        "frames": found.frames,
        "pixels": found.pixels,
        "abs_rel_before": found.before,
        "abs_rel_after": found.after,
        "abs_rel_left_out": found.left_out,
        "fitted_to": fitted_to,
    }
    max_depth_m = predictor.max_depth_m * found.scale
    metadata = {**predictor.metadata, METADATA: record}
    # The scores are of other predictions.
    metadata.pop("evaluation", None)
    _save_scaled(predictor, max_depth_m, metadata, output)
    return max_depth_m


def write_uncalibrated(predictor: Predictor, output: Path) -> float:
    """
    Write the model as it was before all calibration.

    Returns:
        Its max depth, meters.

    Raises:
        CheckpointError: it was never calibrated.
    """
    metadata = dict(predictor.metadata)
    record = metadata.pop(METADATA, None)
    if not isinstance(record, Mapping):
        raise CheckpointError(predictor.source, "was never calibrated", "Name a file that calibrate wrote")
    metadata["evaluation"] = record["original_evaluation"]
    if metadata["evaluation"] is None:
        del metadata["evaluation"]
    _save_scaled(predictor, record["original_max_depth_m"], metadata, output)
    return float(record["original_max_depth_m"])


def _save_scaled(predictor: Predictor, max_depth_m: float, metadata: Mapping[str, object], output: Path) -> None:
    """
    Raises:
        FinetuneError: it cannot be written there.
    """
    network = predictor.network
    scaled = DepthModel(
        network.encoder_name,
        max_depth_m,
        version=network.version,
        position_offset=network.position_offset,
        camera=network.camera,
        activation=network.activation,
    )
    scaled.load_state_dict(network.state_dict())
    described = {"preprocessing": predictor.preprocessing.to_mapping(), "base": dict(predictor.base)} | dict(metadata)
    with explain_write_errors(output):
        save_native(output, scaled, described)

"""Many images and videos to depth: what is decoded next and written last does not keep the network waiting."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.data.camera import CameraOptions, camera_of
from finetune.data.preprocessing import MAX_ELONGATED
from finetune.data.readers.files import read_image
from finetune.inference.inputs import ENDINGS, VIDEO_ENDINGS, Input
from finetune.inference.outputs import (
    UNITS_PER_METER,
    MeterFiles,
    inverse_preview,
    meter_preview,
    spread_range,
    write_inverse,
)
from finetune.inference.point_cloud import PointCloud, point_cloud
from finetune.inference.predictor import Predictor
from finetune.inference.video import VideoFrames, written_video
from finetune.utils.errors import DataError, FinetuneError, ResultError
from finetune.utils.files import explain_write_errors
from finetune.utils.paths import MAX_NAME_BYTES, path_exists

# Images that are decoded, or wait to be written, at any time.
_AHEAD = 3
# Further from training than this, shape or size is worth a word.
FAR_ASPECT, FAR_ENLARGED = 2.0, 2.0
# The range of a preview that goes from each image's 2nd to its 98th percentile.
AUTO: Literal["auto"] = "auto"
# A preview that uses less of its colors shows little.
FLAT_SHARE = 0.2
# Fewer steps from 0 to the model's max depth are no depth map but a typing error.
MIN_PNG_STEPS = 20
# Of the preview of a video: encoding VP9 takes about 1 s of a core for a frame of 1920x1080, 0.2 s for 640x360.
MAX_VIDEO_SIDE_PX = 640
# Of the frames that a video says it has, which some containers estimate: with less it is cut off.
CUT_OFF_SHARE = 0.9
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """What points are made of.

    Attributes:
        cameras: of images that no list gives intrinsics of.
        edge_ratio, max_points: as of ``point_cloud``.
    """

    cameras: CameraOptions
    edge_ratio: float | None = None
    max_points: int | None = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How answers are made and written.

    Attributes:
        output: folder.
        range_m: ends of the colors, meters; None: 0 to the model's max depth; "auto": the 2nd to the 98th percentile
            of each image's own depth, of a video its first frame's.
        units_per_meter: of the 16-bit PNG.
        flip: average with the answer to the mirrored image.
        skip_existing: leave alone what has its last file already.
        frames: of a video also write what an image gets, a frame each.
        points: None: no points.
    """

    output: Path
    range_m: tuple[float, float] | Literal["auto"] | None = None
    units_per_meter: float = UNITS_PER_METER
    flip: bool = False
    skip_existing: bool = False
    frames: bool = False
    points: PointOptions | None = None


@dataclass(kw_only=True)
class Outcome:
    """What became of the images.

    Attributes:
        done, skipped: how many.
        faults: what was wrong with the others, a sentence each.
        beyond: those without a 16-bit PNG, since it does not hold their depth.
        notes: sentences about images far from training.
    """

    done: int = 0
    skipped: int = 0
    faults: list[str] = field(default_factory=list)
    beyond: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def predict_inputs(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> Outcome:
    """
    Args:
        predictor: the model.
        inputs: as ``found_inputs`` gives them.
        options: see there.

    Returns:
        What became of each; what cannot be read, or has no answer, is a fault and the others are done.

    Raises:
        FinetuneError: points are asked for and no camera is known, a range in meters of a model that knows none, a
            PNG would have hardly a step, or nothing can be written there.
    """
    if predictor.kind == "relative" and options.range_m not in (None, AUTO):
        raise FinetuneError(
            f"{predictor.source} is relative: it knows no meters, so no --range in meters. Leave it out, or write "
            "--range auto."
        )
    _require_steps(predictor, options.units_per_meter)
    _require_cameras(predictor, inputs, options)
    work = _Work(predictor, options)
    todo = [one for one in work.nameable(inputs) if not work.stands(one)]
    work.outcome.skipped = len(inputs) - len(todo) - len(work.outcome.faults)
    images = [one for one in todo if not one.is_video]
    # On no terminal a bar is one long line.
    with tqdm(total=len(images), unit="image", dynamic_ncols=True, disable=None if images else True) as bar:
        work.images(images, bar)
    for one in todo:
        if one.is_video:
            work.video(one)
    work.outcome.notes = work.notes(len(todo))
    return work.outcome


def _require_cameras(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> None:
    """
    Raises:
        FinetuneError: points are asked for, and the model knows no meters or an image has no camera.
    """
    if options.points is None:
        return
    if predictor.kind == "relative":
        raise FinetuneError(f"{predictor.source} is relative: it knows no meters, so no points. Leave out --points.")
    cameras = options.points.cameras
    if cameras.intrinsics is None and cameras.hfov_deg is None:
        bare = next((one.path for one in inputs if one.intrinsics is None), None)
        if bare is not None:
            raise FinetuneError(
                f"{bare}: --points needs its camera. Give --intrinsics fx,fy,cx,cy in pixels (with --intrinsics-size "
                "W,H of the images that they are for, if others), a list with these four columns, or --hfov DEGREES."
            )
    if not options.frames and any(one.is_video for one in inputs):
        raise FinetuneError("--points of a video are a file a frame: add --frames, or leave out --points.")


def _require_steps(predictor: Predictor, units_per_meter: float) -> None:
    """
    Raises:
        FinetuneError: between 0 and the model's max depth the 16-bit PNG would have fewer than ``MIN_PNG_STEPS``.
    """
    most_m = predictor.max_depth_m
    if most_m is not None and most_m * units_per_meter < MIN_PNG_STEPS:
        raise FinetuneError(
            f"--png-units-per-meter {units_per_meter:g}: from 0 to the max depth {most_m:g} m the 16-bit PNG would "
            f"have {most_m * units_per_meter:.3g} steps. Write at least {math.ceil(MIN_PNG_STEPS / most_m)}; "
            f"{UNITS_PER_METER:g} is millimeters."
        )


class _Work:
    """The state of one call."""

    def __init__(self, predictor: Predictor, options: PredictOptions) -> None:
        self.outcome = Outcome()
        self._predictor = predictor
        self._options = options
        self._elongated: list[Path] = []
        self._far: list[tuple[Path, str]] = []
        self._flat: list[tuple[Path, tuple[float, float]]] = []
        self._spread: list[tuple[Path, tuple[float, float]]] = []
        self._files: MeterFiles | None = None
        if predictor.max_depth_m is not None:
            self._files = MeterFiles(units_per_meter=options.units_per_meter)

    def nameable(self, inputs: Sequence[Input]) -> list[Input]:
        """The inputs without those, noted as faults, whose answers would have a name that no file can have."""
        found = []
        for one in inputs:
            longest = f"{one.path.stem}{max((*ENDINGS, *VIDEO_ENDINGS), key=len)}"
            if len(os.fsencode(longest)) <= MAX_NAME_BYTES:
                found.append(one)
            else:
                said = f"{one.path}: its answers would have names of more than {MAX_NAME_BYTES} bytes. Rename it."
                self.outcome.faults.append(said)
        return found

    def stands(self, one: Input) -> bool:
        """Whether it is done from an earlier call, and may be left."""
        if not self._options.skip_existing:
            return False
        ending = ".npy" if self._files else "_inverse.npy"
        stem = self._options.output / one.path.stem
        if not one.is_video:
            endings = [ending] if self._options.points is None else [ending, ".ply"]
            return all(path_exists(f"{stem}{ending}") for ending in endings)
        preview = Path(f"{stem}_preview.mp4")
        if not path_exists(preview) or not self._options.frames:
            return path_exists(preview)
        # The earlier call may have been one without --frames, and one in between may have been interrupted.
        frames = len(list(stem.glob(f"[0-9]*{ending}")))
        return frames == VideoFrames(preview).count

    def images(self, inputs: Sequence[Input], bar: tqdm) -> None:
        """Predict images, in their order."""
        written: deque[tuple[Input, Future[bool]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            levels = self._predictor.preprocessing.image_levels
            for one, decoded in _ahead(pool, inputs, lambda one: read_image(one.path, upright=True, levels=levels)):
                try:
                    image = decoded.result()
                    task = self._start_writing(one, image, self._options.output / one.path.stem)
                    written.append((one, pool.submit(task)))
                except (DataError, ResultError) as error:
                    self.outcome.faults.append(str(error))
                    bar.update()
                while len(written) > _AHEAD:
                    self._finish(*written.popleft(), bar)
            while written:
                self._finish(*written.popleft(), bar)

    def _finish(self, one: Input, task: Future[bool], bar: tqdm) -> None:
        if not task.result():
            self.outcome.beyond.append(one.path)
        self.outcome.done += 1
        bar.update()

    def video(self, one: Input) -> None:
        """Predict a video, with one decoded frame and one that is written beside the one at the network."""
        output = self._options.output
        folder = output / one.path.stem
        beyond, ends = 0, None
        try:
            frames = VideoFrames(one.path)
            if self._options.frames:
                with explain_write_errors(folder):
                    folder.mkdir(exist_ok=True)
            with (
                ThreadPoolExecutor(1) as pool,
                written_video(output / f"{one.path.stem}_preview.mp4", frames.frames_per_second) as write_preview,
                tqdm(total=frames.count or None, unit="frame", dynamic_ncols=True, disable=None) as bar,
            ):
                decoded = 0
                for number, image in enumerate(_next_in_thread(pool, iter(frames))):
                    decoded += 1
                    prediction = self._predict(one.path, image)
                    # The range is that of the first frame, so that colors stay comparable.
                    ends = ends or self._ends(one.path, prediction)
                    write_preview(self._preview(_reduced(prediction, MAX_VIDEO_SIDE_PX), ends))
                    if self._options.frames:
                        points = self._points(one, image, prediction)
                        beyond += not self._write(prediction, folder / f"{number:06d}", ends, points)
                    bar.update()
                    if number == 0:
                        self._look(one.path, *image.shape[:2])
        except (DataError, ResultError) as error:
            self.outcome.faults.append(str(error))
            return
        if beyond:
            self.outcome.beyond.append(one.path)
        if decoded < CUT_OFF_SHARE * frames.count:
            self.outcome.faults.append(
                f"{one.path}: {decoded} of the {frames.count} frames that it says it has could be decoded, and are "
                "done. Copy it again."
            )
        self.outcome.done += 1

    def _start_writing(self, one: Input, image: NDArray[np.uint8], stem: Path) -> Callable[[], bool]:
        """What writes the answer to an image, and says whether every file could be written."""
        prediction = self._predict(one.path, image)
        points = self._points(one, image, prediction)
        self._look(one.path, *image.shape[:2])
        ends = self._ends(one.path, prediction)
        return lambda: self._write(prediction, stem, ends, points)

    def _ends(self, path: Path, prediction: NDArray[np.float32]) -> tuple[float, float]:
        """The ends of the preview's colors; notes what is worth a word about them."""
        wanted, max_depth_m = self._options.range_m, self._predictor.max_depth_m
        if wanted is None and max_depth_m is None:
            return float(prediction.min()), float(prediction.max())
        if wanted is not None and wanted != AUTO:
            return wanted
        ends = spread_range(prediction)
        if wanted == AUTO:
            self._spread.append((path, ends))
            return ends
        assert max_depth_m is not None
        if ends[1] - ends[0] < FLAT_SHARE * max_depth_m:
            self._flat.append((path, ends))
        return 0.0, max_depth_m

    def _preview(self, prediction: NDArray[np.float32], ends: tuple[float, float]) -> NDArray[np.uint8]:
        return meter_preview(prediction, ends) if self._files is not None else inverse_preview(prediction, ends)

    def _predict(self, path: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Raises:
            ResultError: there is none.
        """
        try:
            prediction = self._predictor.predict(image, flip=self._options.flip)
        except (MemoryError, RuntimeError) as error:
            # PyTorch has no class of its own for memory that a CPU lacks.
            if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
                raise
            height, width = self._predictor.preprocessing.network_size(*image.shape[:2])
            raise ResultError(
                f"{path}: memory ran out at {height}x{width}. Crop it to a less elongated image."
            ) from error
        if not np.isfinite(prediction).all():
            raise ResultError(
                f"{path}: the answer is not a number everywhere. The weights are damaged; export them again."
            )
        return prediction

    def _points(self, one: Input, image: NDArray[np.uint8], prediction: NDArray[np.float32]) -> PointCloud | None:
        """
        Raises:
            DataError: the camera cannot be that of the image.
        """
        points = self._options.points
        if points is None:
            return None
        height, width = image.shape[:2]
        try:
            listed = one.intrinsics
            cameras = points.cameras
            camera = camera_of(listed, height, width, cameras.size) if listed else cameras.camera(height, width)
        except FinetuneError as error:
            raise ResultError(f"{one.path}: {error}") from error
        assert camera is not None, "looked at before the first image"
        return point_cloud(prediction, image, camera, edge_ratio=points.edge_ratio, max_points=points.max_points)

    def _write(
        self, prediction: NDArray[np.float32], stem: Path, ends: tuple[float, float], points: PointCloud | None
    ) -> bool:
        if self._files is not None:
            return self._files.write(prediction, stem, ends, points)
        write_inverse(prediction, stem, ends)
        return True

    def _look(self, path: Path, height: int, width: int) -> None:
        """Note an image that is far from what the network was trained on."""
        preprocessing = self._predictor.preprocessing
        elongated = preprocessing.elongation(height, width)
        network = preprocessing.network_size(height, width)
        if elongated > MAX_ELONGATED:
            self._elongated.append(path)
        elif elongated > FAR_ASPECT or network[0] > FAR_ENLARGED * height:
            self._far.append((path, f"{width}x{height}"))

    def notes(self, inputs: int) -> list[str]:
        """Sentences about images that are far from training, and about the colors of previews."""
        height, width = self._predictor.preprocessing.input_size
        found = []
        if self._elongated:
            found.append(
                f"{len(self._elongated)} of {inputs}, {self._elongated[0]} first, are more than "
                f"{MAX_ELONGATED:g} times as elongated as the training size {width}x{height}: longer side bounded"
            )
        if self._far:
            path, size = self._far[0]
            found.append(
                f"{len(self._far)} of {inputs}, {path} ({size}) first, are of a shape or size far from the "
                f"training size {width}x{height}: expect larger errors"
            )
        return found + self._notes_on_colors(inputs)

    def _notes_on_colors(self, inputs: int) -> list[str]:
        unit = "relative" if self._files is None else "m"
        if self._spread:
            path, (low, high) = self._spread[0]
            others = "" if len(self._spread) == 1 else "; the others' legends say theirs, so colors do not compare"
            return [
                f"{path}: the preview's colors go from {low:.4g} to {high:.4g} {unit}, the 2nd to the 98th percentile"
                f"{others}"
            ]
        if self._flat:
            path, (low, high) = self._flat[0]
            return [
                f"{len(self._flat)} of {inputs}, {path} first, use less than a fifth of the preview's colors "
                f"({low:.4g} to {high:.4g} of 0 to {self._predictor.max_depth_m:g} m): see more with --range auto"
            ]
        return []


def _ahead(
    pool: ThreadPoolExecutor, inputs: Sequence[Input], read: Callable[[Input], _T]
) -> Iterator[tuple[Input, Future[_T]]]:
    """Each input and what is read of it, a few of them in advance."""
    waiting: deque[tuple[Input, Future[_T]]] = deque()
    for one in inputs:
        waiting.append((one, pool.submit(read, one)))
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _reduced(prediction: NDArray[np.float32], max_side_px: int) -> NDArray[np.float32]:
    """(H, W) at a size without a longer side, each pixel the nearest one; as it is if it has none."""
    scale = max_side_px / max(prediction.shape)
    if scale >= 1:
        return prediction
    rows, columns = (((np.arange(max(1, round(side * scale))) + 0.5) / scale).astype(int) for side in prediction.shape)
    return prediction[np.ix_(rows.clip(max=prediction.shape[0] - 1), columns.clip(max=prediction.shape[1] - 1))]


def _next_in_thread(pool: ThreadPoolExecutor, items: Iterator[_T]) -> Iterator[_T]:
    """The items; while one is used, the next is made."""
    end = object()
    coming = pool.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, items, end)
        yield item  # type: ignore[misc]

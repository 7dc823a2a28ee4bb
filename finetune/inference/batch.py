"""Predict many images and videos: the next are decoded and the last are written while the network works."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.data.camera import Camera, CameraOptions
from finetune.data.readers.exif import guess_camera
from finetune.data.readers.files import ImageFile, read_network_image
from finetune.inference.confidence import predict_disagreement
from finetune.inference.input_cameras import find_input_focal_px, listed_camera, require_cameras
from finetune.inference.inputs import ENDINGS, VIDEO_ENDINGS, Input
from finetune.inference.network_batches import (
    BatchPredictor,
    NetworkInput,
    Plan,
    Predicted,
    limit_threads,
    make_plan,
    predict_in_order,
    require_prediction,
)
from finetune.inference.notes import BatchNotes
from finetune.inference.outputs import (
    PREDICTION_ENDINGS,
    UNITS_PER_METER,
    MeterFiles,
    meter_preview,
    relative_preview,
    remove_later_frames,
    spread_range,
    write_relative,
)
from finetune.inference.point_cloud import PointCloud, point_cloud
from finetune.inference.predictor import Predictor
from finetune.inference.video import Frame, VideoFrames, open_video_writer
from finetune.models.arithmetic import FULL_PRECISION, describe_difference, without_tf32
from finetune.utils.errors import DataError, FinetuneError, ResultError
from finetune.utils.files import explain_write_errors, write_output
from finetune.utils.kinds import unit_of
from finetune.utils.paths import MAX_NAME_BYTES, path_exists

# The number of images that may wait to be written.
_AHEAD = 3
# The range of a preview from each image's 2nd to its 98th percentile.
AUTO: Literal["auto"] = "auto"
# A PNG with fewer steps from 0 to the model's max depth is a typing error, not a depth map.
MIN_PNG_STEPS = 20
# Longer side of a video's preview: encoding VP9 takes about 1 s of a core for a frame of 1920x1080, 0.2 s for 640x360.
MAX_VIDEO_SIDE_PX = 640
# Images that are tried for the difference that a precision makes, where some cannot be read.
MAX_TRIED = 5
# In the folder of a video's frames: the time of each.
FRAME_TIMES_FILE = "frames.csv"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class PointOptions:
    """How point clouds are made.

    Attributes:
        edge_ratio, max_points: as for ``point_cloud``.
    """

    edge_ratio: float | None = None
    max_points: int | None = None


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How predictions are made and written.

    Attributes:
        output: folder.
        range_m: meters at the ends of the colors; None: 0 to the model's max depth; "auto": the 2nd to the 98th
            percentile of each image's depth, or of the first frame of a video.
        units_per_meter: of the 16-bit PNG.
        flip: average with the prediction for the mirrored image.
        skip_existing: skip an input whose last file is there already.
        frames: also write every frame of a video as if it were an image.
        points: None: no points.
        cameras: the camera of images for which no list gives intrinsics.
        assume_training: take every image for one of the training camera; for a canonical model.
        batch_size: images in the network at once; None: what suits the device.
        cores: that may be kept busy; None: as many as PyTorch has threads.
        all_inputs: of the whole call, also those of other processes and shards; none: those of this process.
        bar: show a progress bar, if there is a terminal.
        confidence: also write how much the prediction for the mirrored image disagrees; for images alone.
    """

    output: Path
    range_m: tuple[float, float] | Literal["auto"] | None = None
    units_per_meter: float = UNITS_PER_METER
    flip: bool = False
    skip_existing: bool = False
    frames: bool = False
    points: PointOptions | None = None
    cameras: CameraOptions = field(default_factory=CameraOptions)
    assume_training: bool = False
    batch_size: int | None = None
    cores: int | None = None
    all_inputs: Sequence[Input] = ()
    bar: bool = True
    confidence: bool = False


@dataclass(kw_only=True)
class Outcome:
    """What became of the inputs.

    Attributes:
        seen: what is worth a note about images that are unlike those of training, and about colors.
        done, skipped, todo: numbers of inputs; ``todo``: that were not skipped.
        faults: what was wrong with the others, one sentence each.
        beyond: inputs without a 16-bit PNG, which cannot hold their depth.
    """

    seen: BatchNotes
    done: int = 0
    skipped: int = 0
    todo: int = 0
    faults: list[str] = field(default_factory=list)
    beyond: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Sentences on what was seen."""
        return self.seen.sentences(self.todo)

    def add(self, other: Outcome) -> None:
        """Add what became of the inputs of another process."""
        self.seen.add(other.seen)
        self.done += other.done
        self.skipped += other.skipped
        self.todo += other.todo
        self.faults += other.faults
        self.beyond += other.beyond


def predict_inputs(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> Outcome:
    """
    Args:
        predictor: the model.
        inputs: as ``find_inputs`` gives them.
        options: see there.

    Returns:
        What became of each input. One that cannot be read or predicted is a fault, and the others are done.

    Raises:
        FinetuneError: points are asked for and no camera is known, a range in meters of a model that knows none, a
            PNG would have hardly a step, or nothing can be written there.
    """
    if predictor.kind != "metric" and options.range_m not in (None, AUTO):
        raise FinetuneError(
            f"{predictor.source} is relative: it knows no meters, so no --range in meters. Leave it out, or write "
            "--range auto."
        )
    _require_steps(predictor, options.units_per_meter)
    video = next((given.path for given in inputs if given.is_video), None)
    if options.confidence and video is not None:
        raise FinetuneError(f"{video}: --confidence is for images. Name images alone, or leave it out.")
    _require_cameras(predictor, inputs, options)
    plan = _choose_plan(predictor, inputs, options)
    batch = _Batch(predictor, options, plan)
    todo = [given for given in batch.refuse_long_names(inputs) if not batch.is_done(given)]
    batch.outcome.skipped = len(inputs) - len(todo) - len(batch.outcome.faults)
    batch.outcome.todo = len(todo)
    images = [given for given in todo if not given.is_video]
    # Several threads calculate, and what the predictor sets for each call is set for all of them.
    with limit_threads(plan.threads), without_tf32():
        # Without a terminal the bar would be one long line.
        hidden = None if images and options.bar else True
        with tqdm(total=len(images), unit="image", dynamic_ncols=True, disable=hidden) as bar:
            batch.predict_images(images, bar)
        for given in todo:
            if given.is_video:
                batch.predict_video(given)
    return batch.outcome


def _choose_plan(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> Plan:
    cores = options.cores or torch.get_num_threads()
    # A video is many images.
    images = sum(cores if given.is_video else 1 for given in options.all_inputs or inputs)
    return make_plan(predictor.device, options.batch_size, images=images, cores=cores, compiled=predictor.is_compiled)


def compare_precision(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> str | None:
    """What the precision of the predictor changes of the first image, as a sentence; None where it changes nothing."""
    if predictor.precision == FULL_PRECISION:
        return None
    batch = _Batch(predictor, options, _choose_plan(predictor, inputs, options))
    for given in inputs[:MAX_TRIED]:
        with suppress(DataError, ResultError):
            return f"{given.path}: {batch.compare_precision(given)}"
    return None


def _require_cameras(predictor: Predictor, inputs: Sequence[Input], options: PredictOptions) -> None:
    """
    Raises:
        FinetuneError: points are asked for, and the model knows no meters or an image has no camera; or the model needs
            a camera, and an image has none.
    """
    require_cameras(predictor, inputs, options.cameras, assume_training=options.assume_training)
    if options.points is None:
        return
    if predictor.kind != "metric":
        raise FinetuneError(f"{predictor.source} is relative: it knows no meters, so no points. Leave out --points.")
    if not options.cameras.is_known:
        without_camera = next((given.path for given in inputs if given.intrinsics is None), None)
        if without_camera is not None:
            raise FinetuneError(
                f"{without_camera}: --points needs its camera. Give --intrinsics fx,fy,cx,cy in pixels (with "
                "--intrinsics-size W,H if they are for another image size), a list with these four columns, or "
                "--hfov DEGREES."
            )
    if not options.frames and any(given.is_video for given in inputs):
        raise FinetuneError("--points of a video are one file a frame: add --frames, or leave out --points.")


def _require_steps(predictor: Predictor, units_per_meter: float) -> None:
    """
    Raises:
        FinetuneError: between 0 and the model's max depth the 16-bit PNG would have fewer than ``MIN_PNG_STEPS``.
    """
    max_depth_m = predictor.range_m
    if max_depth_m is not None and max_depth_m * units_per_meter < MIN_PNG_STEPS:
        raise FinetuneError(
            f"--png-units-per-meter {units_per_meter:g}: from 0 to the max depth {max_depth_m:g} m the 16-bit PNG "
            f"would have {max_depth_m * units_per_meter:.3g} steps. Write at least "
            f"{math.ceil(MIN_PNG_STEPS / max_depth_m)}; {UNITS_PER_METER:g} is millimeters."
        )


class _Batch:
    """One call: which inputs are left to do, in which order they are done, and what became of them."""

    def __init__(self, predictor: Predictor, options: PredictOptions, plan: Plan) -> None:
        self.notes = BatchNotes(predictor.preprocessing, predictor.range_m, unit_of(predictor.kind))
        self.outcome = Outcome(seen=self.notes)
        self._predictor = predictor
        self._options = options
        self._plan = plan
        self._network = BatchPredictor(predictor, batch_size=plan.batch_size, flip=options.flip)
        self._ending = PREDICTION_ENDINGS[predictor.kind]
        self._frame = _FramePrediction(predictor, options, self.notes)

    def refuse_long_names(self, inputs: Sequence[Input]) -> list[Input]:
        """The inputs but those whose predictions would have names that no file can have; these are noted as faults."""
        found = []
        for given in inputs:
            longest = f"{given.path.stem}{max((*ENDINGS, *VIDEO_ENDINGS), key=len)}"
            if len(os.fsencode(longest)) <= MAX_NAME_BYTES:
                found.append(given)
            else:
                self.outcome.faults.append(
                    f"{given.path}: its predictions would have names of more than {MAX_NAME_BYTES} bytes. Rename it."
                )
        return found

    def is_done(self, given: Input) -> bool:
        """Whether an earlier call finished it, and it is to be skipped then."""
        if not self._options.skip_existing:
            return False
        stem = self._options.output / given.path.stem
        if not given.is_video:
            endings = [self._ending] if self._options.points is None else [self._ending, ".ply"]
            endings += ["_unsure.png"] if self._options.confidence else []
            return all(path_exists(f"{stem}{ending}") for ending in endings)
        preview = Path(f"{stem}_preview.mp4")
        if not path_exists(preview) or not self._options.frames:
            return path_exists(preview)
        # The preview may be of a call without --frames, and a call with it may have been interrupted.
        frames = len(list(stem.glob(f"[0-9]*{self._ending}")))
        return path_exists(stem / FRAME_TIMES_FILE) and frames == VideoFrames(preview).count

    def predict_images(self, inputs: Sequence[Input], bar: tqdm) -> None:
        """Predict images, in their order."""
        written: deque[tuple[Input, Future[bool]]] = deque()
        predicted = predict_in_order(inputs, self._prepare, self._network, self._plan)
        # It is closed at once where an error ends the loop: no thread goes on with images that are not wanted.
        with ThreadPoolExecutor(self._plan.file_threads) as pool, closing(predicted):
            for given, found in predicted:
                try:
                    write = self._frame.finish(given, found, self._options.output / given.path.stem)
                    written.append((given, pool.submit(write)))
                except (DataError, ResultError) as error:
                    self.outcome.faults.append(str(error))
                    bar.update()
                while len(written) > _AHEAD + self._plan.batch_size:
                    self._finish(*written.popleft(), bar)
            while written:
                self._finish(*written.popleft(), bar)

    def _prepare(self, given: Input) -> NetworkInput:
        found = read_network_image(given.path, self._predictor.preprocessing)
        return self._frame.prepare(given, found.full(), found)

    def _finish(self, given: Input, written: Future[bool], bar: tqdm) -> None:
        if not written.result():
            self.outcome.beyond.append(given.path)
        self.outcome.done += 1
        bar.update()

    def compare_precision(self, given: Input) -> str:
        """
        Raises:
            DataError, ResultError: the image cannot be read or predicted.
        """
        ready = self._prepare(given)
        exact = BatchPredictor(replace(self._predictor, precision=FULL_PRECISION), batch_size=1, flip=False)
        own, full = (require_prediction(network.predict([ready])[0]) for network in (self._network, exact))
        return describe_difference(self._predictor.precision, own, full, self._predictor.kind)

    def predict_video(self, given: Input) -> None:
        """Predict a video. The next frame is decoded and the last one encoded while the network works on this one."""
        output, with_frames = self._options.output, self._options.frames
        folder = output / given.path.stem
        beyond, stamps = 0, []
        hidden = None if self._options.bar else True
        color_range: tuple[float, float] | None = None
        try:
            video = VideoFrames(given.path)
            if with_frames:
                with explain_write_errors(folder):
                    folder.mkdir(exist_ok=True)
            with (
                ThreadPoolExecutor(1) as pool,
                open_video_writer(output / f"{given.path.stem}_preview.mp4", video.frames_per_second) as write_preview,
                tqdm(total=video.count or None, unit="frame", dynamic_ncols=True, disable=hidden) as bar,
                closing(self._predict_frames(given, _prefetch(pool, iter(video)))) as predicted,
            ):
                for number, (frame, found) in enumerate(predicted):
                    stamps.append(frame.seconds)
                    prediction = require_prediction(found.prediction)
                    # All frames have the range of the first, so that their colors compare.
                    color_range = color_range or self._frame.color_range(given.path, prediction)
                    write_preview(self._frame.preview(_shrink(prediction, MAX_VIDEO_SIDE_PX), color_range))
                    if with_frames:
                        points = self._frame.points(given, frame.image, prediction)
                        beyond += not self._frame.write(prediction, folder / f"{number:06d}", color_range, points)
                    bar.update()
                    if number == 0:
                        self.notes.check_size(given.path, *frame.image.shape[:2])
                        self._frame.check_lens(given, frame.image)
        except (DataError, ResultError) as error:
            self.outcome.faults.append(str(error))
            return
        times = video.frame_times(stamps)
        if with_frames:
            rows = [f"{number},{seconds:.6f}" for number, seconds in enumerate(times)]
            write_output(folder / FRAME_TIMES_FILE, "\n".join(["frame,seconds", *rows]) + "\n")
            remove_later_frames(folder, len(times))
        if beyond:
            self.outcome.beyond.append(given.path)
        if video.is_cut_off(times):
            self.outcome.faults.append(
                f"{given.path}: only {len(times)} of the {video.count} frames that the file announces could be "
                "decoded; these are done. Copy it again."
            )
        self.outcome.done += 1

    def _predict_frames(self, given: Input, frames: Iterator[Frame]) -> Generator[tuple[Frame, Predicted]]:
        return predict_in_order(
            frames, lambda frame: self._frame.prepare(given, frame.image), self._network, self._plan
        )


class _FramePrediction:
    """From an image, or a frame of a video, to the network and to its files."""

    def __init__(self, predictor: Predictor, options: PredictOptions, notes: BatchNotes) -> None:
        self._predictor = predictor
        self._options = options
        self._notes = notes
        self._files: MeterFiles | None = None
        if predictor.max_depth_m is not None:
            self._files = MeterFiles(units_per_meter=options.units_per_meter)

    def finish(self, given: Input, found: Predicted, stem: Path) -> Callable[[], bool]:
        """
        Returns:
            The function that writes the files of an image, see ``write``.

        Raises:
            DataError, ResultError: there is no prediction, or the camera cannot be that of the image.
        """
        prediction, image = require_prediction(found.prediction), found.image
        assert image is not None, "it was predicted"
        points = self.points(given, image, prediction)
        self._notes.check_size(given.path, *image.shape[:2])
        self.check_lens(given, image)
        color_range = self.color_range(given.path, prediction)
        disagreement = self._find_disagreement(given, image, prediction) if self._options.confidence else None
        return lambda: self.write(prediction, stem, color_range, points, disagreement)

    def _find_disagreement(
        self, given: Input, image: NDArray[np.uint8], prediction: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        focal_px = self._find_focal_px(given, image) if self._predictor.canonical else None
        plain = None if self._options.flip else prediction
        return predict_disagreement(self._predictor, image, focal_px, plain)

    def prepare(self, given: Input, image: NDArray[np.uint8], file: ImageFile | None = None) -> NetworkInput:
        """
        ``file``: what the image was read from, as the network sees it; None: the network sees the image.

        Raises:
            ResultError: the camera cannot be that of the image.
        """
        focal_px = self._find_focal_px(given, image) if self._predictor.canonical else None
        seen = image if file is None else file.pixels
        pixels = torch.from_numpy(self._predictor.preprocessing(seen, size=image.shape[:2]))
        return NetworkInput(path=given.path, image=image, pixels=pixels, focal_px=focal_px)

    def check_lens(self, given: Input, image: NDArray[np.uint8]) -> None:
        """Note a lens that is unlike those of the training."""
        if self._predictor.canonical is None and given.intrinsics is None and not self._options.cameras.is_known:
            return
        focal_px = self._find_focal_px(given, image)
        if self._options.assume_training or focal_px is None:
            return
        self._notes.check_lens(given.path, self._predictor.network, focal_px)
        if self._camera(given, image) is None:
            camera = guess_camera(given.path, *image.shape[:2])
            self._notes.add_guess(given.path, camera.fx_px if camera else focal_px)

    def _find_focal_px(self, given: Input, image: NDArray[np.uint8]) -> float | None:
        """As ``find_input_focal_px``."""
        options, (height, width) = self._options, image.shape[:2]
        return find_input_focal_px(
            self._predictor, given, height, width, options.cameras, assume_training=options.assume_training
        )

    def _camera(self, given: Input, image: NDArray[np.uint8]) -> Camera | None:
        """As ``listed_camera``."""
        height, width = image.shape[:2]
        return listed_camera(given, height, width, self._options.cameras)

    def points(self, given: Input, image: NDArray[np.uint8], prediction: NDArray[np.float32]) -> PointCloud | None:
        """
        Raises:
            ResultError: the camera cannot be that of the image.
        """
        points = self._options.points
        if points is None:
            return None
        camera = self._camera(given, image)
        assert camera is not None, "_require_cameras was called first"
        return point_cloud(prediction, image, camera, edge_ratio=points.edge_ratio, max_points=points.max_points)

    def color_range(self, path: Path, prediction: NDArray[np.float32]) -> tuple[float, float]:
        """The ends of the preview's colors. Makes a note where ``--range auto`` chose them or would show more."""
        wanted, max_depth_m = self._options.range_m, self._predictor.range_m
        if wanted is None and max_depth_m is None:
            return float(prediction.min()), float(prediction.max())
        if wanted is not None and wanted != AUTO:
            return wanted
        spread = spread_range(prediction)
        if wanted == AUTO:
            self._notes.add_auto_range(path, spread)
            return spread
        assert max_depth_m is not None
        self._notes.check_contrast(path, spread)
        return 0.0, max_depth_m

    def preview(self, prediction: NDArray[np.float32], color_range: tuple[float, float]) -> NDArray[np.uint8]:
        """(H + legend, W, 3) uint8, RGB."""
        if self._files is None:
            return relative_preview(prediction, self._predictor.kind, color_range)
        return meter_preview(prediction, color_range)

    def write(
        self,
        prediction: NDArray[np.float32],
        stem: Path,
        color_range: tuple[float, float],
        points: PointCloud | None,
        disagreement: NDArray[np.float32] | None = None,
    ) -> bool:
        """Write all files of a prediction; False if the 16-bit PNG is missing since it cannot hold the depth."""
        if self._files is not None:
            return self._files.write(prediction, stem, color_range, points, disagreement)
        write_relative(prediction, stem, self._predictor.kind, color_range, disagreement)
        return True


def _shrink(prediction: NDArray[np.float32], max_side_px: int) -> NDArray[np.float32]:
    """Shrink (H, W) until no side is longer than ``max_side_px``, by nearest neighbor; a smaller one is unchanged."""
    scale = max_side_px / max(prediction.shape)
    if scale >= 1:
        return prediction
    rows, columns = (((np.arange(max(1, round(side * scale))) + 0.5) / scale).astype(int) for side in prediction.shape)
    return prediction[np.ix_(rows.clip(max=prediction.shape[0] - 1), columns.clip(max=prediction.shape[1] - 1))]


def _prefetch(pool: ThreadPoolExecutor, items: Iterator[_T]) -> Iterator[_T]:
    """The items. The next one is made while one is used."""
    end = object()
    coming = pool.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, items, end)
        yield item  # type: ignore[misc]

"""Many images and videos to depth: what is decoded next and written last does not keep the network waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.depth_files import UNITS_PER_METER, MeterFiles, inverse_preview, write_inverse
from finetune.errors import DataError, FinetuneError, ResultError
from finetune.image_paths import Input
from finetune.paths import path_exists
from finetune.point_cloud import CameraOptions, PointCloud, camera_of, point_cloud
from finetune.predictor import Predictor
from finetune.preprocessing import MOST_ELONGATED
from finetune.readers.files import read_image
from finetune.videos import VideoFile, VideoFrames

# Images that are decoded, or wait to be written, at any time.
_AHEAD = 3
# Further from training than this, shape or size is worth a word.
FAR_ASPECT, FAR_ENLARGED = 2.0, 2.0
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
        range_m: ends of the colors, meters; None: 0 to the model's max depth.
        units_per_meter: of the 16-bit PNG.
        flip: average with the answer to the mirrored image.
        skip_existing: leave alone what has its last file already.
        frames: of a video also write what an image gets, a frame each.
        points: None: no points.
    """

    output: Path
    range_m: tuple[float, float] | None = None
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
        FinetuneError: points are asked for and no camera is known, a range in meters of a model that knows none, or
            nothing can be written there.
    """
    if predictor.kind == "relative" and options.range_m is not None:
        raise FinetuneError(
            f"{predictor.source} is relative: it knows no meters, so no --range in meters. Leave it out."
        )
    _require_cameras(predictor, inputs, options)
    work = _Work(predictor, options)
    todo = [one for one in inputs if not work.stands(one)]
    work.outcome.skipped = len(inputs) - len(todo)
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


class _Work:
    """The state of one call."""

    def __init__(self, predictor: Predictor, options: PredictOptions) -> None:
        self.outcome = Outcome()
        self._predictor = predictor
        self._options = options
        self._elongated: list[Path] = []
        self._far: list[tuple[Path, str]] = []
        most_m = predictor.max_depth_m
        self._files: MeterFiles | None = None
        if most_m is not None:
            range_m = options.range_m or (0.0, most_m)
            self._files = MeterFiles(range_m=range_m, units_per_meter=options.units_per_meter)

    def stands(self, one: Input) -> bool:
        """Whether it is done from an earlier call, and may be left."""
        endings = [".npy" if self._files else "_inverse.npy"]
        if self._options.points is not None:
            endings.append(".ply")
        if one.is_video:
            endings = ["_preview.mp4"]
        there = all(path_exists(self._options.output / f"{one.path.stem}{ending}") for ending in endings)
        return self._options.skip_existing and there

    def images(self, inputs: Sequence[Input], bar: tqdm) -> None:
        """Predict images, in their order."""
        written: deque[tuple[Input, Future[bool]]] = deque()
        with ThreadPoolExecutor(2) as pool:
            for one, decoded in _ahead(pool, inputs, lambda one: read_image(one.path, upright=True)):
                try:
                    image = decoded.result()
                    task = self._answered(one, image, self._options.output / one.path.stem)
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
                folder.mkdir(exist_ok=True)
            with (
                ThreadPoolExecutor(1) as pool,
                VideoFile(output / f"{one.path.stem}_preview.mp4", frames.frames_per_second) as preview,
                tqdm(total=frames.count or None, unit="frame", dynamic_ncols=True, disable=None) as bar,
            ):
                decoded = 0
                for number, image in enumerate(_next_in_thread(pool, iter(frames))):
                    decoded += 1
                    answer = self._answer(one.path, image)
                    # Of a relative model the range is that of the first frame, so that colors stay comparable.
                    ends = ends or (float(answer.min()), float(answer.max()))
                    preview.write(self._files.preview(answer) if self._files else inverse_preview(answer, ends))
                    if self._options.frames:
                        beyond += not self._write(answer, folder / f"{number:06d}", self._points(one, image, answer))
                    bar.update()
                    if number == 0:
                        self._look(one.path, *image.shape[:2])
        except (DataError, ResultError) as error:
            self.outcome.faults.append(str(error))
            return
        except OSError as error:
            raise FinetuneError(f"{folder}: cannot be written ({error.strerror}). Name another --output.") from error
        if beyond:
            self.outcome.beyond.append(one.path)
        if decoded < CUT_OFF_SHARE * frames.count:
            self.outcome.faults.append(
                f"{one.path}: {decoded} of the {frames.count} frames that it says it has could be decoded, and are "
                "done. Copy it again."
            )
        self.outcome.done += 1

    def _answered(self, one: Input, image: NDArray[np.uint8], stem: Path) -> Callable[[], bool]:
        """What writes the answer to an image, and says whether every file could be written."""
        answer = self._answer(one.path, image)
        points = self._points(one, image, answer)
        self._look(one.path, *image.shape[:2])
        return lambda: self._write(answer, stem, points)

    def _answer(self, path: Path, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """
        Raises:
            ResultError: there is none.
        """
        try:
            answer = self._predictor.predict(image, flip=self._options.flip)
        except (MemoryError, RuntimeError) as error:
            # PyTorch has no class of its own for memory that a CPU lacks.
            if not any(words in str(error) for words in ("can't allocate memory", "out of memory")):
                raise
            height, width = self._predictor.preprocessing.network_size(*image.shape[:2])
            raise ResultError(
                f"{path}: memory ran out at {height}x{width}. Crop it to a less elongated image."
            ) from error
        if not np.isfinite(answer).all():
            raise ResultError(
                f"{path}: the answer is not a number everywhere. The weights are damaged; export them again."
            )
        return answer

    def _points(self, one: Input, image: NDArray[np.uint8], answer: NDArray[np.float32]) -> PointCloud | None:
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
            camera = camera_of(listed, height, width) if listed else points.cameras.camera(height, width)
        except FinetuneError as error:
            raise ResultError(f"{one.path}: {error}") from error
        assert camera is not None, "looked at before the first image"
        return point_cloud(answer, image, camera, edge_ratio=points.edge_ratio, max_points=points.max_points)

    def _write(self, answer: NDArray[np.float32], stem: Path, points: PointCloud | None) -> bool:
        if self._files is not None:
            return self._files.write(answer, stem, points)
        write_inverse(answer, stem)
        return True

    def _look(self, path: Path, height: int, width: int) -> None:
        """Note an image that is far from what the network was trained on."""
        preprocessing = self._predictor.preprocessing
        elongated = preprocessing.elongation(height, width)
        network = preprocessing.network_size(height, width)
        if elongated > MOST_ELONGATED:
            self._elongated.append(path)
        elif elongated > FAR_ASPECT or network[0] > FAR_ENLARGED * height:
            self._far.append((path, f"{width}x{height}"))

    def notes(self, inputs: int) -> list[str]:
        """Sentences about images that are far from training."""
        height, width = self._predictor.preprocessing.input_size
        found = []
        if self._elongated:
            found.append(
                f"{len(self._elongated)} of {inputs}, {self._elongated[0]} first, are more than "
                f"{MOST_ELONGATED:g} times as elongated as the training size {width}x{height}: longer side bounded"
            )
        if self._far:
            path, size = self._far[0]
            found.append(
                f"{len(self._far)} of {inputs}, {path} ({size}) first, are of a shape or size far from the "
                f"training size {width}x{height}: expect larger errors"
            )
        return found


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


def _next_in_thread(pool: ThreadPoolExecutor, items: Iterator[_T]) -> Iterator[_T]:
    """The items; while one is used, the next is made."""
    end = object()
    coming = pool.submit(next, items, end)
    while (item := coming.result()) is not end:
        coming = pool.submit(next, items, end)
        yield item  # type: ignore[misc]

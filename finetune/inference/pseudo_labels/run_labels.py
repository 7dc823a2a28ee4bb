"""Label many images and videos: several at the same time, each with one thread, so that the bytes never depend on how
many processes, shards or cores there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from finetune.data.label_files import DISAGREEMENT_UNITS
from finetune.data.readers.files import read_image
from finetune.inference.inputs import Input
from finetune.inference.network_batches import limit_threads
from finetune.inference.outputs import encode_disagreement, encode_png
from finetune.inference.pseudo_labels.label_folder import (
    CONFIDENCE,
    IMAGES,
    LABELS,
    LabelFolder,
    VideoFramesDone,
    frame_name,
)
from finetune.inference.pseudo_labels.label_table import LabelRow
from finetune.inference.pseudo_labels.names import absolute_path
from finetune.inference.pseudo_labels.teacher import (
    Anchored,
    Label,
    Teacher,
    count_label,
    label_anchored,
    label_as_predicted,
)
from finetune.inference.video import CUT_OFF_SHARE, VideoFrames
from finetune.models.arithmetic import without_tf32
from finetune.utils.errors import DataError, FileFault, ResultError
from finetune.utils.files import explain_write_errors

# Images in the network at the same time. Each holds its own activations, so they are few: for more cores, start more
# processes. On a GPU they follow each other, while others are read and written.
MAX_AT_ONCE, MAX_AT_ONCE_ON_GPU = 8, 4
MAX_NAMED = 10
CONFIDENCE_RULE = (
    "disagreement of the depths of the image and of its mirror image, abs(ln d - ln m), natural logarithm, times "
    f"{DISAGREEMENT_UNITS:g}; after Poggi et al. 2020, arXiv:2005.06209"
)
GUESS_RULE = (
    "; where a label is a guess, since measured points near it contradict each other, their weighted mean distance "
    "from it, natural logarithm, at least agree_within, if that is more"
)


@dataclass(frozen=True, kw_only=True)
class NamedInput:
    """An image or a video with the name of its label."""

    given: Input
    name: str

    @property
    def path(self) -> str:
        """From the root of the file system."""
        return str(absolute_path(self.given.path))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Frame:
    """One image to label.

    Attributes:
        given: the image, or the video that it is a frame of.
        name: of its label.
        image: (H, W, 3) uint8, RGB, of a frame; None: it is read when its turn comes.
    """

    given: Input
    name: str
    image: NDArray[np.uint8] | None = None


@dataclass(kw_only=True)
class LabelCounts:
    """What became of the images and frames of a call.

    Attributes:
        labeled, refused, skipped: how many; ``skipped``: inputs that were done before.
        reasons: the sentences about the first that were refused.
        notes: other sentences.
    """

    labeled: int = 0
    refused: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, other: LabelCounts) -> None:
        """Add those of another process."""
        self.labeled += other.labeled
        self.refused += other.refused
        self.skipped += other.skipped
        self.notes += other.notes
        self.add_reasons(other.reasons)

    def add_reasons(self, reasons: Sequence[str]) -> None:
        """Keep the first of these sentences."""
        self.reasons += reasons[: MAX_NAMED - len(self.reasons)]

    def add_row(self, row: LabelRow) -> None:
        """Count a line of the table."""
        if row.refused:
            self.refused += 1
            self.add_reasons([row.refused])
        else:
            self.labeled += 1


def label_inputs(
    teacher: Teacher,
    inputs: Sequence[NamedInput],
    folder: LabelFolder,
    *,
    every: int = 1,
    cores: int = 1,
    bar: bool = False,
) -> LabelCounts:
    """
    Args:
        teacher: the model, with what its labels are anchored to.
        inputs: those of this process.
        folder: opened.
        every: label every so manieth frame of a video.
        cores: that may be kept busy.
        bar: show a progress bar, if there is a terminal.

    Returns:
        What became of them. An image that cannot be read or labeled has a line that says why.

    Raises:
        FinetuneError: a file cannot be written.
    """
    todo = [named for named in inputs if not folder.has(named.name)]
    at_once = min(cores, MAX_AT_ONCE if teacher.predictor.device.type == "cpu" else MAX_AT_ONCE_ON_GPU)
    pool = ThreadPoolExecutor(max(1, at_once))
    try:
        with (
            limit_threads(1),
            without_tf32(),
            explain_write_errors(folder.folder),
            tqdm(unit="image", dynamic_ncols=True, disable=None if bar and todo else True) as shown,
        ):
            labeling = _Labeling(teacher, folder, pool, at_once, shown)
            labeling.counts.skipped = len(inputs) - len(todo)
            for named in todo:
                if named.given.is_video:
                    labeling.label_video(named, every)
                else:
                    labeling.submit(_Frame(given=named.given, name=named.name))
            labeling.wait()
            return labeling.counts
    finally:
        pool.shutdown(cancel_futures=True)


class _Labeling:
    """One call: the images that are being labeled, and what became of those that are done."""

    def __init__(
        self, teacher: Teacher, folder: LabelFolder, pool: ThreadPoolExecutor, at_once: int, shown: tqdm
    ) -> None:
        self.counts = LabelCounts()
        self._teacher = teacher
        self._folder = folder
        self._pool = pool
        self._at_once = at_once
        self._shown = shown
        self._waiting: deque[Future[LabelRow]] = deque()

    def submit(self, frame: _Frame) -> None:
        """Label an image as soon as there is room for it: then the first of those at work is done."""
        self._waiting.append(self._pool.submit(_label_frame, self._teacher, frame, self._folder))
        self.wait(self._at_once)

    def wait(self, remaining: int = 0) -> None:
        """Wait until no more than this many images are at work."""
        while len(self._waiting) > remaining:
            self.counts.add_row(self._waiting.popleft().result())
            self._shown.update()

    def label_video(self, named: NamedInput, every: int) -> None:
        """Label the frames of a video that are not done, and then note which frames it has."""
        try:
            video = VideoFrames(named.given.path)
            seen = self._label_frames(named, video, every)
        except DataError as fault:
            self.counts.add_row(LabelRow(image=named.path, refused=str(fault)))
            self._folder.end_video(named.name, VideoFramesDone(numbers=(), refused=str(fault)))
            return
        if seen < CUT_OFF_SHARE * video.count:
            announced = f"only {seen} of the {video.count} frames that the file announces could be decoded"
            self.counts.notes.append(f"{named.given.path}: {announced}; these are labeled")
        self.wait()
        self._folder.end_video(named.name, VideoFramesDone(numbers=tuple(range(0, seen, every))))

    def _label_frames(self, named: NamedInput, video: VideoFrames, every: int) -> int:
        """How many frames there are, also those between the ones to label.

        Raises:
            DataError: not a single frame can be decoded.
        """
        frames = iter(video)
        for number in count():
            name = frame_name(named.name, number)
            if number % every or self._folder.has(name):
                if not video.skip(1):
                    return number
                continue
            frame = next(frames, None)
            if frame is None:
                return number
            self.submit(_Frame(given=named.given, name=name, image=frame.image))
        raise AssertionError("videos end")


def _label_frame(teacher: Teacher, frame: _Frame, folder: LabelFolder) -> LabelRow:
    """Label an image and write its files."""
    of_video = frame.image is not None
    name = f"{IMAGES}/{frame.name}.png" if of_video else str(absolute_path(frame.given.path))
    files: dict[str, bytes] = {}
    try:
        levels = teacher.predictor.preprocessing.image_levels
        image = frame.image if frame.image is not None else read_image(frame.given.path, upright=True, levels=levels)
        label = _make_label(teacher, frame.given, image)
    except (FileFault, ResultError) as fault:
        row = LabelRow(image=name, refused=str(fault))
    else:
        numbers, unit = count_label(label.values, label.valid)
        row = LabelRow(
            image=name,
            label=f"{LABELS}/{frame.name}.png",
            confidence=f"{CONFIDENCE}/{frame.name}.png",
            unit=unit,
        )
        if label.anchored is not None:
            row = _add_anchoring(row, label.anchored)
        files = {row.label: encode_png(numbers), row.confidence: encode_disagreement(label.disagreement)}
    if frame.image is not None:
        files[name] = encode_png(np.ascontiguousarray(frame.image[..., ::-1]))
    folder.add(frame.name, row, files)
    return row


def _make_label(teacher: Teacher, given: Input, image: NDArray[np.uint8]) -> Label:
    """
    Raises:
        FileFault, ResultError: there is no label for the image.
    """
    predictions = teacher.predict_both(given, image)
    if teacher.anchor is None:
        return label_as_predicted(given.path, *predictions)
    is_metric = teacher.predictor.kind == "metric"
    return label_anchored(given, image, predictions, teacher.anchor, is_metric=is_metric)


def _add_anchoring(row: LabelRow, anchored: Anchored) -> LabelRow:
    return replace(
        row,
        scale=anchored.fit.scale,
        shift=anchored.fit.shift,
        inlier_share=anchored.inlier_share,
        residual=anchored.residual,
    )

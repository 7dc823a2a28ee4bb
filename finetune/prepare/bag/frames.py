"""Frames of bags: color and depth that were recorded at one time, decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from finetune.data.camera import Camera
from finetune.prepare.bag.image_messages import (
    read_color,
    read_compressed_color,
    read_compressed_depth,
    read_depth,
)
from finetune.prepare.bag.messages import IMAGE, CompressedMessage, ImageMessage
from finetune.prepare.bag.open_bag import Bag, open_bag
from finetune.prepare.bag.streams import Stream, describe_place, read_message
from finetune.prepare.calibration import CalibratedCamera, Rig, require_size
from finetune.prepare.naming import number_equal_names
from finetune.prepare.recording import FrameKey, FrameSource, RecordedFrame
from finetune.prepare.registration import Registration
from finetune.prepare.undistortion import undistort_depth, undistort_image
from finetune.utils.errors import DataError


@dataclass(frozen=True, kw_only=True)
class BagRecording:
    """
    What is known of a bag after listing it.

    Attributes:
        path: the bag.
        color, depth: its two topics.
        pairs: (color, depth) numbers of messages of one time, in order of time.
        times_s: of each pair, seconds.
        rig: how depth gets into the view of color; None where both are one view.
        camera: of the frames, a pinhole; None where color's is not known or bends rays.
        distorted: the camera of color, whose lens the frames are freed from; None where they stay as they are.
        size: (height, width) of the first image, pixels, which its camera is for.
        meters_per_unit: of depth; None for millimeters of whole numbers and meters of floats.
        encoding: of color, instead of what its messages say.
    """

    path: Path
    color: Stream
    depth: Stream
    pairs: Sequence[tuple[int, int]]
    times_s: Sequence[float]
    rig: Rig | None
    camera: Camera | None
    distorted: CalibratedCamera | None
    size: tuple[int, int]
    meters_per_unit: float | None
    encoding: str | None


class BagFrames(FrameSource):
    """The frames of one or several bags. At most one bag is open, since hundreds may be given."""

    def __init__(self, recordings: Sequence[BagRecording], notes: Sequence[str]) -> None:
        self.recordings = recordings
        self._notes = notes
        self._opened: Bag | None = None
        self._registration: Registration | None = None
        names = _name_recordings([recording.path for recording in recordings])
        self._keys = [
            FrameKey(recording=name, stem=f"{number:06}", time_s=time_s)
            for name, recording in zip(names, recordings, strict=True)
            for number, time_s in enumerate(recording.times_s)
        ]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None, "_registration": None}

    @property
    def keys(self) -> Sequence[FrameKey]:
        """Bag after bag, each in order of time."""
        return self._keys

    @property
    def notes(self) -> Sequence[str]:
        """What is missing of a bag, how messages were paired, and how depth gets into the view of color."""
        return self._notes

    def load_frame(self, index: int) -> RecordedFrame:
        """
        Raises:
            DataError: a message is damaged, or image and depth do not fit together.
            ListError: an image has another size than its camera.
        """
        recording, number = self._find(index)
        color_number, depth_number = recording.pairs[number]
        bag = self._open(recording.path)
        source = describe_place(recording.path, recording.color, color_number)
        image = load_color(bag, recording.color, color_number, recording.encoding)
        if image.shape[:2] != recording.size:
            found = f"is {image.shape[0]}x{image.shape[1]} (height x width), the first image {recording.size[0]}x"
            raise DataError(source, f"{found}{recording.size[1]}", "Record a topic at one size")
        depth_m = load_depth(bag, recording.depth, depth_number, recording.meters_per_unit)
        if recording.rig is not None:
            depth_m = self._register(recording, recording.rig, depth_m, depth_number)
        _require_one_shape(image.shape[:2], depth_m.shape, source)
        if recording.distorted is not None:
            assert recording.camera is not None, "find_view chooses it"
            image = undistort_image(image, recording.distorted, recording.camera)
            depth_m = undistort_depth(depth_m, recording.distorted, recording.camera)
        return RecordedFrame(image=image, depth_m=depth_m, camera=recording.camera, source=source)

    def _find(self, index: int) -> tuple[BagRecording, int]:
        for recording in self.recordings:
            if index < len(recording.pairs):
                return recording, index
            index -= len(recording.pairs)
        raise IndexError(index)

    def _open(self, path: Path) -> Bag:
        if self._opened is None or self._opened.path != path:
            if self._opened is not None:
                self._opened.close()
            self._opened = open_bag(path)
        return self._opened

    def _register(
        self, recording: BagRecording, rig: Rig, depth_m: NDArray[np.float32], number: int
    ) -> NDArray[np.float32]:
        """Depth in the view of color."""
        source = describe_place(recording.path, recording.depth, number)
        assert rig.depth is not None, "find_view asks for both cameras"
        require_size(rig.depth, depth_m.shape[0], depth_m.shape[1], source, rig.source)
        if self._registration is None or self._registration.rig is not rig:
            self._registration = Registration(rig)  # it keeps the rays of all pixels
        return self._registration.depth_in_color(depth_m)


def _name_recordings(paths: Sequence[Path]) -> list[str]:
    """A name for each bag: that of its file or folder without the ending, or with its number where two are equal."""
    return number_equal_names([path.stem if path.suffix in (".bag", ".mcap", ".db3") else path.name for path in paths])


def load_color(bag: Bag, stream: Stream, index: int, encoding: str | None) -> NDArray[np.uint8]:
    """
    (H, W, 3) uint8 RGB of a message.

    Raises:
        DataError: it is damaged or no image.
    """
    message, source = read_message(bag, stream, index), describe_place(bag.path, stream, index)
    if stream.topic.topic.msgtype == IMAGE:
        return read_color(cast(ImageMessage, message), source, encoding)
    return read_compressed_color(cast(CompressedMessage, message), source, encoding)


def load_depth(bag: Bag, stream: Stream, index: int, meters_per_unit: float | None) -> NDArray[np.float32]:
    """
    (H, W) float32 meters of a message, 0 where nothing was measured.

    Raises:
        DataError: it is damaged or no depth.
    """
    message, source = read_message(bag, stream, index), describe_place(bag.path, stream, index)
    if stream.topic.topic.msgtype == IMAGE:
        return read_depth(cast(ImageMessage, message), meters_per_unit, source)
    return read_compressed_depth(cast(CompressedMessage, message), meters_per_unit, source)


def _require_one_shape(image: tuple[int, ...], depth: tuple[int, ...], source: str) -> None:
    """
    Raises:
        DataError: depth is larger than its image, or has another shape.
    """
    down, across = depth[0] / image[0], depth[1] / image[1]
    if max(down, across) <= 1 and abs(down / across - 1) <= 0.01:
        return
    raise DataError(
        source,
        f"depth is {depth[0]}x{depth[1]} (height x width), its image {image[0]}x{image[1]}",
        "Name the depth that the driver registers to color, or give --calibration FILE",
    )

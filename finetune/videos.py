"""Videos, one frame after the other, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, FinetuneError

# Of a file that does not say it.
USUAL_FRAMES_PER_SECOND = 25.0


class VideoFrames:
    """The frames of a video.

    Attributes:
        frames_per_second: as the file says.
        count: how many the file says it has, which may be wrong; 0 where it does not say.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DataError: it is no video that OpenCV can decode.
        """
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise DataError(path, "cannot be decoded as a video", "Convert it, for example to H.264 in .mp4")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frames_per_second = rate if 0 < rate < 1000 else USUAL_FRAMES_PER_SECOND
        self.count = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """
        (H, W, 3) uint8, RGB, each.

        Raises:
            DataError: there is none.
        """
        frames = 0
        try:
            while True:
                decoded, frame = self._capture.read()
                if not decoded:
                    break
                frames += 1
                yield np.ascontiguousarray(frame[..., ::-1])
        finally:
            self._capture.release()
        if not frames:
            raise DataError(self._path, "has no frame that can be decoded", "Convert it, for example to H.264 in .mp4")


class VideoFile:
    """A video that is written, under its name once it is whole; use it as a context."""

    def __init__(self, path: Path, frames_per_second: float) -> None:
        self._path = path
        self._aside = path.with_name(f".{path.name}")
        self._rate = frames_per_second
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoFile:
        return self

    def write(self, frame: NDArray[np.uint8]) -> None:
        """
        Add a frame, (H, W, 3) uint8, RGB, all of one size.

        Raises:
            FinetuneError: it cannot be written there.
        """
        # MPEG-4 has no odd sides.
        even = frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2]
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            # The container is told from the ending.
            self._aside = self._aside.with_suffix(".mp4")
            self._writer = cv2.VideoWriter(str(self._aside), codec, self._rate, (even.shape[1], even.shape[0]))
            if not self._writer.isOpened():
                raise FinetuneError(
                    f"{self._path}: cannot be written. Name an --output where this user may write and there is room."
                )
        self._writer.write(np.ascontiguousarray(even[..., ::-1]))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            if kind is None:
                self._aside.replace(self._path)
            else:
                self._aside.unlink(missing_ok=True)
